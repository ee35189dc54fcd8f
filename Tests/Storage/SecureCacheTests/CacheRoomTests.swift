import Blocks
import NIOCore
import SimulatedStorage
import Testing

@testable import SecureCache

/// A cache that has less than it is to have: room on its file system, memory, bytes, or a device.
@Suite struct CacheRoomTests {
    private static let segmentBytes = 64 << 10

    private static func bytes(_ segments: Int) -> Int { 4096 + segments * segmentBytes }

    private func harness(segments: Int, seed: UInt64 = 1) throws -> CacheHarness {
        let harness = try CacheHarness(seed: seed)
        harness.byteCount = Self.bytes(segments)
        try harness.open()
        return harness
    }

    private func fill(_ harness: CacheHarness, _ blocks: Range<UInt64>) throws {
        let cache = try #require(harness.cache)
        for first in stride(from: blocks.lowerBound, to: blocks.upperBound, by: 8) {
            cache.insert(harness.volume, block: first, data: CacheHarness.blocks(first..<min(first + 8, blocks.upperBound), 1))
            harness.scheduler.runUntilIdle()
        }
    }

    @Test func segmentsWithoutRoomAreNotTriedOneAfterTheOther() throws {
        let harness = try harness(segments: 12)
        let cache = try #require(harness.cache)
        let slots = UInt64(cache.geometry.slotCount)
        try fill(harness, 0..<12 * slots)
        harness.byteCount = Self.bytes(400)
        try cache.resize(to: UInt64(harness.byteCount))
        harness.machine.faults.lacksRoomFor = "cache"
        try fill(harness, 10_000..<10_000 + 60 * slots)
        let full = cache.statistics
        // One finds that there is no room, and one of every sixteen that are filled finds that there is still none.
        #expect(full.writeErrors >= 2 && full.writeErrors <= 6, "\(full)")
        #expect(!full.isDegraded && full.bytesWithoutRoom >= UInt64(380 * Self.segmentBytes))
        // The cache goes on with the segments that it has.
        #expect(full.blocksHeld >= 7 * slots, "\(full)")
        let newest = 10_000 + 60 * slots - 8
        #expect(try harness.read(newest..<newest + 8) == CacheHarness.blocks(newest..<newest + 8, 1))

        harness.machine.faults.lacksRoomFor = nil
        try fill(harness, 20_000..<20_000 + 60 * slots)
        #expect(cache.statistics.bytesWithoutRoom == 0 && cache.statistics.blocksHeld > 30 * slots, "\(cache.statistics)")
        #expect(cache.statistics.corrupt == 0)
    }

    /// What others need of the file system stays free; what is said to be there is taken.
    @Test func aCacheTakesNoMoreOfItsFileSystemThanItMay() throws {
        let harness = try harness(segments: 40)
        let cache = try #require(harness.cache)
        let slots = UInt64(cache.geometry.slotCount)
        let segment = UInt64(Self.segmentBytes)
        cache.boundFile(bytesMax: UInt64(Self.bytes(12)) + 5)
        try fill(harness, 0..<60 * slots)
        #expect(harness.file.content.dropFirst(Self.bytes(12)).allSatisfy { $0 == 0 } && cache.tableFault == nil)
        #expect(cache.statistics.bytesWithoutRoom == 28 * segment && cache.statistics.writeErrors == 0)
        let newest = 60 * slots - 8
        #expect(try harness.read(newest..<newest + 8) == CacheHarness.blocks(newest..<newest + 8, 1))
        #expect(cache.statistics.blocksHeld >= 7 * slots)
        // Nothing more, a little more, another size, and all.
        cache.boundFile(bytesMax: UInt64(Self.bytes(13)) - 1)
        try fill(harness, 2_000..<2_000 + 60 * slots)
        #expect(harness.file.content.dropFirst(Self.bytes(12)).allSatisfy { $0 == 0 } && cache.tableFault == nil)
        cache.boundFile(bytesMax: UInt64(Self.bytes(15)))
        try fill(harness, 4_000..<4_000 + 60 * slots)
        #expect(cache.statistics.bytesWithoutRoom == 25 * segment && cache.tableFault == nil)
        try cache.resize(to: UInt64(Self.bytes(80)))
        try fill(harness, 6_000..<6_000 + 60 * slots)
        #expect(cache.statistics.bytesWithoutRoom == 65 * segment && cache.tableFault == nil)
        cache.boundFile(bytesMax: .max)
        try fill(harness, 8_000..<8_000 + 90 * slots)
        #expect(cache.statistics.bytesWithoutRoom == 0 && cache.tableFault == nil && cache.statistics.corrupt == 0)
        #expect(cache.statistics.blocksHeld > 60 * slots)
    }

