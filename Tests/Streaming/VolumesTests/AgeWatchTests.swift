import NIOCore
import Testing

@testable import Volumes

@Suite struct AgeWatchTests {
    /// What is told while the oldest write grows older by a second at a time, and its age then.
    private func told(by watch: inout AgeWatch, seconds: ClosedRange<Int64>, objective: TimeAmount) -> [Int64] {
        seconds.compactMap { second in
            if case .late(let age) = watch.observe(oldest: .seconds(second), objective: objective) {
                return age.nanoseconds / 1_000_000_000
            }
            return nil
        }
    }

    @Test("the first word is at twelve objectives, and at a minute at least; the next ones at each doubling")
    func ages() {
        var watch = AgeWatch()
        #expect(told(by: &watch, seconds: 0...1_000, objective: .seconds(5)) == [60, 120, 240, 480, 960])
        watch = AgeWatch()
        #expect(told(by: &watch, seconds: 0...1_000, objective: .milliseconds(50)) == [60, 120, 240, 480, 960])
        watch = AgeWatch()
        #expect(told(by: &watch, seconds: 0...1_000, objective: .seconds(60)) == [720])
        #expect(watch.isLate)
    }

    @Test func itIsOverOnceAndToldAgain() {
        var watch = AgeWatch()
        #expect(watch.observe(oldest: .seconds(10), objective: .seconds(5)) == nil)
        #expect(watch.observe(oldest: .seconds(90), objective: .seconds(5)) == .late(.seconds(90)))
        #expect(watch.observe(oldest: .seconds(40), objective: .seconds(5)) == nil, "it may be on its way up again")
        #expect(watch.observe(oldest: nil, objective: .seconds(5)) == .over)
        #expect(watch.observe(oldest: nil, objective: .seconds(5)) == nil && !watch.isLate)
        #expect(watch.observe(oldest: .seconds(61), objective: .seconds(5)) == .late(.seconds(61)))
    }

    @Test func noAgeIsTooMuch() {
        var watch = AgeWatch()
        #expect(watch.observe(oldest: .nanoseconds(.max), objective: .nanoseconds(.max)) == .late(.nanoseconds(.max)))
    }
}
