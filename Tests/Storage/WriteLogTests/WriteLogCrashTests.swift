import Blocks
import Ciphers
import NIOCore
import SimulatedStorage
import Testing

@testable import WriteLog

/// A sync fails, and the process ends; the next one finds in memory what the medium does not have.
@Suite struct FailedSyncTests {
    @Test("what a failed sync has lost is not taken for durable by the next process", arguments: 1...30 as ClosedRange<UInt64>)
    func lostWrites(seed: UInt64) throws {
        let harness = try LogHarness(seed: seed)
        let log = try harness.open()
        try harness.append(range(0, 8), fill: 1)
        try harness.flush()
        for number in 1..<8 as Range<UInt64> { try harness.append(range(number * 8, 8), fill: UInt8(number) + 1) }
        harness.machine.faults.failsSyncsOf = "epoch-"
        var failure: WriteLogError?
        log.flush { if case .failure(let error) = $0 { failure = error } }
        harness.scheduler.runUntilIdle()
        #expect(failure != nil)
        harness.crash(power: false)
        harness.machine.faults.failsSyncsOf = nil

        try harness.open()
        let found = try harness.overlay(range(0, 64))
        #expect(found[0]?.first == 1)
        try harness.append(range(64, 8), fill: 9)
        try harness.flush()
        harness.crash(power: true)
        try harness.open()
        #expect(try harness.overlay(range(0, 64)) == found)
        #expect(try harness.overlay(range(64, 8)).allSatisfy { $0?.first == 9 })
    }
}

/// One write as the model knows it, in the order in which the log was asked.
private struct ModelWrite {
    let range: SectorRange
    let stamp: UInt64
    let isZero: Bool
    let epoch: PointNumber
}

/// A log under random load, crashes and restarts, beside a list of all writes. Every sector is stamped
/// with its number and the write's, so that nothing old, moved or mixed passes for right.
private final class CrashRun {
    let harness: LogHarness
    let sectors: UInt64 = 256
    /// Writes since the last recovery that were ordered, on top of what that recovery gave.
    var writes: [ModelWrite] = []
    var base: [UInt64: (stamp: UInt64, isZero: Bool)] = [:]
    /// How many of `writes` a completed flush has covered.
    var durable = 0
    var sealed: PointNumber = 0
    var released: PointNumber = 0
    var stamp: UInt64 = 0

    init(seed: UInt64) throws {
        harness = try LogHarness(seed: seed)
        harness.limits = WriteLogLimits(unwrittenBytesMax: 256 << 10, logBytesMax: 64 << 20, batchBytesMax: 32 << 10)
    }

    func bytes(sector: UInt64, stamp: UInt64) -> [UInt8] {
        var buffer = ByteBuffer(repeating: UInt8(truncatingIfNeeded: stamp) | 1, count: 512)
        for position in [0, 256, 496] {
            buffer.setInteger(sector, at: position)
            buffer.setInteger(stamp, at: position + 8)
        }
        return Array(buffer.readableBytesView)
    }

    /// Random calls, and some steps of the world between them.
    func load(_ count: Int) throws {
        let log = try #require(harness.log)
        let random = harness.random
        for _ in 0..<count {
            switch random.below(20) {
            case 0..<12:
                let start = random.below(sectors)
                let target = range(start, 1 + random.below(min(24, sectors - start)))
                stamp += 1
                writes.append(ModelWrite(range: target, stamp: stamp, isZero: false, epoch: log.currentEpoch))
                var data = ByteBuffer()
                for sector in target.start..<target.end { data.writeBytes(bytes(sector: sector, stamp: stamp)) }
                log.append(target, data: data, now: harness.scheduler.now) { _ in }
            case 12..<14:
                let start = random.below(sectors)
                let target = range(start, 1 + random.below(sectors - start))
                stamp += 1
                writes.append(ModelWrite(range: target, stamp: stamp, isZero: true, epoch: log.currentEpoch))
                log.appendZeroes(target, now: harness.scheduler.now) { _ in }
            case 14..<16:
                let covered = writes.count
                log.flush { [self] in if case .success = $0 { durable = max(durable, covered) } }
            case 16:
                let covered = writes.count
                log.seal(now: harness.scheduler.now) { [self] in
                    guard case .success(let number) = $0 else { return }
                    sealed = max(sealed, number)
                    durable = max(durable, covered)
                }
            case 17 where random.chance(percent: 50):
                if let point = log.sealedPoints.last?.number {
                    released = max(released, point)
                    log.release(through: point) { _ in }
                }
            case 18 where random.chance(percent: 20): try rotate(log)
            default:
                for _ in 0..<random.within(1...12) { _ = harness.scheduler.step() }
            }
        }
    }

