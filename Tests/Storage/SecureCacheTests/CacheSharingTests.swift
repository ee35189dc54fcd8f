import Blocks
import Ciphers
import NIOCore
import SimulatedStorage
import Testing

@testable import SecureCache

/// Equal blocks are stored once, and each volume has them as if they were its own.
@Suite struct CacheSharingTests {
    private func harness(seed: UInt64 = 1) throws -> CacheHarness {
        let harness = try CacheHarness(seed: seed)
        harness.limits.sharesBlocks = true
        return harness
    }

    /// What the tables say of each other is so.
    private func expectConsistent(_ cache: Cache, _ comment: Comment? = nil) {
        #expect(cache.tableFault == nil, comment)
    }

    /// Two volumes with the same eight blocks.
    private func shared(journalBytes: Int = CacheLimits().journalBytes) throws -> CacheHarness {
        let harness = try harness()
        harness.limits.journalBytes = journalBytes
        let cache = try harness.open()
        cache.insert(harness.volume, block: 0, data: CacheHarness.blocks(0..<8, 1))
        try harness.synchronize()
        cache.insert(harness.other, block: 100, data: CacheHarness.blocks(0..<8, 1))
        try harness.synchronize()
        return harness
    }

    @Test func theSecondCopyIsShared() throws {
        let harness = try shared()
        let cache = try #require(harness.cache)
        #expect(cache.statistics.sharedBlocks == 8 && cache.statistics.sharedReferences == 16 && cache.statistics.shared == 8)
        // A third one costs a record only.
        cache.insert(harness.volume, block: 200, data: CacheHarness.blocks(0..<8, 1))
        #expect(cache.unwrittenBytes == 0)
        #expect(cache.statistics.sharedReferences == 24 && cache.statistics.blocksHeld == 24)
        for _ in 0..<6 {
            #expect(try harness.read(0..<8) == CacheHarness.blocks(0..<8, 1))
            #expect(try harness.read(200..<208) == CacheHarness.blocks(0..<8, 1))
            #expect(try harness.read(100..<108, of: harness.other) == CacheHarness.blocks(0..<8, 1))
        }
        expectConsistent(cache)
        #expect(cache.statistics.corrupt == 0)
    }

    @Test(arguments: [true, false]) func referencesAreCountedAgainAfterACrash(hasCheckpoint: Bool) throws {
        let harness = try shared()
        var cache = try #require(harness.cache)
        cache.insert(harness.volume, block: 3, data: CacheHarness.block(3, 2))
        cache.invalidate(harness.other, blocks: 104..<106)
        cache.insertZeroes(harness.volume, blocks: 4..<5)
        if hasCheckpoint { cache.journal.wantsCheckpoint = true }
        try harness.synchronize()
        try harness.synchronize()
        harness.crash(power: true)
        cache = try harness.open()
        expectConsistent(cache)
        // Block 4 has no reference left; of the others 3 and 5 have one, and five have two.
        #expect(cache.statistics.sharedBlocks == 7 && cache.statistics.sharedReferences == 12)
        #expect(try harness.read(3..<4) == CacheHarness.block(3, 2))
        #expect(try harness.read(103..<104, of: harness.other) == CacheHarness.block(3, 1))
        #expect(try harness.read(4..<5) == zeroBlock)
        #expect(try harness.read(104..<105, of: harness.other) == nil)
        // What is known from before is shared with what comes.
        cache.insert(harness.other, block: 300, data: CacheHarness.block(7, 1))
        #expect(cache.unwrittenBytes == 0)
        #expect(try harness.read(300..<301, of: harness.other) == CacheHarness.block(7, 1))
    }

    /// A block that was replaced before it was written is not what its signature says any more.
    @Test func whatWasReplacedInMemoryIsNotShared() throws {
        let harness = try harness()
        let cache = try harness.open()
        cache.insert(harness.volume, block: 0, data: CacheHarness.block(0, 1))
        cache.insert(harness.volume, block: 0, data: CacheHarness.block(0, 2))
        cache.insert(harness.other, block: 9, data: CacheHarness.block(0, 1))
        #expect(try harness.read(0..<1) == CacheHarness.block(0, 2))
        #expect(try harness.read(9..<10, of: harness.other) == CacheHarness.block(0, 1))
        #expect(cache.statistics.sharedBlocks == 0)
        expectConsistent(cache)
    }

