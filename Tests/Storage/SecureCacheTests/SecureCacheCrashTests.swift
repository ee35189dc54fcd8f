import Blocks
import Ciphers
import NIOCore
import SimulatedStorage
import Testing

@testable import SecureCache

/// A cache under random load, crashes and restarts, beside what each block was at each time.
private final class CacheCrashRun {
    let harness: CacheHarness
    let blocks: UInt64 = 80
    /// The cache gets other sizes meanwhile.
    var changesSize = false
    /// It is divided in other ways, its file system gets full, and volumes leave, come back and get other keys.
    var changesDivision = false
    /// The generations of keys that are not the first.
    private var generations: [VolumeIdentifier: KeyGeneration] = [:]
    /// Counts the changes.
    var generation: UInt64 = 0
    /// For each block all that it was since the last change that a completed synchronize has covered,
    /// that one first; nil where it was forgotten. A cache may forget more, and never shows anything else.
    private var history: [Place: [(generation: UInt64, bytes: ByteBuffer?)]] = [:]

    private struct Place: Hashable {
        let volume: VolumeIdentifier
        let block: UInt64
    }

    init(seed: UInt64) throws {
        harness = try CacheHarness(seed: seed)
        harness.limits = CacheLimits(unwrittenBytesMax: 40 * 4096, segmentBytes: 64 << 10, writeBytes: 16 << 10)
        harness.limits.journalBytes = 8 << 10
        harness.byteCount = Int(7 + seed % 4) * (64 << 10)
    }

    private func note(_ volume: VolumeIdentifier, _ block: UInt64, _ bytes: ByteBuffer?) {
        history[Place(volume: volume, block: block), default: []].append((generation, bytes))
    }

    private func resize(_ cache: Cache) throws {
        let byteCount = Int(harness.random.within(7...24)) * (64 << 10)
        do throws(CacheError) {
            try cache.resize(to: UInt64(byteCount))
            harness.byteCount = byteCount
        } catch {
            guard case .division = error else { throw error }
        }
    }

    // MARK: Divisions

    /// Any division, which may not fit.
    func randomDivision() -> CacheDivision {
        let random = harness.random
        let segments = { (range: ClosedRange<Int>) in UInt64(random.within(range)) * (64 << 10) }
        var division = CacheDivision()
        if random.chance(percent: 15) { return division }
        if random.chance(percent: 30) { division.partitions["lab"] = segments(6...9) }
        for volume in [harness.volume, harness.other] where random.chance(percent: 70) {
            var share = CacheDivision.Share()
            if !division.partitions.isEmpty, random.chance(percent: 50) { share.partition = "lab" }
            if random.chance(percent: 40) { share.guaranteedBytes = segments(1...5) }
            if random.chance(percent: 40) { share.bytesMax = segments(6...12) }
            for _ in 0..<random.below(4) {
                let start = random.below(blocks)
                share.pins.append(start..<start + 1 + random.below(16))
            }
            division.shares[volume] = share
        }
        return division
    }

    private func divide(_ cache: Cache) throws {
        let division = randomDivision()
        do throws(CacheError) {
            try cache.divide(division)
            harness.division = division
        } catch {
            guard case .division = error else { throw error }
        }
    }

    /// A volume is detached and comes back, or its key is exchanged: nothing is known of it then.
    private func leaveOrRotate(_ cache: Cache, _ volume: VolumeIdentifier) {
        for block in 0..<blocks { note(volume, block, nil) }
        if harness.random.chance(percent: 50) {
            cache.detach(volume: volume)
            harness.division.shares[volume] = nil
        } else {
            generations[volume, default: 1] += 1
        }
        attach(cache, volume)
    }

    private func attach(_ cache: Cache, _ volume: VolumeIdentifier) {
        let key = volume == harness.volume ? harness.volumeKey : harness.otherKey
        cache.attach(volume: volume, key: key, generation: generations[volume, default: 1])
    }

