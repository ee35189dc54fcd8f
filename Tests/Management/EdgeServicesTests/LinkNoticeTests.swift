import NIOCore
import Testing

@testable import EdgeServices

@Suite struct LinkNoticeTests {
    private let start = NIODeadline.uptimeNanoseconds(1_000_000_000)

    @Test func aChangeNowAndThenIsToldAtOnce() {
        var notice = LinkNotice()
        for change in 0..<100 {
            let isConnected = change % 2 == 0
            let now = start + LinkNotice.interval * Int64(change)
            #expect(notice.changed(isConnected: isConnected, now: now) == LinkNotice.Change(isConnected: isConnected, count: 1))
        }
    }

    @Test func aLinkThatComesAndGoesWithoutEndIsToldInBounds() {
        var notice = LinkNotice()
        var told: [LinkNotice.Change] = []
        // Up or down each ten milliseconds, for ten minutes.
        for step in 0..<60_000 {
            if let change = notice.changed(isConnected: step % 2 == 0, now: start + .milliseconds(10) * Int64(step)) { told.append(change) }
        }
        #expect(told.count == 10 + 19)
        #expect(told.prefix(10).allSatisfy { $0.count == 1 })
        #expect(told.dropFirst(11).allSatisfy { $0.count == 3000 })
        #expect(told[10].words.hasSuffix(", \(told[10].count) changes since the last event"))
    }

    @Test func whatALinkIsInTheEndIsTold() {
        var notice = LinkNotice()
        for step in 0..<10 { #expect(notice.changed(isConnected: step % 2 == 0, now: start) != nil) }
        #expect(notice.changed(isConnected: true, now: start) == nil)
        #expect(notice.due(now: start + LinkNotice.interval - .nanoseconds(1)) == nil)
        #expect(notice.due(now: start + LinkNotice.interval) == LinkNotice.Change(isConnected: true, count: 1))
        #expect(notice.due(now: start + LinkNotice.interval * 100) == nil)
    }
}
