import Checksums
import NIOCore
import Testing

@testable import ISCSI

/// The known PDUs, every field with a value of its own.
private enum Samples {
    static let sequence = TargetSequence(statSN: 0x0102_0304, expCmdSN: 0x1112_1314, maxCmdSN: 0x2122_2324)
    static let data = ByteBuffer(string: "seventeen  bytes!")

    static let initiator: [InitiatorPDU] = {
        var command = SCSICommandPDU()
        command.isFinal = false
        command.reads = true
        command.writes = true
        command.attribute = 1
        command.lun = 0x0001_0000_0000_0000
        command.initiatorTaskTag = 0xA1A2_A3A4
        command.expectedDataTransferLength = 4096
        command.cmdSN = 7
        command.expStatSN = 8
        command.cdbHigh = 0x2A00_0102_0304_0506
        command.cdbLow = 0x0708_090A_0B0C_0D0E
        command.extendedCDB = ByteBuffer(bytes: [1, 2, 3, 4, 5])
        command.bidirectionalReadLength = 512
        command.data = data
        var nop = NOPOut()
        nop.isImmediate = true
        nop.lun = 5
        nop.initiatorTaskTag = 6
        nop.targetTransferTag = 7
        nop.cmdSN = 8
        nop.expStatSN = 9
        nop.data = data
        var management = TaskManagementRequest()
        management.isImmediate = true
        management.functionCode = 5
        management.lun = 1
        management.initiatorTaskTag = 2
        management.referencedTaskTag = 3
        management.cmdSN = 4
        management.expStatSN = 5
        management.refCmdSN = 6
        management.expDataSN = 7
        var login = LoginRequest()
        login.transits = true
        login.currentStageCode = 1
        login.nextStageCode = 3
        login.versionMax = 1
        login.isid = InitiatorSessionIdentifier(0x8012_3456_789A)
        login.tsih = 0x1234
        login.initiatorTaskTag = 1
        login.connectionIdentifier = 2
        login.cmdSN = 3
        login.expStatSN = 4
        login.data = data
        var text = TextRequest()
        text.isFinal = false
        text.continues = true
        text.lun = 1
        text.initiatorTaskTag = 2
        text.targetTransferTag = 3
        text.cmdSN = 4
        text.expStatSN = 5
        text.data = data
        var out = DataOut()
        out.isFinal = false
        out.lun = 1
        out.initiatorTaskTag = 2
        out.targetTransferTag = 3
        out.expStatSN = 4
        out.dataSN = 5
        out.bufferOffset = 6
        out.data = data
        var logout = LogoutRequest()
        logout.reason = 1
        logout.initiatorTaskTag = 2
        logout.connectionIdentifier = 3
        logout.cmdSN = 4
        logout.expStatSN = 5
        var snack = SNACKRequest()
        snack.type = 1
        snack.lun = 2
        snack.initiatorTaskTag = 3
        snack.targetTransferTag = 4
        snack.expStatSN = 5
        snack.begRun = 6
        snack.runLength = 7
        return [
            .scsiCommand(command), .nopOut(nop), .taskManagementRequest(management), .loginRequest(login), .textRequest(text),
            .dataOut(out), .logoutRequest(logout), .snackRequest(snack),
        ]
    }()

