import Blocks

/// What keeps the file system under a log from taking a change, and an operator can mend while the log stays open.
///
/// What was acknowledged is in a file already. What was ordered waits in memory, its writers wait with it, and all is tried again.
public enum LogObstacle: Equatable, Sendable {
    /// There is no room, or the quota is used up.
    case noSpace
    /// Changes are denied: it is mounted read-only, the files were made immutable, or rights are missing.
    case readOnly

    /// Nil for an error after which nobody knows what the file holds. With the others nothing was written but, of a write, a first part.
    init?(_ error: StorageFileError) {
        switch error {
        case .noSpace: self = .noSpace
        case .denied: self = .readOnly
        case .notFound, .locked, .failed: return nil
        }
    }
}

/// A kind of work that an obstacle may hold up: then it rests until the next retry.
struct ObstructedWork {
    /// What the last attempt met; nil when it succeeded, or there was none.
    private(set) var obstacle: LogObstacle?
    /// It met an obstacle and rests.
    private(set) var rests = false

    mutating func met(_ obstacle: LogObstacle) {
        self.obstacle = obstacle
        rests = true
    }

    /// It may be tried once more. The obstacle stands until that has succeeded.
    mutating func retry() { rests = false }

    mutating func succeeded() {
        obstacle = nil
        rests = false
    }
}
