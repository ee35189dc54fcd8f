import Blocks
import Ciphers
import NIOCore
import SimulatedStorage
import Testing

@testable import SecureCache

/// What is known of a volume's blocks without its key: nothing.
@Suite struct CacheVeilTests {
    /// Numbers that stand nowhere by chance.
    private static let first: UInt64 = 0x3_1415_9265_3589

    /// A cache with full segments and a checkpoint, in which two volumes have blocks.
    private func filled() throws -> CacheHarness {
        let harness = try CacheHarness()
        harness.byteCount = 24 * (128 << 10)
        harness.limits.journalBytes = 2 << 10
        let cache = try harness.open()
        for round in 0..<10 as Range<UInt64> {
            let block = Self.first + round * 9
            cache.insert(harness.volume, block: block, data: CacheHarness.blocks(block..<block + 9, 1))
            cache.insert(harness.other, block: round * 5, data: CacheHarness.blocks(round * 5..<round * 5 + 5, 2))
            cache.insertZeroes(harness.volume, blocks: Self.first + 1_000 + round * 3..<Self.first + 1_002 + round * 3)
            cache.invalidate(harness.volume, blocks: block + 3..<block + 5)
            try harness.synchronize()
        }
        return harness
    }

    /// All that the cache's own key opens: records, and what stands behind the slots of full segments.
    private func opened(_ harness: CacheHarness) throws -> [UInt8] {
        var bytes: [UInt8] = []
        for name in harness.directory.names {
            CacheRecordReader(
                file: try #require(harness.directory.file(name)), key: harness.edgeKey,
                onRecords: { bytes += Array($0.records.readableBytesView) }
            ) { _ in }.start()
            harness.scheduler.runUntilIdle()
        }
        let cache = try #require(harness.cache)
        var segments = 0
        for (number, segment) in cache.segments.enumerated() where segment.state == .closed {
            let start = Int(cache.geometry.offset(ofOwnersIn: number))
            let sealed = harness.file.content[start..<start + cache.geometry.slotCount * CacheFormat.ownerBytes + 16]
            var plaintext = ByteBuffer()
            let isOpen = Array(sealed).withUnsafeBytes {
                cache.ownersCipher.open(
                    $0, nonce: CacheFormat.ownersNonce(segment.sequence),
                    context: CacheFormat.ownersContext(
                        segment: number, sequence: segment.sequence, count: cache.geometry.slotCount), appendingTo: &plaintext)
            }
            #expect(isOpen)
            segments += 1
            bytes += Array(plaintext.readableBytesView)
        }
        #expect(segments >= 2 && harness.directory.names.contains { $0.hasPrefix("checkpoint.") })
        return bytes
    }

    @Test func theKeyOfTheCacheShowsNoBlockOfAVolume() throws {
        let harness = try filled()
        let bytes = try opened(harness)
        #expect(bytes.count > 2_000)
        // The part that all of its numbers have in common.
        let pattern: [UInt8] = [0x03, 0x14, 0x15, 0x92, 0x65]
        for start in 0..<bytes.count - pattern.count where bytes[start] == pattern[0] {
            #expect(!bytes[start..<start + pattern.count].elementsEqual(pattern), "at \(start)")
        }
        harness.crash(power: true)
        try harness.open()
        #expect(try harness.read(Self.first + 9..<Self.first + 12) == CacheHarness.blocks(Self.first + 9..<Self.first + 12, 1))
        #expect(try harness.read(3..<5, of: harness.other) == CacheHarness.blocks(3..<5, 2))
    }

    /// Shredding: without the volume's key the next start knows nothing of it, and has its neighbour whole.
    @Test(arguments: [true, false]) func aVolumeWithoutItsKeyIsForgottenAndItsNeighbourIsWhole(comesBack: Bool) throws {
        let harness = try filled()
        harness.crash(power: true)
        let key = harness.volumeKeys.removeValue(forKey: harness.volume)
        let cache = try harness.open(attaching: false)
        #expect(cache.index[harness.volume] == nil && cache.blocksHeld(of: harness.volume) == 0)
        cache.attach(volume: harness.other, key: harness.otherKey, generation: 1)
        #expect(try harness.read(0..<50, of: harness.other) == CacheHarness.blocks(0..<50, 2))
        try harness.synchronize()
        harness.crash(power: true)
        // Should the key come after all, what the cache had then is not taken for what is now.
        harness.volumeKeys[harness.volume] = key
        let again = try harness.open(attaching: comesBack)
        #expect(!again.contains(harness.volume, block: Self.first) && again.statistics.corrupt == 0)
        #expect(again.blocksHeld(of: harness.other) == 50)
    }

