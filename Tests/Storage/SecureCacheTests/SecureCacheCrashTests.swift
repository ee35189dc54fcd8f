import Blocks
import Checksums
import Ciphers
import NIOCore
import SimulatedStorage
import Testing

@testable import SecureCache

/// A cache under random load, crashes and restarts, beside what each block was at each time.
private final class CacheCrashRun {
    let harness: CacheHarness
    let blocks: UInt64 = 80
    /// Counts the changes.
    var generation: UInt64 = 0
    /// For each block all that it was since the last change that a completed synchronize has covered,
    /// that one first; nil where it was forgotten. A cache may forget more, and never shows anything else.
    var history: [UInt64: [(generation: UInt64, bytes: ByteBuffer?)]] = [:]

    init(seed: UInt64) throws {
        harness = try CacheHarness(seed: seed)
        harness.limits = CacheLimits(unwrittenBytesMax: 40 * 4096, segmentBytes: 64 << 10, writeBytes: 16 << 10)
        harness.byteCount = Int(4 + seed % 4) * (64 << 10)
    }

    private func note(_ block: UInt64, _ bytes: ByteBuffer?) { history[block, default: []].append((generation, bytes)) }

    func load(_ count: Int) throws {
        let cache = try #require(harness.cache)
        let random = harness.random
        for _ in 0..<count {
            generation += 1
            let first = random.below(blocks)
            let range = first..<min(blocks, first + 1 + random.below(random.chance(percent: 20) ? 30 : 4))
            switch random.below(16) {
            case 0..<8:
                for block in range { note(block, CacheHarness.block(block, generation)) }
                cache.insert(harness.volume, block: first, data: CacheHarness.blocks(range, generation))
            case 8:
                for block in range { note(block, zeroBlock) }
                cache.insertZeroes(harness.volume, blocks: range)
            case 9..<11:
                for block in range { note(block, nil) }
                cache.invalidate(harness.volume, blocks: range)
            case 11..<13:
                let covered = generation
                cache.synchronize { [self] in if case .success = $0 { raiseFloor(to: covered) } }
            case 13:
                try check(cache, range, isCrashed: false)
            default:
                for _ in 0..<random.within(1...10) { _ = harness.scheduler.step() }
            }
        }
    }

    /// Of each block only the last change up to `covered`, and what came later, may be seen from now on.
    private func raiseFloor(to covered: UInt64) {
        for (block, changes) in history {
            guard let last = changes.lastIndex(where: { $0.generation <= covered }) else { continue }
            history[block] = Array(changes[last...])
        }
    }

    /// While the cache runs only the newest bytes may be read; after a crash any since the floor.
    func check(_ cache: Cache, _ range: Range<UInt64>, isCrashed: Bool) throws {
        for block in range {
            var buffer = ByteBuffer()
            let expected = history[block]?.last
            guard cache.readIfResident(harness.volume, blocks: block..<block + 1, into: &buffer) else { continue }
            if isCrashed {
                let allowed = history[block] ?? []
                #expect(allowed.contains { $0.bytes == buffer }, "block \(block) is older than what was synchronised")
            } else {
                #expect(expected?.bytes == buffer, "block \(block) is not the newest")
            }
        }
    }

    func recover() throws {
        let cache = try harness.open()
        harness.machine.faults.residentPercent = 100
        try check(cache, 0..<blocks, isCrashed: true)
        // What was recovered is the truth now: what is missing may stay missing, what is there is the newest.
        for block in 0..<blocks {
            var buffer = ByteBuffer()
            let isThere = cache.readIfResident(harness.volume, blocks: block..<block + 1, into: &buffer)
            history[block] = [(0, isThere ? buffer : nil)]
        }
        harness.machine.faults.residentPercent = 50
    }
}

