import NIOCore

/// SCSI command (section 11.3).
public struct SCSICommandPDU: Equatable, Sendable {
    public var isImmediate = false
    /// F: no unsolicited Data-Out PDU follows.
    public var isFinal = true
    /// R: the initiator expects data.
    public var reads = false
    /// W: the initiator has data to send.
    public var writes = false
    /// The task attribute: 0 untagged, 1 simple, 2 ordered, 3 head of queue, 4 ACA.
    public var attribute: UInt8 = 0
    public var lun: UInt64 = 0
    public var initiatorTaskTag: UInt32 = 0
    public var expectedDataTransferLength: UInt32 = 0
    public var cmdSN: UInt32 = 0
    public var expStatSN: UInt32 = 0
    /// The first eight bytes of the CDB.
    public var cdbHigh: UInt64 = 0
    /// The second eight bytes of the CDB.
    public var cdbLow: UInt64 = 0
    /// What follows the first 16 bytes of an extended CDB; no disk command has one.
    public var extendedCDB = ByteBuffer()
    /// The length of the read part of a bidirectional command.
    public var bidirectionalReadLength: UInt32?
    /// Immediate data.
    public var data = ByteBuffer()

    public init() {}

    init(_ frame: PDUFrame) throws(PDUError) {
        let header = frame.header
        isImmediate = header.isImmediate
        isFinal = header.flags & 0x80 != 0
        reads = header.flags & 0x40 != 0
        writes = header.flags & 0x20 != 0
        attribute = header.flags & 0x07
        lun = header.word1
        initiatorTaskTag = header.at16
        expectedDataTransferLength = header.at20
        cmdSN = header.at24
        expStatSN = header.at28
        cdbHigh = header.word4
        cdbLow = header.word5
        data = frame.data
        if frame.additional.readableBytes > 0 { try readAdditional(frame.additional) }
    }

    /// Sections 11.2.2.1 to 11.2.2.4: length (2), type (1), then `length` bytes of which the first is specific.
    private mutating func readAdditional(_ additional: ByteBuffer) throws(PDUError) {
        var rest = additional
        while rest.readableBytes >= 4 {
            guard let length = rest.readInteger(as: UInt16.self), let type = rest.readInteger(as: UInt8.self), length > 0,
                var content = rest.readSlice(length: Int(length))
            else { throw .malformed("additional header segment") }
            content.moveReaderIndex(forwardBy: 1)
            let written = 3 + Int(length)
            rest.moveReaderIndex(forwardBy: min(rest.readableBytes, PDUDecoder.padded(written) - written))
            switch type & 0x3F {
            case 1: extendedCDB.writeBuffer(&content)
            case 2:
                guard let value = content.readInteger(as: UInt32.self) else { throw .malformed("bidirectional read length") }
                bidirectionalReadLength = value
            default: throw .malformed("additional header segment type \(type & 0x3F)")
            }
        }
    }

    public var frame: PDUFrame {
        var flags: UInt8 = attribute & 0x07
        if isFinal { flags |= 0x80 }
        if reads { flags |= 0x40 }
        if writes { flags |= 0x20 }
        var header = BasicHeader(opcode: InitiatorOpcode.scsiCommand.rawValue, isImmediate: isImmediate, flags: flags)
        header.word1 = lun
        header.at16 = initiatorTaskTag
        header.at20 = expectedDataTransferLength
        header.at24 = cmdSN
        header.at28 = expStatSN
        header.word4 = cdbHigh
        header.word5 = cdbLow
        return PDUFrame(header: header, additional: additionalHeaders(), data: data)
    }

    private func additionalHeaders() -> ByteBuffer {
        var additional = ByteBuffer()
        if extendedCDB.readableBytes > 0 {
            additional.writeInteger(UInt16(clamping: extendedCDB.readableBytes + 1))
            additional.writeMultipleIntegers(UInt8(1), UInt8(0))
            additional.writeImmutableBuffer(extendedCDB)
            additional.writeRepeatingByte(0, count: PDUDecoder.padded(additional.readableBytes) - additional.readableBytes)
        }
        if let bidirectionalReadLength {
            additional.writeMultipleIntegers(UInt16(5), UInt8(2), UInt8(0), bidirectionalReadLength)
        }
        return additional
    }
}

