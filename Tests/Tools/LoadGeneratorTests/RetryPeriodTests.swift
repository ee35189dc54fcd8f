import LoadGenerator
import Testing

@Suite struct RetryPeriodTests {
    /// A write that waited 20 s for its first answer, and as long for each later one, is tried for 60 s after the first.
    @Test func theTimeRunsFromTheFirstRefusal() {
        var period = RetryPeriod(nanoseconds: 60)
        let allowed = [UInt64](arrayLiteral: 20, 40, 60, 79, 80, 100).map { period.allowsRetry(now: $0) }
        #expect(allowed == [true, true, true, true, false, false])
    }

    @Test func noTimeIsNoRetry() {
        var none = RetryPeriod(nanoseconds: 0)
        let first = none.allowsRetry(now: 5)
        #expect(!first)
        var longest = RetryPeriod(nanoseconds: .max)
        let allowed = [longest.allowsRetry(now: 5), longest.allowsRetry(now: 1 << 63)]
        #expect(allowed == [true, true])
    }
}
