/// How `causewayd` ends, for those who restart it: the numbers of sysexits.h where they fit.
public enum ExitStatus: Int32, Sendable {
    /// Stopped as asked; everything is flushed and closed.
    case stopped = 0
    /// Wrong options (EX_USAGE).
    case usage = 64
    /// An address to listen at can't be had, or the disk of the state directory failed (EX_UNAVAILABLE).
    case unavailable = 69
    /// A fault of our own (EX_SOFTWARE).
    case fault = 70
    /// The state directory or a file in it can't be made, read or written (EX_CANTCREAT); also when a stop could not flush.
    case state = 73
    /// Another process uses the state directory (EX_TEMPFAIL).
    case inUse = 75
    /// The configuration is wrong (EX_CONFIG).
    case configuration = 78
}

/// Why an edge could not start or had to stop.
public struct EdgeFailure: Error, CustomStringConvertible, Sendable {
    /// What the process ends with.
    public let status: ExitStatus
    /// What is wrong, and what to do.
    public let description: String

    public init(_ status: ExitStatus, _ description: String) {
        self.status = status
        self.description = description
    }
}