    func load(_ count: Int) throws {
        let cache = try #require(harness.cache)
        let random = harness.random
        for _ in 0..<count {
            generation += 1
            let first = random.below(blocks)
            let range = first..<min(blocks, first + 1 + random.below(random.chance(percent: 20) ? 30 : 4))
            let volume = changesDivision && random.chance(percent: 50) ? harness.other : harness.volume
            switch random.below(changesDivision ? 21 : 17) {
            case 0..<8:
                for block in range { note(volume, block, CacheHarness.block(block, generation)) }
                cache.insert(volume, block: first, data: CacheHarness.blocks(range, generation))
            case 8:
                for block in range { note(volume, block, zeroBlock) }
                if random.chance(percent: 50) {
                    cache.insertZeroes(volume, blocks: range)
                } else {
                    cache.insert(volume, block: first, data: ByteBuffer(repeating: 0, count: range.count * 4096))
                }
            case 9..<11:
                for block in range { note(volume, block, nil) }
                cache.invalidate(volume, blocks: range)
            case 11..<13:
                let covered = generation
                cache.synchronize { [self] in if case .success = $0 { raiseFloor(to: covered) } }
            case 13:
                try check(cache, volume, range, isCrashed: false)
            case 14 where changesSize: try resize(cache)
            case 17: try divide(cache)
            case 18:
                let isFull = random.chance(percent: 30)
                harness.machine.faults.lacksRoomFor = isFull ? "cache" : nil
            case 19 where random.chance(percent: 30): leaveOrRotate(cache, volume)
            default:
                for _ in 0..<random.within(1...10) { _ = harness.scheduler.step() }
            }
        }
    }

    /// Of each block only the last change up to `covered`, and what came later, may be seen from now on.
    private func raiseFloor(to covered: UInt64) {
        for (place, changes) in history {
            guard let last = changes.lastIndex(where: { $0.generation <= covered }) else { continue }
            history[place] = Array(changes[last...])
        }
    }

    /// While the cache runs only the newest bytes may be read; after a crash any since the floor.
    private func check(_ cache: Cache, _ volume: VolumeIdentifier, _ range: Range<UInt64>, isCrashed: Bool) throws {
        for block in range {
            var buffer = ByteBuffer()
            let changes = history[Place(volume: volume, block: block)] ?? []
            guard cache.readIfResident(volume, blocks: block..<block + 1, into: &buffer) else { continue }
            if isCrashed {
                #expect(changes.contains { $0.bytes == buffer }, "block \(block) is older than what was synchronised")
            } else {
                #expect(changes.last?.bytes == buffer, "block \(block) is not the newest")
            }
        }
        #expect(cache.tableFault == nil)
    }

    /// Loads the cache for a while, then ends it in the middle of that, perhaps with the power; the next run may be given another size.
    func crashUnderLoad() throws {
        let random = harness.random
        try load(random.within(1...120))
        for _ in 0..<random.within(0...20) { _ = harness.scheduler.step() }
        harness.crash(power: random.chance(percent: 70))
        if random.chance(percent: 30) { harness.byteCount = Int(random.within(7...24)) * (64 << 10) }
    }

    func recover() throws {
        for volume in [harness.volume, harness.other] {
            harness.volumeKeys[volume] = [generations[volume, default: 1]: volume == harness.volume ? harness.volumeKey : harness.otherKey]
        }
        let cache = try harness.open(attaching: false)
        harness.machine.faults.residentPercent = 100
        for volume in [harness.volume, harness.other] {
            attach(cache, volume)
            try check(cache, volume, 0..<blocks, isCrashed: true)
            // What was recovered is the truth now: what is missing may stay missing, what is there is the newest.
            for block in 0..<blocks {
                var buffer = ByteBuffer()
                let isThere = cache.readIfResident(volume, blocks: block..<block + 1, into: &buffer)
                let place = Place(volume: volume, block: block)
                // Where it ends elsewhere each time, what lies behind one end may be back with the next, until a sync says that it is gone.
                let earlier = isThere || !changesSize ? [] : history[place] ?? []
                history[place] = earlier + [(generation, isThere ? buffer : nil)]
            }
        }
        harness.machine.faults.residentPercent = 50
    }
}

