import Blocks
import NIOCore
import SimulatedStorage
import Testing

@testable import SecureCache

/// Pins, shares and partitions (C4) of a cache that works.
@Suite struct CachePoolTests: CachePools {
    // MARK: Pins

    @Test func aPinnedRangeSurvivesAScanOfThreeTimesTheCache() throws {
        let harness = try harness { $1.shares[$0.volume] = Self.share(pins: [0..<100, 200..<300]) }
        try fill(harness, harness.volume, 0..<300)
        try fill(harness, harness.other, 10_000..<12_200)
        #expect(try held(harness, harness.volume, 0..<100) == 100)
        #expect(try held(harness, harness.volume, 200..<300) == 100)
        #expect(try held(harness, harness.volume, 100..<200) == 0)
        let cache = try #require(harness.cache)
        #expect(cache.pinnedBlocksHeld(of: harness.volume) == 200)
        // They lie together, and are not written again and again.
        let moved = cache.statistics.moved
        try fill(harness, harness.other, 20_000..<22_200)
        #expect(cache.statistics.moved - moved < 100)
        for block in 0..<100 as Range<UInt64> { #expect(try harness.read(block..<block + 1) == CacheHarness.block(block, 1)) }
        try check(harness)
    }

    /// Blocks that were here before they were pinned, in segments of all kinds of blocks.
    @Test func whatIsHereIsPinnedWhereItIs() throws {
        let harness = try harness { _, _ in }
        try fill(harness, harness.volume, 0..<300)
        var division = CacheDivision()
        division.shares[harness.volume] = Self.share(pins: (0..<30).map { $0 * 10..<$0 * 10 + 3 })
        try #require(harness.cache).divide(division)
        try fill(harness, harness.other, 10_000..<13_000)
        for block in 0..<300 as Range<UInt64> {
            #expect(try harness.read(block..<block + 1) == (block % 10 < 3 ? CacheHarness.block(block, 1) : nil))
        }
        try check(harness)
    }

    /// Pinned blocks that are written again leave gaps; these must not eat the cache.
    @Test func gapsAmongPinnedBlocksAreClosed() throws {
        // As many as may be pinned: 40 segments with the gaps.
        let harness = try harness { $1.shares[$0.volume] = Self.share(pins: [0..<435]) }
        let cache = try #require(harness.cache)
        try fill(harness, harness.volume, 0..<435)
        let random = harness.random
        var generations = [UInt64](repeating: 1, count: 435)
        for round in 2..<1_000 as Range<UInt64> {
            let block = random.below(435)
            cache.insert(harness.volume, block: block, data: CacheHarness.block(block, round))
            generations[Int(block)] = round
            cache.insert(harness.other, block: 1_000 + round, data: CacheHarness.block(1_000 + round, 1))
            if round % 3 == 0 { harness.scheduler.runUntilIdle() }
        }
        harness.scheduler.runUntilIdle()
        for block in 0..<435 as Range<UInt64> {
            #expect(try harness.read(block..<block + 1) == CacheHarness.block(block, generations[Int(block)]), "block \(block)")
        }
        #expect(try held(harness, harness.other, 0..<2_000) >= 30)
        #expect(cache.statistics.dropped == 0)
        try check(harness)
    }

    @Test func whatIsNotPinnedAnyMoreLeaves() throws {
        let harness = try harness { $1.shares[$0.volume] = Self.share(pins: [0..<300]) }
        try fill(harness, harness.volume, 0..<300)
        harness.division.shares[harness.volume]?.pins = [0..<50]
        try #require(harness.cache).divide(harness.division)
        try churn(harness, harness.other)
        #expect(try held(harness, harness.volume, 0..<300) == 50)
        try check(harness)
        try #require(harness.cache).divide(CacheDivision())
        try churn(harness, harness.other)
        #expect(try held(harness, harness.volume, 0..<300) == 0)
        try check(harness)
    }

    /// Also of a volume that is attached late. Its blocks may lie together, or among others.
    @Test(arguments: [true, false]) func pinsHoldOverARestart(isGathered: Bool) throws {
        let harness = try harness { $1.shares[$0.volume] = Self.share(pins: isGathered ? [0..<200] : []) }
        if isGathered { try fill(harness, harness.volume, 0..<200) }
        for block in 0..<200 as Range<UInt64> where !isGathered {
            harness.cache?.insert(harness.volume, block: block, data: CacheHarness.block(block, 1))
            harness.cache?.insert(harness.other, block: block, data: CacheHarness.block(block, 1))
            harness.scheduler.runUntilIdle()
        }
        harness.division.shares[harness.volume] = Self.share(pins: [0..<200])
        try harness.synchronize()
        harness.crash(power: true)
        let cache = try harness.open(attaching: false)
        cache.attach(volume: harness.other, key: harness.otherKey, generation: 1)
        try fill(harness, harness.other, 10_000..<13_000)
        cache.attach(volume: harness.volume, key: harness.volumeKey, generation: 1)
        #expect(try held(harness, harness.volume, 0..<200) == 200)
        try fill(harness, harness.other, 20_000..<23_000)
        for block in 0..<200 as Range<UInt64> { #expect(try harness.read(block..<block + 1) == CacheHarness.block(block, 1)) }
        try check(harness)
    }

    @Test func aDetachedVolumeHasNoPins() throws {
        let harness = try harness { _, _ in }
        try fill(harness, harness.volume, 0..<200)
        try harness.synchronize()
        harness.division.shares[harness.volume] = Self.share(pins: (0..<100).map { $0 * 2..<$0 * 2 + 1 })
        harness.crash(power: true)
        let cache = try harness.open(attaching: false)
        cache.attach(volume: harness.other, key: harness.otherKey, generation: 1)
        try fill(harness, harness.other, 10_000..<13_000)
        #expect(cache.pinnedBlocksHeld(of: harness.volume) == 100)
        cache.detach(volume: harness.volume)
        #expect(cache.division.shares.isEmpty)
        try fill(harness, harness.other, 20_000..<21_000)
        // Besides what an older scan has left in the main queue.
        let held = try held(harness, harness.other, 10_000..<21_000)
        #expect(held > 600, "\(held)")
        try check(harness)
    }

    // MARK: Another size

    /// Of one that never came in this run, too; and of one that left while another cache stood in.
    @Test func theShareOfAVolumeThatWillNotComeIsForgotten() throws {
        let other = VolumeIdentifier(high: 9, low: 9)
        let harness = try harness {
            $1.shares = [$0.volume: Self.share(guaranteed: 6), other: Self.share(pins: [0..<30])]
        }
        let cache = try #require(harness.cache)
        cache.detach(volume: other)
        #expect(cache.division.shares.keys.map(\.self) == [harness.volume])
        try harness.synchronize()
        harness.crash(power: false)
        harness.machine.faults.failsReads = true
        let standIn = try harness.open()
        #expect(standIn.isUnusable && standIn.division.shares.count == 2)
        standIn.detach(volume: harness.volume)
        harness.machine.faults.failsReads = false
        let found = try harness.open(attaching: false)
        found.takeOver(from: standIn)
        #expect(found.division.shares.keys.map(\.self) == [other])
        found.forgetShare(of: other)
        #expect(found.division == CacheDivision() && found.statistics(ofShare: harness.volume) == nil)
        try check(harness)
    }

    @Test func pinsSurviveASmallerSizeAndForbidOneThatIsTooSmall() throws {
        let harness = try harness { $1.shares[$0.volume] = Self.share(pins: [0..<200]) }
        let cache = try #require(harness.cache)
        try fill(harness, harness.volume, 0..<200)
        try fill(harness, harness.other, 10_000..<13_000)
        // 18 segments are promised, 6 to work with, 2 that are free.
        let refused = CacheError.division(
            .tooMuchPromised(
                partition: nil, promisedBytes: UInt64(18 * Self.segmentBytes), promisedBytesMax: UInt64(17 * Self.segmentBytes)))
        #expect(throws: refused) { try cache.resize(to: UInt64(Self.bytes(25))) }
        #expect(cache.geometry.segmentCount == 48)
        try cache.resize(to: UInt64(Self.bytes(26)))
        harness.scheduler.runUntilIdle()
        #expect(cache.geometry.segmentCount == 26)
        #expect(try held(harness, harness.volume, 0..<200) == 200)
        try fill(harness, harness.other, 20_000..<21_000)
        #expect(try held(harness, harness.volume, 0..<200) == 200)
        for block in 0..<200 as Range<UInt64> { #expect(try harness.read(block..<block + 1) == CacheHarness.block(block, 1)) }
        try check(harness)
    }

    /// Pinned blocks that are still among all others are there after the cut, too.
    @Test func scatteredPinsSurviveASmallerSize() throws {
        for seed in 1..<20 as Range<UInt64> {
            let harness = try harness(seed: seed) { _, _ in }
            let cache = try #require(harness.cache)
            try fill(harness, harness.volume, 0..<660)
            let pinned = (0..<660 as Range<UInt64>).filter { cache.contains(harness.volume, block: $0) && $0 % 5 == 0 }
            var division = CacheDivision()
            division.shares[harness.volume] = Self.share(pins: pinned.map { $0..<$0 + 1 })
            try cache.divide(division)
            try cache.resize(to: UInt64(Self.bytes(24)))
            for _ in 0..<harness.random.below(50) { _ = harness.scheduler.step() }
            harness.scheduler.runUntilIdle()
            #expect(cache.geometry.segmentCount == 24)
            #expect(cache.pinnedBlocksHeld(of: harness.volume) == UInt64(pinned.count), "seed \(seed)")
            try check(harness)
        }
    }

    @Test func pinnedZeroesAreHeld() throws {
        let harness = try harness { $1.shares[$0.volume] = Self.share(pins: [0..<20, 40..<50]) }
        let cache = try #require(harness.cache)
        try fill(harness, harness.volume, 0..<8)
        cache.insertZeroes(harness.volume, blocks: 16..<45)
        #expect(cache.pinnedBlocksHeld(of: harness.volume) == 8 + 4 + 5)
    }

    // MARK: Shares

    @Test func aVolumeAtItsMaximumEvictsItsOwn() throws {
        let harness = try harness { $1.shares[$0.volume] = Self.share(most: 10) }
        let cache = try #require(harness.cache)
        try fill(harness, harness.other, 10_000..<10_200)
        try fill(harness, harness.volume, 0..<2_000)
        #expect(try held(harness, harness.other, 10_000..<10_200) == 200)
        let mine = try held(harness, harness.volume, 0..<2_000)
        #expect(mine > 90 && mine <= 150, "\(mine)")
        #expect(try held(harness, harness.volume, 1_950..<2_000) == 50, "the youngest stay")
        let statistics = try #require(cache.statistics(ofShare: harness.volume))
        #expect(statistics.heldBytes <= UInt64(10 * Self.segmentBytes) && statistics.segmentsGivenAtBound > 100)
        #expect(cache.statistics.dropped == 0)
        // What is used of it resists a scan of its own, as in a cache of that size: nine times what it may have here.
        try fill(harness, harness.volume, 5_000..<5_030)
        for _ in 0..<2 { for block in 5_000..<5_030 as Range<UInt64> { _ = try harness.read(block..<block + 1) } }
        try fill(harness, harness.volume, 6_000..<7_000)
        #expect(try held(harness, harness.volume, 5_000..<5_030) == 30)
        try check(harness)
    }

    @Test func othersDoNotTakeAGuarantee() throws {
        let harness = try harness { $1.shares[$0.volume] = Self.share(guaranteed: 12) }
        let cache = try #require(harness.cache)
        // Nobody asks for any of it again.
        try fill(harness, harness.volume, 0..<150)
        try fill(harness, harness.other, 10_000..<13_000)
        #expect(try held(harness, harness.volume, 0..<150) == 150)
        // What is more than guaranteed goes like all else.
        try fill(harness, harness.volume, 200..<500)
        try fill(harness, harness.other, 20_000..<23_000)
        let left = try held(harness, harness.volume, 0..<500)
        #expect(left >= 130 && left <= 180, "\(left)")
        #expect(try #require(cache.statistics(ofShare: harness.volume)).heldBytes >= UInt64(11 * Self.segmentBytes))
        // And with all the cache for itself it may have it.
        cache.detach(volume: harness.other)
        try fill(harness, harness.volume, 1_000..<2_000)
        #expect(try held(harness, harness.volume, 0..<2_000) > 500)
        try check(harness)
    }

    // MARK: Partitions

    @Test func aDedicatedPartitionNeitherTakesNorLoses() throws {
        let harness = try harness {
            $1.partitions["own"] = UInt64(14 * Self.segmentBytes)
            $1.shares[$0.volume] = Self.share(partition: "own")
        }
        let cache = try #require(harness.cache)
        try fill(harness, harness.volume, 0..<150)
        try fill(harness, harness.other, 10_000..<13_000)
        #expect(try held(harness, harness.volume, 0..<150) == 150)
        let theirs = try held(harness, harness.other, 10_000..<13_000)
        try fill(harness, harness.volume, 1_000..<4_000)
        #expect(try held(harness, harness.other, 10_000..<13_000) >= theirs - 45, "besides what was borrowed")
        let own = try held(harness, harness.volume, 0..<4_000)
        #expect(own > 150 && own <= 14 * 15)
        #expect(try #require(cache.statistics(ofPartition: "own")).heldBytes <= UInt64(14 * Self.segmentBytes))
        // It comes to the same after a crash.
        try harness.synchronize()
        harness.crash(power: true)
        let again = try harness.open()
        #expect(try #require(again.statistics(ofPartition: "own")).heldBytes >= UInt64(10 * Self.segmentBytes))
        try fill(harness, harness.other, 20_000..<23_000)
        #expect(try held(harness, harness.volume, 0..<4_000) >= own - 30)
        try check(harness)
    }

    /// In a partition there are shares as in the cache.
    @Test func aShareInAPartition() throws {
        let third = VolumeIdentifier(high: 7, low: 7)
        let harness = try harness {
            $1.partitions["own"] = UInt64(30 * Self.segmentBytes)
            $1.shares[$0.volume] = Self.share(partition: "own", guaranteed: 10)
            $1.shares[$0.other] = Self.share(partition: "own")
        }
        let cache = try #require(harness.cache)
        cache.attach(volume: third, key: harness.otherKey, generation: 1)
        try fill(harness, harness.volume, 0..<120)
        try fill(harness, third, 50_000..<50_050)
        try fill(harness, harness.other, 10_000..<13_000)
        #expect(try held(harness, harness.volume, 0..<120) == 120)
        #expect(try held(harness, third, 50_000..<50_050) == 50)
        try check(harness)
    }

    /// A volume that goes over to another partition takes with it what is used.
    @Test func aVolumeMovesToAnotherPartition() throws {
        let harness = try harness { $1.partitions["own"] = UInt64(14 * Self.segmentBytes) }
        let cache = try #require(harness.cache)
        try fill(harness, harness.volume, 0..<100)
        for block in 0..<50 as Range<UInt64> { _ = try harness.read(block..<block + 1) }
        harness.division.shares[harness.volume] = Self.share(partition: "own")
        try cache.divide(harness.division)
        try fill(harness, harness.other, 10_000..<14_000)
        #expect(try held(harness, harness.volume, 0..<50) == 50)
        #expect(try held(harness, harness.volume, 50..<100) == 0)
        try check(harness)
        // The partition goes; what is there is the shared one's.
        try cache.divide(CacheDivision())
        try check(harness)
        try churn(harness, harness.other)
        #expect(try held(harness, harness.volume, 0..<100) == 0)
        try check(harness)
    }

    /// Many pools fill many segments at once, which must not take all the memory for what is not written.
    @Test func manySharesWriteALittleAtATime() throws {
        let harness = try CacheHarness()
        harness.byteCount = 4096 + 600 * Self.segmentBytes
        harness.limits = CacheLimits(unwrittenBytesMax: 1 << 20, segmentBytes: Self.segmentBytes, writeBytes: 60 << 10)
        let volumes = (0..<60 as Range<UInt64>).map { VolumeIdentifier(high: 100, low: $0) }
        for volume in volumes { harness.division.shares[volume] = Self.share(most: 6) }
        let cache = try harness.open()
        #expect(!cache.isLoosened)
        for volume in volumes { cache.attach(volume: volume, key: harness.otherKey, generation: 1) }
        for round in 0..<40 as Range<UInt64> {
            for volume in volumes { cache.insert(volume, block: round, data: CacheHarness.block(round, 1)) }
            harness.scheduler.runUntilIdle()
        }
        #expect(cache.statistics.dropped == 0)
        for volume in volumes { #expect(try held(harness, volume, 0..<40) == 40) }
        try check(harness)
    }

    /// Anything goes: shares, pins, partitions and sizes change while blocks come, go and are written again, and the machine dies now and then.
    @Test(arguments: 1..<25 as Range<UInt64>) func anythingAtAnyTime(seed: UInt64) throws {
        let harness = try harness(segments: 40, seed: seed) { _, _ in }
        let random = harness.random
        var model: [VolumeIdentifier: [UInt64: UInt64]] = [harness.volume: [:], harness.other: [:]]
        var generation: UInt64 = 1
        for _ in 0..<400 {
            let cache = try #require(harness.cache)
            let volume = random.below(2) == 0 ? harness.volume : harness.other
            let block = random.below(700)
            switch random.below(20) {
            case 0: try change(&harness.division, cache, volume, random)
            case 1 where random.below(2) == 0: cache.boundFile(bytesMax: UInt64(Self.bytes(Int(random.below(60)))))
            case 1: try? cache.resize(to: UInt64(Self.bytes(Int(14 + random.below(40)))))
            case 2:
                cache.invalidate(volume, blocks: block..<block + 20)
                for block in block..<block + 20 { model[volume]?[block] = nil }
            case 3 where random.below(4) == 0:
                harness.scheduler.runUntilIdle()
                try harness.synchronize()
                harness.byteCount = Int(cache.statistics.byteCountWanted)
                harness.crash(power: random.below(2) == 0)
                try harness.open()
                if harness.cache?.isLoosened == true { harness.division = CacheDivision() }
                try harness.cache?.divide(harness.division)
            default:
                generation += 1
                let run = block..<block + 1 + random.below(24)
                cache.insert(volume, block: block, data: CacheHarness.blocks(run, generation))
                for block in run { model[volume]?[block] = generation }
            }
            let read = random.below(700)
            if let bytes = try? harness.read(read..<read + 1, of: volume) {
                #expect(bytes == CacheHarness.block(read, model[volume]?[read] ?? 0), "block \(read)")
            }
            for _ in 0..<random.below(60) { _ = harness.scheduler.step() }
        }
        harness.scheduler.runUntilIdle()
        try check(harness)
        for (volume, blocks) in model {
            for block in 0..<724 as Range<UInt64> {
                guard let bytes = try harness.read(block..<block + 1, of: volume) else { continue }
                #expect(bytes == CacheHarness.block(block, blocks[block] ?? 0), "block \(block)")
            }
        }
    }

    private func change(_ division: inout CacheDivision, _ cache: Cache, _ volume: VolumeIdentifier, _ random: SeededRandom) throws {
        var changed = division
        switch random.below(4) {
        case 0: changed.partitions["a"] = random.below(3) == 0 ? nil : UInt64((6 + Int(random.below(10))) * Self.segmentBytes)
        default:
            changed.shares[volume] = Self.share(
                partition: random.below(2) == 0 ? "a" : nil, guaranteed: random.below(2) == 0 ? Int(random.below(8)) : 0,
                most: random.below(2) == 0 ? 8 + Int(random.below(10)) : nil,
                pins: (0..<random.below(3)).map { _ in
                    let start = random.below(600)
                    return start..<start + 1 + random.below(60)
                })
        }
        do throws(CacheError) {
            try cache.divide(changed)
            division = changed
        } catch {
            guard case .division = error else { throw error }
        }
    }
}