@Suite struct SecureCacheCrashTests {
    @Test(arguments: 0..<60 as Range<UInt64>)
    func nothingOlderComesBack(seed: UInt64) throws {
        let run = try CacheCrashRun(seed: seed)
        try run.harness.open()
        for _ in 0..<8 {
            try run.load(run.harness.random.within(1...120))
            for _ in 0..<run.harness.random.within(0...20) { _ = run.harness.scheduler.step() }
            run.harness.crash(power: run.harness.random.chance(percent: 70))
            try run.recover()
        }
    }

    /// The same with a device that fails now and then.
    @Test(arguments: 500..<530 as Range<UInt64>)
    func nothingOlderComesBackFromAFailingDevice(seed: UInt64) throws {
        let run = try CacheCrashRun(seed: seed)
        try run.harness.open()
        for _ in 0..<8 {
            for _ in 0..<6 {
                run.harness.machine.faults.failsWrites = run.harness.random.chance(percent: 30)
                try run.load(run.harness.random.within(1...30))
            }
            run.harness.machine.faults.failsWrites = false
            run.harness.crash(power: run.harness.random.chance(percent: 70))
            try run.recover()
        }
    }

    @Test func everySynchronisedBlockIsThereAfterACrash() throws {
        let harness = try CacheHarness()
        for round in 0..<6 as Range<UInt64> {
            let cache = try harness.open()
            for earlier in 0..<round {
                #expect(
                    try harness.read(earlier * 10..<earlier * 10 + 10)
                        == CacheHarness.blocks(earlier * 10..<earlier * 10 + 10, earlier))
            }
            cache.insert(harness.volume, block: round * 10, data: CacheHarness.blocks(round * 10..<round * 10 + 10, round))
            try harness.synchronize()
            cache.insert(harness.volume, block: 900, data: CacheHarness.block(900, round))
            harness.crash(power: round % 2 == 0)
        }
    }

    /// No two segments of different runs have the same salt, and sequences only grow.
    @Test func saltsAndSequencesNeverRepeat() throws {
        let harness = try CacheHarness(seed: 3)
        var seen = Set<String>()
        var salts = Set<[UInt8]>()
        for round in 0..<20 as Range<UInt64> {
            let cache = try harness.open()
            #expect(salts.insert(cache.salts[cache.salt]).inserted, "a run has a salt of its own")
            cache.insert(harness.volume, block: 0, data: CacheHarness.blocks(0..<40, round))
            if round % 2 == 0 { try harness.synchronize() }
            for _ in 0..<8 { _ = harness.scheduler.step() }
            for segment in cache.segments where segment.sequence > 0 && segment.salt == cache.salt {
                #expect(seen.insert("\(segment.salt) \(round) \(segment.sequence)").inserted)
            }
            harness.crash(power: round % 3 == 0)
        }
    }

    /// A table that lost entries could hide a tombstone, so nothing older than it counts.
    @Test func aDamagedTableTakesWhatIsOlderWithIt() throws {
        let harness = try CacheHarness()
        let cache = try harness.open()
        for block in 0..<87 as Range<UInt64> {
            cache.insert(harness.volume, block: block, data: CacheHarness.block(block, 1))
            harness.scheduler.runUntilIdle()
        }
        try harness.synchronize()
        #expect(cache.residentRuns(harness.volume, blocks: 0..<100) == [0..<87])
        harness.file.flipBit(at: Int(cache.geometry.offset(ofTable: 1)) + 40)
        harness.crash(power: true)
        let again = try harness.open()
        #expect(again.residentRuns(harness.volume, blocks: 0..<100) == [58..<87])
        #expect(again.statistics.segmentsSkipped >= 1)
    }

    /// Whatever stands in the file, recovery ends in a cache, and a read gives right bytes or a miss.
    @Test(arguments: 0..<6 as Range<UInt64>)
    func recoveryTakesAnyBytes(seed: UInt64) throws {
        let harness = try CacheHarness(seed: seed)
        harness.limits = CacheLimits(unwrittenBytesMax: 40 * 4096, segmentBytes: 64 << 10, writeBytes: 16 << 10)
        harness.byteCount = 4 * (64 << 10)
        let cache = try harness.open()
        for block in 0..<60 as Range<UInt64> {
            cache.insert(harness.volume, block: block, data: CacheHarness.block(block, 1))
            if block % 7 == 0 { try harness.synchronize() }
        }
        try harness.synchronize()
        let content = harness.file.content
        let random = harness.random
        for _ in 0..<30 {
            let copy = try CacheHarness(seed: random.next())
            copy.limits = harness.limits
            copy.byteCount = harness.byteCount
            var bytes = content
            for _ in 0..<random.within(1...5) {
                let segment = Int(random.below(4)) * (64 << 10)
                let position = segment + (random.chance(percent: 70) ? random.within(0...6000) : random.within(0...65535))
                let count = random.chance(percent: 80) ? 1 : random.within(1...5000)
                for index in position..<min(position + count, bytes.count) {
                    bytes[index] = UInt8(truncatingIfNeeded: random.next())
                }
                if random.chance(percent: 50) {
                    // A header whose checksum fits.
                    var head = ByteBuffer(bytes: bytes[segment..<segment + 88])
                    head.writeInteger(CRC32C.checksum(of: head))
                    bytes.replaceSubrange(segment..<segment + 92, with: Array(head.readableBytesView))
                }
            }
            var isWritten = false
            copy.file.write(ByteBuffer(bytes: bytes), at: 0) { _ in isWritten = true }
            copy.scheduler.runUntilIdle()
            #expect(isWritten)
            let reopened = try copy.open()
            for run in reopened.residentRuns(copy.volume, blocks: 0..<100) {
                for block in run {
                    if let bytes = try copy.read(block..<block + 1) { #expect(bytes == CacheHarness.block(block, 1)) }
                }
            }
        }
    }

    @Test func tableParsersTakeAnyBytes() throws {
        let random = SeededRandom(seed: 12)
        let cipher = BlockCipher(key: try SecretKey([UInt8](repeating: 1, count: 32)))
        let entries = (0..<5 as Range<UInt64>).map {
            CacheEntry(kind: .data, volume: VolumeIdentifier(high: 1, low: 2), block: $0 * 7, count: 2, slot: UInt16($0 * 2))
        }
        let whole = try #require(CacheTable.encodeFragment(entries[...], sequence: 4, position: 1, index: 0, cipher: cipher))
        let decoded = CacheTable.decode(whole, sequence: 4, position: 1, slotCount: 20, limit: .max, cipher: cipher)
        #expect(decoded == [entries])
        #expect(CacheTable.decode(whole, sequence: 5, position: 1, slotCount: 20, limit: .max, cipher: cipher) == [])
        #expect(CacheTable.decode(whole, sequence: 4, position: 2, slotCount: 20, limit: .max, cipher: cipher) == [])
        #expect(CacheTable.decode(whole, sequence: 4, position: 1, slotCount: 9, limit: .max, cipher: cipher) == [])
        for _ in 0..<4000 {
            var bytes = Array(whole.readableBytesView)
            for _ in 0..<random.within(1...4) { bytes[Int(random.below(300))] ^= UInt8(truncatingIfNeeded: random.next() | 1) }
            if random.chance(percent: 30) { bytes.removeLast(Int(random.below(UInt64(bytes.count)))) }
            if random.chance(percent: 60), bytes.count > 32 {
                var head = ByteBuffer(bytes: bytes[0..<28])
                head.writeInteger(CRC32C.checksum(of: head))
                bytes.replaceSubrange(0..<32, with: Array(head.readableBytesView))
            }
            let found = CacheTable.decode(
                ByteBuffer(bytes: bytes), sequence: 4, position: 1, slotCount: 20, limit: .max, cipher: cipher)
            #expect(found.isEmpty || found == [entries])
            var entry = ByteBuffer(bytes: (0..<32).map { _ in UInt8(truncatingIfNeeded: random.next()) })
            _ = CacheEntry(from: &entry, slotCount: 20)
            _ = CacheSegmentHeader(parsing: ByteBuffer(bytes: bytes))
        }
    }
}
