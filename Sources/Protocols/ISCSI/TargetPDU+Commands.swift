import NIOCore

/// How many bytes fewer or more than the initiator expected a command moved (section 11.4.5).
public enum Residual: Equatable, Sendable {
    case none
    /// Fewer were moved than expected.
    case underflow(UInt32)
    /// More would have been moved than expected.
    case overflow(UInt32)

    init(overflow: Bool, underflow: Bool, count: UInt32) {
        self = overflow ? .overflow(count) : underflow ? .underflow(count) : .none
    }

    /// The O and U bits (0x04 and 0x02) of a SCSI Response or Data-In.
    var flags: UInt8 {
        switch self {
        case .none: 0
        case .overflow: 0x04
        case .underflow: 0x02
        }
    }

    /// The count, 0 without a residual.
    var count: UInt32 {
        switch self {
        case .none: 0
        case .overflow(let count), .underflow(let count): count
        }
    }
}

/// SCSI response (section 11.4).
public struct SCSIResponsePDU: Equatable, Sendable {
    /// 0: completed at the target; 1: target failure; anything else: vendor or reserved.
    public var responseCode: UInt8 = 0
    /// The SCSI status.
    public var status: UInt8 = 0
    public var initiatorTaskTag: UInt32 = 0
    public var snackTag: UInt32 = 0
    public var sequence = TargetSequence()
    public var expDataSN: UInt32 = 0
    public var residual = Residual.none
    /// The residual of the read part of a bidirectional command.
    public var bidirectionalReadResidual = Residual.none
    /// The sense data, without its length.
    public var sense = ByteBuffer()

    public init() {}

    init(_ frame: PDUFrame) {
        let header = frame.header
        responseCode = header.byte2
        status = header.byte3
        initiatorTaskTag = header.at16
        snackTag = header.at20
        sequence = TargetSequence(header)
        expDataSN = header.at36
        residual = Residual(overflow: header.flags & 0x04 != 0, underflow: header.flags & 0x02 != 0, count: header.at44)
        bidirectionalReadResidual = Residual(
            overflow: header.flags & 0x10 != 0, underflow: header.flags & 0x08 != 0, count: header.at40)
        var data = frame.data
        if let length = data.readInteger(as: UInt16.self) {
            sense = data.readSlice(length: min(Int(length), data.readableBytes)) ?? sense
        }
    }

    public var frame: PDUFrame {
        let flags = 0x80 | residual.flags | bidirectionalReadResidual.flags << 2
        var header = BasicHeader(opcode: TargetOpcode.scsiResponse.rawValue, flags: flags, byte2: responseCode, byte3: status)
        header.at16 = initiatorTaskTag
        header.at20 = snackTag
        sequence.put(in: &header)
        header.at36 = expDataSN
        header.at40 = bidirectionalReadResidual.count
        header.at44 = residual.count
        var data = ByteBuffer()
        if sense.readableBytes > 0 {
            data.reserveCapacity(sense.readableBytes + 2)
            data.writeInteger(UInt16(clamping: sense.readableBytes))
            data.writeImmutableBuffer(sense)
        }
        return PDUFrame(header: header, data: data)
    }
}

/// SCSI Data-In (section 11.7).
public struct DataIn: Equatable, Sendable {
    /// F: the last PDU of a sequence.
    public var isFinal = false
    /// A: the target wants an acknowledgement (never at error recovery level 0).
    public var wantsAcknowledgement = false
    /// S with its status: this PDU ends the command.
    public var status: UInt8?
    public var lun: UInt64 = 0
    public var initiatorTaskTag: UInt32 = 0
    public var targetTransferTag: UInt32 = BasicHeader.reservedTag
    public var sequence = TargetSequence()
    public var dataSN: UInt32 = 0
    public var bufferOffset: UInt32 = 0
    /// Only with a status.
    public var residual = Residual.none
    public var data = ByteBuffer()

    public init() {}

    init(_ frame: PDUFrame) {
        let header = frame.header
        isFinal = header.flags & 0x80 != 0
        wantsAcknowledgement = header.flags & 0x40 != 0
        status = header.flags & 0x01 != 0 ? header.byte3 : nil
        lun = header.word1
        initiatorTaskTag = header.at16
        targetTransferTag = header.at20
        sequence = TargetSequence(header)
        dataSN = header.at36
        bufferOffset = header.at40
        residual = Residual(overflow: header.flags & 0x04 != 0, underflow: header.flags & 0x02 != 0, count: header.at44)
        data = frame.data
    }

