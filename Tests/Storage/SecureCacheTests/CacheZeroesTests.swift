import Blocks
import NIOCore
import SimulatedStorage
import Testing

@testable import SecureCache

/// Blocks that are zeroes and come as data, as those of points do: the machine wrote them.
@Suite struct CacheZeroesTests {
    /// How many slots the segments say count, and how many the volumes have.
    private func slotsUsed(_ cache: Cache) -> (bySegments: Int, byVolumes: UInt64) {
        (cache.segments.reduce(0) { $0 + Int($1.liveCount) }, cache.index.blockCount)
    }

    @Test func blocksThatAreZeroesTakeNoRoom() throws {
        let harness = try CacheHarness()
        let cache = try harness.open()
        cache.insert(harness.volume, block: 0, data: CacheHarness.blocks(0..<8, 1))
        #expect(slotsUsed(cache) == (8, 8))
        // Blocks 1, 3, 4 and 6 are zeroes, and replace data; the others stay data.
        var data = zeroBlock
        data.writeImmutableBuffer(CacheHarness.block(2, 2))
        data.writeRepeatingByte(0, count: 2 * 4096)
        data.writeImmutableBuffer(CacheHarness.block(5, 2))
        data.writeRepeatingByte(0, count: 4096)
        cache.insert(harness.volume, block: 1, data: data)
        #expect(cache.statistics.zeroes == 4 && cache.statistics.inserted == 14 && cache.statistics.dropped == 0)
        for isAfterCrash in [false, true] {
            if isAfterCrash {
                try harness.synchronize()
                #expect(cache.statistics.unwrittenBytes == 0)
                harness.crash(power: true)
                try harness.open()
            }
            let cache = try #require(harness.cache)
            #expect(slotsUsed(cache) == (4, 4))
            #expect(try harness.read(1..<7) == data)
            #expect(try harness.read(0..<1) == CacheHarness.block(0, 1))
            #expect(try harness.read(7..<8) == CacheHarness.block(7, 1))
            #expect(cache.allocation(harness.volume, block: 3) == .deallocated)
            #expect(cache.allocation(harness.volume, block: 5) == .mapped)
        }
        // And the other way: what was zeroes is bytes again.
        harness.cache?.insert(harness.volume, block: 3, data: CacheHarness.block(3, 3))
        #expect(try harness.read(3..<4) == CacheHarness.block(3, 3))
        #expect(try harness.read(4..<5) == zeroBlock)
        #expect(harness.cache?.blocksHeld(of: harness.volume) == 5)
    }

    /// Zeroes over bytes that are durable, and bytes over zeroes: a crash before the next `synchronize` shows either, never a mixture,
    /// and after it only the last.
    @Test(arguments: [true, false]) func zeroesOverBytesAreDurableWhenToldSo(isSynchronized: Bool) throws {
        for seed in 0..<20 as Range<UInt64> {
            let harness = try CacheHarness(seed: seed)
            let cache = try harness.open()
            cache.insert(harness.volume, block: 0, data: CacheHarness.blocks(0..<4, 1))
            cache.insert(harness.volume, block: 4, data: ByteBuffer(repeating: 0, count: 4 * 4096))
            try harness.synchronize()
            cache.insert(harness.volume, block: 0, data: ByteBuffer(repeating: 0, count: 4 * 4096))
            cache.insert(harness.volume, block: 4, data: CacheHarness.blocks(4..<8, 2))
            if isSynchronized { try harness.synchronize() }
            for _ in 0..<seed { _ = harness.scheduler.step() }
            harness.crash(power: true)
            let again = try harness.open()
            for block in 0..<8 as Range<UInt64> {
                let old = block < 4 ? CacheHarness.block(block, 1) : zeroBlock
                let new = block < 4 ? zeroBlock : CacheHarness.block(block, 2)
                let read = try harness.read(block..<block + 1)
                if isSynchronized { #expect(read == new) } else { #expect(read == nil || read == old || read == new) }
            }
            let used = slotsUsed(again)
            #expect(used.bySegments == Int(used.byVolumes))
        }
    }

    /// Runs of zeroes are in memory, so there is a limit to them; a block of zeroes beyond it is kept as others are.
    @Test func runsOfZeroesAreBounded() throws {
        let harness = try CacheHarness()
        harness.limits.zeroExtentsMax = 3
        let cache = try harness.open()
        for block in [0, 2, 4, 6, 8] as [UInt64] { cache.insert(harness.volume, block: block, data: zeroBlock) }
        #expect(cache.blocksHeld(of: harness.volume) == 2)
        #expect(cache.statistics.zeroes == 3)
        for block in [0, 2, 4, 6, 8] as [UInt64] { #expect(try harness.read(block..<block + 1) == zeroBlock) }
    }

    /// They count in the memory of the index, which no run of zeroes takes it over.
    @Test func runsOfZeroesStayInTheMemoryOfTheIndex() throws {
        let harness = try CacheHarness()
        let cache = try harness.open()
        let most = cache.limits.indexBytesMax(cacheBytes: cache.geometry.byteCount)
        // Two volumes, so that the limit of each is no help.
        for volume in [harness.volume, harness.other] {
            for block in 0..<200_000 as Range<UInt64> { cache.insertZeroes(volume, blocks: block * 2..<block * 2 + 1) }
        }
        #expect(cache.statistics.indexBytes <= most)
        #expect(cache.statistics.dropped > 0)
        #expect(try harness.read(0..<1) == zeroBlock)
        #expect(try harness.read(399_998..<399_999, of: harness.other) == nil)
    }
}
