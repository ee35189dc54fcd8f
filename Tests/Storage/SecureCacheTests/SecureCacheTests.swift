import Blocks
import Ciphers
import NIOCore
import SimulatedStorage
import Testing

@testable import SecureCache

@Suite struct SecureCacheTests {
    @Test func readsBackWhatWasInserted() throws {
        let harness = try CacheHarness()
        let cache = try harness.open()
        cache.insert(harness.volume, block: 10, data: CacheHarness.blocks(10..<30, 1))
        cache.insert(harness.other, block: 10, data: CacheHarness.blocks(10..<12, 2))
        cache.insertZeroes(harness.volume, blocks: 30..<34)
        // At once, from memory.
        #expect(try harness.read(10..<30) == CacheHarness.blocks(10..<30, 1))
        try harness.synchronize()
        #expect(cache.statistics.unwrittenBytes == 0)
        for _ in 0..<6 {
            #expect(try harness.read(10..<30) == CacheHarness.blocks(10..<30, 1))
            #expect(try harness.read(15..<16) == CacheHarness.block(15, 1))
            #expect(try harness.read(10..<12, of: harness.other) == CacheHarness.blocks(10..<12, 2))
            #expect(try harness.read(33..<34) == zeroBlock)
        }
        #expect(try harness.read(29..<35) == nil)
        #expect(try harness.read(9..<11) == nil)
        #expect(cache.residentRuns(harness.volume, blocks: 0..<40) == [10..<34])
        #expect(cache.statistics.corrupt == 0)
        #expect(cache.statistics.blocksHeld == 22)
    }