    /// Takes a new key; and destroys those that the log says it needs no more, so that a crash has to do without them.
    private func rotate(_ log: Log) throws {
        // One that has failed can't say: then all of them.
        let used = log.keyGenerations ?? Set(harness.keys.generations)
        var keys = [harness.keys.newest: harness.keys.newestKey]
        for generation in used { keys[generation] = harness.keys[generation] }
        if harness.random.chance(percent: 50) { keys[harness.keys.newest + 1] = try .random() }
        harness.keys = try #require(DataKeys(keys))
        log.use(harness.keys)
    }

    /// The unreleased state after the first `count` writes.
    func state(after count: Int) -> [UInt64: (stamp: UInt64, isZero: Bool)] {
        var state = base
        for write in writes.prefix(count) { apply(write, to: &state) }
        return state
    }

    private func apply(_ write: ModelWrite, to state: inout [UInt64: (stamp: UInt64, isZero: Bool)]) {
        for sector in write.range.start..<write.range.end { state[sector] = (write.stamp, write.isZero) }
    }

    /// Checks that what a crash left is an exact prefix that holds everything durable, that someone who only reads finds the same,
    /// and adopts it.
    func recover() throws {
        let read = try harness.readOffline(range(0, sectors))
        let log = try harness.open()
        #expect(log.lastSealedPoint >= sealed, "a sealed point was lost")
        let overlay = try harness.overlay(range(0, sectors))
        #expect(read == overlay, "a reader finds something else than a recovery")
        // The newest stamp that is there says which prefix this must be.
        var newest: UInt64 = 0
        for bytes in overlay {
            guard let bytes, bytes[17] != 0 else { continue }
            var buffer = ByteBuffer(bytes: bytes)
            buffer.moveReaderIndex(forwardBy: 8)
            newest = max(newest, buffer.readInteger(as: UInt64.self) ?? 0)
        }
        let lowest = max(durable, writes.lastIndex { $0.stamp == newest }.map { $0 + 1 } ?? 0)
        // Zeroes carry no stamp, so a few prefixes may fit; one must.
        var state = state(after: lowest)
        var count = lowest
        while !fits(overlay, state, count: count) {
            try #require(count < writes.count, "no prefix of the writes from \(lowest) on gives what was recovered")
            apply(writes[count], to: &state)
            count += 1
        }
        base = state.filter { sector, _ in overlay[Int(sector)] != nil }
        writes = []
        durable = 0
        sealed = log.lastSealedPoint
    }

    /// True when the overlay is the state; what released points had hidden or held may be there or not.
    private func fits(_ overlay: [[UInt8]?], _ state: [UInt64: (stamp: UInt64, isZero: Bool)], count: Int)
        -> Bool
    {
        let unreleased = Set(writes.prefix(count).filter { $0.epoch > released }.map(\.stamp))
        for sector in 0..<sectors {
            guard let expected = state[sector] else {
                if overlay[Int(sector)] != nil { return false }
                continue
            }
            guard let bytes = overlay[Int(sector)] else {
                if unreleased.contains(expected.stamp) { return false }
                continue
            }
            let wanted = expected.isZero ? [UInt8](repeating: 0, count: 512) : self.bytes(sector: sector, stamp: expected.stamp)
            if bytes != wanted { return false }
        }
        return true
    }
}

@Suite struct WriteLogCrashTests {
    @Test(arguments: 0..<8 as Range<UInt64>)
    func recoversAnExactPrefix(seed: UInt64) throws {
        let run = try CrashRun(seed: seed)
        try run.harness.open()
        for round in 0..<6 {
            try run.load(run.harness.random.within(1...80))
            for _ in 0..<run.harness.random.within(0...20) { _ = run.harness.scheduler.step() }
            // The last round ends in good order.
            if round == 5 { run.harness.scheduler.runUntilIdle() }
            run.harness.crash(power: run.harness.random.chance(percent: 60))
            try run.recover()
        }
        #expect(run.harness.machine.overwrittenFiles.isEmpty, "a nonce has sealed two texts")
    }

    /// A crash in the middle of a recovery, again and again, changes nothing.
    @Test(arguments: 0..<5 as Range<UInt64>)
    func recoveryItselfMayCrash(seed: UInt64) throws {
        let run = try CrashRun(seed: 1000 + seed)
        try run.harness.open()
        try run.load(100)
        run.harness.crash(power: true)
        for _ in 0..<8 {
            let harness = run.harness
            Log.open(
                directory: harness.directory, volume: harness.volume, keys: harness.keys, limits: harness.limits,
                random: harness.random.source,
                now: harness.scheduler.now
            ) { _ in }
            for _ in 0..<harness.random.within(1...14) { _ = harness.scheduler.step() }
            harness.crash(power: harness.random.chance(percent: 50))
        }
        try run.recover()
        #expect(run.harness.directory.names.count <= Int(run.harness.log?.currentEpoch ?? 0) + 3)
    }