    /// Of a volume whose key was rotated what came since is kept, though the old key is destroyed and older records are there.
    @Test(arguments: [true, false]) func whatCameSinceARotationNeedsTheNewKeyOnly(isWhole: Bool) throws {
        let harness = try filled()
        harness.limits.journalBytes = 16 << 20
        let cache = try #require(harness.cache)
        let key = try SecretKey([UInt8](repeating: 4, count: 32))
        cache.insert(harness.volume, block: 7, data: CacheHarness.block(7, 1))
        try harness.synchronize()
        cache.insert(harness.volume, block: 8, data: CacheHarness.block(8, 1))
        cache.attach(volume: harness.volume, key: key, generation: 2)
        cache.insert(harness.volume, block: 9, data: CacheHarness.block(9, 1))
        try harness.synchronize()
        harness.crash(power: true)
        harness.volumeKeys[harness.volume] = isWhole ? [1: harness.volumeKey, 2: key] : [2: key]
        let again = try harness.open(attaching: false)
        again.attach(volume: harness.volume, key: key, generation: 2)
        #expect(again.residentRuns(harness.volume, blocks: 0..<20) == [9..<10])
        #expect(try harness.read(9..<10) == CacheHarness.block(9, 1))
        #expect(again.blocksHeld(of: harness.volume) == 1)
    }

    /// What came under a new key at once with its generation: without that key nothing is known of the volume, and all of its neighbour.
    @Test(arguments: [1, 2] as [KeyGeneration]) func whatCameWithARotationIsHiddenWithoutTheNewKey(rotations: KeyGeneration) throws {
        let harness = try filled()
        harness.limits.journalBytes = 16 << 20
        let cache = try #require(harness.cache)
        // The journal is busy meanwhile, so that all of it is in one fragment.
        cache.insert(harness.other, block: 60, data: CacheHarness.block(60, 2))
        cache.synchronize { _ in }
        var key = harness.volumeKey
        for rotation in 1...rotations {
            key = try SecretKey([UInt8](repeating: 40 + UInt8(rotation), count: 32))
            cache.attach(volume: harness.volume, key: key, generation: 1 + rotation)
        }
        cache.insert(harness.volume, block: 9, data: CacheHarness.blocks(9..<20, 1))
        cache.insertZeroes(harness.volume, blocks: 100..<200)
        cache.invalidate(harness.volume, blocks: 150..<160)
        try harness.synchronize()
        harness.crash(power: true)
        let again = try harness.open(attaching: false)
        #expect(again.statistics.segmentsSkipped == 0 && again.index[harness.volume] == nil)
        again.attach(volume: harness.other, key: harness.otherKey, generation: 1)
        #expect(try harness.read(0..<50, of: harness.other) == CacheHarness.blocks(0..<50, 2))
        try harness.synchronize()
        harness.crash(power: true)
        // Should it come after all, what the cache had then is not taken for what is now.
        harness.volumeKeys[harness.volume] = [1 + rotations: key]
        let late = try harness.open(attaching: false)
        late.attach(volume: harness.volume, key: key, generation: 1 + rotations)
        #expect(late.blocksHeld(of: harness.volume) == 0 && late.residentRuns(harness.volume, blocks: 0..<200).isEmpty)
        #expect(late.blocksHeld(of: harness.other) == 51)
    }

    /// A segment that another key's blocks are in is emptied with all that the index has there.
    @Test func segmentsAreEmptiedWholeAfterARestart() throws {
        let harness = try filled()
        harness.crash(power: true)
        let cache = try harness.open()
        for round in 0..<400 as Range<UInt64> {
            cache.insert(harness.other, block: 1_000 + round * 4, data: CacheHarness.blocks(1_000..<1_004, round))
            harness.scheduler.runUntilIdle()
        }
        for volume in [harness.volume, harness.other] {
            for blocks in [0..<3_000, Self.first..<Self.first + 200] as [Range<UInt64>] {
                for run in cache.residentRuns(volume, blocks: blocks) { #expect(try harness.read(run, of: volume) != nil) }
            }
        }
        #expect(cache.statistics.corrupt == 0 && cache.statistics.evicted > 0)
        for segment in cache.segments where segment.state == .free { #expect(segment.liveCount == 0) }
    }
}
