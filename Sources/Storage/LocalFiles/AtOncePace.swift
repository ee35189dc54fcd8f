import NIOCore

/// Decides whether the loop may write to the page cache itself. One for all files of a directory, which share a file system.
///
/// Such a write nearly always is a copy in memory. Now and then the kernel makes the writer wait: when too much of its memory
/// is dirty, or while the file system's journal turns over. No flag of pwritev2 excludes that on every file system, so what
/// has happened decides: after a slow write others go through the thread pool for a while, and the longer it took the longer.
/// So at most a thirtieth of the loop's time is spent in writes that wait.
final class AtOncePace {
    /// A write that took this long has waited for something.
    static let slow: TimeAmount = .milliseconds(1)
    /// For how long the loop then doesn't try again, at least.
    static let pause: TimeAmount = .milliseconds(100)
    /// And how many times as long as the write took.
    static let pauseFactor: Int64 = 30

    private var resumesAt: NIODeadline?

    /// May the loop write now?
    func allows(at now: NIODeadline) -> Bool {
        guard let resumesAt else { return true }
        if now < resumesAt { return false }
        self.resumesAt = nil
        return true
    }

    /// A write by the loop has ended, well or not.
    func ended(from start: NIODeadline, to end: NIODeadline) {
        let taken = end - start
        guard taken >= Self.slow else { return }
        resumesAt = end + max(Self.pause, .nanoseconds(taken.nanoseconds.multipliedReportingOverflow(by: Self.pauseFactor).partialValue))
    }
}