    /// None of its segments is in the file, and it may have none.
    @Test func aCacheThatMayTakeNothingHoldsNothing() throws {
        let harness = try harness(segments: 12)
        let cache = try #require(harness.cache)
        cache.boundFile(bytesMax: 0)
        try fill(harness, 0..<200)
        try harness.synchronize()
        #expect(cache.statistics.blocksHeld == 0 && cache.tableFault == nil && !cache.statistics.isDegraded)
        cache.boundFile(bytesMax: .max)
        try fill(harness, 0..<64)
        #expect(try harness.read(0..<64) == CacheHarness.blocks(0..<64, 1))
    }

    /// Those that are free when it ends are its own, though nobody has written down that the file has them.
    @Test(arguments: [true, false]) func aBoundedCacheKeepsItsRoomOverRestarts(cutsPower: Bool) throws {
        let harness = try harness(segments: 60)
        let slots = try UInt64(#require(harness.cache).geometry.slotCount)
        for round in 0..<10 as Range<UInt64> {
            let cache = try #require(harness.cache)
            cache.boundFile(bytesMax: UInt64(Self.bytes(20)))
            try fill(harness, round * 10_000..<round * 10_000 + 60 * slots)
            try harness.synchronize()
            #expect(cache.statistics.blocksHeld >= 14 * slots, "round \(round): \(cache.statistics)")
            #expect(cache.statistics.bytesWithoutRoom == UInt64(40 * Self.segmentBytes) && cache.tableFault == nil)
            #expect(harness.file.content.dropFirst(Self.bytes(20)).allSatisfy { $0 == 0 }, "round \(round)")
            harness.crash(power: cutsPower)
            try harness.open()
        }
    }

    /// The bridge, a free segment behind the end (SecureCache+Size), may find no room either. It is not kept for another try: the tables end before it.
    @Test(arguments: 1..<30 as Range<UInt64>) func aBridgeWithoutRoomIsNotTriedAgain(seed: UInt64) throws {
        let harness = try harness(segments: 8, seed: seed)
        let cache = try #require(harness.cache)
        let slots = UInt64(cache.geometry.slotCount)
        harness.byteCount = Self.bytes(40)
        try cache.resize(to: UInt64(harness.byteCount))
        // All before the next end is full, and some behind it; the last segment is still being written.
        try fill(harness, 0..<14 * slots)
        cache.insert(harness.volume, block: 1_000, data: CacheHarness.blocks(1_000..<1_008, 1))
        harness.machine.faults.lacksRoomFor = "cache"
        for segments in [10, 8, 6, 20, 7] {
            harness.byteCount = Self.bytes(segments)
            try cache.resize(to: UInt64(harness.byteCount))
            #expect(cache.withoutRoom.allSatisfy { $0 < cache.end })
            for _ in 0..<harness.random.below(40) { _ = harness.scheduler.step() }
            try #require(cache.withoutRoom.allSatisfy { $0 < cache.end })
            harness.scheduler.runUntilIdle()
            try #require(cache.withoutRoom.allSatisfy { $0 < cache.end })
            #expect(cache.geometry.segmentCount == segments)
        }
        harness.machine.faults.lacksRoomFor = nil
        try fill(harness, 20_000..<20_000 + 20 * slots)
        try harness.synchronize()
        #expect(cache.statistics.bytesWithoutRoom == 0 && cache.statistics.corrupt == 0)
    }

    /// None of its segments has room: each round of the owner tries one.
    @Test func aCacheThatBeginsOnAFullFileSystemWaits() throws {
        let harness = try harness(segments: 12)
        let cache = try #require(harness.cache)
        let disk = harness.file
        var cut = false
        disk.truncate(to: 4096) { _ in cut = true }
        harness.scheduler.runUntilIdle()
        #expect(cut)
        harness.machine.faults.lacksRoomFor = "cache"
        for _ in 0..<5 {
            try fill(harness, 0..<64)
            try harness.synchronize()
        }
        #expect(!cache.statistics.isDegraded && cache.statistics.bytesWithoutRoom > 0)
        harness.machine.faults.lacksRoomFor = nil
        for _ in 0..<3 {
            try fill(harness, 0..<64)
            try harness.synchronize()
        }
        #expect(cache.statistics.bytesWithoutRoom == 0)
        #expect(try harness.read(0..<64) == CacheHarness.blocks(0..<64, 1))
    }

    @Test func aSizeThatIsTooSmallBecomesTheSmallestThatWorks() throws {
        let harness = try CacheHarness()
        // Segments of 128 KiB.
        harness.byteCount = 16 << 20
        try harness.open()
        try fill(harness, 0..<64)
        try harness.synchronize()
        let smallest = UInt64(4096 + 6 * (128 << 10))
        harness.crash(power: false)
        harness.byteCount = 256 << 10
        #expect(try harness.open().statistics.byteCount == smallest)
        #expect(try harness.read(0..<64) == CacheHarness.blocks(0..<64, 1))
        try fill(harness, 100..<400)
        try harness.synchronize()
        #expect(harness.file.content.count == Int(smallest))
        // A device that is no larger gets another cache, with smaller segments.
        harness.crash(power: false)
        harness.byteCount = 512 << 10
        harness.limits.deviceBytes = 512 << 10
        let cache = try harness.open()
        #expect(cache.statistics.byteCount <= 512 << 10 && cache.statistics.blocksHeld == 0)
        try fill(harness, 0..<64)
        #expect(try harness.read(0..<64) == CacheHarness.blocks(0..<64, 1))
    }

    /// What is noted while the cache can't be opened is bounded over all volumes.
    @Test func whatIsMissedIsBounded() throws {
        let harness = try harness(segments: 30)
        let third = VolumeIdentifier(high: 7, low: 8)
        var cache = try #require(harness.cache)
        cache.attach(volume: third, key: harness.otherKey, generation: 1)
        harness.volumeKeys[third] = [1: harness.otherKey]
        for volume in [harness.volume, harness.other, third] {
            cache.insert(volume, block: 0, data: CacheHarness.blocks(0..<8, 1))
        }
        try harness.synchronize()
        harness.crash(power: false)
        harness.limits.missedRangesMax = 50
        harness.machine.faults.failsReads = true
        let standIn = try harness.open()
        standIn.attach(volume: third, key: harness.otherKey, generation: 1)
        #expect(standIn.isUnusable)
        for number in 0..<30 as Range<UInt64> {
            standIn.insert(harness.volume, block: 100 + number * 2, data: CacheHarness.block(number, 2))
            standIn.invalidate(harness.other, blocks: 100 + number * 2..<101 + number * 2)
            #expect(standIn.missedRanges <= 50)
        }
        #expect(standIn.index[harness.volume]?.missed.isEverything == true && standIn.index[harness.other]?.missed.isEverything == true)
        harness.machine.faults.failsReads = false
        cache = try harness.open(attaching: false)
        cache.takeOver(from: standIn)
        for volume in [harness.volume, harness.other] { #expect(try harness.read(0..<8, of: volume) == nil) }
        // Of one that did not change nothing is forgotten.
        #expect(try harness.read(0..<8, of: third) == CacheHarness.blocks(0..<8, 1))
    }

    /// The file is cut after a start; meanwhile the cache has become smaller still.
    @Test(arguments: 1..<30 as Range<UInt64>) func theFileIsCutAtTheLastEnd(seed: UInt64) throws {
        let harness = try harness(segments: 40, seed: seed)
        try fill(harness, 0..<400)
        try harness.synchronize()
        harness.crash(power: false)
        harness.byteCount = Self.bytes(36)
        let cache = try harness.open()
        for _ in 0..<harness.random.below(6) { _ = harness.scheduler.step() }
        let segments = Int(harness.random.within(8...34))
        harness.byteCount = Self.bytes(segments)
        try cache.resize(to: UInt64(harness.byteCount))
        cache.synchronize { _ in }
        harness.scheduler.runUntilIdle()
        #expect(cache.statistics.byteCount == UInt64(harness.byteCount))
        #expect(harness.file.content.count <= harness.byteCount)
    }

    // MARK: Names

    /// How many blocks of a range were names in the table.
    private func taken(_ blocks: Range<UInt64>, from ghosts: inout CacheGhosts) -> Int {
        var count = 0
        for block in blocks where ghosts.take(1, block) { count += 1 }
        return count
    }

    @Test func aLargeTableOfNamesIsHalvedInSteps() {
        var ghosts = CacheGhosts(entries: 8 * 5 * CacheGhosts.stepBuckets)
        let byteCount = ghosts.byteCount
        for block in 0..<4_000 as Range<UInt64> { ghosts.insert(1, block) }
        let begins = ghosts.halve()
        let beginsAgain = ghosts.halve()
        #expect(begins && !beginsAgain, "one at a time")
        #expect(abs(ghosts.byteCount - byteCount / 2) < 64)
        var later = 0
        for step in 0..<8 as Range<UInt64> {
            // What comes and goes meanwhile is found where it is.
            let start = 10_000 + step * 100
            for block in start..<start + 100 { ghosts.insert(1, block) }
            let found = taken(start..<start + 50, from: &ghosts)
            #expect(found >= 48)
            ghosts.goOnHalving()
        }
        #expect(abs(ghosts.byteCount - byteCount / 2) < 64)
        let early = taken(0..<4_000, from: &ghosts)
        #expect(early > 3_900)
        for step in 0..<8 as Range<UInt64> { later += taken(10_050 + step * 100..<10_100 + step * 100, from: &ghosts) }
        #expect(later > 380)
        let halvesOnceMore = ghosts.halve()
        #expect(halvesOnceMore && ghosts.halvings == 2)
    }

    @Test func aTableThatWasHalvedStaysSoInAnotherSize() {
        var ghosts = CacheGhosts(entries: 4_096)
        while ghosts.halve() {}
        ghosts.resize(entries: 8_192)
        #expect(ghosts.halvings == CacheGhosts.halvingsMax)
        #expect(abs(ghosts.byteCount - CacheGhosts(entries: 1_024).byteCount) < 64)
        let halvesOnceMore = ghosts.halve()
        #expect(!halvesOnceMore)
    }
}
