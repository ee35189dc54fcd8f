import Blocks
import NIOCore
import SimulatedStorage
import Testing

@testable import SecureCache

/// Another size while the cache serves (C5).
@Suite struct CacheSizeTests {
    private static let segmentBytes = 64 << 10

    private func harness(segments: Int, seed: UInt64 = 1) throws -> CacheHarness {
        let harness = try CacheHarness(seed: seed)
        harness.byteCount = Self.bytes(segments)
        try harness.open()
        return harness
    }

    private static func bytes(_ segments: Int) -> Int { 4096 + segments * segmentBytes }

    private func resize(_ harness: CacheHarness, to segments: Int) throws {
        harness.byteCount = Self.bytes(segments)
        try #require(harness.cache).resize(to: UInt64(harness.byteCount))
    }

    /// Inserts blocks in runs of eight, as reads that miss do.
    private func fill(_ harness: CacheHarness, _ blocks: Range<UInt64>, generation: UInt64 = 1) throws {
        let cache = try #require(harness.cache)
        for first in stride(from: blocks.lowerBound, to: blocks.upperBound, by: 8) {
            let run = first..<min(first + 8, blocks.upperBound)
            cache.insert(harness.volume, block: run.lowerBound, data: CacheHarness.blocks(run, generation))
            harness.scheduler.runUntilIdle()
        }
    }

    private func held(_ harness: CacheHarness, _ blocks: Range<UInt64>) throws -> [UInt64] {
        let cache = try #require(harness.cache)
        return blocks.filter { cache.contains(harness.volume, block: $0) }
    }