    static let target: [TargetPDU] = {
        var nop = NOPIn()
        nop.lun = 1
        nop.initiatorTaskTag = 2
        nop.targetTransferTag = 3
        nop.sequence = sequence
        nop.data = data
        var response = SCSIResponsePDU()
        response.responseCode = 1
        response.status = 2
        response.initiatorTaskTag = 3
        response.snackTag = 4
        response.sequence = sequence
        response.expDataSN = 5
        response.residual = .underflow(6)
        response.bidirectionalReadResidual = .overflow(7)
        response.sense = data
        var management = TaskManagementResponse()
        management.responseCode = 5
        management.initiatorTaskTag = 6
        management.sequence = sequence
        var login = LoginResponse()
        login.transits = true
        login.currentStageCode = 1
        login.nextStageCode = 3
        login.isid = InitiatorSessionIdentifier(0x8012_3456_789A)
        login.tsih = 0x1234
        login.initiatorTaskTag = 1
        login.sequence = sequence
        login.status = .authenticationFailure
        login.data = data
        var text = TextResponse()
        text.isFinal = false
        text.continues = true
        text.initiatorTaskTag = 2
        text.targetTransferTag = 3
        text.sequence = sequence
        text.data = data
        var dataIn = DataIn()
        dataIn.isFinal = true
        dataIn.status = 8
        dataIn.lun = 1
        dataIn.initiatorTaskTag = 2
        dataIn.sequence = sequence
        dataIn.dataSN = 4
        dataIn.bufferOffset = 5
        dataIn.residual = .overflow(6)
        dataIn.data = data
        var logout = LogoutResponse()
        logout.response = 1
        logout.initiatorTaskTag = 2
        logout.sequence = sequence
        logout.time2Wait = 3
        logout.time2Retain = 4
        var r2t = ReadyToTransfer()
        r2t.lun = 1
        r2t.initiatorTaskTag = 2
        r2t.targetTransferTag = 3
        r2t.sequence = sequence
        r2t.r2tSN = 4
        r2t.bufferOffset = 5
        r2t.desiredLength = 6
        var async = AsyncMessage()
        async.lun = 1
        async.sequence = sequence
        async.eventCode = 2
        async.vendorCode = 3
        async.parameter1 = 4
        async.parameter2 = 5
        async.parameter3 = 6
        async.data = data
        var reject = Reject()
        reject.reasonCode = 4
        reject.sequence = sequence
        reject.dataSN = 5
        reject.data = data
        return [
            .nopIn(nop), .scsiResponse(response), .taskManagementResponse(management), .loginResponse(login), .textResponse(text),
            .dataIn(dataIn), .logoutResponse(logout), .readyToTransfer(r2t), .asyncMessage(async), .reject(reject),
        ]
    }()
}

private let digestKinds = [
    Digests(), Digests(header: true), Digests(data: true), Digests(header: true, data: true),
]

@Suite struct PDUCodecTests {
    @Test(arguments: digestKinds) func initiatorPDUsComeBackAsTheyWere(_ digests: Digests) throws {
        var wire = ByteBuffer()
        for pdu in Samples.initiator { PDUEncoder(digests: digests).write(pdu.frame, into: &wire) }
        var decoder = PDUDecoder(maximumDataByteCount: 8192)
        decoder.digests = digests
        // One byte at a time, so that every boundary is crossed.
        var decoded: [InitiatorPDU] = []
        for byte in wire.readableBytesView {
            decoder.append(ByteBuffer(bytes: [byte]))
            while let frame = try decoder.next() { decoded.append(try InitiatorPDU(frame)) }
        }
        #expect(decoded == Samples.initiator)
        #expect(decoder.bufferedByteCount == 0)
    }

    @Test(arguments: digestKinds) func targetPDUsComeBackAsTheyWere(_ digests: Digests) throws {
        var wire = ByteBuffer()
        for pdu in Samples.target { PDUEncoder(digests: digests).write(pdu.frame, into: &wire) }
        var decoder = PDUDecoder(maximumDataByteCount: 8192)
        decoder.digests = digests
        decoder.append(wire)
        var decoded: [TargetPDU] = []
        while let frame = try decoder.next() { decoded.append(try TargetPDU(frame)) }
        #expect(decoded == Samples.target)
    }

    @Test func fieldsStandWhereTheStandardPutsThem() throws {
        var r2t = ReadyToTransfer()
        r2t.lun = 0x0102_0304_0506_0708
        r2t.initiatorTaskTag = 0x1112_1314
        r2t.targetTransferTag = 0x2122_2324
        r2t.sequence = TargetSequence(statSN: 0x3132_3334, expCmdSN: 0x4142_4344, maxCmdSN: 0x5152_5354)
        r2t.r2tSN = 0x6162_6364
        r2t.bufferOffset = 0x7172_7374
        r2t.desiredLength = 0x8182_8384
        var wire = ByteBuffer()
        PDUEncoder().write(r2t.frame, into: &wire)
        let expected: [UInt8] =
            [0x31, 0x80, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]
            + [1, 2, 3, 4, 5, 6, 7, 8].flatMap { high in (1...4).map { UInt8(high << 4 | $0) } }
        #expect(Array(wire.readableBytesView) == expected)
    }