@Suite struct SecureCacheCrashTests {
    @Test(arguments: 0..<10 as Range<UInt64>)
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

    /// The same while the cache gets other sizes, by call or from one run to the next; on a device, where nothing is cut off, and in a file.
    @Test(arguments: 1_000..<1_010 as Range<UInt64>)
    func nothingOlderComesBackFromBehindTheEnd(seed: UInt64) throws {
        let run = try CacheCrashRun(seed: seed)
        run.changesSize = true
        run.harness.limits.deviceBytes = seed % 2 == 0 ? 8 << 20 : nil
        try run.harness.open()
        for _ in 0..<8 {
            try run.crashUnderLoad()
            try run.recover()
        }
    }

    /// The same while the cache is divided in other ways, by call or from one run to the next, gets other sizes and has no room, and while
    /// volumes leave and get other keys.
    @Test(arguments: 2_000..<2_010 as Range<UInt64>)
    func nothingOlderComesBackFromAnotherDivision(seed: UInt64) throws {
        let run = try CacheCrashRun(seed: seed)
        (run.changesSize, run.changesDivision) = (seed % 3 > 0, true)
        run.harness.byteCount = Int(run.harness.random.within(7...24)) * (64 << 10)
        run.harness.limits.deviceBytes = seed % 2 == 0 ? 8 << 20 : nil
        run.harness.division = run.randomDivision()
        try run.harness.open()
        for _ in 0..<8 {
            let random = run.harness.random
            try run.crashUnderLoad()
            if random.chance(percent: 30) { run.harness.division = run.randomDivision() }
            run.harness.machine.faults.lacksRoomFor = nil
            try run.recover()
        }
    }

    /// The same with a device that fails now and then: it takes no writes, or its syncs fail and lose what they were for.
    @Test(arguments: 500..<510 as Range<UInt64>)
    func nothingOlderComesBackFromAFailingDevice(seed: UInt64) throws {
        let run = try CacheCrashRun(seed: seed)
        try run.harness.open()
        for _ in 0..<8 {
            for _ in 0..<6 {
                let random = run.harness.random
                run.harness.machine.faults.failsWrites = random.chance(percent: 20)
                run.harness.machine.faults.failsSyncsOf =
                    random.chance(percent: 30) ? (random.chance(percent: 50) ? "cache" : "records") : nil
                try run.load(random.within(1...30))
            }
            run.harness.machine.faults.failsWrites = false
            run.harness.machine.faults.failsSyncsOf = nil
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
            #expect(salts.insert(try #require(cache.salts[cache.salt]).bytes).inserted, "a run has a salt of its own")
            cache.insert(harness.volume, block: 0, data: CacheHarness.blocks(0..<40, round))
            if round % 2 == 0 { try harness.synchronize() }
            for _ in 0..<8 { _ = harness.scheduler.step() }
            for segment in cache.segments where segment.sequence > 0 && Int(segment.salt) == cache.salt {
                #expect(seen.insert("\(segment.salt) \(round) \(segment.sequence)").inserted)
            }
            harness.crash(power: round % 3 == 0)
        }
    }

    /// Changes that are missing in the middle could have hidden something, so nothing counts then. The end may be torn.
    @Test(arguments: [true, false])
    func damagedRecordsAreNotTrusted(inTheMiddle: Bool) throws {
        let harness = try CacheHarness()
        let cache = try harness.open()
        for block in 0..<20 as Range<UInt64> {
            cache.insert(harness.volume, block: block, data: CacheHarness.block(block, 1))
            try harness.synchronize()
        }
        harness.crash(power: true)
        if inTheMiddle {
            // The second run's journal says how much of the first one counts.
            try harness.open().insert(harness.volume, block: 50, data: CacheHarness.block(50, 1))
            try harness.synchronize()
            harness.crash(power: true)
        }
        let journal = try #require(harness.directory.file("journal.1"))
        journal.flipBit(at: journal.content.count - 512 + 30)
        let again = try harness.open()
        #expect(again.residentRuns(harness.volume, blocks: 0..<100) == (inTheMiddle ? [] : [0..<19]))
        #expect(again.statistics.segmentsSkipped == (inTheMiddle ? 1 : 0))
        again.insert(harness.volume, block: 3, data: CacheHarness.block(3, 2))
        try harness.synchronize()
        harness.crash(power: true)
        #expect(try harness.open().contains(harness.volume, block: 3))
        #expect(try harness.read(3..<4) == CacheHarness.block(3, 2))
    }

