import NIOCore

// What an initiator sends, RFC 7143 section 11. Each struct knows its way from and to a frame.

/// The opcodes of the initiator.
public enum InitiatorOpcode: UInt8, Sendable {
    case nopOut = 0x00
    case scsiCommand = 0x01
    case taskManagementRequest = 0x02
    case loginRequest = 0x03
    case textRequest = 0x04
    case dataOut = 0x05
    case logoutRequest = 0x06
    case snackRequest = 0x10
}

/// A PDU from the initiator.
public enum InitiatorPDU: Equatable, Sendable {
    case nopOut(NOPOut)
    case scsiCommand(SCSICommandPDU)
    case taskManagementRequest(TaskManagementRequest)
    case loginRequest(LoginRequest)
    case textRequest(TextRequest)
    case dataOut(DataOut)
    case logoutRequest(LogoutRequest)
    case snackRequest(SNACKRequest)

    /// Interprets a frame.
    public init(_ frame: PDUFrame) throws(PDUError) {
        guard let opcode = InitiatorOpcode(rawValue: frame.header.opcode) else { throw .opcode(frame.header.opcode) }
        switch opcode {
        case .nopOut: self = .nopOut(NOPOut(frame))
        case .scsiCommand: self = .scsiCommand(try SCSICommandPDU(frame))
        case .taskManagementRequest: self = .taskManagementRequest(TaskManagementRequest(frame))
        case .loginRequest: self = .loginRequest(LoginRequest(frame))
        case .textRequest: self = .textRequest(TextRequest(frame))
        case .dataOut: self = .dataOut(DataOut(frame))
        case .logoutRequest: self = .logoutRequest(LogoutRequest(frame))
        case .snackRequest: self = .snackRequest(SNACKRequest(frame))
        }
    }

    /// The frame of the PDU.
    public var frame: PDUFrame {
        switch self {
        case .nopOut(let pdu): pdu.frame
        case .scsiCommand(let pdu): pdu.frame
        case .taskManagementRequest(let pdu): pdu.frame
        case .loginRequest(let pdu): pdu.frame
        case .textRequest(let pdu): pdu.frame
        case .dataOut(let pdu): pdu.frame
        case .logoutRequest(let pdu): pdu.frame
        case .snackRequest(let pdu): pdu.frame
        }
    }
}

/// NOP-Out: a ping, or the answer to one (section 11.18).
public struct NOPOut: Equatable, Sendable {
    public var isImmediate = false
    public var lun: UInt64 = 0
    public var initiatorTaskTag: UInt32 = BasicHeader.reservedTag
    public var targetTransferTag: UInt32 = BasicHeader.reservedTag
    public var cmdSN: UInt32 = 0
    public var expStatSN: UInt32 = 0
    /// What the target is to send back.
    public var data = ByteBuffer()

    public init() {}

    init(_ frame: PDUFrame) {
        let header = frame.header
        isImmediate = header.isImmediate
        lun = header.word1
        initiatorTaskTag = header.at16
        targetTransferTag = header.at20
        cmdSN = header.at24
        expStatSN = header.at28
        data = frame.data
    }

    public var frame: PDUFrame {
        var header = BasicHeader(opcode: InitiatorOpcode.nopOut.rawValue, isImmediate: isImmediate, flags: 0x80)
        header.word1 = lun
        header.at16 = initiatorTaskTag
        header.at20 = targetTransferTag
        header.at24 = cmdSN
        header.at28 = expStatSN
        return PDUFrame(header: header, data: data)
    }
}

/// Task management function request (section 11.5).
public struct TaskManagementRequest: Equatable, Sendable {
    /// The functions of section 11.5.1, and of RFC 7144 section 6.2 from 9 on.
    public enum Function: UInt8, Sendable {
        case abortTask = 1
        case abortTaskSet = 2
        case clearACA = 3
        case clearTaskSet = 4
        case logicalUnitReset = 5
        case targetWarmReset = 6
        case targetColdReset = 7
        case taskReassign = 8
        case queryTask = 9
        case queryTaskSet = 10
        case nexusReset = 11
        case queryAsynchronousEvent = 12
    }

    public var isImmediate = false
    /// The function as it came; it may be none that is known.
    public var functionCode: UInt8 = 0
    public var lun: UInt64 = 0
    public var initiatorTaskTag: UInt32 = 0
    public var referencedTaskTag: UInt32 = BasicHeader.reservedTag
    public var cmdSN: UInt32 = 0
    public var expStatSN: UInt32 = 0
    public var refCmdSN: UInt32 = 0
    public var expDataSN: UInt32 = 0

    public init() {}

    /// The function, when it is one that the standard names.
    public var function: Function? { Function(rawValue: functionCode) }