    @Test func theLastChangeCounts() throws {
        let harness = try CacheHarness()
        let cache = try harness.open()
        for generation in 1...3 as ClosedRange<UInt64> {
            cache.insert(harness.volume, block: 4, data: CacheHarness.block(4, generation))
            #expect(try harness.read(4..<5) == CacheHarness.block(4, generation))
            if generation == 2 { try harness.synchronize() }
        }
        cache.insertZeroes(harness.volume, blocks: 0..<100)
        #expect(try harness.read(4..<5) == zeroBlock)
        cache.insert(harness.volume, block: 50, data: CacheHarness.block(50, 4))
        #expect(
            try harness.read(49..<52)
                == {
                    var all = zeroBlock
                    all.writeImmutableBuffer(CacheHarness.block(50, 4))
                    all.writeImmutableBuffer(zeroBlock)
                    return all
                }())
        cache.invalidate(harness.volume, blocks: 3..<5)
        #expect(cache.residentRuns(harness.volume, blocks: 0..<10) == [0..<3, 5..<10])
        try harness.synchronize()
        harness.crash(power: true)
        let again = try harness.open()
        #expect(again.residentRuns(harness.volume, blocks: 0..<200) == [0..<3, 5..<100])
        #expect(try harness.read(50..<51) == CacheHarness.block(50, 4))
        #expect(again.statistics.blocksHeld == 1)
    }

    @Test func survivesARestartOnlyWithItsKeys() throws {
        let harness = try CacheHarness()
        let cache = try harness.open()
        cache.insert(harness.volume, block: 0, data: CacheHarness.blocks(0..<70, 1))
        try harness.synchronize()
        harness.crash(power: true)
        let second = try harness.open(attaching: false)
        #expect(!second.contains(harness.volume, block: 3))
        #expect(try harness.read(0..<1) == nil)
        second.attach(volume: harness.volume, key: harness.volumeKey, generation: 1)
        #expect(try harness.read(0..<70) == CacheHarness.blocks(0..<70, 1))
        harness.crash(power: false)
        // Another volume key opens nothing, and nothing is handed out.
        let third = try harness.open(attaching: false)
        third.attach(volume: harness.volume, key: harness.otherKey, generation: 1)
        #expect(try harness.read(7..<8) == nil)
        #expect(third.blocksHeld(of: harness.volume) == 0 && third.statistics.corrupt == 0)
        harness.crash(power: false)
        // Another edge key finds a cache without blocks.
        harness.edgeKey = try SecretKey([UInt8](repeating: 9, count: 32))
        let fourth = try harness.open()
        #expect(fourth.statistics.blocksHeld == 0)
        #expect(fourth.statistics.segmentsSkipped > 0)
        fourth.insert(harness.volume, block: 1, data: CacheHarness.block(1, 5))
        try harness.synchronize()
        #expect(try harness.read(1..<2) == CacheHarness.block(1, 5))
    }

    /// A rotated key: what was sealed under the old one is forgotten, also when a crash forgets that it was.
    @Test(arguments: [true, false]) func anotherGenerationOfTheKeyForgetsTheBlocks(isSynchronized: Bool) throws {
        let harness = try CacheHarness()
        let cache = try harness.open()
        cache.insert(harness.volume, block: 0, data: CacheHarness.blocks(0..<70, 1))
        cache.insert(harness.other, block: 0, data: CacheHarness.blocks(0..<10, 2))
        cache.insertZeroes(harness.volume, blocks: 100..<110)
        cache.setCurrent(harness.volume, through: 4)
        try harness.synchronize()
        let key = try SecretKey([UInt8](repeating: 4, count: 32))
        harness.volumeKeys[harness.volume]?[2] = key
        cache.attach(volume: harness.volume, key: key, generation: 2)
        #expect(cache.blocksHeld(of: harness.volume) == 0 && !cache.contains(harness.volume, block: 105))
        #expect(cache.require(harness.volume, through: 4), "it knows of the point, though it has nothing of it")
        #expect(try harness.read(0..<10, of: harness.other) == CacheHarness.blocks(0..<10, 2))
        cache.insert(harness.volume, block: 3, data: CacheHarness.block(3, 5))
        if isSynchronized { try harness.synchronize() }
        harness.crash(power: true)
        let again = try harness.open(attaching: false)
        again.attach(volume: harness.volume, key: key, generation: 2)
        #expect(try harness.read(3..<4) == (isSynchronized ? CacheHarness.block(3, 5) : nil))
        #expect(try harness.read(4..<5) == nil)
        #expect(again.statistics.corrupt == 0)
        // A home from before the rotation knows the old key only.
        again.attach(volume: harness.volume, key: harness.volumeKey, generation: 1)
        #expect(again.blocksHeld(of: harness.volume) == 0)
    }

    @Test func detachingForgetsForGood() throws {
        let harness = try CacheHarness()
        let cache = try harness.open()
        cache.insert(harness.volume, block: 0, data: CacheHarness.blocks(0..<10, 1))
        cache.insert(harness.other, block: 0, data: CacheHarness.blocks(0..<10, 2))
        try harness.synchronize()
        cache.insert(harness.volume, block: 20, data: CacheHarness.blocks(20..<24, 1))
        cache.detach(volume: harness.volume)
        #expect(!cache.contains(harness.volume, block: 0))
        try harness.synchronize()
        harness.crash(power: true)
        let again = try harness.open()
        #expect(again.residentRuns(harness.volume, blocks: 0..<30) == [])
        #expect(try harness.read(0..<10, of: harness.other) == CacheHarness.blocks(0..<10, 2))
    }

    @Test func theOldestMakeRoom() throws {
        let harness = try CacheHarness()
        let cache = try harness.open()
        for block in 0..<600 as Range<UInt64> {
            cache.insert(harness.volume, block: block, data: CacheHarness.block(block, 1))
            harness.scheduler.runUntilIdle()
        }
        let held = cache.residentRuns(harness.volume, blocks: 0..<600)
        // A few that were taken for blocks that come back are in the main queue, and stay longer.
        #expect(held.last.map { $0.upperBound == 600 && $0.count > 100 } == true)
        #expect((150..<240).contains(held.reduce(0) { $0 + $1.count }))
        #expect(cache.statistics.evicted > 300)
        for block in held.joined() { #expect(try harness.read(block..<block + 1) == CacheHarness.block(block, 1)) }
        #expect(cache.statistics.corrupt == 0)
    }

    @Test func anInsertionBeyondTheLimitForgets() throws {
        let harness = try CacheHarness()
        harness.limits.unwrittenBytesMax = 16 * 4096
        let cache = try harness.open()
        cache.insert(harness.volume, block: 100, data: CacheHarness.block(100, 1))
        try harness.synchronize()
        for block in 0..<40 as Range<UInt64> { cache.insert(harness.volume, block: block, data: CacheHarness.block(block, 1)) }
        cache.insert(harness.volume, block: 100, data: CacheHarness.block(100, 2))
        #expect(cache.residentRuns(harness.volume, blocks: 0..<200) == [0..<16])
        #expect(cache.statistics.dropped == 25)
        try harness.synchronize()
        harness.crash(power: true)
        #expect(
            try harness.open().residentRuns(harness.volume, blocks: 0..<200) == [0..<16], "the older block must not come back")
    }

    @Test func damageIsAMissAndIsCounted() throws {
        let harness = try CacheHarness()
        let cache = try harness.open()
        cache.insert(harness.volume, block: 0, data: CacheHarness.blocks(0..<4, 1))
        try harness.synchronize()
        let slot = Int(cache.geometry.offset(ofSlot: 2, in: 0))
        harness.file.flipBit(at: slot + 1234)
        #expect(try harness.read(0..<4) == nil)
        #expect(cache.statistics.corrupt == 1)
        #expect(cache.residentRuns(harness.volume, blocks: 0..<4) == [0..<2, 3..<4])
        #expect(try harness.read(3..<4) == CacheHarness.block(3, 1))
        try harness.synchronize()
        harness.crash(power: true)
        #expect(try harness.open().residentRuns(harness.volume, blocks: 0..<4) == [0..<2, 3..<4])
    }

    @Test func aReadOfASegmentThatIsReusedIsAMiss() throws {
        let harness = try CacheHarness()
        harness.machine.faults.residentPercent = 0
        let cache = try harness.open()
        cache.insert(harness.volume, block: 0, data: CacheHarness.blocks(0..<15, 1))
        try harness.synchronize()
        // A read that takes as long as everything that comes now.
        harness.machine.faults.latencyMicroseconds = 60_000_000...60_000_000
        var result: Result<ByteBuffer, CacheMiss>?
        CacheHarness.read(cache, harness.volume, 3..<4) { result = $0 }
        harness.machine.faults.latencyMicroseconds = 10...100
        let slot = try #require(cache.index[harness.volume]?.map.slot(of: 3))
        let sequence = cache.segments[cache.geometry.segment(of: slot)].sequence
        for block in 1000..<1400 as Range<UInt64> {
            cache.insert(harness.volume, block: block, data: CacheHarness.block(block, 1))
            _ = harness.scheduler.run(until: harness.scheduler.now + .milliseconds(5))
        }
        #expect(result == nil)
        #expect(cache.segments[cache.geometry.segment(of: slot)].sequence != sequence, "the segment must have been freed")
        harness.scheduler.runUntilIdle()
        #expect(throws: CacheMiss.self) { try #require(result).get() }
        #expect(cache.statistics.corrupt == 0, "a block that went elsewhere is not a damaged one")
        #expect(try harness.read(3..<4) == CacheHarness.block(3, 1), "it was asked for, so it stayed")
    }

    @Test func aFailingDiskCostsBlocksAndNotService() throws {
        let harness = try CacheHarness()
        let cache = try harness.open()
        cache.insert(harness.volume, block: 0, data: CacheHarness.blocks(0..<10, 1))
        try harness.synchronize()
        harness.machine.faults.failsWrites = true
        cache.insert(harness.volume, block: 5, data: CacheHarness.block(5, 2))
        #expect(throws: CacheError.self) { try harness.synchronize() }
        #expect(cache.statistics.isDegraded)
        #expect(try harness.read(0..<5) == CacheHarness.blocks(0..<5, 1))
        #expect(!cache.contains(harness.volume, block: 5), "the older block must not come back")
        cache.insert(harness.volume, block: 6, data: CacheHarness.block(6, 3))
        #expect(!cache.contains(harness.volume, block: 6))
        #expect(throws: CacheError.self) { try harness.synchronize() }
        harness.machine.faults.failsWrites = false
        try harness.synchronize()
        #expect(!cache.statistics.isDegraded)
        cache.insert(harness.volume, block: 7, data: CacheHarness.block(7, 4))
        try harness.synchronize()
        harness.crash(power: true)
        let again = try harness.open()
        #expect(
            again.residentRuns(harness.volume, blocks: 0..<10) == [0..<5, 7..<10], "what could not be kept is forgotten, and only that")
        #expect(try harness.read(7..<8) == CacheHarness.block(7, 4))
    }

    /// A cache whose device can't be read serves nothing and fails nothing; when it is opened again with the device in order, what
    /// it had counts as far as the volume says that it is current.
    @Test func aDeviceThatCannotBeReadIsAnEmptyCache() throws {
        let harness = try CacheHarness()
        try harness.open().insert(harness.volume, block: 0, data: CacheHarness.blocks(0..<10, 1))
        harness.cache?.setCurrent(harness.volume, through: 1)
        try harness.synchronize()
        harness.crash(power: false)
        harness.machine.faults.failsReads = true
        let cache = try harness.open()
        #expect(cache.statistics.isDegraded && cache.statistics.blocksHeld == 0)
        cache.require(harness.volume, through: 1)
        for block in 0..<2_000 as Range<UInt64> { cache.insert(harness.volume, block: block, data: CacheHarness.block(block, 2)) }
        #expect(cache.statistics.unwrittenBytes == 0 && cache.residentRuns(harness.volume, blocks: 0..<2_000).isEmpty)
        cache.setCurrent(harness.volume, through: 2)
        #expect(throws: CacheError.self) { try harness.synchronize() }
        harness.machine.faults.failsReads = false
        harness.crash(power: false)
        let again = try harness.open()
        #expect(again.residentRuns(harness.volume, blocks: 0..<10) == [0..<10])
        #expect(!again.require(harness.volume, through: 2))
        #expect(again.residentRuns(harness.volume, blocks: 0..<10).isEmpty, "it missed what point 2 changed")
    }

    /// A cache that can be read after all takes over from the one that stood in for it, without what changed meanwhile; and without
    /// anything when it was an old copy already.
    @Test(arguments: [1, 2] as [PointNumber]) func aCacheTakesOverFromOneThatStoodIn(required: PointNumber) throws {
        let harness = try CacheHarness()
        try harness.open().insert(harness.volume, block: 0, data: CacheHarness.blocks(0..<40, 1))
        harness.cache?.setCurrent(harness.volume, through: 1)
        try harness.synchronize()
        harness.crash(power: false)
        harness.machine.faults.failsReads = true
        let standIn = try harness.open()
        #expect(standIn.isUnusable)
        standIn.require(harness.volume, through: required)
        standIn.insert(harness.volume, block: 3, data: CacheHarness.block(3, 2))
        standIn.insertZeroes(harness.volume, blocks: 5..<7)
        standIn.setCurrent(harness.volume, through: 3)
        // Half of point 4 has come.
        standIn.invalidate(harness.volume, blocks: 10..<12)
        harness.machine.faults.failsReads = false
        let found = try harness.open(attaching: false)
        found.takeOver(from: standIn)
        let kept: [Range<UInt64>] = required == 1 ? [0..<3, 4..<5, 7..<10, 12..<40] : []
        #expect(found.residentRuns(harness.volume, blocks: 0..<40) == kept)
        try harness.synchronize()
        harness.crash(power: true)
        let again = try harness.open()
        #expect(again.require(harness.volume, through: 3) && again.residentRuns(harness.volume, blocks: 0..<40) == kept)
    }

    @Test func hugeRangesOfZeroesTakeNoRoom() throws {
        let harness = try CacheHarness()
        let cache = try harness.open()
        cache.insert(harness.volume, block: 77, data: CacheHarness.block(77, 1))
        cache.insertZeroes(harness.volume, blocks: 0..<(1 << 40))
        #expect(try harness.read(77..<78) == zeroBlock)
        #expect(cache.contains(harness.volume, block: 1 << 39))
        cache.invalidate(harness.volume, blocks: 5..<(1 << 40))
        #expect(cache.residentRuns(harness.volume, blocks: 0..<100) == [0..<5])
        try harness.synchronize()
        harness.crash(power: true)
        #expect(try harness.open().residentRuns(harness.volume, blocks: 0..<100) == [0..<5])
        cache.insertZeroes(harness.volume, blocks: UInt64.max - 5..<UInt64.max)
        #expect(!cache.contains(harness.volume, block: UInt64.max - 3))
    }

    @Test func showsNoPlaintextAndNoVolume() throws {
        let harness = try CacheHarness()
        let cache = try harness.open()
        let pattern = Array("CUSTOMER SECRET!".utf8)
        cache.insert(harness.volume, block: 3, data: ByteBuffer(bytes: (0..<16 * 4096).map { pattern[$0 % 16] }))
        try harness.synchronize()
        let bytes = harness.machine.allBytes.flatMap { $0 }
        let name: [UInt8] = [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88]
        for start in 0..<bytes.count - 8 where bytes[start] == pattern[0] || bytes[start] == name[0] {
            #expect(!bytes[start..<start + 8].elementsEqual(pattern[0..<8]))
            #expect(!bytes[start..<start + 8].elementsEqual(name))
        }
    }

    @Test func aCacheOfAnotherSizeKeepsWhatFits() throws {
        let harness = try CacheHarness()
        let cache = try harness.open()
        cache.insert(harness.volume, block: 0, data: CacheHarness.blocks(0..<150, 1))
        try harness.synchronize()
        let last = cache.geometry.segmentCount
        harness.crash(power: false)
        harness.byteCount = 6 * (128 << 10)
        let smaller = try harness.open()
        #expect(smaller.geometry.segmentCount == last - 4)
        // Room is made ahead of need there too: the oldest segment may go.
        let held = smaller.residentRuns(harness.volume, blocks: 0..<200)
        #expect(held.count == 1 && held[0].lowerBound <= 15 && held[0].upperBound == 150)
        #expect(try harness.read(held[0]) == CacheHarness.blocks(held[0], 1))
        try harness.synchronize()
        harness.crash(power: false)
        harness.byteCount = 12 * (128 << 10)
        #expect(try harness.open().residentRuns(harness.volume, blocks: 0..<200) == held)
        #expect(try harness.read(held[0]) == CacheHarness.blocks(held[0], 1))
        var tooSmall: Result<Cache, CacheError>?
        Cache.open(
            file: harness.machine.disk("small", byteCount: 100), directory: harness.machine.directory("small"), byteCount: 100,
            keys: harness.keys, random: harness.random.source
        ) { tooSmall = $0 }
        harness.scheduler.runUntilIdle()
        #expect(throws: CacheError.tooSmall(bytesNeeded: 6 * 65536 + 4096)) { try #require(tooSmall).get() }
    }
}