    @Test func headerAndDataWrittenApartEqualTheWhole() {
        for digests in digestKinds {
            var pdu = DataIn()
            pdu.isFinal = true
            pdu.data = Samples.data
            let encoder = PDUEncoder(digests: digests)
            var whole = ByteBuffer()
            encoder.write(pdu.frame, into: &whole)
            var reserved = ByteBuffer()
            let start = encoder.reserveHeader(in: &reserved)
            reserved.writeImmutableBuffer(pdu.data)
            encoder.finish(pdu.header, reservedAt: start, in: &reserved)
            #expect(reserved == whole)
            var gathered = ByteBuffer()
            encoder.writeHeader(pdu.header, dataByteCount: pdu.data.readableBytes, into: &gathered)
            gathered.writeImmutableBuffer(pdu.data)
            encoder.writeTrailer(for: pdu.data, into: &gathered)
            #expect(gathered == whole)
        }
    }

    @Test func anOversizedDataSegmentIsRefusedByItsHeaderAlone() {
        var wire = ByteBuffer()
        PDUEncoder().writeHeader(BasicHeader(opcode: 5), dataByteCount: 8193, into: &wire)
        var decoder = PDUDecoder(maximumDataByteCount: 8192)
        decoder.append(wire)
        #expect(throws: PDUError.dataSegmentTooLong(byteCount: 8193, limit: 8192)) { try decoder.next() }
    }

    @Test func digestsThatDoNotMatchAreSeen() throws {
        var pdu = NOPOut()
        pdu.data = Samples.data
        var wire = ByteBuffer()
        PDUEncoder(digests: Digests(header: true, data: true)).write(pdu.frame, into: &wire)

        var damagedHeader = wire
        damagedHeader.setInteger(UInt8(0xFF), at: 24)
        var decoder = PDUDecoder(maximumDataByteCount: 8192)
        decoder.digests = Digests(header: true, data: true)
        decoder.append(damagedHeader)
        #expect(throws: PDUError.headerDigest) { try decoder.next() }

        var damagedData = wire
        damagedData.setInteger(UInt8(0xFF), at: 55)
        decoder = PDUDecoder(maximumDataByteCount: 8192)
        decoder.digests = Digests(header: true, data: true)
        decoder.append(damagedData)
        #expect(try decoder.next()?.isDataDigestWrong == true)
    }

    @Test func aDigestHasTheByteOrderOfTheStandard() {
        // RFC 7143 appendix A.4: 32 bytes of zeroes have the digest aa 36 91 8a.
        var wire = ByteBuffer(repeating: 0, count: 32)
        let encoder = PDUEncoder(digests: Digests(data: true))
        encoder.finishData(from: 0, in: &wire)
        #expect(Array(wire.readableBytesView.suffix(4)) == [0xAA, 0x36, 0x91, 0x8A])
    }

    @Test func serialNumbersWrap() {
        #expect(SerialNumber.isBefore(0xFFFF_FFFF, 0))
        #expect(!SerialNumber.isBefore(0, 0xFFFF_FFFF))
        #expect(!SerialNumber.isBefore(5, 5))
    }
}

@Suite struct PDUFuzzTests {
    /// Whatever the bytes, decoding ends with frames or an error, and buffers no more than one PDU.
    @Test func mutatedStreamsDoNoHarm() {
        var random = SplitMix(seed: 0xC0FFEE)
        var frames = 0
        for _ in 0..<3000 {
            var wire = ByteBuffer()
            let digests = digestKinds[Int(random.next() % 4)]
            for pdu in Samples.initiator.shuffled(using: &random).prefix(3) {
                PDUEncoder(digests: digests).write(pdu.frame, into: &wire)
            }
            for pdu in Samples.target.shuffled(using: &random).prefix(2) {
                PDUEncoder(digests: digests).write(pdu.frame, into: &wire)
            }
            for _ in 0..<(random.next() % 12) {
                wire.setInteger(UInt8(truncatingIfNeeded: random.next()), at: Int(random.next() % UInt64(wire.readableBytes)))
            }
            var decoder = PDUDecoder(maximumDataByteCount: 4096)
            decoder.digests = digests
            do {
                while wire.readableBytes > 0 {
                    let piece = wire.readSlice(length: min(wire.readableBytes, Int(random.next() % 100) + 1)) ?? ByteBuffer()
                    decoder.append(piece)
                    while let frame = try decoder.next() {
                        frames += 1
                        _ = try? InitiatorPDU(frame).frame
                        _ = try? TargetPDU(frame).frame
                    }
                    #expect(decoder.bufferedByteCount < 4096 + 1024)
                }
            } catch {
                continue
            }
        }
        #expect(frames > 3000)
    }
}

/// A small seeded generator.
struct SplitMix: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
        return z ^ z >> 31
    }
}
