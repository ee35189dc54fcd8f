/// A token bucket that may go into debt: what goes may be larger than the bucket, and the next one waits for it.
public struct RateLimiter: Sendable {
    /// Tokens a second.
    public let rate: Double
    /// How many tokens an idle time may save up: a hundredth of a second's, and at least one.
    public let burst: Double
    private var tokens: Double
    private var lastNanoseconds: UInt64

    public init(ratePerSecond: UInt64, now nanoseconds: UInt64) {
        rate = Double(max(ratePerSecond, 1))
        burst = max(rate / 100, 1)
        tokens = burst
        lastNanoseconds = nanoseconds
    }

    /// How long to wait before the next may go; 0 when it may go now. Takes nothing.
    public mutating func wait(now nanoseconds: UInt64) -> UInt64 {
        refill(nanoseconds)
        if tokens > 0 { return 0 }
        // Strictly above 0 is what lets the next one go, so a little more than the debt.
        return UInt64((-tokens / rate * 1e9).rounded(.up)) + 1
    }

    /// Takes tokens for something that goes now.
    public mutating func take(_ count: Int, now nanoseconds: UInt64) {
        refill(nanoseconds)
        tokens -= Double(count)
    }

    private mutating func refill(_ nanoseconds: UInt64) {
        guard nanoseconds > lastNanoseconds else { return }
        tokens = min(burst, tokens + Double(nanoseconds - lastNanoseconds) * rate / 1e9)
        lastNanoseconds = nanoseconds
    }
}