    /// A process is killed while it removes the parts of a released point. The next one sees the first of them gone, which is not durable,
    /// and the power fails while it removes the others: what then comes back must not lack them.
    @Test(arguments: 0..<40 as Range<UInt64>)
    func powerMayFailWhileTheRestOfAReleasedPointIsRemoved(seed: UInt64) throws {
        let harness = try LogHarness(seed: seed)
        try harness.open()
        try harness.append(range(0, 8), fill: 1)
        try harness.flush()
        // The point goes on in a second file.
        harness.crash(power: false)
        let log = try harness.open()
        try harness.append(range(8, 8), fill: 2)
        let point = try harness.seal()
        try harness.append(range(16, 8), fill: 3)
        try harness.flush()
        let first = LogFormat.fileName(epoch: point, part: 0)
        #expect(harness.directory.names.filter { $0.hasPrefix(first.dropLast(4)) }.count == 2)
        log.release(through: point) { _ in }
        while harness.directory.names.contains(first) { try #require(harness.scheduler.step()) }
        harness.crash(power: false)
        Log.open(
            directory: harness.directory, volume: harness.volume, keys: harness.keys, limits: harness.limits,
            random: harness.random.source, now: harness.scheduler.now
        ) { _ in }
        for _ in 0..<harness.random.within(1...24) { _ = harness.scheduler.step() }
        harness.crash(power: true)
        let recovered = try harness.open()
        #expect(recovered.lastSealedPoint >= point, "a sealed point was lost, which home has")
        #expect(try harness.overlay(range(16, 8)).allSatisfy { $0?.first == 3 }, "a flushed write was lost")
    }

    /// No file ever gets a salt that another one had, so no key and nonce meet twice over restarts.
    @Test func saltsNeverRepeat() throws {
        let harness = try LogHarness(seed: 5)
        var salts = Set<[UInt8]>()
        var names = Set<String>()
        for round in 0..<30 {
            try harness.open()
            for name in harness.directory.names {
                let file = try #require(harness.directory.file(name))
                let header = try LogFileHeader(parsing: ByteBuffer(bytes: file.content.prefix(4096)))
                let isNew = salts.insert(header.salt).inserted
                #expect(isNew == names.insert("\(header.salt)\(name)").inserted, "a salt stands in two files")
            }
            try harness.append(range(UInt64(round), 4), fill: UInt8(round))
            if round % 3 == 0 { try harness.flush() }
            if round % 7 == 0 { _ = try harness.seal() }
            harness.crash(power: round % 2 == 0)
        }
        #expect(salts.count >= 30)
    }

    @Test func aDamagedDurableBatchIsNotPassedOver() throws {
        let harness = try LogHarness()
        try harness.open()
        for number in 0..<6 as Range<UInt64> {
            try harness.append(range(number * 8, 8), fill: 1)
            try harness.flush()
        }
        let name = try #require(harness.directory.names.first)
        let file = try #require(harness.directory.file(name))
        file.flipBit(at: 4096 + 4608 + 700)
        harness.crash(power: true)
        guard case .corrupt = harness.openError() else {
            Issue.record("a durable batch was dropped in silence")
            return
        }
    }

    @Test(arguments: [0, 60, 200, 4000])
    func aForgedBatchIsNotTaken(offset: Int) throws {
        let harness = try LogHarness()
        try harness.open()
        try harness.append(range(0, 8), fill: 1)
        try harness.flush()
        let name = try #require(harness.directory.names.first)
        let file = try #require(harness.directory.file(name))
        // An attacker repairs the checksums, which need no key.
        var batch = ByteBuffer(bytes: file.content[4096...])
        let binding = LogBinding(try LogFileHeader(parsing: ByteBuffer(bytes: file.content[..<4096])))
        let header = try #require(LogBatchHeader(parsing: batch, binding: binding))
        let position = 48 + offset
        let old = batch.getInteger(at: position, as: UInt8.self) ?? 0
        batch.setInteger(old ^ 1, at: position)
        let repaired = LogTestTools.withChecksums(batch, header, binding)
        try harness.write(file.content.prefix(4096) + repaired, to: name)
        harness.crash(power: true)
        if offset < Int(header.descriptorBytes) {
            guard case .corrupt = harness.openError() else {
                Issue.record("a forged batch was taken")
                return
            }
        } else {
            let log = try harness.open()
            let segment = try #require(log.segments(in: range(0, 8)).first)
            #expect(throws: WriteLogError.self) { try harness.wait { log.read(segment, completion: $0) } }
        }
    }
}
