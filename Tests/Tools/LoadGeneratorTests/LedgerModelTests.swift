import Testing

@testable import LoadGenerator

/// A target that keeps its promises, or breaks one on purpose.
private struct ModelTarget {
    enum Fault: CaseIterable { case none, losesFlushed, servesOld, tearsSector, misplaces }

    /// Acknowledged writes that a crash may take, oldest first.
    var log: [(unit: Int, generation: UInt64)] = []
    var disk: SmallDisk
    var durable: [[UInt64]]
    var current: [[UInt64]]

    init() throws {
        disk = try SmallDisk()
        let empty = [[UInt64]](repeating: [UInt64](repeating: 0, count: SmallDisk.sectorsPerUnit), count: SmallDisk.units)
        (durable, current) = (empty, empty)
    }

    mutating func set(_ unit: Int, _ generations: [UInt64]) {
        current[unit] = generations
        for (index, generation) in generations.enumerated() { disk.put(generation, unit: unit, sectors: index..<index + 1) }
    }

    mutating func flush() {
        for entry in log { durable[entry.unit] = .init(repeating: entry.generation, count: SmallDisk.sectorsPerUnit) }
        log.removeAll()
    }

    /// Keeps a prefix of what was not flushed; writes in flight may leave any of their sectors.
    mutating func crash(_ random: inout SeededGenerator, inFlight: [(unit: Int, generation: UInt64)]) {
        let kept = Int(random.below(UInt64(log.count + 1)))
        var state = durable
        for entry in log[..<kept] { state[entry.unit] = .init(repeating: entry.generation, count: SmallDisk.sectorsPerUnit) }
        if kept == log.count {
            for write in inFlight {
                for index in state[write.unit].indices where random.below(2) == 0 { state[write.unit][index] = write.generation }
            }
        }
        log.removeAll()
        durable = state
        for unit in state.indices { set(unit, state[unit]) }
    }
}

@Suite struct LedgerModelTests {
    /// Runs random work; gives the first mismatch, and the events for the journal.
    private func run(seed: UInt64, steps: Int, fault: ModelTarget.Fault) throws -> (Mismatch?, ModelTarget, [UInt8]) {
        var random = SeededGenerator(seed: seed)
        var target = try ModelTarget()
        var inFlight: [(unit: Int, generation: UInt64)] = []
        var journal: [UInt8] = []
        func note(_ record: JournalRecord) { record.encode(into: &journal) }
        for step in 0..<steps {
            let unit = Int(random.below(UInt64(SmallDisk.units)))
            switch random.below(20) {
            case 0..<6:
                guard target.disk.ledger.canWrite(unit..<unit + 1) else { break }
                inFlight.append((unit, target.disk.ledger.issue(unit..<unit + 1)))
                note(.issue(unit..<unit + 1))
            case 6..<12:
                guard !inFlight.isEmpty else { break }
                let write = inFlight.remove(at: Int(random.below(UInt64(inFlight.count))))
                target.set(write.unit, .init(repeating: write.generation, count: SmallDisk.sectorsPerUnit))
                target.log.append(write)
                target.disk.ledger.acknowledge(write.unit..<write.unit + 1, generation: write.generation, durable: false)
                note(.acknowledge(write.unit..<write.unit + 1, generation: write.generation, durable: false))
            case 12:
                let ticket = target.disk.ledger.beginFlush()
                target.flush()
                target.disk.ledger.completeFlush(ticket)
                note(.flush(ticket))
            case 13:
                target.crash(&random, inFlight: inFlight)
                inFlight.removeAll()
                target.disk.ledger.loseSession()
                note(.loss)
            default:
                if step > steps / 2 { breakPromise(&target, unit, fault) }
                if let mismatch = target.disk.read(unit) { return (mismatch, target, journal) }
            }
        }
        return (nil, target, journal)
    }

    private func breakPromise(_ target: inout ModelTarget, _ unit: Int, _ fault: ModelTarget.Fault) {
        let ledger = target.disk.ledger
        let floor = ledger.floor[unit]
        switch fault {
        case .none: break
        case .losesFlushed: if floor > 0 { target.disk.put(0, unit: unit) }
        case .servesOld:
            let settled = ledger.settled[unit]
            if settled > 1 && ledger.certainEpoch[unit] == ledger.epoch { target.disk.put(settled - 1, unit: unit) }
        case .tearsSector: if floor > 0 { target.disk.bytes[unit * 1024 + 300] ^= 0xFF }
        case .misplaces:
            guard floor > 0 else { break }
            let other = (unit + 1) % SmallDisk.units
            target.disk.bytes.replaceSubrange(
                unit * 1024..<unit * 1024 + 1024, with: target.disk.bytes[other * 1024..<other * 1024 + 1024])
        }
    }