    /// An old copy of the whole cache, put back while nobody looked, has not seen the last points.
    @Test func anOldCopyIsNotServed() throws {
        let harness = try CacheHarness()
        let cache = try harness.open()
        cache.insert(harness.volume, block: 0, data: CacheHarness.blocks(0..<10, 1))
        cache.insert(harness.other, block: 0, data: CacheHarness.blocks(0..<10, 1))
        cache.setCurrent(harness.volume, through: 4)
        try harness.synchronize()
        harness.crash(power: true)
        let copy = try harness.open()
        #expect(copy.require(harness.volume, through: 4))
        #expect(copy.residentRuns(harness.volume, blocks: 0..<10) == [0..<10])
        #expect(!copy.require(harness.volume, through: 5))
        #expect(copy.residentRuns(harness.volume, blocks: 0..<10) == [])
        #expect(copy.residentRuns(harness.other, blocks: 0..<10) == [0..<10])
        #expect(copy.statistics.stale == 1)
        try harness.synchronize()
        harness.crash(power: true)
        let again = try harness.open()
        #expect(again.require(harness.volume, through: 5))
        #expect(again.residentRuns(harness.volume, blocks: 0..<10) == [])
    }

    /// Whatever stands in the files, recovery ends in a cache, and a read gives right bytes or a miss.
    @Test(arguments: 0..<3 as Range<UInt64>)
    func recoveryTakesAnyBytes(seed: UInt64) throws {
        let harness = try CacheHarness(seed: seed)
        harness.limits = CacheLimits(unwrittenBytesMax: 40 * 4096, segmentBytes: 64 << 10, writeBytes: 16 << 10)
        harness.limits.journalBytes = 4 << 10
        harness.byteCount = 8 * (64 << 10)
        let cache = try harness.open()
        for block in 0..<60 as Range<UInt64> {
            cache.insert(harness.volume, block: block, data: CacheHarness.block(block, 1))
            if block % 7 == 0 { try harness.synchronize() }
        }
        try harness.synchronize()
        let names = harness.directory.names
        #expect(names.contains { $0.hasPrefix("checkpoint") } && names.contains { $0.hasPrefix("journal") })
        let random = harness.random
        for _ in 0..<30 {
            let copy = try CacheHarness(seed: random.next())
            copy.limits = harness.limits
            copy.byteCount = harness.byteCount
            try copy.put(harness.file.content, into: copy.file)
            for name in names {
                var bytes = try #require(harness.directory.file(name)).content
                for _ in 0..<random.below(4) where !bytes.isEmpty {
                    let position = Int(random.below(UInt64(bytes.count)))
                    for index in position..<min(position + (random.chance(percent: 80) ? 1 : random.within(1...800)), bytes.count) {
                        bytes[index] = UInt8(truncatingIfNeeded: random.next())
                    }
                }
                if random.chance(percent: 20) { bytes.removeLast(Int(random.below(UInt64(bytes.count) + 1))) }
                if random.chance(percent: 10) { continue }
                var file: SimulatedFile?
                copy.directory.open(name, create: true) { file = try? $0.get() }
                copy.scheduler.runUntilIdle()
                try copy.put(bytes, into: #require(file))
            }
            let reopened = try copy.open()
            for run in reopened.residentRuns(copy.volume, blocks: 0..<100) {
                for block in run {
                    if let bytes = try copy.read(block..<block + 1) { #expect(bytes == CacheHarness.block(block, 1)) }
                }
            }
            #expect(reopened.statistics.corrupt == 0, "a block's place is never believed without its record")
        }
    }
}
