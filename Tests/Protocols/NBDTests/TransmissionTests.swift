import NIOCore
import Testing

@testable import NBD

private let export = NBDExport(name: "mail", byteCount: 1 << 20, isReadOnly: false)
private let readOnly = NBDExport(name: "mail", byteCount: 1 << 20, isReadOnly: true)

private func refusal(
    _ command: NBDCommand, _ flags: NBDCommandFlags = [], at offset: UInt64 = 0, _ byteCount: UInt32 = 512,
    _ terms: NBDTerms = NBDTerms(export: export, usesStructuredReplies: true, reportsAllocation: true)
) -> NBDErrorNumber? {
    NBDRequest(command: command, flags: flags, handle: 1, offset: offset, byteCount: byteCount)
        .refusal(under: terms, exportByteCount: terms.export.byteCount)
}

@Suite struct RequestTests {
    @Test func flagsAreTakenWhereTheyBelong() {
        let every = NBDCommandFlags(rawValue: .max)
        let allowed: [(NBDCommand, NBDCommandFlags)] = [
            (.read, [.forceUnitAccess, .dontFragment]), (.write, .forceUnitAccess), (.trim, .forceUnitAccess),
            (.cache, .forceUnitAccess), (.writeZeroes, [.forceUnitAccess, .noHole, .fastZero]),
            (.blockStatus, [.forceUnitAccess, .requestOne]),
        ]
        for (command, flags) in allowed {
            #expect(refusal(command, flags) == nil)
            for bit in 0..<16 {
                let flag = NBDCommandFlags(rawValue: 1 << bit)
                #expect((refusal(command, flag) == nil) == flags.contains(flag), "\(command) \(flag)")
            }
            #expect(refusal(command, every) == .invalid)
        }
        let simple = NBDTerms(export: export)
        #expect(refusal(.read, .dontFragment, at: 0, 512, simple) == .invalid)
        #expect(refusal(.blockStatus, [], at: 0, 512, simple) == .invalid)
        #expect(refusal(NBDCommand(rawValue: 8)) == .invalid)
        #expect(refusal(NBDCommand(rawValue: .max)) == .invalid)
    }

    @Test func rangesEndWithTheExport() {
        for command in [NBDCommand.read, .write, .trim, .cache, .writeZeroes, .blockStatus] {
            let beyond: NBDErrorNumber = command == .write || command == .writeZeroes ? .noSpace : .invalid
            #expect(refusal(command, at: (1 << 20) - 512) == nil)
            #expect(refusal(command, at: (1 << 20) - 511) == beyond)
            #expect(refusal(command, at: 1 << 20) == beyond)
            #expect(refusal(command, at: .max) == beyond)
            #expect(refusal(command, at: 0, .max) == beyond)
        }
        #expect(refusal(.read, at: 0, 0) == nil)
        #expect(refusal(.blockStatus, at: 0, 0) == .invalid)
        #expect(refusal(.flush, at: 0, 0) == nil)
        #expect(refusal(.flush, at: 0, 1) == .invalid)
        #expect(refusal(.flush, at: 1, 0) == .invalid)
        #expect(refusal(.disconnect, at: 77, 0) == nil)
    }