    @Test(arguments: 0..<200)
    func honestTargetPasses(_ seed: Int) throws {
        let (mismatch, target, journal) = try run(seed: UInt64(seed), steps: 600, fault: .none)
        #expect(mismatch == nil)
        // What the journal gives back allows the same disk.
        var replayed = try SmallDisk()
        // `SmallDisk.read` notes what it saw without a record, so the replayed ledger may only know less.
        #expect(replayed.ledger.replay(journal[...]) == journal.count / JournalRecord.byteCount)
        #expect(replayed.ledger.nextGeneration == target.disk.ledger.nextGeneration)
        replayed.bytes = target.disk.bytes
        for unit in 0..<SmallDisk.units {
            #expect(replayed.read(unit) == nil)
            #expect(replayed.ledger.floor[unit] <= target.disk.ledger.floor[unit])
        }
    }

    @Test(arguments: [ModelTarget.Fault.losesFlushed, .servesOld, .tearsSector, .misplaces])
    private func brokenTargetIsFound(_ fault: ModelTarget.Fault) throws {
        for seed in 0..<20 {
            let (mismatch, _, _) = try run(seed: UInt64(seed), steps: 600, fault: fault)
            #expect(mismatch != nil, "\(fault) with seed \(seed)")
        }
    }
}

@Suite struct LedgerCodingTests {
    private func busyLedger() throws -> WriteLedger {
        var disk = try SmallDisk()
        for unit in 0..<5 { _ = disk.write(unit, durable: unit == 2) }
        disk.flush()
        _ = disk.ledger.issue(6..<7)
        disk.ledger.loseSession()
        _ = disk.write(1)
        _ = disk.write(7)
        _ = disk.ledger.issue(3..<5)
        return disk.ledger
    }

    @Test func stateFileRoundTrip() throws {
        let ledger = try busyLedger()
        let bytes = ledger.encode(stateNumber: 9)
        let (decoded, number) = try #require(WriteLedger.decode(bytes))
        #expect(number == 9)
        #expect(decoded.settled == ledger.settled)
        #expect(decoded.floor == ledger.floor)
        #expect(decoded.certainEpoch == ledger.certainEpoch)
        #expect(decoded.inFlight == ledger.inFlight)
        #expect(decoded.maybes == ledger.maybes)
        #expect(decoded.dirty == Array(ledger.dirty[ledger.dirtyStart...]))
        #expect(decoded.nextGeneration == ledger.nextGeneration)
        #expect(decoded.unitsInFlight == 2)
        #expect(decoded.encode(stateNumber: 9) == bytes)
    }

    @Test func acknowledgementAfterACheckpointIsUnderstood() throws {
        var ledger = try busyLedger()
        var (decoded, _) = try #require(WriteLedger.decode(ledger.encode(stateNumber: 1)))
        let generation = ledger.inFlight[3]
        ledger.acknowledge(3..<5, generation: generation, durable: false)
        var journal: [UInt8] = []
        JournalRecord.acknowledge(3..<5, generation: generation, durable: false).encode(into: &journal)
        journal += [1, 2, 3]
        #expect(decoded.replay(journal[...]) == 1)
        #expect(decoded.settled == ledger.settled)
        #expect(decoded.unitsInFlight == 0)
    }

    @Test func recordsRoundTrip() {
        let records: [JournalRecord] = [
            .issue(3..<7), .acknowledge(0..<1, generation: 5, durable: true), .acknowledge(9..<10, generation: 6, durable: false),
            .fail(2..<4, generation: 8), .flush(.init(sequence: 77, epoch: 3)), .loss, .interruption, .observe(unit: 5, generation: 2),
        ]
        for record in records {
            var bytes: [UInt8] = []
            record.encode(into: &bytes)
            #expect(bytes.count == JournalRecord.byteCount)
            #expect(JournalRecord(decoding: bytes[...]) == record)
        }
        let header = JournalRecord.header(job: 1, stateNumber: 2)
        #expect(header.count == JournalRecord.byteCount)
        #expect(JournalRecord.parseHeader(header[...])?.stateNumber == 2)
    }

    @Test func damagedFilesAreRefusedAndNeverTrap() throws {
        var random = SeededGenerator(seed: 99)
        let state = try busyLedger().encode(stateNumber: 1)
        var accepted = 0
        for _ in 0..<3000 {
            var bytes = state
            switch random.below(3) {
            case 0: bytes.removeLast(Int(random.below(UInt64(bytes.count))))
            case 1: bytes[Int(random.below(UInt64(bytes.count)))] ^= UInt8(1 + random.below(255))
            default:
                // A right checksum over nonsense must not trap either.
                bytes.removeLast(4)
                for _ in 0..<3 { bytes[Int(random.below(UInt64(bytes.count)))] = UInt8(random.below(256)) }
                bytes.appendChecksum(from: 0)
                if WriteLedger.decode(bytes) != nil { accepted += 1 }
                continue
            }
            if bytes != state { #expect(WriteLedger.decode(bytes) == nil) }
        }
        #expect(accepted > 0)
        for _ in 0..<5000 {
            var record = (0..<28).map { _ in UInt8(random.below(random.below(2) == 0 ? 8 : 256)) }
            record.appendChecksum(from: 0)
            var (ledger, _) = try #require(WriteLedger.decode(state))
            _ = ledger.replay(record[...])
        }
    }
}
