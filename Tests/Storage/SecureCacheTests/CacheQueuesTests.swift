import Testing

@testable import SecureCache

@Suite struct CacheQueuesTests {
    private let live = Array(repeating: CacheSegment(liveCount: 1), count: 200)

    @Test func theSmallQueueGivesUntilItHasItsShareThenTheMainOne() {
        var queues = CacheQueues(slotCount: 31)
        for segment in 0..<10 { queues.append(segment, to: .small, of: 0) }
        for segment in 100..<190 { queues.append(segment, to: .main, of: 0) }
        // Five of a hundred are its share, and it gives when it has them.
        var small: [Int] = []
        while let victim = queues.takeVictim(segmentCount: 100, live), victim.queue == .small { small.append(victim.segment) }
        #expect(small == [0, 1, 2, 3, 4, 5])
        #expect(queues.pools[0].main.first == 101)
        #expect(queues.pools[0].small.count == 4)
    }

    @Test func anEmptyMainQueueLeavesItToTheSmallOne() {
        var queues = CacheQueues(slotCount: 31)
        queues.append(7, to: .small, of: 0)
        let victim = queues.takeVictim(segmentCount: 1000, live)
        #expect(victim?.segment == 7)
        #expect(victim?.queue == .small)
        let none = queues.takeVictim(segmentCount: 1000, live)
        #expect(none == nil)
    }

    @Test func aUseIsABitOfItsSlotOnly() {
        var uses = CacheUses(slotCount: 130)
        for slot in [0, 63, 64, 129] as [CacheSlot] { uses[slot] = true }
        #expect((0..<130).filter { uses[$0] } == [0, 63, 64, 129])
        uses[63] = false
        #expect((0..<130).filter { uses[$0] } == [0, 64, 129])
    }

    @Test func aGhostIsTakenOnce() {
        var ghosts = CacheGhosts(entries: 4096)
        for block in 0..<1000 as Range<UInt64> { ghosts.insert(3, block) }
        let known = (0..<1000 as Range<UInt64>).filter { ghosts.take(3, $0) }.count
        // A quarter full: few buckets overflow.
        #expect(known >= 990)
        let again = (0..<1000 as Range<UInt64>).filter { ghosts.take(3, $0) }.count
        #expect(again <= 10)
    }

    @Test func namesAreRarelyMistaken() {
        var ghosts = CacheGhosts(entries: 8192)
        for block in 0..<8192 as Range<UInt64> { ghosts.insert(1, block) }
        let mistaken = (100_000..<110_000 as Range<UInt64>).filter { ghosts.take(1, $0) }.count
        #expect(mistaken < 700, "of 10,000")
        let strangers = (0..<8192 as Range<UInt64>).filter { ghosts.take(2, $0) }.count
        #expect(strangers < 700, "another volume's blocks")
    }

    @Test func theYoungerHalfOutlivesAHalving() {
        var ghosts = CacheGhosts(entries: 8192)
        let byteCount = ghosts.byteCount
        for block in 0..<8192 as Range<UInt64> { ghosts.insert(1, block) }
        for block in 8192..<9216 as Range<UInt64> { ghosts.insert(1, block) }
        var halvings = 0
        while ghosts.halve() { halvings += 1 }
        #expect(halvings == CacheGhosts.halvingsMax)
        #expect(abs(ghosts.byteCount - byteCount >> halvings) < 64)
        // A thousand names in a thousand buckets of one: those that share a bucket push one another out.
        let young = (8192..<9216 as Range<UInt64>).filter { ghosts.take(1, $0) }.count
        #expect(young > 550)
    }
}
