import NIOCore
import Testing

@testable import Volumes

/// What an operator hears of something that fills.
@Suite struct FillWatchTests {
    private func changes(_ percents: [UInt64]) -> [FillWatch.Change?] {
        var watch = FillWatch()
        return percents.map { watch.observe(used: $0 * 10, bound: 1_000) }
    }

    @Test func eachStepIsToldOnceOnTheWayUp() {
        #expect(
            changes([0, 49, 50, 60, 74, 75, 89, 90, 100, 100]) == [
                nil, nil, .reached(.half), nil, nil, .reached(.threeQuarters), nil, .reached(.nearlyFull), nil, nil,
            ])
    }

    @Test func aJumpTellsTheHighestStepOnly() {
        #expect(changes([10, 93, 95]) == [nil, .reached(.nearlyFull), nil])
    }

    @Test func aFillThatSwingsAboutAStepTellsItOnce() {
        #expect(changes([50, 46, 51, 47, 53]) == [.reached(.half), nil, nil, nil, nil])
        #expect(changes([91, 86, 91, 87, 92]) == [.reached(.nearlyFull), nil, nil, nil, nil])
    }

    @Test func aStepIsToldAgainAfterItWasLeft() {
        #expect(changes([91, 85, 91]) == [.reached(.nearlyFull), nil, .reached(.nearlyFull)])
        #expect(changes([76, 60, 76]) == [.reached(.threeQuarters), nil, .reached(.threeQuarters)])
    }

    @Test func theEndIsToldOnceWellBelowHalf() {
        #expect(changes([80, 46, 45, 30, 49, 50]) == [.reached(.threeQuarters), nil, .over, nil, nil, .reached(.half)])
    }

    @Test func aSmallerBoundIsAStepToo() {
        var watch = FillWatch()
        #expect(watch.observe(used: 40, bound: 100) == nil)
        #expect(watch.observe(used: 40, bound: 50) == .reached(.threeQuarters))
        #expect(watch.observe(used: 40, bound: 0) == .reached(.nearlyFull))
        #expect(watch.observe(used: .max, bound: .max) == nil)
        #expect(watch.observe(used: 40, bound: 1_000) == .over)
    }

    private let start = NIODeadline.uptimeNanoseconds(5_000_000_000)

    @Test func theEstimateIsThatOfTheLastMinutes() throws {
        var estimate = FillEstimate()
        #expect(estimate.timeUntilFull(used: 0, bound: 100, now: start) == nil, "nothing is known")
        for second in 0...60 as ClosedRange<Int64> {
            estimate.observe(used: UInt64(second) * 1_000, now: start + .seconds(second))
        }
        let time = try #require(estimate.timeUntilFull(used: 60_000, bound: 90_000, now: start + .seconds(60)))
        #expect(time == .seconds(30))
        #expect(estimate.timeUntilFull(used: 90_000, bound: 90_000, now: start + .seconds(60)) == .zero)
        // It stands still: after two minutes nothing is left of the rate.
        for second in 61...200 as ClosedRange<Int64> { estimate.observe(used: 60_000, now: start + .seconds(second)) }
        #expect(estimate.timeUntilFull(used: 60_000, bound: 90_000, now: start + .seconds(200)) == nil)
    }

    @Test func whatDrainsIsNeverFullAndWhatTakesWeeksHasNoNumber() {
        var estimate = FillEstimate()
        estimate.observe(used: 1_000, now: start)
        estimate.observe(used: 500, now: start + .seconds(10))
        #expect(estimate.timeUntilFull(used: 500, bound: 2_000, now: start + .seconds(10)) == nil)
        #expect(estimate.timeUntilFull(used: 1_001, bound: .max, now: start + .seconds(20)) == nil)
    }
}
