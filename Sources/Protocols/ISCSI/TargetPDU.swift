import NIOCore

// What a target sends, RFC 7143 section 11.

/// The opcodes of the target.
public enum TargetOpcode: UInt8, Sendable {
    case nopIn = 0x20
    case scsiResponse = 0x21
    case taskManagementResponse = 0x22
    case loginResponse = 0x23
    case textResponse = 0x24
    case dataIn = 0x25
    case logoutResponse = 0x26
    case readyToTransfer = 0x31
    case asyncMessage = 0x32
    case reject = 0x3F
}

/// A PDU from the target.
public enum TargetPDU: Equatable, Sendable {
    case nopIn(NOPIn)
    case scsiResponse(SCSIResponsePDU)
    case taskManagementResponse(TaskManagementResponse)
    case loginResponse(LoginResponse)
    case textResponse(TextResponse)
    case dataIn(DataIn)
    case logoutResponse(LogoutResponse)
    case readyToTransfer(ReadyToTransfer)
    case asyncMessage(AsyncMessage)
    case reject(Reject)

    /// Interprets a frame.
    public init(_ frame: PDUFrame) throws(PDUError) {
        guard let opcode = TargetOpcode(rawValue: frame.header.opcode) else { throw .opcode(frame.header.opcode) }
        switch opcode {
        case .nopIn: self = .nopIn(NOPIn(frame))
        case .scsiResponse: self = .scsiResponse(SCSIResponsePDU(frame))
        case .taskManagementResponse: self = .taskManagementResponse(TaskManagementResponse(frame))
        case .loginResponse: self = .loginResponse(LoginResponse(frame))
        case .textResponse: self = .textResponse(TextResponse(frame))
        case .dataIn: self = .dataIn(DataIn(frame))
        case .logoutResponse: self = .logoutResponse(LogoutResponse(frame))
        case .readyToTransfer: self = .readyToTransfer(ReadyToTransfer(frame))
        case .asyncMessage: self = .asyncMessage(AsyncMessage(frame))
        case .reject: self = .reject(Reject(frame))
        }
    }

    /// The frame of the PDU.
    public var frame: PDUFrame {
        switch self {
        case .nopIn(let pdu): pdu.frame
        case .scsiResponse(let pdu): pdu.frame
        case .taskManagementResponse(let pdu): pdu.frame
        case .loginResponse(let pdu): pdu.frame
        case .textResponse(let pdu): pdu.frame
        case .dataIn(let pdu): pdu.frame
        case .logoutResponse(let pdu): pdu.frame
        case .readyToTransfer(let pdu): pdu.frame
        case .asyncMessage(let pdu): pdu.frame
        case .reject(let pdu): pdu.frame
        }
    }
}

/// The numbers that every PDU of a target carries.
public struct TargetSequence: Equatable, Sendable {
    public var statSN: UInt32 = 0
    public var expCmdSN: UInt32 = 0
    public var maxCmdSN: UInt32 = 0

    public init(statSN: UInt32 = 0, expCmdSN: UInt32 = 0, maxCmdSN: UInt32 = 0) {
        self.statSN = statSN
        self.expCmdSN = expCmdSN
        self.maxCmdSN = maxCmdSN
    }

    init(_ header: BasicHeader) {
        self.init(statSN: header.at24, expCmdSN: header.at28, maxCmdSN: header.at32)
    }

    func put(in header: inout BasicHeader) {
        header.at24 = statSN
        header.at28 = expCmdSN
        header.at32 = maxCmdSN
    }
}

/// NOP-In: a ping, or the answer to one (section 11.19).
public struct NOPIn: Equatable, Sendable {
    public var lun: UInt64 = 0
    public var initiatorTaskTag: UInt32 = BasicHeader.reservedTag
    public var targetTransferTag: UInt32 = BasicHeader.reservedTag
    public var sequence = TargetSequence()
    public var data = ByteBuffer()

    public init() {}