    /// The header alone; the encoder adds the length of the data.
    public var header: BasicHeader {
        var flags = residual.flags
        if isFinal { flags |= 0x80 }
        if wantsAcknowledgement { flags |= 0x40 }
        if status != nil { flags |= 0x01 }
        var header = BasicHeader(opcode: TargetOpcode.dataIn.rawValue, flags: flags, byte3: status ?? 0)
        header.word1 = lun
        header.at16 = initiatorTaskTag
        header.at20 = targetTransferTag
        sequence.put(in: &header)
        header.at36 = dataSN
        header.at40 = bufferOffset
        header.at44 = residual.count
        return header
    }

    public var frame: PDUFrame { PDUFrame(header: header, data: data) }
}

/// Ready to transfer (section 11.8).
public struct ReadyToTransfer: Equatable, Sendable {
    public var lun: UInt64 = 0
    public var initiatorTaskTag: UInt32 = 0
    public var targetTransferTag: UInt32 = 0
    public var sequence = TargetSequence()
    public var r2tSN: UInt32 = 0
    public var bufferOffset: UInt32 = 0
    public var desiredLength: UInt32 = 0

    public init() {}

    init(_ frame: PDUFrame) {
        let header = frame.header
        lun = header.word1
        initiatorTaskTag = header.at16
        targetTransferTag = header.at20
        sequence = TargetSequence(header)
        r2tSN = header.at36
        bufferOffset = header.at40
        desiredLength = header.at44
    }

    public var frame: PDUFrame {
        var header = BasicHeader(opcode: TargetOpcode.readyToTransfer.rawValue, flags: 0x80)
        header.word1 = lun
        header.at16 = initiatorTaskTag
        header.at20 = targetTransferTag
        sequence.put(in: &header)
        header.at36 = r2tSN
        header.at40 = bufferOffset
        header.at44 = desiredLength
        return PDUFrame(header: header)
    }
}

/// Asynchronous message (section 11.9).
public struct AsyncMessage: Equatable, Sendable {
    /// The events of section 11.9.1.
    public enum Event: UInt8, Sendable {
        case scsi = 0
        case requestsLogout = 1
        case dropsConnection = 2
        case dropsAllConnections = 3
        case requestsNegotiation = 4
        case tasksTerminated = 5
        case vendorSpecific = 255
    }

    public var lun: UInt64 = 0
    public var sequence = TargetSequence()
    public var eventCode: UInt8 = 0
    public var vendorCode: UInt8 = 0
    public var parameter1: UInt16 = 0
    public var parameter2: UInt16 = 0
    public var parameter3: UInt16 = 0
    public var data = ByteBuffer()

    public init() {}

    init(_ frame: PDUFrame) {
        let header = frame.header
        lun = header.word1
        sequence = TargetSequence(header)
        eventCode = UInt8(truncatingIfNeeded: header.at36 >> 24)
        vendorCode = UInt8(truncatingIfNeeded: header.at36 >> 16)
        parameter1 = UInt16(truncatingIfNeeded: header.at36)
        parameter2 = UInt16(truncatingIfNeeded: header.at40 >> 16)
        parameter3 = UInt16(truncatingIfNeeded: header.at40)
        data = frame.data
    }

    public var frame: PDUFrame {
        var header = BasicHeader(opcode: TargetOpcode.asyncMessage.rawValue, flags: 0x80)
        header.word1 = lun
        header.at16 = BasicHeader.reservedTag
        sequence.put(in: &header)
        header.at36 = UInt32(eventCode) << 24 | UInt32(vendorCode) << 16 | UInt32(parameter1)
        header.at40 = UInt32(parameter2) << 16 | UInt32(parameter3)
        return PDUFrame(header: header, data: data)
    }
}

/// Reject (section 11.17).
public struct Reject: Equatable, Sendable {
    /// The reasons of section 11.17.1.
    public enum Reason: UInt8, Sendable {
        case dataDigestError = 0x02
        case snackReject = 0x03
        case protocolError = 0x04
        case commandNotSupported = 0x05
        case immediateCommandReject = 0x06
        case taskInProgress = 0x07
        case invalidDataAcknowledgement = 0x08
        case invalidPDUField = 0x09
        case longOperationReject = 0x0A
        case negotiationReset = 0x0B
        case waitingForLogout = 0x0C
    }

    public var reasonCode: UInt8 = 0
    public var sequence = TargetSequence()
    public var dataSN: UInt32 = 0
    /// The header of the PDU that was rejected.
    public var data = ByteBuffer()

    public init() {}

    init(_ frame: PDUFrame) {
        reasonCode = frame.header.byte2
        sequence = TargetSequence(frame.header)
        dataSN = frame.header.at36
        data = frame.data
    }

    public var frame: PDUFrame {
        var header = BasicHeader(opcode: TargetOpcode.reject.rawValue, flags: 0x80, byte2: reasonCode)
        header.at16 = BasicHeader.reservedTag
        sequence.put(in: &header)
        header.at36 = dataSN
        return PDUFrame(header: header, data: data)
    }
}
