import Blocks
import Ciphers
import NIOCore
import SimulatedStorage
import Testing

@testable import WriteLog

@Suite struct WriteLogTests {
    @Test func readsBackWhatWasWritten() throws {
        let harness = try LogHarness()
        let log = try harness.open()
        try harness.append(range(0, 20), fill: 1)
        try harness.append(range(5, 3), fill: 2)
        try harness.wait { log.appendZeroes(range(18, 10), now: harness.scheduler.now, completion: $0) }
        let expected = (0..<28).map { sector -> [UInt8]? in
            let fill: UInt8 = sector >= 18 ? 0 : (5..<8).contains(sector) ? 2 : 1
            return [UInt8](repeating: fill, count: 512)
        }
        #expect(try harness.overlay(range(0, 30)) == expected + [nil, nil])
        try harness.flush()
        for _ in 0..<8 { #expect(try harness.overlay(range(0, 30)) == expected + [nil, nil]) }
        #expect(try harness.overlay(range(6, 5)) == Array(expected[6..<11]))
        #expect(log.hasUnsent(overlapping: range(27, 100)))
        #expect(!log.hasUnsent(overlapping: range(28, 100)))
        #expect(log.backlog(after: 0).bytes == 18 * 512)
        #expect(log.statistics.unwrittenBytes == 0)
    }

    @Test func servesUnwrittenDataFromMemoryAndAcknowledgesWrittenData() throws {
        let harness = try LogHarness()
        harness.machine.faults.atOncePercent = 0
        let log = try harness.open()
        var isDone = false
        log.append(range(8, 8), data: ByteBuffer(repeating: 9, count: 4096), now: harness.scheduler.now) { _ in isDone = true }
        #expect(!isDone, "no write is acknowledged that dies with the process")
        let segments = log.segments(in: range(10, 2))
        #expect(segments.map(\.range) == [range(10, 2)])
        var buffer = ByteBuffer()
        #expect(log.readIfResident(segments[0], into: &buffer))
        #expect(buffer == ByteBuffer(repeating: 9, count: 1024))
        harness.scheduler.runUntilIdle()
        #expect(isDone)
    }

    @Test(arguments: [0, 50, 100] as [UInt64])
    func whatIsAcknowledgedOutlivesTheProcess(atOncePercent: UInt64) throws {
        let harness = try LogHarness(seed: 3)
        harness.machine.faults.atOncePercent = atOncePercent
        for round in 1...20 as ClosedRange<UInt8> {
            let log = try harness.open()
            var acknowledged = Set<UInt64>()
            for number in 0..<10 as Range<UInt64> {
                let data = ByteBuffer(repeating: round, count: 4096)
                log.append(range(number * 8, 8), data: data, now: harness.scheduler.now) { result in
                    if case .success = result { acknowledged.insert(number) }
                }
                _ = harness.scheduler.step()
            }
            harness.crash(power: false)
            try harness.open()
            for number in acknowledged {
                #expect(try harness.overlay(range(number * 8, 1)) == [[UInt8](repeating: round, count: 512)])
            }
        }
    }

    @Test func aSmallBatchIsWrittenAtOnceAndALargeOneIsNot() throws {
        let harness = try LogHarness()
        harness.machine.faults.atOncePercent = 100
        let log = try harness.open()
        var small = false
        var large = false
        log.append(range(0, 8), data: ByteBuffer(repeating: 1, count: 4096), now: harness.scheduler.now) { _ in small = true }
        #expect(small && log.statistics.unwrittenBytes == 0)
        log.append(range(0, 1024), data: ByteBuffer(repeating: 2, count: 512 << 10), now: harness.scheduler.now) { _ in large = true }
        #expect(!large && log.statistics.unwrittenBytes == 512 << 10)
        harness.scheduler.runUntilIdle()
        #expect(large)
        #expect(try harness.overlay(range(7, 1)) == [[UInt8](repeating: 2, count: 512)])
    }

    @Test func writesOfOneTurnGatherInOneBatch() throws {
        let harness = try LogHarness()
        harness.machine.faults.atOncePercent = 100
        let log = try harness.open()
        let before = log.statistics.batches
        var told = 0
        log.onGathering = { told += 1 }
        var completed = 0
        for number in 0..<16 as Range<UInt64> {
            log.append(range(number * 8, 8), data: ByteBuffer(repeating: 1, count: 4096), now: harness.scheduler.now) { _ in completed += 1
            }
        }
        #expect(told == 1 && completed == 0)
        log.writeGathered()
        #expect(completed == 16)
        #expect(log.statistics.batches == before + 1)
        // A flush does not wait for the turn to end.
        log.append(range(0, 8), data: ByteBuffer(repeating: 2, count: 4096), now: harness.scheduler.now) { _ in completed += 1 }
        try harness.flush()
        #expect(told == 2 && completed == 17)
    }

    private func sizeOfFile(_ epoch: PointNumber, part: UInt32 = 0, in harness: LogHarness) -> UInt64 {
        UInt64(harness.directory.file(LogFormat.fileName(epoch: epoch, part: part))?.content.count ?? 0)
    }

    /// A file whose batches are flushed as they come grows seldom, and is cut to its batches with the seal.
    @Test(arguments: [0, 100] as [UInt64])
    func flushedBatchesFindTheirPlaceInTheFile(atOncePercent: UInt64) throws {
        let harness = try LogHarness(seed: 5)
        harness.machine.faults.atOncePercent = atOncePercent
        var log = try harness.open()
        var sizes = Set<UInt64>()
        for number in 0..<200 as Range<UInt64> {
            try harness.append(range(number * 8, 8), fill: UInt8(1 + number % 200))
            try harness.flush()
            sizes.insert(sizeOfFile(1, in: harness))
            #expect(log.statistics.fileBytes == sizeOfFile(1, in: harness))
        }
        #expect(sizes.count < 10, "\(sizes.sorted())")
        harness.crash(power: true)
        log = try harness.open()
        for number in 0..<200 as Range<UInt64> {
            #expect(try harness.overlay(range(number * 8, 1)) == [[UInt8](repeating: UInt8(1 + number % 200), count: 512)])
        }
        // The next part does the same until it is sealed.
        for number in 0..<20 as Range<UInt64> {
            try harness.append(range(number * 8, 8), fill: 9)
            try harness.flush()
        }
        let before = sizeOfFile(1, part: 1, in: harness)
        #expect(try harness.seal() == 1)
        let after = sizeOfFile(1, part: 1, in: harness)
        #expect(after < before && after < 20 * 5_120 + 8_192, "\(before), \(after)")
        #expect(log.statistics.fileBytes == sizeOfFile(1, in: harness) + after + sizeOfFile(2, in: harness))
        try harness.release(through: 1)
        #expect(log.statistics.fileBytes == harness.directory.byteCount)
        #expect(log.usedBytes == sizeOfFile(2, in: harness))
    }

    @Test func nothingIsZeroedAheadWithoutFlushesOrWithoutRoom() throws {
        let harness = try LogHarness()
        let log = try harness.open()
        for number in 0..<50 as Range<UInt64> { try harness.append(range(number * 8, 8), fill: 3) }
        #expect(log.statistics.fileBytes < 50 * 5_120 + 8_192)
        harness.crash(power: false)
        harness.limits.logBytesMax = 600 << 10
        let small = try harness.open()
        for number in 0..<10 as Range<UInt64> {
            try harness.append(range(number * 8, 8), fill: 4)
            try harness.flush()
        }
        #expect(small.statistics.fileBytes < 60 * 5_120 + 16_384)
    }

    @Test func aBatchThatFitsWithoutTheZeroesIsWritten() throws {
        let harness = try LogHarness()
        let log = try harness.open()
        try harness.append(range(0, 8), fill: 3)
        try harness.flush()
        harness.machine.faults.capacityBytes = harness.machine.usedBytes + 8_000
        try harness.append(range(8, 8), fill: 4)
        try harness.flush()
        #expect(log.obstacle == nil)
        #expect(log.statistics.fileBytes == sizeOfFile(1, in: harness))
        #expect(try harness.overlay(range(8, 1)) == [[UInt8](repeating: 4, count: 512)])
    }

    @Test func survivesARestart() throws {
        let harness = try LogHarness()
        let identifier = try harness.open().logIdentifier
        try harness.append(range(0, 8), fill: 1)
        try harness.flush()
        harness.crash(power: true)
        let second = try harness.open()
        #expect(second.logIdentifier == identifier)
        #expect(second.currentEpoch == 1)
        try harness.append(range(4, 8), fill: 2)
        #expect(try harness.seal() == 1)
        try harness.append(range(100, 1), fill: 3)
        try harness.flush()
        harness.crash(power: true)
        let third = try harness.open()
        #expect(third.lastSealedPoint == 1)
        #expect(third.currentEpoch == 2)
        #expect(third.sealedPoints.map(\.number) == [1])
        #expect(third.sealedPoints.map(\.byteCount) == [12 * 512])
        let fills = try harness.contents(of: third.contents(of: 1), in: range(0, 12)).map { $0?.first }
        #expect(fills == [1, 1, 1, 1] + [UInt8](repeating: 2, count: 8))
        #expect(try harness.overlay(range(100, 1)) == [[UInt8](repeating: 3, count: 512)])
    }

    @Test func keepsItsNameAndNumbersWhenAllIsSent() throws {
        let harness = try LogHarness()
        let identifier = try harness.open().logIdentifier
        for number in 1...5 as ClosedRange<UInt64> {
            try harness.append(range(number, 3), fill: UInt8(number))
            #expect(try harness.seal() == number)
            try harness.release(through: number)
            #expect(harness.directory.names.filter { LogFormat.parse(fileName: $0) != nil }.count == 1)
            harness.crash(power: number % 2 == 0)
            let log = try harness.open()
            #expect(log.logIdentifier == identifier)
            #expect(log.lastSealedPoint == number)
            #expect(log.currentEpoch == number + 1)
            #expect(log.oldestEpoch == number + 1)
            #expect(!log.hasUnsent(overlapping: range(0, 1000)))
            #expect(harness.directory.names.filter { LogFormat.parse(fileName: $0) != nil }.count == 1, "restarts leave no files behind")
        }
    }

    @Test func anEmptyEpochMakesNoPoint() throws {
        let harness = try LogHarness()
        let log = try harness.open()
        #expect(try harness.seal() == 0)
        try harness.append(range(0, 1), fill: 1)
        #expect(try harness.seal() == 1)
        #expect(try harness.seal() == 1)
        #expect(log.currentEpoch == 2)
        #expect(log.sealedPoints.count == 1)
    }

    @Test func writersGoOnWhileAPointIsSealed() throws {
        let harness = try LogHarness()
        let log = try harness.open()
        let now = harness.scheduler.now
        var sealed: [PointNumber] = []
        log.append(range(0, 8), data: ByteBuffer(repeating: 1, count: 4096), now: now) { _ in }
        log.seal(now: now) { if case .success(let number) = $0 { sealed.append(number) } }
        log.append(range(4, 8), data: ByteBuffer(repeating: 2, count: 4096), now: now) { _ in }
        log.seal(now: now) { if case .success(let number) = $0 { sealed.append(number) } }
        #expect(log.currentEpoch == 3)
        #expect(log.sealedPoints.isEmpty, "a point is sealed when it is durable")
        harness.scheduler.runUntilIdle()
        #expect(sealed == [1, 2])
        #expect(
            try harness.contents(of: log.contents(of: 1), in: range(0, 12)).map { $0?.first } == [
                1, 1, 1, 1, 1, 1, 1, 1, nil, nil, nil, nil,
            ])
        #expect(
            try harness.contents(of: log.contents(of: 2), in: range(0, 12)).map { $0?.first } == [
                nil, nil, nil, nil, 2, 2, 2, 2, 2, 2, 2, 2,
            ])
        // What the second point overwrote is still the second's when the first is gone.
        try harness.release(through: 1)
        #expect(try harness.overlay(range(0, 12)).map { $0?.first } == [nil, nil, nil, nil, 2, 2, 2, 2, 2, 2, 2, 2])
        #expect(log.oldestEpoch == 2)
    }

    @Test func aHeldSegmentOutlivesItsPoint() throws {
        let harness = try LogHarness()
        harness.machine.faults.residentPercent = 0
        let log = try harness.open()
        try harness.append(range(0, 8), fill: 5)
        #expect(try harness.seal() == 1)
        let held = log.contents(of: 1)
        var early: Result<ByteBuffer, WriteLogError>?
        log.read(held[0]) { early = $0 }
        try harness.release(through: 1)
        #expect(try early?.get() == ByteBuffer(repeating: 5, count: 4096))
        let late = try harness.wait { log.read(held[0], completion: $0) }
        #expect(late == ByteBuffer(repeating: 5, count: 4096))
    }

    @Test func flushesShareOneSync() throws {
        let harness = try LogHarness()
        let log = try harness.open()
        let before = log.statistics
        var flushed = 0
        for number in 0..<100 as Range<UInt64> {
            log.append(range(number, 1), data: ByteBuffer(repeating: 1, count: 512), now: harness.scheduler.now) { _ in }
            log.flush { if case .success = $0 { flushed += 1 } }
        }
        harness.scheduler.runUntilIdle()
        #expect(flushed == 100)
        #expect(log.statistics.batches - before.batches <= 3)
        #expect(log.statistics.syncs - before.syncs <= 3)
    }

    @Test func saysWhoseFilesTheyAre() throws {
        let harness = try LogHarness()
        try harness.open()
        try harness.append(range(0, 1), fill: 1)
        try harness.flush()
        let other = VolumeIdentifier(high: 1, low: 2)
        #expect(harness.openError(volume: other) == .foreign(harness.volume))
        harness.keys = DataKeys(try SecretKey([UInt8](repeating: 8, count: 32)))
        #expect(harness.openError() == .wrongKey)
        harness.keys = DataKeys(try SecretKey([UInt8](repeating: 7, count: 32)))
        #expect(harness.openError() == nil)
    }

    @Test func showsNoPlaintext() throws {
        let harness = try LogHarness()
        try harness.open()
        let pattern = Array("CUSTOMER SECRET!".utf8)
        let sector = (0..<8192).map { pattern[$0 % 16] }
        let log = try #require(harness.log)
        try harness.wait {
            log.append(range(32, 16), data: ByteBuffer(bytes: sector), now: harness.scheduler.now, completion: $0)
        }
        try harness.flush()
        for bytes in harness.machine.allBytes {
            #expect(!bytes.isEmpty)
            for start in 0..<max(0, bytes.count - 8) { #expect(!bytes[start..<start + 8].elementsEqual(pattern[0..<8])) }
        }
    }
}