    @Test func aReadOnlyExportTakesNoWrites() {
        let terms = NBDTerms(export: readOnly)
        for command in [NBDCommand.write, .trim, .writeZeroes] { #expect(refusal(command, [], at: 0, 512, terms) == .notPermitted) }
        for command in [NBDCommand.read, .cache] { #expect(refusal(command, [], at: 0, 512, terms) == nil) }
    }

    @Test func whoKnowsTheBlockSizeMustKeepToIt() {
        let knowing = NBDTerms(export: export, knowsBlockSize: true)
        #expect(refusal(.read, [], at: 1, 512, knowing) == .invalid)
        #expect(refusal(.write, [], at: 512, 100, knowing) == .invalid)
        #expect(refusal(.write, [], at: 512, 1024, knowing) == nil)
        #expect(refusal(.read, [], at: 1, 3, NBDTerms(export: export)) == nil)
    }

    @Test func aReadIsAsLongAsItMayBe() {
        let large = NBDTerms(export: NBDExport(name: "x", byteCount: 1 << 40, isReadOnly: false))
        #expect(refusal(.read, at: 0, 32 << 20, large) == nil)
        #expect(refusal(.read, at: 0, 32 << 20 + 1, large) == .invalid)
        // What carries no data has no such limit.
        #expect(refusal(.writeZeroes, at: 0, .max, large) == nil)
    }
}

@Suite struct RequestDecoderTests {
    @Test func requestsAndPayloadsComeOutOfAnySplit() throws {
        let requests = [
            NBDRequest(command: .write, flags: .forceUnitAccess, handle: .max, offset: 4096, byteCount: 1000),
            NBDRequest(command: .flush, handle: 2), NBDRequest(command: .read, handle: 3, offset: .max, byteCount: .max),
        ]
        let payload = ByteBuffer(bytes: (0..<1000).map { UInt8(truncatingIfNeeded: $0) })
        var wire = ByteBuffer()
        for request in requests {
            request.write(into: &wire)
            if request.command == .write { wire.writeImmutableBuffer(payload) }
        }
        for size in [1, 2, 7, 27, 28, 29, 500, wire.readableBytes] {
            var decoder = NBDRequestDecoder()
            var rest = wire
            var found: [NBDRequest] = []
            var data = ByteBuffer()
            var wanted = 0
            while let part = rest.readSlice(length: min(size, rest.readableBytes)), part.readableBytes > 0 {
                decoder.append(part)
                while true {
                    if wanted > 0 {
                        // In pieces of 300 bytes, as an owner with little room would take them.
                        guard let piece = decoder.takePayload(min(300, wanted)) else { break }
                        data.writeImmutableBuffer(piece)
                        wanted -= piece.readableBytes
                    } else if let request = try decoder.next() {
                        found.append(request)
                        wanted = request.payloadByteCount
                    } else {
                        break
                    }
                }
            }
            #expect(found == requests)
            #expect(data == payload)
            #expect(decoder.bufferedByteCount == 0)
        }
    }

    @Test func aPayloadThatNobodyWantsIsSkipped() throws {
        var wire = ByteBuffer()
        NBDRequest(command: .write, handle: 1, byteCount: 100).write(into: &wire)
        wire.writeRepeatingByte(1, count: 100)
        NBDRequest(command: .flush, handle: 2).write(into: &wire)
        var decoder = NBDRequestDecoder()
        decoder.append(try unwrap(wire.readSlice(length: 60)))
        #expect(try decoder.next()?.handle == 1)
        #expect(decoder.skip(100) == 32)
        decoder.append(wire)
        #expect(decoder.skip(68) == 68)
        #expect(try decoder.next()?.handle == 2)
    }

    @Test func garbageAndGiantWritesEndIt() throws {
        var decoder = NBDRequestDecoder()
        decoder.append(ByteBuffer(string: "GET "))
        #expect(throws: NBDTransmissionError.notARequest) { try decoder.next() }
        decoder = NBDRequestDecoder()
        var wire = ByteBuffer()
        NBDRequest(command: .write, handle: 1, byteCount: 32 << 20 + 1).write(into: &wire)
        decoder.append(wire)
        #expect(throws: NBDTransmissionError.writeTooLong(byteCount: 32 << 20 + 1)) { try decoder.next() }
    }
}

@Suite struct BytePieceTests {
    private func pieces(_ offset: UInt64, _ byteCount: UInt32, _ maximum: Int = 2048) -> [NBDBytePieces.Piece] {
        var pieces = NBDBytePieces(offset: offset, byteCount: byteCount, maximumByteCount: maximum)
        var found: [NBDBytePieces.Piece] = []
        while let piece = pieces.next() { found.append(piece) }
        #expect(pieces.isEmpty)
        return found
    }

    @Test func wholeSectorsAreCutAtTheMaximum() {
        #expect(
            pieces(1024, 3072) == [
                .init(sector: 2, sectorCount: 4, part: nil, byteCount: 2048), .init(sector: 6, sectorCount: 2, part: nil, byteCount: 1024),
            ])
        #expect(pieces(0, 0).isEmpty)
    }

    @Test func partsOfSectorsAreAlone() {
        #expect(
            pieces(100, 1024) == [
                .init(sector: 0, sectorCount: 1, part: 100..<512, byteCount: 412),
                .init(sector: 1, sectorCount: 1, part: nil, byteCount: 512),
                .init(sector: 2, sectorCount: 1, part: 0..<100, byteCount: 100),
            ])
        #expect(pieces(513, 5) == [.init(sector: 1, sectorCount: 1, part: 1..<6, byteCount: 5)])
    }