    /// A volume's key is destroyed: nothing of it can be read or found, and its neighbour has what it had.
    @Test func shreddingOneVolumeLeavesTheOther() throws {
        let harness = try shared()
        var cache = try #require(harness.cache)
        // Shared within one volume: nobody else has these.
        cache.insert(harness.volume, block: 20, data: CacheHarness.blocks(20..<22, 1))
        cache.insert(harness.volume, block: 30, data: CacheHarness.blocks(20..<22, 1))
        try harness.synchronize()
        #expect(cache.statistics.sharedBlocks == 10)
        harness.crash(power: false)
        harness.volumeKeys[harness.volume] = nil
        cache = try harness.open(attaching: false)
        cache.attach(volume: harness.other, key: harness.otherKey, generation: 1)
        #expect(cache.index[harness.volume] == nil)
        #expect(cache.statistics.sharedBlocks == 8 && cache.statistics.sharedReferences == 8, "the signatures of the others are gone")
        #expect(try harness.read(100..<108, of: harness.other) == CacheHarness.blocks(0..<8, 1))
        expectConsistent(cache)
        // While it runs: the volume goes, and the other one reads on.
        let again = try shared()
        again.cache?.detach(volume: again.volume)
        #expect(try again.read(100..<108, of: again.other) == CacheHarness.blocks(0..<8, 1))
        expectConsistent(try #require(again.cache))
    }

    @Test func whatIsSharedIsReadWhenNoMoreIsShared() throws {
        let harness = try shared()
        harness.crash(power: false)
        harness.limits.sharesBlocks = false
        let cache = try harness.open()
        #expect(try harness.read(0..<8) == CacheHarness.blocks(0..<8, 1))
        cache.insert(harness.other, block: 300, data: CacheHarness.block(7, 1))
        #expect(cache.statistics.shared == 0 && cache.statistics.sharedReferences == 16)
        #expect(try harness.read(300..<301, of: harness.other) == CacheHarness.block(7, 1))
        expectConsistent(cache)
    }

    /// Beyond what one may have a block is there once more.
    @Test func aBlockHasSoManyReferencesAndNoMore() throws {
        let harness = try harness()
        let cache = try harness.open()
        for block in 0..<100 as Range<UInt64> { cache.insert(harness.volume, block: block, data: CacheHarness.block(0, 1)) }
        #expect(cache.statistics.sharedBlocks == 2 && cache.statistics.sharedReferences == 100)
        for block in 0..<100 as Range<UInt64> { #expect(try harness.read(block..<block + 1) == CacheHarness.block(0, 1)) }
        expectConsistent(cache)
    }

    private func division(_ harness: CacheHarness, _ names: [String], _ body: (inout CacheDivision.Share) -> Void) -> CacheDivision {
        var division = CacheDivision()
        for name in names { division.partitions[name] = 8 * (64 << 10) }
        for volume in [harness.volume, harness.other] {
            var share = CacheDivision.Share()
            body(&share)
            division.shares[volume] = share
        }
        return division
    }

    /// The number of a partition is another one while there is one before it: what is replaced then is replaced for all.
    @Test func partitionsThatComeAndGoLeaveNoOldSignatures() throws {
        let harness = try harness()
        harness.byteCount = 4096 + 48 * (64 << 10)
        harness.division = division(harness, ["gold"]) { $0.partition = "gold" }
        let cache = try harness.open()
        cache.insert(harness.volume, block: 5, data: CacheHarness.block(0, 1))
        try cache.divide(division(harness, ["archive", "gold"]) { $0.partition = "gold" })
        cache.insert(harness.volume, block: 5, data: CacheHarness.block(0, 2))
        try cache.divide(harness.division)
        cache.insert(harness.other, block: 9, data: CacheHarness.block(0, 1))
        #expect(try harness.read(5..<6) == CacheHarness.block(0, 2))
        #expect(try harness.read(9..<10, of: harness.other) == CacheHarness.block(0, 1))
        expectConsistent(cache)
    }

    /// A neighbour that has the same and much more takes nothing of what is guaranteed.
    @Test func aNeighbourDoesNotEmptyAGuarantee() throws {
        let harness = try harness()
        harness.byteCount = 4096 + 48 * (64 << 10)
        var share = CacheDivision.Share()
        share.guaranteedBytes = 16 * (64 << 10)
        harness.division.shares[harness.volume] = share
        let cache = try harness.open()
        func fill(_ volume: VolumeIdentifier, _ blocks: Range<UInt64>) {
            for block in blocks {
                cache.insert(volume, block: block, data: CacheHarness.block(block, 1))
                if block % 8 == 0 { harness.scheduler.runUntilIdle() }
            }
        }
        fill(harness.volume, 0..<120)
        fill(harness.other, 0..<120)
        #expect(cache.statistics.sharedReferences > 200)
        fill(harness.other, 10_000..<12_000)
        let held = (0..<120 as Range<UInt64>).count { cache.contains(harness.volume, block: $0) }
        #expect(held == 120)
        expectConsistent(cache)
    }

    private func fill(_ harness: CacheHarness, _ volume: VolumeIdentifier, _ blocks: some Sequence<UInt64>, _ version: UInt64 = 1) {
        for (number, block) in blocks.enumerated() {
            harness.cache?.insert(volume, block: block, data: CacheHarness.block(block, version))
            if number % 8 == 7 { harness.scheduler.runUntilIdle() }
        }
        harness.scheduler.runUntilIdle()
    }

    /// Nor does one that has every second block of it, and leaves it segments that are half empty.
    @Test func aNeighbourWithEverySecondBlockDoesNotThinAGuarantee() throws {
        let harness = try harness()
        harness.byteCount = 4096 + 48 * (128 << 10)
        var share = CacheDivision.Share()
        share.guaranteedBytes = 16 * (128 << 10)
        share.bytesMax = 16 * (128 << 10)
        harness.division.shares[harness.volume] = share
        let cache = try harness.open()
        let blocks = 0..<UInt64(12 * cache.geometry.slotCount)
        fill(harness, harness.volume, blocks)
        fill(harness, harness.other, stride(from: 0, to: blocks.upperBound, by: 2))
        #expect(cache.statistics.sharedReferences > blocks.upperBound / 2)
        fill(harness, harness.other, 10_000..<12_000)
        fill(harness, harness.volume, 20_000..<20_000 + UInt64(cache.geometry.slotCount))
        let held = blocks.count { cache.contains(harness.volume, block: $0) }
        #expect(held == blocks.count, "\(held) of \(blocks.count)")
        expectConsistent(cache)
    }

    /// A neighbour that has what was pinned does not keep it in the room of who has not pinned it any more.
    @Test(arguments: [true, false]) func aNeighbourHoldsNoRoomOfPinnedBlocks(isDetached: Bool) throws {
        let harness = try harness()
        harness.byteCount = 4096 + 48 * (128 << 10)
        var share = CacheDivision.Share()
        share.bytesMax = 16 * (128 << 10)
        harness.division.shares[harness.volume] = share
        var cache = try harness.open()
        let pinned = 0..<UInt64(10 * cache.geometry.slotCount)
        share.pin(pinned)
        harness.division.shares[harness.volume] = share
        try cache.divide(harness.division)
        fill(harness, harness.volume, pinned)
        fill(harness, harness.other, pinned)
        #expect(cache.statistics.sharedReferences == 2 * pinned.upperBound)
        if isDetached {
            cache.detach(volume: harness.volume)
            fill(harness, harness.other, 10_000..<13_000)
            // What nobody has pinned any more is among what may leave.
            #expect(cache.queues.pools.allSatisfy { $0.pinned.isEmpty })
        } else {
            for version in 2..<6 as Range<UInt64> { fill(harness, harness.volume, pinned, version) }
            #expect(pinned.count { cache.contains(harness.volume, block: $0) } == pinned.count)
            cache = try #require(harness.cache)
            fill(harness, harness.other, 10_000..<13_000)
            #expect(cache.contains(harness.other, block: 12_999))
        }
        expectConsistent(cache)
    }

    /// A small cache has memory for the signatures of nearly all that it holds.
    @Test(arguments: [(28, 65_536, 97), (30, 24_576, 100), (32, 24_576, 100)] as [(Int, Int, Int)])
    func smallCachesKnowWhatTheyHold(sizeBits: Int, blocks: Int, percent: Int) throws {
        let harness = try harness()
        let byteCount = harness.limits.signatureBytesMax(cacheBytes: 1 << sizeBits)
        var signatures = CacheSignatures(byteCount: byteCount)
        let random = harness.random
        let all = (0..<blocks).map { _ in BlockSignature(high: random.next(), low: random.next()) }
        let entry = CacheSignatures.Entry(slot: 1, owner: CacheOwner(volume: 0, block: 1), sequence: 1)
        for signature in all { signatures.put(signature, entry) }
        let known = all.count { signatures.find($0) != nil }
        #expect(known * 1_000 >= blocks * (percent * 10 - 1), "\(known) of \(blocks)")
        #expect(byteCount + harness.limits.sharedBytesMax(cacheBytes: 1 << sizeBits) <= CacheLimits.indexBytesMin)
    }

    /// Blocks that lie alone take much of the index: signatures make room for them down to their least share.
    @Test func signaturesMakeRoomForBlocksThatLieAlone() throws {
        let harness = try harness()
        harness.byteCount = 4096 + 3_000 * (64 << 10)
        harness.limits.segmentBytes = 64 << 10
        let cache = try harness.open()
        let large = cache.signatures.byteCount
        // A leaf, and a chunk of a volume's map, for each block.
        fill(harness, harness.volume, stride(from: 0, to: 1_500 << 18, by: 1 << 18))
        #expect(cache.signatures.byteCount == large)
        fill(harness, harness.volume, stride(from: 2_000 << 18, to: 4_000 << 18, by: 1 << 18))
        #expect(cache.signatures.byteCount < large)
        let last = UInt64(3_999 << 18)
        #expect(cache.contains(harness.volume, block: last))
        expectConsistent(cache)
    }

    /// The memory for signatures follows the size: in a much smaller cache they would leave none for the rest.
    @Test func signaturesFitTheSize() throws {
        let harness = try harness()
        harness.limits.segmentBytes = 4 << 20
        var result: Result<Cache, CacheError>?
        Cache.open(
            file: harness.file, directory: harness.directory, byteCount: 256 << 30, keys: harness.keys, limits: harness.limits,
            division: CacheDivision(), random: harness.random.source
        ) { result = $0 }
        harness.scheduler.runUntilIdle()
        let cache = try #require(result).get()
        harness.cache = cache
        cache.attach(volume: harness.volume, key: harness.volumeKey, generation: 1)
        cache.attach(volume: harness.other, key: harness.otherKey, generation: 1)
        fill(harness, harness.volume, 0..<8)
        fill(harness, harness.other, 0..<8)
        let large = cache.signatures.byteCount
        try cache.resize(to: 8 << 30)
        harness.scheduler.runUntilIdle()
        #expect(cache.geometry.byteCount <= 8 << 30 && cache.signatures.byteCount < large / 4)
        fill(harness, harness.volume, 100..<108)
        #expect((0..<8).allSatisfy { cache.contains(harness.volume, block: 100 + $0) })
        // What was shared before can be referred to.
        fill(harness, harness.other, 0..<8)
        cache.insert(harness.other, block: 300, data: CacheHarness.block(7, 1))
        #expect(cache.statistics.sharedReferences == 17)
        try cache.resize(to: 256 << 30)
        harness.scheduler.runUntilIdle()
        #expect(cache.signatures.byteCount == large)
        expectConsistent(cache)
    }

    /// What one volume alone has left is written again as its own.
    @Test func whatHasOneReferenceIsSharedNoMore() throws {
        let harness = try shared()
        let cache = try #require(harness.cache)
        cache.invalidate(harness.volume, blocks: 0..<8)
        for start in stride(from: 1_000, to: 5_000, by: 1_000) as StrideTo<UInt64> {
            #expect(try harness.read(100..<108, of: harness.other) == CacheHarness.blocks(0..<8, 1))
            fill(harness, harness.volume, start..<start + UInt64(6 * cache.geometry.slotCount))
        }
        #expect(try harness.read(100..<108, of: harness.other) == CacheHarness.blocks(0..<8, 1))
        #expect(cache.statistics.sharedBlocks == 0)
        expectConsistent(cache)
    }

    /// What is shared with a volume that went is in no record any more.
    @Test func recordsOfAVolumeThatSharedGoWithIt() throws {
        let harness = try shared()
        let before = Set(harness.directory.names)
        try #require(harness.cache).detach(volume: harness.volume)
        try harness.synchronize()
        try harness.synchronize()
        #expect(before.isDisjoint(with: harness.directory.names), "\(before) \(harness.directory.names)")
        #expect(try harness.read(100..<108, of: harness.other) == CacheHarness.blocks(0..<8, 1))
    }

    /// A checkpoint that fails has forgotten nothing: the next one does.
    @Test func recordsGoWithTheNextCheckpointWhenOneFails() throws {
        let harness = try shared(journalBytes: 8 << 10)
        let before = Set(harness.directory.names)
        harness.machine.faults.failsWritesTo = "checkpoint"
        try #require(harness.cache).detach(volume: harness.volume)
        try harness.synchronize()
        try harness.synchronize()
        #expect(!before.isDisjoint(with: harness.directory.names), "\(before) \(harness.directory.names)")
        harness.machine.faults.failsWritesTo = nil
        for round in 2..<60 as Range<UInt64> where !before.isDisjoint(with: harness.directory.names) {
            fill(harness, harness.other, 1_000..<1_000 + 8, round)
            try harness.synchronize()
        }
        #expect(before.isDisjoint(with: harness.directory.names), "\(before) \(harness.directory.names)")
        #expect(try harness.read(100..<108, of: harness.other) == CacheHarness.blocks(0..<8, 1))
    }

    /// The same when it has let go of what it shared before, and when its key is another one.
    @Test(arguments: [true, false]) func recordsOfWhatWasSharedGoToo(isRotated: Bool) throws {
        let harness = try shared()
        let cache = try #require(harness.cache)
        cache.invalidate(harness.volume, blocks: 0..<8)
        try harness.synchronize()
        let before = Set(harness.directory.names)
        if isRotated {
            cache.attach(volume: harness.volume, key: harness.otherKey, generation: 2)
        } else {
            cache.detach(volume: harness.volume)
        }
        try harness.synchronize()
        try harness.synchronize()
        #expect(before.isDisjoint(with: harness.directory.names), "\(before) \(harness.directory.names)")
        // Once is enough.
        let after = harness.directory.names
        cache.attach(volume: harness.volume, key: harness.volumeKey, generation: 3)
        try harness.synchronize()
        try harness.synchronize()
        #expect(harness.directory.names == after)
    }

    @Test func recordsOfAVolumeStandTogether() {
        let identity = SharedIdentity(signature: BlockSignature(high: 1, low: 2), nameHigh: 3, nameLow: 4)
        let records: [CacheRecord] = [
            .shared(ordinal: 1, block: 0, slot: 4, identity), .shared(ordinal: 0, block: 0, slot: 4, identity),
            .data(ordinal: 1, block: 7, count: 1, slot: 5), .removed(ordinal: 0, 3..<4), .freed(segment: 2),
            .shared(ordinal: 1, block: 1, slot: 6, identity), .shared(ordinal: 0, block: 1, slot: 6, identity),
        ]
        var buffer = ByteBuffer()
        for record in records { record.encode(into: &buffer) }
        var gathered = CacheJournal<SimulatedFile>.gathered(buffer)
        var found: [CacheRecord] = []
        while let record = CacheRecord(from: &gathered) { found.append(record) }
        #expect(found == [1, 3, 0, 2, 4, 6, 5].map { records[$0] })
    }

    /// Blocks of two volumes that are often equal, in a cache that is too small, with crashes: each reads what it had last.
    @Test(arguments: 0..<12 as Range<UInt64>) func sharingUnderLoad(seed: UInt64) throws {
        let harness = try harness(seed: seed)
        harness.limits.journalBytes = 8 << 10
        var newest: [CacheOwner: ByteBuffer?] = [:]
        let random = harness.random
        for _ in 0..<6 {
            let cache = try harness.open()
            for volume in [harness.volume, harness.other] {
                for block in 0..<160 as Range<UInt64> {
                    let owner = CacheOwner(volume: volume == harness.volume ? 0 : 1, block: block)
                    let read = try harness.read(block..<block + 1, of: volume)
                    if let read, let known = newest[owner] { #expect(read == known, "seed \(seed) block \(block)") }
                }
            }
            expectConsistent(cache, "seed \(seed)")
            for _ in 0..<200 {
                let isFirst = random.chance(percent: 50)
                let volume = isFirst ? harness.volume : harness.other
                let block = random.below(160)
                let owner = CacheOwner(volume: isFirst ? 0 : 1, block: block)
                switch random.below(12) {
                case 0:
                    cache.invalidate(volume, blocks: block..<block + 1)
                    newest[owner] = .some(nil)
                case 1:
                    cache.insertZeroes(volume, blocks: block..<block + 1)
                    newest[owner] = zeroBlock
                case 2..<9:
                    let bytes = CacheHarness.block(random.below(60), 1)
                    cache.insert(volume, block: block, data: bytes)
                    newest[owner] = bytes
                case 9:
                    let read = try harness.read(block..<block + 1, of: volume)
                    if let read, let known = newest[owner] { #expect(read == known, "seed \(seed) block \(block)") }
                default: for _ in 0..<random.below(12) { _ = harness.scheduler.step() }
                }
            }
            harness.scheduler.runUntilIdle()
            expectConsistent(cache, "seed \(seed)")
            #expect(cache.statistics.corrupt == 0)
            try harness.synchronize()
            harness.crash(power: random.chance(percent: 50))
        }
    }
}