    @Test func aSmallerCacheKeepsWhatIsUsedAndGivesRoomBack() throws {
        let harness = try harness(segments: 40)
        let cache = try #require(harness.cache)
        try fill(harness, 0..<560)
        // Used, and all over the cache.
        let used = try held(harness, 0..<560).filter { $0 % 7 == 0 }
        #expect(used.count > 60)
        for block in used { #expect(try harness.read(block..<block + 1) == CacheHarness.block(block, 1)) }
        var resized: [UInt64] = []
        cache.onResized = { resized.append($0) }
        try resize(harness, to: 12)
        #expect(cache.statistics.byteCount == UInt64(Self.bytes(40)) && cache.statistics.byteCountWanted == UInt64(Self.bytes(12)))
        #expect(cache.statistics.bytesToEmpty > 0)
        harness.scheduler.runUntilIdle()
        #expect(resized == [UInt64(Self.bytes(12))])
        #expect(cache.statistics.byteCount == UInt64(Self.bytes(12)) && cache.statistics.bytesToEmpty == 0)
        #expect(harness.file.content.count <= Self.bytes(12))
        // Nothing before the new end was free: the first segment that went there made room for the blocks of all others.
        let kept = try held(harness, 0..<560).filter { used.contains($0) }
        #expect(kept.count >= used.count - (cache.geometry.slotCount + 6) / 7)
        for block in kept { #expect(try harness.read(block..<block + 1) == CacheHarness.block(block, 1), "block \(block)") }
        #expect(cache.statistics.blocksHeld <= UInt64(12 * cache.geometry.slotCount))
        try harness.synchronize()
        harness.crash(power: true)
        try harness.open()
        for block in kept { #expect(try harness.read(block..<block + 1) == CacheHarness.block(block, 1), "block \(block)") }
    }

    /// Slots take more bits in a larger cache, also those of blocks whose neighbours were put there before.
    @Test func aLargerCacheTakesMoreAtOnce() throws {
        let harness = try harness(segments: 8)
        let cache = try #require(harness.cache)
        let width = cache.geometry.slotWidth
        // Every other block: leaves that are ranked.
        for block in 0..<100 as Range<UInt64> {
            cache.insert(harness.volume, block: block * 2, data: CacheHarness.block(block * 2, 1))
            harness.scheduler.runUntilIdle()
        }
        let before = try held(harness, 0..<200)
        #expect(before.count > 64)
        try resize(harness, to: 200)
        #expect(cache.statistics.byteCount == UInt64(Self.bytes(200)) && cache.geometry.slotWidth > width)
        for block in 100..<1_000 as Range<UInt64> {
            cache.insert(harness.volume, block: block * 2, data: CacheHarness.block(block * 2, 1))
            if block % 8 == 0 { harness.scheduler.runUntilIdle() }
        }
        for block in before { cache.insert(harness.volume, block: block, data: CacheHarness.block(block, 2)) }
        harness.scheduler.runUntilIdle()
        for block in before { #expect(try harness.read(block..<block + 1) == CacheHarness.block(block, 2)) }
        #expect(try held(harness, 200..<2_000).count == 900)
        for block in 100..<1_000 as Range<UInt64> {
            #expect(try harness.read(block * 2..<block * 2 + 1) == CacheHarness.block(block * 2, 1))
        }
        try harness.synchronize()
        harness.crash(power: true)
        #expect(try harness.open().statistics.blocksHeld == UInt64(before.count + 900))
    }

    @Test func sizesThatCannotBeAreRefused() throws {
        let harness = try CacheHarness()
        harness.byteCount = Self.bytes(7)
        harness.limits.deviceBytes = UInt64(Self.bytes(16))
        let cache = try harness.open()
        #expect(throws: CacheError.tooSmall(bytesNeeded: UInt64(Self.bytes(6)))) { try cache.resize(to: UInt64(Self.bytes(5))) }
        #expect(throws: CacheError.tooLarge(bytesMax: UInt64(Self.bytes(16)))) { try cache.resize(to: UInt64(Self.bytes(17))) }
        #expect(throws: CacheError.tooSmall(bytesNeeded: UInt64(Self.bytes(6)))) { try cache.checkSize(UInt64(Self.bytes(5))) }
        #expect(throws: CacheError.tooLarge(bytesMax: UInt64(Self.bytes(16)))) { try cache.checkSize(UInt64(Self.bytes(17))) }
        try cache.checkSize(UInt64(Self.bytes(16)))
        #expect(cache.geometry.segmentCount == 7 && cache.statistics.byteCountWanted == cache.statistics.byteCount)
        // A device is not cut.
        try fill(harness, 0..<100)
        try cache.resize(to: UInt64(Self.bytes(16)))
        try fill(harness, 0..<240)
        let size = harness.file.content.count
        try cache.resize(to: UInt64(Self.bytes(6)))
        harness.scheduler.runUntilIdle()
        #expect(cache.statistics.byteCount == UInt64(Self.bytes(6)) && harness.file.content.count == size)
    }

    /// A cache that is made smaller and then larger again, or another size than asked for first, comes to the last.
    @Test func theLastSizeCounts() throws {
        let harness = try harness(segments: 32)
        let cache = try #require(harness.cache)
        try fill(harness, 0..<450)
        var resized: [UInt64] = []
        cache.onResized = { resized.append($0) }
        for segments in [8, 20, 6, 40, 10, 24] {
            try resize(harness, to: segments)
            for _ in 0..<20 { _ = harness.scheduler.step() }
        }
        harness.scheduler.runUntilIdle()
        #expect(resized.last == UInt64(Self.bytes(24)) && cache.geometry.segmentCount == 24)
        try fill(harness, 2_000..<2_300)
        for block in try held(harness, 0..<2_300) { #expect(try harness.read(block..<block + 1) == CacheHarness.block(block, 1)) }
        #expect(cache.statistics.corrupt == 0)
        var free = 0
        for (number, segment) in cache.segments.enumerated() where segment.state == .free {
            #expect(cache.freeSegments.contains(number), "segment \(number) is lost")
            free += 1
        }
        #expect(free == cache.freeSegments.count)
    }
}
