import CLibISCSI
import Glibc

/// One command that can be on its way, with the buffer that it reads into or writes from.
///
/// Commands are made once and used again and again; a session borrows one from the moment it is
/// started until its handler runs.
public final class InitiatorCommand {
    /// The bytes, aligned to a page. Don't touch them while the command is in flight.
    public let buffer: UnsafeMutableRawBufferPointer
    /// For the owner.
    public var tag: Int
    /// Runs once for each time the command was started, inside `service` or `close`.
    public var handler: ((InitiatorCommand, CommandOutcome) -> Void)?

    /// True from the start of the command until its handler runs.
    public var isInFlight: Bool { session != nil }

    /// libiscsi keeps a pointer to the vector while the command is in flight, so it has a place of its own.
    let vector: UnsafeMutablePointer<scsi_iovec>
    var task: UnsafeMutablePointer<scsi_task>?
    var session: ISCSIInitiatorSession?
    /// The place in the session's list of commands in flight.
    var index = 0
    /// Sees the task before it is freed, for commands whose answer libiscsi unpacks.
    var inspectTask: ((UnsafeMutablePointer<scsi_task>) -> Void)?

    /// A command with a zeroed buffer of `byteCount` bytes.
    public init(byteCount: Int, tag: Int = 0) {
        buffer = .allocate(byteCount: max(byteCount, 1), alignment: 4096)
        buffer.initializeMemory(as: UInt8.self, repeating: 0)
        vector = .allocate(capacity: 1)
        vector.initialize(to: scsi_iovec(iov_base: buffer.baseAddress, iov_len: buffer.count))
        self.tag = tag
    }

    deinit {
        // A command in flight is kept alive by its session, so nothing points here any more.
        vector.deallocate()
        buffer.deallocate()
    }
}
