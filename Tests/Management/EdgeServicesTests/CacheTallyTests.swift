import Blocks
import Testing

@testable import EdgeServices

@Suite struct CacheTallyTests {
    private let mail = VolumeIdentifier(high: 1, low: 1)
    private let web = VolumeIdentifier(high: 2, low: 2)

    @Test func aVolumeThatGoesTakesNothingWithIt() {
        var tally = CacheTally()
        tally.count(mail, in: nil, .init(hits: 10, misses: 5))
        tally.count(web, in: nil, .init(hits: 1, misses: 1))
        tally.count(mail, in: nil, .init(hits: 12, misses: 9))
        tally.forget(mail)
        #expect(tally.total == .init(hits: 13, misses: 10))
        // It comes again and begins with nothing.
        tally.count(mail, in: nil, .init(hits: 2, misses: 0))
        #expect(tally.total == .init(hits: 15, misses: 10) && tally[nil] == tally.total)
    }

    @Test func whatIsReadBelongsToThePartitionOfThatTime() {
        var tally = CacheTally()
        tally.count(mail, in: nil, .init(hits: 10, misses: 5))
        tally.count(mail, in: "lab", .init(hits: 11, misses: 5))
        tally.count(mail, in: nil, .init(hits: 11, misses: 8))
        #expect(tally[nil] == .init(hits: 10, misses: 8) && tally["lab"] == .init(hits: 1, misses: 0))
        // A partition that is taken away is forgotten, and what it read still counts for all.
        tally.keepPartitions { $0 != "lab" }
        #expect(tally["lab"] == .init() && tally.total == .init(hits: 11, misses: 8))
    }
}
