import NIOCore

/// Decides whether the loop may write to the page cache itself.
///
/// Such a write nearly always is a copy in memory. Now and then the kernel makes the writer wait: when too much of its memory
/// is dirty, or while the file system's journal turns over. No flag of pwritev2 excludes that on every file system, so what
/// has happened decides: after a slow write others go through the thread pool for a while.
struct AtOncePace {
    /// A write that took this long has waited for something.
    static let slow: TimeAmount = .milliseconds(1)
    /// For how long the loop then doesn't try again.
    static let pause: TimeAmount = .milliseconds(100)

    private var resumesAt: NIODeadline?

    /// May the loop write now?
    mutating func allows(at now: NIODeadline) -> Bool {
        guard let resumesAt else { return true }
        if now < resumesAt { return false }
        self.resumesAt = nil
        return true
    }

    /// A write by the loop has ended.
    mutating func ended(from start: NIODeadline, to end: NIODeadline) {
        if end - start >= Self.slow { resumesAt = end + Self.pause }
    }
}
