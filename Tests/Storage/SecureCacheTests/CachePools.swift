import Blocks
import NIOCore
import SimulatedStorage
import Testing

@testable import SecureCache

/// What tests of pins, shares and partitions have in common. Segments have 15 blocks.
protocol CachePools {}

extension CachePools {
    static var segmentBytes: Int { 64 << 10 }

    func harness(segments: Int = 48, seed: UInt64 = 1, _ divide: (CacheHarness, inout CacheDivision) -> Void) throws -> CacheHarness {
        let harness = try CacheHarness(seed: seed)
        harness.byteCount = Self.bytes(segments)
        divide(harness, &harness.division)
        try harness.open()
        return harness
    }

    static func bytes(_ segments: Int) -> Int { 4096 + segments * segmentBytes }
    static func share(
        partition: String? = nil, guaranteed: Int = 0, most: Int? = nil, pins: [Range<UInt64>] = []
    ) -> CacheDivision.Share {
        var share = CacheDivision.Share()
        share.partition = partition
        share.guaranteedBytes = UInt64(guaranteed * segmentBytes)
        share.bytesMax = most.map { UInt64($0 * segmentBytes) }
        share.pins = pins
        return share
    }

    /// Inserts blocks in runs of eight, as reads that miss do.
    func fill(_ harness: CacheHarness, _ volume: VolumeIdentifier, _ blocks: Range<UInt64>, generation: UInt64 = 1) throws {
        let cache = try #require(harness.cache)
        for first in stride(from: blocks.lowerBound, to: blocks.upperBound, by: 8) {
            let run = first..<min(first + 8, blocks.upperBound)
            cache.insert(volume, block: run.lowerBound, data: CacheHarness.blocks(run, generation))
            harness.scheduler.runUntilIdle()
        }
    }

    /// Inserts blocks that are asked for again and again, more than there is room for: all that nobody asks for leaves, of the main queue, too.
    func churn(_ harness: CacheHarness, _ volume: VolumeIdentifier) throws {
        for _ in 0..<8 { try fill(harness, volume, 30_000..<30_900) }
    }

    func held(_ harness: CacheHarness, _ volume: VolumeIdentifier, _ blocks: Range<UInt64>) throws -> Int {
        let cache = try #require(harness.cache)
        return blocks.count { cache.contains(volume, block: $0) }
    }

    func check(_ harness: CacheHarness) throws {
        let cache = try #require(harness.cache)
        #expect(cache.tableFault == nil)
        #expect(cache.statistics.corrupt == 0)
    }
}
