import Blocks
import NIOCore
import SimulatedStorage
import Testing

@testable import SecureCache

@Suite struct CacheEvictionTests {
    /// Inserts blocks one by one, as reads that miss do.
    private func scan(_ harness: CacheHarness, _ blocks: Range<UInt64>, touching used: Range<UInt64>? = nil) throws {
        let cache = try #require(harness.cache)
        for block in blocks {
            cache.insert(harness.volume, block: block, data: CacheHarness.block(block, 1))
            if block % 5 == 0, let used { for block in used { _ = try harness.read(block..<block + 1) } }
            harness.scheduler.runUntilIdle()
        }
    }

    @Test func aScanDoesNotDriveOutWhatIsUsed() throws {
        let harness = try CacheHarness()
        let cache = try harness.open()
        try scan(harness, 0..<40)
        for _ in 0..<3 { for block in 0..<40 as Range<UInt64> { #expect(try harness.read(block..<block + 1) != nil) } }
        // Ten times the cache passes by.
        try scan(harness, 10_000..<12_500)
        let held = (0..<40 as Range<UInt64>).filter { cache.contains(harness.volume, block: $0) }
        #expect(held.count == 40)
        for block in held { #expect(try harness.read(block..<block + 1) == CacheHarness.block(block, 1)) }
        #expect(cache.statistics.moved >= 40)
        #expect(cache.statistics.corrupt == 0)
    }

    @Test func whatComesBackSoonGoesToTheMainQueue() throws {
        let harness = try CacheHarness()
        let cache = try harness.open()
        try scan(harness, 0..<225)
        let gone = (0..<225 as Range<UInt64>).filter { !cache.contains(harness.volume, block: $0) }
        let block = try #require(gone.last)
        cache.insert(harness.volume, block: block, data: CacheHarness.block(block, 1))
        let slot = try #require(cache.index[harness.volume]?.map.slot(of: block))
        #expect(cache.segments[cache.geometry.segment(of: slot)].queue == .main)
        harness.scheduler.runUntilIdle()
        cache.insert(harness.volume, block: 9000, data: CacheHarness.block(9000, 1))
        let other = try #require(cache.index[harness.volume]?.map.slot(of: 9000))
        #expect(cache.segments[cache.geometry.segment(of: other)].queue == .small)
    }

    /// What a segment was filled with can't be read: the index tells, and nothing is lost or mixed.
    @Test func ownersThatCannotBeReadAreFoundOtherwise() throws {
        let harness = try CacheHarness()
        let cache = try harness.open()
        try scan(harness, 0..<100)
        for block in 0..<40 as Range<UInt64> { _ = try harness.read(block..<block + 1) }
        for segment in 0..<cache.geometry.segmentCount { harness.file.flipBit(at: Int(cache.geometry.offset(ofOwnersIn: segment)) + 20) }
        try scan(harness, 10_000..<10_300)
        for block in 0..<40 as Range<UInt64> { #expect(try harness.read(block..<block + 1) == CacheHarness.block(block, 1)) }
        #expect(cache.statistics.corrupt == 0)
    }

    @Test func theIndexStaysInItsMemory() throws {
        let harness = try CacheHarness()
        let cache = try harness.open()
        var live: [Int: Int32] = [:]
        let random = harness.random
        for round in 0..<300 as Range<UInt64> {
            let block = random.below(400)
            switch random.below(4) {
            case 0: cache.invalidate(harness.volume, blocks: block..<block + random.below(30))
            case 1: cache.insertZeroes(harness.other, blocks: block..<block + 1 + random.below(30))
            default: cache.insert(harness.other, block: block, data: CacheHarness.blocks(block..<block + 1 + random.below(20), round))
            }
            _ = try harness.read(block..<block + 1, of: harness.other)
            for _ in 0..<random.below(30) { _ = harness.scheduler.step() }
        }
        for volume in cache.index.volumes.values { volume.map.forEach { live[cache.geometry.segment(of: $1), default: 0] += 1 } }
        for (number, segment) in cache.segments.enumerated() {
            #expect(segment.liveCount == live[number, default: 0], "segment \(number)")
        }
        harness.scheduler.runUntilIdle()
        #expect(cache.freeSegments.count >= 2, "room is made ahead of need")
    }

    /// Checkpoints are written while the cache works, older files go, and a restart finds all of it.
    @Test(arguments: [true, false]) func checkpointsTakeThePlaceOfJournals(power: Bool) throws {
        let harness = try CacheHarness()
        harness.limits.journalBytes = 4 << 10
        let cache = try harness.open()
        for round in 0..<40 as Range<UInt64> {
            cache.insert(harness.volume, block: round * 4, data: CacheHarness.blocks(round * 4..<round * 4 + 4, round))
            try harness.synchronize()
        }
        let names = harness.directory.names
        #expect(names.filter { $0.hasPrefix("checkpoint") }.count == 1)
        #expect(names.filter { $0.hasPrefix("journal") }.count <= 2)
        #expect(!names.contains("journal.1"))
        harness.crash(power: power)
        let again = try harness.open()
        #expect(again.residentRuns(harness.volume, blocks: 0..<400) == [0..<160])
        for round in 0..<40 as Range<UInt64> {
            #expect(try harness.read(round * 4..<round * 4 + 4) == CacheHarness.blocks(round * 4..<round * 4 + 4, round))
        }
    }

    /// While no checkpoint can be written the journals do not grow without end; what they would have said is given up, and a restart
    /// finds no block that was replaced meanwhile.
    @Test func journalsStayShortWhileCheckpointsFail() throws {
        let harness = try CacheHarness()
        harness.limits.journalBytes = 4 << 10
        let cache = try harness.open()
        cache.insert(harness.volume, block: 0, data: CacheHarness.blocks(0..<40, 1))
        try harness.synchronize()
        harness.machine.faults.failsWritesTo = "checkpoint"
        var journals = 0
        for round in 2..<200 as Range<UInt64> {
            cache.insert(harness.volume, block: round % 40, data: CacheHarness.block(round % 40, round))
            try harness.synchronize()
            journals = max(journals, harness.directory.names.filter { $0.hasPrefix("journal") }.count)
        }
        #expect(!cache.statistics.isDegraded && cache.statistics.writeErrors > 4)
        #expect(journals <= 12, "\(journals) journals")
        #expect(try harness.read(39..<40) == CacheHarness.block(39, 199))
        harness.crash(power: true)
        let again = try harness.open()
        for block in 0..<40 as Range<UInt64> where again.contains(harness.volume, block: block) {
            let newest = (160..<200 as Range<UInt64>).last { $0 % 40 == block } ?? 0
            #expect(try harness.read(block..<block + 1) == CacheHarness.block(block, newest), "block \(block)")
        }
        // Once they can be written again, all is kept as ever.
        harness.machine.faults.failsWritesTo = nil
        again.insert(harness.volume, block: 0, data: CacheHarness.blocks(0..<40, 300))
        try harness.synchronize()
        harness.crash(power: true)
        #expect(try harness.open().residentRuns(harness.volume, blocks: 0..<40) == [0..<40])
    }

    /// Records that take many fragments are cut between two of them, in the journal and in a checkpoint: none is lost, none is
    /// taken for another.
    @Test(arguments: [4 << 10, 16 << 20]) func recordsAreNotCut(journalBytes: Int) throws {
        let harness = try CacheHarness()
        harness.limits.fragmentBytesMax = 4 << 10
        harness.limits.journalBytes = journalBytes
        let cache = try harness.open()
        for round in 0..<3 as Range<UInt64> {
            for block in 0..<1000 as Range<UInt64> { cache.insertZeroes(harness.volume, blocks: block * 2..<block * 2 + 1) }
            for block in 0..<60 as Range<UInt64> {
                cache.insert(harness.other, block: block * 3, data: CacheHarness.block(block * 3, round))
            }
            try harness.synchronize()
        }
        if journalBytes < 1 << 20 { #expect(harness.directory.names.contains { $0.hasPrefix("checkpoint") }) }
        harness.crash(power: true)
        let again = try harness.open()
        #expect(again.residentRuns(harness.volume, blocks: 0..<2500) == (0..<1000).map { $0 * 2..<$0 * 2 + 1 })
        for block in 0..<60 as Range<UInt64> {
            #expect(try harness.read(block * 3..<block * 3 + 1, of: harness.other) == CacheHarness.block(block * 3, 2))
        }
    }

    /// A checkpoint in the middle of an eviction does not know the segment that goes: its blocks leave without a record each.
    @Test func aCheckpointDoesNotBringBackWhatIsBeingEvicted() throws {
        let harness = try CacheHarness()
        let cache = try harness.open()
        try scan(harness, 0..<60)
        let number = try #require(cache.queues.pools[0].small.first)
        let blocks = (0..<60 as Range<UInt64>).filter {
            cache.index[harness.volume]?.map.slot(of: $0).map { cache.geometry.segment(of: $0) } == number
        }
        #expect(!blocks.isEmpty)
        cache.queues.remove(number)
        cache.eviction = CacheEviction(segment: number, queue: .small, sequence: cache.segments[number].sequence, isSparse: false)
        cache.record(.freed(segment: UInt32(number)))
        try harness.synchronize()
        cache.journal.wantsCheckpoint = true
        cache.insertZeroes(harness.other, blocks: 0..<1)
        try harness.synchronize()
        harness.scheduler.runUntilIdle()
        #expect(harness.directory.names.contains { $0.hasPrefix("checkpoint") })
        harness.crash(power: true)
        let again = try harness.open()
        for block in blocks { #expect(!again.contains(harness.volume, block: block)) }
        #expect(again.statistics.blocksHeld > 0)
    }

    /// What lay behind the end of a cache that was made smaller does not come back when it is made larger: meanwhile it may have changed.
    @Test func whatWasBehindTheEndStaysAway() throws {
        let harness = try CacheHarness()
        harness.byteCount = 16 * (128 << 10)
        let large = try harness.open()
        try scan(harness, 0..<300)
        try harness.synchronize()
        let slots = (0..<300 as Range<UInt64>).compactMap { block in
            large.index[harness.volume]?.map.slot(of: block).map { (block, large.geometry.segment(of: $0)) }
        }
        harness.crash(power: false)
        harness.byteCount = 8 * (128 << 10)
        let small = try harness.open()
        let beyond = slots.filter { $0.1 >= small.geometry.segmentCount }.map(\.0)
        #expect(!beyond.isEmpty)
        for block in beyond {
            #expect(!small.contains(harness.volume, block: block))
            small.invalidate(harness.volume, blocks: block..<block + 1)
        }
        try harness.synchronize()
        harness.crash(power: false)
        harness.byteCount = 16 * (128 << 10)
        let again = try harness.open()
        for block in beyond { #expect(!again.contains(harness.volume, block: block)) }
        #expect(again.statistics.blocksHeld > 0)
    }
}
