import Blocks
import NIOCore
import SimulatedStorage
import Testing

@testable import SecureCache

/// What a cache keeps of its division when it has less room than that needs: it is small, or its file system is full or needed by write logs.
@Suite struct CachePromiseTests: CachePools {
    /// A cache that starts smaller than its division needs serves, says so, and keeps it again once it is large enough.
    @Test func aDivisionThatDoesNotFitIsLoosenedUntilItDoes() throws {
        let harness = try harness { $1.shares[$0.volume] = Self.share(pins: [0..<200]) }
        try fill(harness, harness.volume, 0..<200)
        try harness.synchronize()
        harness.crash(power: false)
        harness.byteCount = Self.bytes(20)
        let cache = try harness.open()
        #expect(cache.isLoosened)
        try churn(harness, harness.other)
        #expect(try held(harness, harness.volume, 0..<200) < 200)
        try cache.resize(to: UInt64(Self.bytes(40)))
        #expect(!cache.isLoosened)
        try fill(harness, harness.volume, 0..<200)
        try fill(harness, harness.other, 20_000..<23_000)
        #expect(try held(harness, harness.volume, 0..<200) == 200)
        try check(harness)
    }

    /// What is promised is checked against the room that there is, and others have theirs.
    @Test func promisesCountOnSegmentsThatHaveRoomOnly() throws {
        let harness = try harness(segments: 60) { $1.shares[$0.volume] = Self.share(pins: [0..<300]) }
        let cache = try #require(harness.cache)
        #expect(!cache.isLoosened)
        cache.boundFile(bytesMax: UInt64(Self.bytes(16)))
        #expect(cache.isLoosened)
        // 16 less 2 that are free and 6 to work with: 8 segments are promised, three quarters of which are pinned.
        #expect(cache.loosening?.pinnedBlocks == 300 - 90)
        try fill(harness, harness.volume, 0..<300)
        try fill(harness, harness.other, 10_000..<10_300)
        #expect(try held(harness, harness.other, 10_000..<10_300) >= 60)
        #expect(cache.pinnedBlocksHeld(of: harness.volume) == 90)
        #expect(try held(harness, harness.volume, 0..<90) == 90)
        try check(harness)
        var more = harness.division
        more.shares[harness.other] = Self.share(guaranteed: 10)
        #expect(throws: CacheError.self) { try cache.divide(more) }
        // What promises less and would fit in no cache is refused too.
        var less = harness.division
        less.shares[harness.volume] = Self.share(guaranteed: 2)
        less.shares[harness.volume]?.bytesMax = 1
        #expect(throws: CacheError.self) { try cache.divide(less) }
        // A full file system is no other.
        cache.boundFile(bytesMax: .max)
        #expect(!cache.isLoosened)
        try fill(harness, harness.volume, 0..<300)
        harness.machine.faults.lacksRoomFor = "cache"
        try fill(harness, harness.other, 20_000..<21_000)
        #expect(try held(harness, harness.other, 20_000..<21_000) >= 60)
        harness.machine.faults.lacksRoomFor = nil
        try fill(harness, harness.other, 40_000..<43_000)
        #expect(!cache.isLoosened && cache.statistics.bytesWithoutRoom == 0)
        try fill(harness, harness.volume, 0..<300)
        try churn(harness, harness.other)
        #expect(cache.pinnedBlocksHeld(of: harness.volume) == 300)
        try check(harness)
    }

    /// One segment more or less changes no promise.
    @Test func promisesCountInSteps() throws {
        let harness = try CacheHarness()
        harness.byteCount = Self.bytes(200)
        harness.limits = CacheLimits(unwrittenBytesMax: 1 << 20, segmentBytes: Self.segmentBytes, writeBytes: 32 << 10)
        let cache = try harness.open()
        for (segments, counted) in [(199, 192), (192, 192), (191, 184), (100, 100), (99, 96), (20, 20), (3, 3), (0, 0), (200, 200)] {
            cache.boundFile(bytesMax: UInt64(Self.bytes(segments)))
            #expect(cache.plannableCount(end: cache.end) == counted, "\(segments)")
            #expect(cache.plannedCount == counted && cache.tableFault == nil)
        }
        cache.boundFile(bytesMax: UInt64(Self.bytes(100)))
        // Only a good deal more is worth it.
        cache.boundFile(bytesMax: UInt64(Self.bytes(108)))
        #expect(cache.plannedCount == 100)
        cache.boundFile(bytesMax: UInt64(Self.bytes(120)))
        #expect(cache.plannedCount == 120)
    }

    /// Neither guarantee can be kept beside the other: they are lowered one after the other.
    @Test func aDivisionThatDoesNotFitIsMendedInSteps() throws {
        let harness = try harness(segments: 24) {
            $1.shares[$0.volume] = Self.share(guaranteed: 30)
            $1.shares[$0.other] = Self.share(guaranteed: 30)
        }
        let cache = try #require(harness.cache)
        #expect(cache.isLoosened)
        var division = harness.division
        division.shares[harness.volume] = Self.share(guaranteed: 31)
        #expect(throws: CacheError.self) { try cache.divide(division) }
        division.shares[harness.volume] = nil
        try cache.divide(division)
        #expect(cache.isLoosened)
        division.shares[harness.other] = Self.share(guaranteed: 8)
        try cache.divide(division)
        #expect(!cache.isLoosened)
        division.shares[harness.other] = Self.share(guaranteed: 30)
        #expect(throws: CacheError.self) { try cache.divide(division) }
        try check(harness)
    }
}
