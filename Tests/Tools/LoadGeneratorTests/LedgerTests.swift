import Testing

@testable import LoadGenerator

/// A disk of a few units that a test writes by hand.
struct SmallDisk {
    static let sectorsPerUnit = 2
    static let units = 8
    var ledger: WriteLedger
    let stamp = SectorStamp(job: 7, seed: 3)
    var bytes = [UInt8](repeating: 0, count: units * sectorsPerUnit * 512)

    init() throws {
        ledger = try #require(WriteLedger(firstSector: 16, sectorsPerUnit: Self.sectorsPerUnit, unitCount: Self.units, job: 7))
    }

    /// Puts a generation into the sectors of a unit.
    mutating func put(_ generation: UInt64, unit: Int, sectors: Range<Int> = 0..<Self.sectorsPerUnit) {
        let stamp = stamp
        for index in sectors {
            let sector = ledger.sector(ofUnit: unit) + UInt64(index)
            let offset = (unit * Self.sectorsPerUnit + index) * 512
            bytes.withUnsafeMutableBytes { raw in
                let target = UnsafeMutableRawBufferPointer(rebasing: raw[offset..<offset + 512])
                if generation == 0 {
                    target.initializeMemory(as: UInt8.self, repeating: 0)
                } else {
                    stamp.write(target, sector: sector, generation: generation)
                }
            }
        }
    }

    /// Issues and acknowledges a write, and puts it on the disk.
    mutating func write(_ unit: Int, durable: Bool = false) -> UInt64 {
        let generation = ledger.issue(unit..<unit + 1)
        put(generation, unit: unit)
        ledger.acknowledge(unit..<unit + 1, generation: generation, durable: durable)
        return generation
    }

    mutating func flush() { ledger.completeFlush(ledger.beginFlush()) }

    /// Reads one unit and says what is wrong with it.
    mutating func read(_ unit: Int) -> Mismatch? {
        var expectation = ReadExpectation()
        ledger.expect(unit..<unit + 1, into: &expectation)
        return check(unit, expectation)
    }

    mutating func check(_ unit: Int, _ expectation: ReadExpectation) -> Mismatch? {
        let length = Self.sectorsPerUnit * 512
        var seen: [(Int, UInt64)] = []
        let mismatch = bytes.withUnsafeBytes { raw in
            ledger.check(
                UnsafeRawBufferPointer(rebasing: raw[unit * length..<(unit + 1) * length]), firstUnit: unit, against: expectation,
                stamp: stamp, observed: { seen.append(($0, $1)) })
        }
        for (unit, generation) in seen { _ = ledger.observe(unit, generation: generation, issuedInEpoch: expectation.epoch) }
        return mismatch
    }
}

@Suite struct LedgerTests {
    @Test func lastAcknowledgedAndNothingElse() throws {
        var disk = try SmallDisk()
        #expect(disk.read(0) == nil)
        let old = disk.write(0)
        #expect(disk.read(0) == nil)
        let new = disk.write(0)
        #expect(disk.read(0) == nil)
        disk.put(old, unit: 0)
        #expect(disk.read(0)?.expected == "generation \(new)")
        #expect(disk.read(0)?.found == "generation \(old)")
        disk.put(0, unit: 0)
        #expect(disk.read(0)?.found == "no stamp of this job")
        disk.put(99, unit: 0)
        #expect(disk.read(0)?.found == "generation 99, which was never issued")
    }

    @Test func anyMixWhileInFlightButNotAfter() throws {
        var disk = try SmallDisk()
        let old = disk.write(1)
        let new = disk.ledger.issue(1..<2)
        disk.put(new, unit: 1, sectors: 0..<1)
        #expect(disk.read(1) == nil)
        disk.ledger.acknowledge(1..<2, generation: new, durable: false)
        #expect(disk.read(1)?.sector == disk.ledger.sector(ofUnit: 1) + 1)
        disk.put(new, unit: 1)
        #expect(disk.read(1) == nil)
        #expect(old < new)
    }

    @Test func readMayFindWhatWasTrueAtAnyTimeOfItsLife() throws {
        var disk = try SmallDisk()
        let before = disk.write(2)
        var expectation = ReadExpectation()
        disk.ledger.expect(2..<3, into: &expectation)
        let during = disk.write(2)
        let after = disk.write(2)
        for generation in [before, during, after] {
            disk.put(generation, unit: 2)
            #expect(disk.check(2, expectation) == nil)
        }
        disk.put(0, unit: 2)
        #expect(disk.check(2, expectation) != nil)
    }

    @Test func overlappingWritesAreRefused() throws {
        var disk = try SmallDisk()
        let generation = disk.ledger.issue(2..<5)
        #expect(!disk.ledger.canWrite(4..<6))
        #expect(disk.ledger.canWrite(5..<6))
        #expect(!disk.ledger.canWrite(7..<9))
        disk.ledger.acknowledge(2..<5, generation: generation, durable: false)
        #expect(disk.ledger.canWrite(4..<6))
        #expect(disk.ledger.unitsInFlight == 0)
    }