/// SCSI Data-Out (section 11.7).
public struct DataOut: Equatable, Sendable {
    /// F: the last PDU of the unsolicited data, or of the answer to one R2T.
    public var isFinal = true
    public var lun: UInt64 = 0
    public var initiatorTaskTag: UInt32 = 0
    /// The tag of the R2T that asked for it; the reserved tag for unsolicited data.
    public var targetTransferTag: UInt32 = BasicHeader.reservedTag
    public var expStatSN: UInt32 = 0
    public var dataSN: UInt32 = 0
    public var bufferOffset: UInt32 = 0
    public var data = ByteBuffer()

    public init() {}

    init(_ frame: PDUFrame) {
        let header = frame.header
        isFinal = header.flags & 0x80 != 0
        lun = header.word1
        initiatorTaskTag = header.at16
        targetTransferTag = header.at20
        expStatSN = header.at28
        dataSN = header.at36
        bufferOffset = header.at40
        data = frame.data
    }

    public var frame: PDUFrame {
        var header = BasicHeader(opcode: InitiatorOpcode.dataOut.rawValue, flags: isFinal ? 0x80 : 0)
        header.word1 = lun
        header.at16 = initiatorTaskTag
        header.at20 = targetTransferTag
        header.at28 = expStatSN
        header.at36 = dataSN
        header.at40 = bufferOffset
        return PDUFrame(header: header, data: data)
    }
}

/// The stages of a login, as CSG and NSG carry them.
public enum LoginStage: UInt8, Sendable {
    case securityNegotiation = 0
    case operationalNegotiation = 1
    case fullFeaturePhase = 3
}

/// What names a session on the initiator's side: six bytes.
public struct InitiatorSessionIdentifier: Hashable, Sendable {
    /// The six bytes in the low end of the integer.
    public var value: UInt64

    public init(_ value: UInt64) { self.value = value & 0xFFFF_FFFF_FFFF }
}

/// Login request (section 11.12).
public struct LoginRequest: Equatable, Sendable {
    /// T: the initiator is ready to leave the stage.
    public var transits = false
    /// C: the text goes on in the next request.
    public var continues = false
    /// CSG as it came.
    public var currentStageCode: UInt8 = 0
    /// NSG as it came.
    public var nextStageCode: UInt8 = 0
    public var versionMax: UInt8 = 0
    public var versionMin: UInt8 = 0
    public var isid = InitiatorSessionIdentifier(0)
    public var tsih: UInt16 = 0
    public var initiatorTaskTag: UInt32 = 0
    public var connectionIdentifier: UInt16 = 0
    public var cmdSN: UInt32 = 0
    public var expStatSN: UInt32 = 0
    public var data = ByteBuffer()

    public init() {}

    /// The stage that the initiator is in, when there is such a stage.
    public var currentStage: LoginStage? { LoginStage(rawValue: currentStageCode) }
    /// The stage that the initiator wants to go to, when there is such a stage.
    public var nextStage: LoginStage? { LoginStage(rawValue: nextStageCode) }

    init(_ frame: PDUFrame) {
        let header = frame.header
        transits = header.flags & 0x80 != 0
        continues = header.flags & 0x40 != 0
        currentStageCode = header.flags >> 2 & 3
        nextStageCode = header.flags & 3
        versionMax = header.byte2
        versionMin = header.byte3
        isid = InitiatorSessionIdentifier(header.word1 >> 16)
        tsih = UInt16(truncatingIfNeeded: header.word1)
        initiatorTaskTag = header.at16
        connectionIdentifier = UInt16(truncatingIfNeeded: header.at20 >> 16)
        cmdSN = header.at24
        expStatSN = header.at28
        data = frame.data
    }

    public var frame: PDUFrame {
        let flags = (transits ? 0x80 : 0) | (continues ? 0x40 : 0) | (currentStageCode & 3) << 2 | nextStageCode & 3
        var header = BasicHeader(
            opcode: InitiatorOpcode.loginRequest.rawValue, isImmediate: true, flags: flags, byte2: versionMax, byte3: versionMin)
        header.word1 = isid.value << 16 | UInt64(tsih)
        header.at16 = initiatorTaskTag
        header.at20 = UInt32(connectionIdentifier) << 16
        header.at24 = cmdSN
        header.at28 = expStatSN
        return PDUFrame(header: header, data: data)
    }
}
