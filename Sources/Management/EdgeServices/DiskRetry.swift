/// When a disk that turned out not to be the one that was served is looked at again. Only somebody's hand puts the right one back, and
/// each look reads the disk to compare it, so the wait grows from one look to the next.
struct DiskRetry {
    static let intervalMin: Duration = .seconds(5)
    static let intervalMax: Duration = .seconds(60)

    private var interval = Duration.zero
    private var nextAt: ContinuousClock.Instant?

    /// The disk was the wrong one again.
    mutating func refused(now: ContinuousClock.Instant) {
        interval = min(max(interval * 2, Self.intervalMin), Self.intervalMax)
        nextAt = now + interval
    }

    func isDue(now: ContinuousClock.Instant) -> Bool { nextAt.map { now >= $0 } ?? true }
}
