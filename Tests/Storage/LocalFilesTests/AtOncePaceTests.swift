import NIOCore
import Testing

@testable import LocalFiles

@Suite struct AtOncePaceTests {
    @Test func aSlowWriteSendsTheNextOnesToThePoolForAWhile() {
        let pace = AtOncePace()
        let start = NIODeadline.uptimeNanoseconds(1_000)
        #expect(pace.allows(at: start))
        pace.ended(from: start, to: start + AtOncePace.slow - .nanoseconds(1))
        #expect(pace.allows(at: start + .milliseconds(1)))
        let end = start + AtOncePace.slow
        pace.ended(from: start, to: end)
        #expect(!pace.allows(at: end))
        #expect(!pace.allows(at: end + AtOncePace.pause - .nanoseconds(1)))
        #expect(pace.allows(at: end + AtOncePace.pause))
    }

    @Test func theLongerItTookTheLongerThePause() {
        let pace = AtOncePace()
        let start = NIODeadline.uptimeNanoseconds(1_000)
        let end = start + .milliseconds(200)
        pace.ended(from: start, to: end)
        #expect(!pace.allows(at: end + .seconds(5)))
        #expect(pace.allows(at: end + .seconds(6)))
    }
}
