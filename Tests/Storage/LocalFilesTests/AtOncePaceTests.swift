import NIOCore
import Testing

@testable import LocalFiles

@Suite struct AtOncePaceTests {
    @Test func aSlowWriteSendsTheNextOnesToThePoolForAWhile() {
        var pace = AtOncePace()
        let start = NIODeadline.uptimeNanoseconds(1_000)
        func allows(_ time: NIODeadline) -> Bool { pace.allows(at: time) }
        #expect(allows(start))
        pace.ended(from: start, to: start + AtOncePace.slow - .nanoseconds(1))
        #expect(allows(start + .milliseconds(1)))
        let end = start + AtOncePace.slow
        pace.ended(from: start, to: end)
        #expect(!allows(end))
        #expect(!allows(end + AtOncePace.pause - .nanoseconds(1)))
        #expect(allows(end + AtOncePace.pause))
    }
}
