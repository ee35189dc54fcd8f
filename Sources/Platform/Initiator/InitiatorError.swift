/// Why a session could not be made, or a blocking call failed.
public enum InitiatorError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The text is not `iscsi://[user[%secret]@]host[:port]/target/lun`.
    case invalidURL(String)
    /// The connection, the login or the first command failed; the text is libiscsi's.
    case connectFailed(String)
    /// The session broke while it was in use.
    case sessionLost(String)
    /// The time that the caller allows ran out.
    case timedOut
    /// The target answered, but not with GOOD.
    case commandFailed(CommandOutcome)

    public var description: String {
        switch self {
        case .invalidURL(let reason): "not an iSCSI URL: \(reason)"
        case .connectFailed(let reason): "cannot connect: \(reason)"
        case .sessionLost(let reason): "session lost: \(reason)"
        case .timedOut: "timed out"
        case .commandFailed(let outcome): "command failed: \(outcome)"
        }
    }
}

/// How a command ended.
public enum CommandOutcome: Equatable, Sendable, CustomStringConvertible {
    /// Status GOOD, and all the bytes that were asked for.
    case good
    /// Status CHECK CONDITION: the sense key, and ASC and ASCQ in one number.
    case checkCondition(senseKey: UInt8, additionalSense: UInt16)
    /// Status BUSY or TASK SET FULL.
    case busy
    /// Any other status of the target, GOOD with fewer bytes than were asked for, or an error in libiscsi.
    case failed(status: Int32)
    /// The session broke before the target answered: the command may have been executed or not.
    case lost

    /// True when the target says that the same command may succeed later.
    public var isTransient: Bool {
        switch self {
        case .busy: true
        // NOT READY, UNIT ATTENTION, ABORTED COMMAND.
        case .checkCondition(let key, _): key == 0x2 || key == 0x6 || key == 0xB
        case .good, .failed, .lost: false
        }
    }

    public var description: String {
        switch self {
        case .good: "good"
        case .checkCondition(let key, let additional):
            "check condition, sense key 0x\(String(key, radix: 16)), additional sense 0x\(String(additional, radix: 16))"
        case .busy: "busy"
        case .failed(let status): "status 0x\(String(UInt32(bitPattern: status), radix: 16))"
        case .lost: "lost with its session"
        }
    }
}

/// The size of a logical unit, from READ CAPACITY (16).
public struct LogicalUnitCapacity: Equatable, Sendable {
    /// How many logical blocks there are.
    public let blockCount: UInt64
    /// The bytes in one of them.
    public let blockBytes: Int

    public init(blockCount: UInt64, blockBytes: Int) {
        self.blockCount = blockCount
        self.blockBytes = blockBytes
    }

    /// The size in bytes.
    public var byteCount: UInt64 { blockCount.multipliedReportingOverflow(by: UInt64(clamping: blockBytes)).partialValue }
}
