/// How long something is tried again that meets a target which is not ready.
///
/// The time runs from the first refusal, not from the first try: a target that has no room lets a write wait for as long as it may, and
/// what is asked for is how long to go on after that.
public struct RetryPeriod: Sendable {
    /// How long.
    public let nanoseconds: UInt64
    private var end: UInt64?

    public init(nanoseconds: UInt64) {
        self.nanoseconds = nanoseconds
    }

    /// Takes note of a refusal. False when the time is over.
    public mutating func allowsRetry(now: UInt64) -> Bool {
        let (last, overflow) = now.addingReportingOverflow(nanoseconds)
        let end = end ?? (overflow ? .max : last)
        self.end = end
        return now < end
    }
}