    @Test func everyByteIsInOnePiece() {
        for _ in 0..<2000 {
            let offset = UInt64.random(in: 0...5000)
            let byteCount = UInt32.random(in: 0...20_000)
            var position = offset
            for piece in pieces(offset, byteCount, Int.random(in: 1...8192)) {
                #expect(piece.sector * 512 + UInt64(piece.part?.lowerBound ?? 0) == position)
                #expect(piece.byteCount == piece.part?.count ?? Int(piece.sectorCount) * 512)
                position += UInt64(piece.byteCount)
            }
            #expect(position == offset + UInt64(byteCount))
        }
    }
}

@Suite struct ReplyTests {
    private func bytes(_ structured: Bool, _ write: (NBDReplyEncoder, inout ByteBuffer) -> Void) -> [UInt8] {
        var buffer = ByteBuffer()
        write(NBDReplyEncoder(usesStructuredReplies: structured), &buffer)
        return Array(buffer.readableBytesView)
    }

    private let simple: [UInt8] = [0x67, 0x44, 0x66, 0x98]
    private let chunk: [UInt8] = [0x66, 0x8E, 0x33, 0xEF]
    private let handle: [UInt8] = [1, 2, 3, 4, 5, 6, 7, 8]

    @Test func simpleReplies() {
        #expect(bytes(false) { $0.writeSuccess(0x0102_0304_0506_0708, into: &$1) } == simple + [0, 0, 0, 0] + handle)
        #expect(bytes(false) { $0.writeError(0x0102_0304_0506_0708, .noSpace, "no room", into: &$1) } == simple + [0, 0, 0, 28] + handle)
        #expect(
            bytes(false) { $0.writeReadHeader(0x0102_0304_0506_0708, offset: 9, byteCount: 5, isLast: true, into: &$1) }
                == simple + [0, 0, 0, 0] + handle)
        #expect(NBDReplyEncoder(usesStructuredReplies: false).readHeaderByteCount == 16)
    }

    @Test func chunks() {
        let value: UInt64 = 0x0102_0304_0506_0708
        #expect(
            bytes(true) { $0.writeReadHeader(value, offset: 0x100, byteCount: 512, isLast: false, into: &$1) }
                == chunk + [0, 0, 0, 1] + handle + [0, 0, 2, 8, 0, 0, 0, 0, 0, 0, 1, 0])
        #expect(
            bytes(true) { $0.writeHole(value, offset: 0x100, byteCount: 512, isLast: true, into: &$1) }
                == chunk + [0, 1, 0, 2] + handle + [0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0])
        #expect(bytes(true) { $0.writeEmptyRead(value, into: &$1) } == chunk + [0, 1, 0, 0] + handle + [0, 0, 0, 0])
        #expect(
            bytes(true) { $0.writeError(value, .inputOutput, "no", into: &$1) }
                == chunk + [0, 1, 0x80, 1] + handle + [0, 0, 0, 8, 0, 0, 0, 5, 0, 2, 0x6E, 0x6F])
        #expect(
            bytes(true) { $0.writeAllocation(value, [(512, []), (1024, [.hole, .zero])], into: &$1) }
                == chunk + [0, 1, 0, 5] + handle + [0, 0, 0, 20, 0, 0, 0, 1, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 3])
        #expect(NBDReplyEncoder(usesStructuredReplies: true).readHeaderByteCount == 28)
    }
}