    init(_ frame: PDUFrame) {
        lun = frame.header.word1
        initiatorTaskTag = frame.header.at16
        targetTransferTag = frame.header.at20
        sequence = TargetSequence(frame.header)
        data = frame.data
    }

    public var frame: PDUFrame {
        var header = BasicHeader(opcode: TargetOpcode.nopIn.rawValue, flags: 0x80)
        header.word1 = lun
        header.at16 = initiatorTaskTag
        header.at20 = targetTransferTag
        sequence.put(in: &header)
        return PDUFrame(header: header, data: data)
    }
}

/// Task management function response (section 11.6).
public struct TaskManagementResponse: Equatable, Sendable {
    /// The values of section 11.6.1.
    public enum Response: UInt8, Sendable {
        case functionComplete = 0
        case taskDoesNotExist = 1
        case lunDoesNotExist = 2
        case taskStillAllegiant = 3
        case taskReassignmentNotSupported = 4
        case functionNotSupported = 5
        case authorizationFailed = 6
        /// RFC 7144: a query found what it asked for.
        case functionSucceeded = 7
        case functionRejected = 255
    }

    public var responseCode: UInt8 = 0
    /// RFC 7144: three bytes of SAM-5's additional response information, in the low end of the integer.
    public var additionalInformation: UInt32 = 0
    public var initiatorTaskTag: UInt32 = 0
    public var sequence = TargetSequence()

    public init() {}

    init(_ frame: PDUFrame) {
        responseCode = frame.header.byte2
        additionalInformation = UInt32(truncatingIfNeeded: frame.header.word1 >> 40)
        initiatorTaskTag = frame.header.at16
        sequence = TargetSequence(frame.header)
    }

    public var frame: PDUFrame {
        var header = BasicHeader(opcode: TargetOpcode.taskManagementResponse.rawValue, flags: 0x80, byte2: responseCode)
        header.word1 = UInt64(additionalInformation & 0xFF_FFFF) << 40
        header.at16 = initiatorTaskTag
        sequence.put(in: &header)
        return PDUFrame(header: header)
    }
}

/// Text response (section 11.11).
public struct TextResponse: Equatable, Sendable {
    /// F: the target has nothing more to say.
    public var isFinal = true
    /// C: the text goes on in the next response.
    public var continues = false
    public var lun: UInt64 = 0
    public var initiatorTaskTag: UInt32 = 0
    public var targetTransferTag: UInt32 = BasicHeader.reservedTag
    public var sequence = TargetSequence()
    public var data = ByteBuffer()

    public init() {}

    init(_ frame: PDUFrame) {
        isFinal = frame.header.flags & 0x80 != 0
        continues = frame.header.flags & 0x40 != 0
        lun = frame.header.word1
        initiatorTaskTag = frame.header.at16
        targetTransferTag = frame.header.at20
        sequence = TargetSequence(frame.header)
        data = frame.data
    }

    public var frame: PDUFrame {
        var header = BasicHeader(
            opcode: TargetOpcode.textResponse.rawValue, flags: (isFinal ? 0x80 : 0) | (continues ? 0x40 : 0))
        header.word1 = lun
        header.at16 = initiatorTaskTag
        header.at20 = targetTransferTag
        sequence.put(in: &header)
        return PDUFrame(header: header, data: data)
    }
}

/// Login response (section 11.13).
public struct LoginResponse: Equatable, Sendable {
    public var transits = false
    public var continues = false
    public var currentStageCode: UInt8 = 0
    public var nextStageCode: UInt8 = 0
    public var versionMax: UInt8 = 0
    public var versionActive: UInt8 = 0
    public var isid = InitiatorSessionIdentifier(0)
    public var tsih: UInt16 = 0
    public var initiatorTaskTag: UInt32 = 0
    public var sequence = TargetSequence()
    public var status = LoginStatus.success
    public var data = ByteBuffer()

    public init() {}

