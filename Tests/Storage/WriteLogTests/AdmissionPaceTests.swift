import Blocks
import NIOCore
import SimulatedStorage
import Testing

@testable import WriteLog

/// The slope in front of a full log, as a decision: rates and fill in, delays out.
@Suite struct AdmissionPaceTests {
    private let start = NIODeadline.uptimeNanoseconds(1_000_000_000)
    private let bound: UInt64 = 100 << 20

    /// A pace that has seen so many bytes released a second for a minute, each second.
    private func pace(released bytesPerSecond: UInt64, startPercent: Int = 75) -> AdmissionPace {
        var pace = AdmissionPace(startPercent: startPercent)
        for second in 0..<60 as Range<Int64> {
            pace.observe(released: bytesPerSecond, isReleasing: true, now: start + .seconds(second))
        }
        return pace
    }

    private var now: NIODeadline { start + .seconds(60) }

    /// How long the next write waits behind one of 1 MiB at a fill.
    private func delay(_ pace: AdmissionPace, percent: UInt64) -> TimeAmount {
        var pace = pace
        let used = bound / 100 * percent
        pace.admitted(cost: 1 << 20, used: used, bound: bound, now: now)
        pace.admitted(cost: 1 << 20, used: used, bound: bound, now: now)
        return pace.due(arrival: now, used: used, bound: bound, now: now).map { $0 - now } ?? .zero
    }

    @Test func nothingIsSlowedBelowTheStart() {
        let pace = pace(released: 1 << 20)
        for percent in [0, 10, 50, 74] as [UInt64] { #expect(delay(pace, percent: percent) == .zero) }
    }

    @Test func delaysGrowWithTheFill() {
        let pace = pace(released: 10 << 20)
        let delays = [76, 80, 85, 90, 95, 99].map { delay(pace, percent: $0) }
        for (less, more) in zip(delays, delays.dropFirst()) { #expect(less < more) }
        #expect(delays.allSatisfy { $0 <= AdmissionPace.delayMax })
    }

    @Test func halfwayUpTheSlopeWritersGetWhatIsReleased() {
        let pace = pace(released: 3 << 20)
        let rate = pace.rate(used: bound / 1000 * 875, bound: bound)
        #expect(abs(rate - Double(3 << 20)) < Double(3 << 20) * 0.1)
    }

    @Test func aLogThatReleasesNothingSpreadsItsRoom() {
        let pace = AdmissionPace(startPercent: 75)
        let room = bound / 10
        #expect(abs(pace.rate(used: bound - room, bound: bound) - Double(room) / 60) < 1)
        #expect(pace.rate(used: bound, bound: bound) == AdmissionPace.rateMin)
        #expect(pace.rate(used: bound * 2, bound: bound) == AdmissionPace.rateMin, "a bound that was lowered below what is used")
    }

    @Test func timeWithNothingToReleaseSaysNothingOfTheLine() {
        var pace = pace(released: 2 << 20)
        let before = pace.releaseRate
        pace.observe(released: 0, isReleasing: false, now: now + .hours(1))
        #expect(pace.releaseRate == before)
        for second in 1...60 as ClosedRange<Int64> {
            pace.observe(released: 0, isReleasing: true, now: now + .hours(1) + .seconds(second))
        }
        #expect(pace.releaseRate < before / 10, "the line is down")
    }

    @Test func aWriteIsPutOffButNotForEver() throws {
        var pace = AdmissionPace(startPercent: 75)
        let used = bound / 100 * 99
        for _ in 0..<100 { pace.admitted(cost: 16 << 20, used: used, bound: bound, now: now) }
        let due = try #require(pace.due(arrival: now, used: used, bound: bound, now: now))
        #expect(due <= now + AdmissionPace.delayMax)
        #expect(pace.due(arrival: now - AdmissionPace.delayMax, used: used, bound: bound, now: now) == nil)
        #expect(pace.due(arrival: now, used: bound / 2, bound: bound, now: now) == nil, "room has come back")
    }

    @Test func oneHundredPercentMeansNever() {
        var pace = pace(released: 1, startPercent: 100)
        pace.admitted(cost: 1 << 20, used: bound, bound: bound, now: now)
        #expect(pace.due(arrival: now, used: bound, bound: bound, now: now) == nil)
    }
}