    init(_ frame: PDUFrame) {
        let header = frame.header
        isImmediate = header.isImmediate
        functionCode = header.flags & 0x7F
        lun = header.word1
        initiatorTaskTag = header.at16
        referencedTaskTag = header.at20
        cmdSN = header.at24
        expStatSN = header.at28
        refCmdSN = header.at32
        expDataSN = header.at36
    }

    public var frame: PDUFrame {
        var header = BasicHeader(
            opcode: InitiatorOpcode.taskManagementRequest.rawValue, isImmediate: isImmediate, flags: 0x80 | functionCode & 0x7F)
        header.word1 = lun
        header.at16 = initiatorTaskTag
        header.at20 = referencedTaskTag
        header.at24 = cmdSN
        header.at28 = expStatSN
        header.at32 = refCmdSN
        header.at36 = expDataSN
        return PDUFrame(header: header)
    }
}

/// Text request (section 11.10).
public struct TextRequest: Equatable, Sendable {
    public var isImmediate = false
    /// F: this is the last request of the sequence.
    public var isFinal = true
    /// C: the text goes on in the next request.
    public var continues = false
    public var lun: UInt64 = 0
    public var initiatorTaskTag: UInt32 = 0
    public var targetTransferTag: UInt32 = BasicHeader.reservedTag
    public var cmdSN: UInt32 = 0
    public var expStatSN: UInt32 = 0
    public var data = ByteBuffer()

    public init() {}

    init(_ frame: PDUFrame) {
        let header = frame.header
        isImmediate = header.isImmediate
        isFinal = header.flags & 0x80 != 0
        continues = header.flags & 0x40 != 0
        lun = header.word1
        initiatorTaskTag = header.at16
        targetTransferTag = header.at20
        cmdSN = header.at24
        expStatSN = header.at28
        data = frame.data
    }

    public var frame: PDUFrame {
        var header = BasicHeader(
            opcode: InitiatorOpcode.textRequest.rawValue, isImmediate: isImmediate,
            flags: (isFinal ? 0x80 : 0) | (continues ? 0x40 : 0))
        header.word1 = lun
        header.at16 = initiatorTaskTag
        header.at20 = targetTransferTag
        header.at24 = cmdSN
        header.at28 = expStatSN
        return PDUFrame(header: header, data: data)
    }
}

/// Logout request (section 11.14).
public struct LogoutRequest: Equatable, Sendable {
    public var isImmediate = false
    /// 0: close the session; 1: close the connection; 2: remove the connection for recovery.
    public var reason: UInt8 = 0
    public var initiatorTaskTag: UInt32 = 0
    public var connectionIdentifier: UInt16 = 0
    public var cmdSN: UInt32 = 0
    public var expStatSN: UInt32 = 0

    public init() {}

    init(_ frame: PDUFrame) {
        let header = frame.header
        isImmediate = header.isImmediate
        reason = header.flags & 0x7F
        initiatorTaskTag = header.at16
        connectionIdentifier = UInt16(truncatingIfNeeded: header.at20 >> 16)
        cmdSN = header.at24
        expStatSN = header.at28
    }

    public var frame: PDUFrame {
        var header = BasicHeader(
            opcode: InitiatorOpcode.logoutRequest.rawValue, isImmediate: isImmediate, flags: 0x80 | reason & 0x7F)
        header.at16 = initiatorTaskTag
        header.at20 = UInt32(connectionIdentifier) << 16
        header.at24 = cmdSN
        header.at28 = expStatSN
        return PDUFrame(header: header)
    }
}

/// SNACK request (section 11.16), which error recovery level 0 has no use for.
public struct SNACKRequest: Equatable, Sendable {
    /// 0: data or R2T; 1: status; 2: data acknowledgement; 3: R-data.
    public var type: UInt8 = 0
    public var lun: UInt64 = 0
    public var initiatorTaskTag: UInt32 = 0
    public var targetTransferTag: UInt32 = BasicHeader.reservedTag
    public var expStatSN: UInt32 = 0
    public var begRun: UInt32 = 0
    public var runLength: UInt32 = 0

    public init() {}

    init(_ frame: PDUFrame) {
        let header = frame.header
        type = header.flags & 0x0F
        lun = header.word1
        initiatorTaskTag = header.at16
        targetTransferTag = header.at20
        expStatSN = header.at28
        begRun = header.at40
        runLength = header.at44
    }

    public var frame: PDUFrame {
        var header = BasicHeader(opcode: InitiatorOpcode.snackRequest.rawValue, flags: 0x80 | type & 0x0F)
        header.word1 = lun
        header.at16 = initiatorTaskTag
        header.at20 = targetTransferTag
        header.at28 = expStatSN
        header.at40 = begRun
        header.at44 = runLength
        return PDUFrame(header: header)
    }
}