    init(_ frame: PDUFrame) {
        let header = frame.header
        transits = header.flags & 0x80 != 0
        continues = header.flags & 0x40 != 0
        currentStageCode = header.flags >> 2 & 3
        nextStageCode = header.flags & 3
        versionMax = header.byte2
        versionActive = header.byte3
        isid = InitiatorSessionIdentifier(header.word1 >> 16)
        tsih = UInt16(truncatingIfNeeded: header.word1)
        initiatorTaskTag = header.at16
        sequence = TargetSequence(header)
        status = LoginStatus(rawValue: UInt16(truncatingIfNeeded: header.at36 >> 16))
        data = frame.data
    }

    public var frame: PDUFrame {
        let flags = (transits ? 0x80 : 0) | (continues ? 0x40 : 0) | (currentStageCode & 3) << 2 | nextStageCode & 3
        var header = BasicHeader(
            opcode: TargetOpcode.loginResponse.rawValue, flags: flags, byte2: versionMax, byte3: versionActive)
        header.word1 = isid.value << 16 | UInt64(tsih)
        header.at16 = initiatorTaskTag
        sequence.put(in: &header)
        header.at36 = UInt32(status.rawValue) << 16
        return PDUFrame(header: header, data: data)
    }
}

/// Status class and detail of a login response (section 11.13.5).
public struct LoginStatus: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    /// The class in the high byte, the detail in the low one.
    public let rawValue: UInt16

    public init(rawValue: UInt16) { self.rawValue = rawValue }

    public static let success = LoginStatus(rawValue: 0x0000)
    public static let initiatorError = LoginStatus(rawValue: 0x0200)
    public static let authenticationFailure = LoginStatus(rawValue: 0x0201)
    public static let authorizationFailure = LoginStatus(rawValue: 0x0202)
    public static let notFound = LoginStatus(rawValue: 0x0203)
    public static let targetRemoved = LoginStatus(rawValue: 0x0204)
    public static let unsupportedVersion = LoginStatus(rawValue: 0x0205)
    public static let tooManyConnections = LoginStatus(rawValue: 0x0206)
    public static let missingParameter = LoginStatus(rawValue: 0x0207)
    public static let cannotIncludeInSession = LoginStatus(rawValue: 0x0208)
    public static let sessionTypeNotSupported = LoginStatus(rawValue: 0x0209)
    public static let sessionDoesNotExist = LoginStatus(rawValue: 0x020A)
    public static let invalidRequestDuringLogin = LoginStatus(rawValue: 0x020B)
    public static let targetError = LoginStatus(rawValue: 0x0300)
    public static let serviceUnavailable = LoginStatus(rawValue: 0x0301)
    public static let outOfResources = LoginStatus(rawValue: 0x0302)

    public var description: String {
        let digits = String(rawValue, radix: 16)
        return "0x" + String(repeating: "0", count: 4 - digits.count) + digits
    }
}

/// Logout response (section 11.15).
public struct LogoutResponse: Equatable, Sendable {
    /// 0: closed; 1: no such connection; 2: recovery is not supported; 3: cleanup failed.
    public var response: UInt8 = 0
    public var initiatorTaskTag: UInt32 = 0
    public var sequence = TargetSequence()
    public var time2Wait: UInt16 = 0
    public var time2Retain: UInt16 = 0

    public init() {}

    init(_ frame: PDUFrame) {
        response = frame.header.byte2
        initiatorTaskTag = frame.header.at16
        sequence = TargetSequence(frame.header)
        time2Wait = UInt16(truncatingIfNeeded: frame.header.at40 >> 16)
        time2Retain = UInt16(truncatingIfNeeded: frame.header.at40)
    }

    public var frame: PDUFrame {
        var header = BasicHeader(opcode: TargetOpcode.logoutResponse.rawValue, flags: 0x80, byte2: response)
        header.at16 = initiatorTaskTag
        sequence.put(in: &header)
        header.at40 = UInt32(time2Wait) << 16 | UInt32(time2Retain)
        return PDUFrame(header: header)
    }
}
