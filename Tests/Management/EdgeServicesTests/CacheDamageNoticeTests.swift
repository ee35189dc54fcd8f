import NIOCore
import Testing

@testable import EdgeServices

@Suite struct CacheDamageNoticeTests {
    private let start = NIODeadline.uptimeNanoseconds(1 << 40)

    @Test func aDiskThatRotsAsAWholeIsNoStorm() {
        var notice = CacheDamageNotice()
        #expect(notice.observe(corrupt: 0, readErrors: 0, now: start) == nil)
        var told: [CacheDamageNotice.Found] = []
        // A thousand blocks and a failed read a second, looked at each second, for half an hour.
        for second in 1...1_800 as ClosedRange<UInt64> {
            let now = start + .seconds(Int64(second))
            if let found = notice.observe(corrupt: second * 1_000, readErrors: second, now: now) { told.append(found) }
        }
        #expect(told.map(\.corrupt) == [1_000, 600_000, 600_000] && told.map(\.readErrors) == [1, 600, 600])
        // What came behind the last is told when there is time, once.
        #expect(notice.observe(corrupt: 1_800_000, readErrors: 1_800, now: start + .hours(1))?.corrupt == 599_000)
        #expect(notice.observe(corrupt: 1_800_000, readErrors: 1_800, now: start + .hours(2)) == nil)
    }

    @Test func aCacheThatIsOpenedAgainCountsAnew() {
        var notice = CacheDamageNotice()
        #expect(notice.observe(corrupt: 7, readErrors: 0, now: start)?.corrupt == 7)
        notice.beginAnew()
        // One that can be opened now and then is told no more often than others.
        #expect(notice.observe(corrupt: 3, readErrors: 0, now: start + .seconds(5)) == nil)
        let found = notice.observe(corrupt: 4, readErrors: 2, now: start + CacheDamageNotice.interval)
        #expect(found == .init(corrupt: 4, readErrors: 2))
        #expect(found?.text.contains("4") == true && found?.text.contains("fetched from home") == true)
    }
}