    @Test func lossAllowsUnflushedButNotFlushed() throws {
        var disk = try SmallDisk()
        let first = disk.write(3)
        disk.flush()
        let second = disk.write(3)
        let third = disk.write(3)
        disk.ledger.loseSession()
        for generation in [first, second, third] {
            var copy = disk
            copy.put(generation, unit: 3)
            #expect(copy.read(3) == nil)
        }
        disk.put(0, unit: 3)
        #expect(disk.read(3) != nil)
    }

    @Test func aTargetThatKeepsItsWritesMayLoseNoneThatItAcknowledged() throws {
        var disk = try SmallDisk()
        let first = disk.write(3)
        let second = disk.write(3)
        disk.ledger.interruptSession()
        #expect(disk.read(3) == nil)
        disk.put(first, unit: 3)
        #expect(disk.read(3) != nil, "an acknowledged write is gone")
        // What was in flight may be there or not.
        let third = disk.ledger.issue(3..<4)
        disk.ledger.interruptSession()
        for generation in [second, third] {
            disk.put(generation, unit: 3)
            #expect(disk.read(3) == nil)
        }
    }

    @Test func oneReadEndsTheDoubt() throws {
        var disk = try SmallDisk()
        let first = disk.write(3)
        let second = disk.write(3)
        disk.ledger.loseSession()
        disk.put(first, unit: 3)
        #expect(disk.read(3) == nil)
        disk.put(second, unit: 3)
        #expect(disk.read(3) != nil, "what a read has found lost must stay lost")
        disk.put(first, unit: 3)
        disk.flush()
        disk.ledger.loseSession()
        disk.put(0, unit: 3)
        #expect(disk.read(3) != nil, "a flush after the read makes what it found durable")
    }

    @Test func forceUnitAccessNeedsNoFlush() throws {
        var disk = try SmallDisk()
        _ = disk.write(4, durable: true)
        _ = disk.write(5)
        disk.ledger.loseSession()
        disk.put(0, unit: 4)
        disk.put(0, unit: 5)
        #expect(disk.read(4) != nil)
        #expect(disk.read(5) == nil)
    }

    @Test func flushCoversOnlyWhatWasAcknowledgedBefore() throws {
        var disk = try SmallDisk()
        let early = disk.write(0)
        let ticket = disk.ledger.beginFlush()
        _ = disk.write(0)
        _ = disk.write(1)
        disk.ledger.completeFlush(ticket)
        disk.ledger.loseSession()
        disk.put(early, unit: 0)
        disk.put(0, unit: 1)
        #expect(disk.read(0) == nil)
        #expect(disk.read(1) == nil)
        disk.put(0, unit: 0)
        #expect(disk.read(0) != nil)
    }

    @Test func flushOfAnOlderSessionSaysNothing() throws {
        var disk = try SmallDisk()
        _ = disk.write(0)
        let ticket = disk.ledger.beginFlush()
        disk.ledger.loseSession()
        disk.ledger.completeFlush(ticket)
        disk.put(0, unit: 0)
        #expect(disk.read(0) == nil)
    }

    @Test func unansweredWriteIsEitherUntilTheNext() throws {
        var disk = try SmallDisk()
        let old = disk.write(6)
        disk.flush()
        let lost = disk.ledger.issue(6..<7)
        disk.ledger.loseSession()
        for generation in [old, lost] {
            var copy = disk
            copy.put(generation, unit: 6)
            #expect(copy.read(6) == nil)
        }
        let next = disk.write(6)
        for generation in [old, lost] {
            disk.put(generation, unit: 6)
            #expect(disk.read(6)?.expected == "generation \(next)")
        }
        let failed = disk.ledger.issue(6..<7)
        disk.ledger.fail(6..<7, generation: failed)
        disk.put(failed, unit: 6)
        #expect(disk.read(6) == nil)
        disk.put(next, unit: 6)
        #expect(disk.read(6) == nil)
    }

    @Test func thinningKeepsTheNewest() throws {
        var disk = try SmallDisk()
        for _ in 0..<10_000 { _ = disk.write(0) }
        let last = disk.write(0)
        #expect(disk.ledger.dirty.count < 5_000)
        disk.flush()
        disk.ledger.loseSession()
        disk.put(last - 1, unit: 0)
        #expect(disk.read(0) != nil)
    }

    @Test func knownOriginalBytes() throws {
        let disk = try SmallDisk()
        var expectation = ReadExpectation()
        disk.ledger.expect(0..<1, into: &expectation)
        let rubbish = [UInt8](repeating: 1, count: 1024)
        let zeroes = [UInt8](repeating: 0, count: 1024)
        func check(_ bytes: [UInt8]) -> Mismatch? {
            zeroes.withUnsafeBytes { known in
                bytes.withUnsafeBytes { raw in
                    disk.ledger.check(
                        raw, firstUnit: 0, against: expectation, stamp: disk.stamp,
                        original: { _ in UnsafeRawBufferPointer(rebasing: known[0..<512]) })
                }
            }
        }
        #expect(check(zeroes) == nil)
        #expect(check(rubbish)?.expected == "the original bytes")
    }
}
