import Blocks
import Ciphers
import NIOCore
import SimulatedStorage
import Testing

@testable import WriteLog

@Suite struct WriteLogLimitTests {
    @Test func aFullMemoryHoldsWritesBack() throws {
        let harness = try LogHarness()
        harness.machine.faults.atOncePercent = 0
        harness.limits.unwrittenBytesMax = 64 << 10
        let log = try harness.open()
        var completed = 0
        for number in 0..<32 as Range<UInt64> {
            log.append(range(number * 8, 8), data: ByteBuffer(repeating: 1, count: 4096), now: harness.scheduler.now) { _ in
                completed += 1
            }
        }
        #expect(log.statistics.unwrittenBytes == 64 << 10)
        #expect(log.statistics.waitingAppends == 16)
        #expect(!log.isWaitingForSpace, "the log has room: only the file is slow")
        harness.scheduler.runUntilIdle()
        #expect(completed == 32)
        #expect(log.statistics.unwrittenBytes == 0)
    }

    @Test func aWriteLargerThanTheMemoryIsTakenAlone() throws {
        let harness = try LogHarness()
        harness.limits.unwrittenBytesMax = 64 << 10
        try harness.open()
        try harness.append(range(0, 256), fill: 5)
        #expect(try harness.overlay(range(255, 1)) == [[UInt8](repeating: 5, count: 512)])
    }

    @Test func aFullLogAsksForASealAndWaitsForRoom() throws {
        let harness = try LogHarness()
        harness.limits.logBytesMax = 128 << 10
        let log = try harness.open()
        var asked = 0
        log.onWantsSeal = { asked += 1 }
        var completed = 0
        for number in 0..<64 as Range<UInt64> {
            log.append(range(number * 8, 8), data: ByteBuffer(repeating: 1, count: 4096), now: harness.scheduler.now) {
                if case .success = $0 { completed += 1 }
            }
            harness.scheduler.runUntilIdle()
        }
        #expect(completed < 32)
        #expect(log.statistics.fileBytes <= 128 << 10)
        #expect(log.isWaitingForSpace)
        #expect(asked == 1)
        let first = try harness.seal()
        try harness.release(through: first)
        #expect(completed > 32)
        let second = try harness.seal()
        try harness.release(through: second)
        let third = try harness.seal()
        try harness.release(through: third)
        #expect(completed == 64)
        #expect(!log.isWaitingForSpace)
        #expect(log.backlog(after: 0).bytes == 0)
    }

    /// A machine that unmaps every other sector takes next to nothing of the files, and of the memory no more than the log may have.
    @Test func anIndexThatIsFullHoldsWritesBack() throws {
        let harness = try LogHarness()
        harness.limits = WriteLogLimits(logBytesMax: 1 << 20, slowingPercent: 100)
        let log = try harness.open()
        var asked = 0
        log.onWantsSeal = { asked += 1 }
        var completed = 0
        for number in 0..<2000 as Range<UInt64> {
            log.appendZeroes(range(number * 2, 1), now: harness.scheduler.now) { if case .success = $0 { completed += 1 } }
        }
        harness.scheduler.runUntilIdle()
        #expect(log.indexBytes <= (1 << 20) / 8)
        #expect(log.statistics.fileBytes < 256 << 10)
        #expect(completed < 1000)
        #expect(log.isFull && log.isWaitingForSpace)
        #expect(asked == 1)
        for _ in 0..<3 { try harness.release(through: try harness.seal()) }
        #expect(completed == 2000)
        #expect(!log.isFull)
        #expect(log.indexBytes < 1024, "what was released is in no map any more")
    }

    /// A log is as full as its index when a process finds it again, and goes on when points are released.
    @Test func aRecoveredIndexCounts() throws {
        let harness = try LogHarness()
        harness.limits.logBytesMax = 1 << 20
        let log = try harness.open()
        for number in 0..<200 as Range<UInt64> { try harness.append(range(number * 2, 1), fill: 1) }
        let before = log.indexBytes
        try harness.flush()
        harness.crash(power: true)
        let recovered = try harness.open()
        // A batch more or less, and no records of seals.
        #expect(abs(recovered.indexBytes - before) <= LogIndexSize.writeBytesMax)
        #expect(recovered.usedBytes >= UInt64(before) * 8)
        recovered.resize(logBytesMax: 64 << 10)
        var isDone = false
        recovered.append(range(0, 1), data: ByteBuffer(repeating: 2, count: 512), now: harness.scheduler.now) { _ in isDone = true }
        harness.scheduler.runUntilIdle()
        #expect(!isDone && recovered.isFull)
        try harness.release(through: try harness.seal())
        #expect(isDone)
    }

    /// What is counted is what there is: overwriting, splitting and releasing leave nothing behind.
    @Test func theIndexIsCountedExactly() throws {
        let harness = try LogHarness()
        let log = try harness.open()
        try harness.append(range(0, 64), fill: 1)
        try harness.append(range(16, 8), fill: 2)
        let expected = 2 * (LogIndexSize.batchBytes + LogIndexSize.recordBytes) + 2 * 3 * LogIndexSize.extentBytes
        #expect(log.indexBytes == expected)
        try harness.append(range(0, 64), fill: 3)
        #expect(log.indexBytes == 3 * (LogIndexSize.batchBytes + LogIndexSize.recordBytes) + 2 * LogIndexSize.extentBytes)
        try harness.release(through: try harness.seal())
        #expect(log.indexBytes == 0)
    }

    @Test func whatWaitsTooLongFails() throws {
        let harness = try LogHarness()
        harness.limits.logBytesMax = 64 << 10
        let log = try harness.open()
        var results: [Result<Void, WriteLogError>] = []
        for number in 0..<32 as Range<UInt64> {
            log.append(range(number * 8, 8), data: ByteBuffer(repeating: 1, count: 4096), now: harness.scheduler.now) {
                results.append($0)
            }
        }
        harness.scheduler.runUntilIdle()
        let succeeded = results.count
        log.failWaiting(.noSpace("the log is full"))
        #expect(results.count == 32)
        for (number, result) in results.enumerated() {
            if number < succeeded {
                #expect(throws: Never.self) { try result.get() }
            } else {
                #expect(throws: WriteLogError.noSpace("the log is full")) { try result.get() }
            }
        }
        // What failed was never ordered.
        #expect(!log.hasUnsent(overlapping: range(UInt64(succeeded) * 8, 1000)))
    }

    /// A write that never fitted held those behind it back; when it has failed they go on, though nothing else happens.
    @Test func whatStoodBehindAFailedWriteGoesOn() throws {
        let harness = try LogHarness()
        harness.limits.logBytesMax = 128 << 10
        let log = try harness.open()
        try harness.append(range(0, 128), fill: 1)
        var large: Result<Void, WriteLogError>?
        var small: Result<Void, WriteLogError>?
        let start = harness.scheduler.now
        log.append(range(0, 192), data: ByteBuffer(repeating: 2, count: 96 << 10), now: start) { large = $0 }
        log.append(range(512, 8), data: ByteBuffer(repeating: 3, count: 4096), now: start + .seconds(1)) { small = $0 }
        harness.scheduler.runUntilIdle()
        #expect(large == nil && small == nil && log.isWaitingForSpace)
        log.failHeld(appendedBefore: start + .milliseconds(1), .noSpace("full"))
        harness.scheduler.runUntilIdle()
        #expect(throws: WriteLogError.noSpace("full")) { try #require(large).get() }
        #expect(throws: Never.self) { try #require(small).get() }
        #expect(!log.isWaitingForSpace)
    }

    /// A point is durable with the next sync, though the one who waited for that was told that it takes too long.
    @Test(arguments: [0, 100] as [UInt64]) func aSealThatWasGivenUpBecomesDurable(atOncePercent: UInt64) throws {
        let harness = try LogHarness()
        harness.machine.faults.atOncePercent = atOncePercent
        let log = try harness.open()
        try harness.append(range(0, 8), fill: 1)
        harness.machine.faults.isReadOnly = true
        var sealed: Result<PointNumber, WriteLogError>?
        log.seal(now: harness.scheduler.now) { sealed = $0 }
        harness.scheduler.runUntilIdle()
        log.failWaiting(.noSpace("it takes no changes"))
        #expect(throws: WriteLogError.noSpace("it takes no changes")) { try #require(sealed).get() }
        harness.machine.faults.isReadOnly = false
        log.tick(now: harness.scheduler.now)
        harness.scheduler.runUntilIdle()
        #expect(log.sealedPoints.map(\.number) == [1])
    }

    /// The owner may call anything from where it hears of a write, which may be within another call of the log.
    @Test func callsFromInsideOfACompletion() throws {
        let harness = try LogHarness()
        harness.machine.faults.atOncePercent = 100
        let log = try harness.open()
        var events: [String] = []
        let now = harness.scheduler.now
        log.append(range(0, 8), data: ByteBuffer(repeating: 1, count: 4096), now: now) { _ in
            events.append("first")
            log.append(range(0, 8), data: ByteBuffer(repeating: 2, count: 4096), now: now) { _ in events.append("second") }
            log.flush { _ in events.append("flushed") }
            log.seal(now: now) { _ in events.append("sealed") }
            log.append(range(8, 8), data: ByteBuffer(repeating: 3, count: 4096), now: now) { _ in
                events.append("third")
                log.close { _ in events.append("closed") }
            }
        }
        harness.scheduler.runUntilIdle()
        // The third write is in the next epoch, whose file has to be made first.
        #expect(events.filter { $0 != "third" } == ["first", "second", "flushed", "sealed", "closed"])
        #expect(events.filter { $0 == "third" || $0 == "closed" } == ["third", "closed"])
        try harness.open()
        #expect(try harness.overlay(range(7, 2)).map { $0?.first } == [2, 3])
    }

    @Test func aLogThatIsClosedWritesWhatHasGathered() throws {
        let harness = try LogHarness()
        let log = try harness.open()
        log.onGathering = {}
        var isDone = false
        log.append(range(0, 8), data: ByteBuffer(repeating: 7, count: 4096), now: harness.scheduler.now) { isDone = $0.isSuccess }
        #expect(!isDone)
        try harness.wait { log.close(completion: $0) }
        #expect(isDone)
        harness.crash(power: true)
        try harness.open()
        #expect(try harness.overlay(range(0, 1))[0]?.first == 7)
    }

    @Test(arguments: [0, 50, 100] as [UInt64]) func aFullFileSystemLosesNothing(atOncePercent: UInt64) throws {
        let harness = try LogHarness()
        harness.machine.faults.atOncePercent = atOncePercent
        let log = try harness.open()
        harness.machine.faults.capacityBytes = 40 << 10
        var acknowledged: [UInt64] = []
        for number in 0..<20 as Range<UInt64> {
            log.append(
                range(number * 8, 8), data: ByteBuffer(repeating: UInt8(number + 1), count: 4096), now: harness.scheduler.now
            ) {
                if case .success = $0 { acknowledged.append(number) }
            }
            harness.scheduler.runUntilIdle()
        }
        #expect(log.isWaitingForSpace)
        #expect(acknowledged.count < 20)
        var flushed: Result<Void, WriteLogError>?
        log.flush { flushed = $0 }
        log.tick(now: harness.scheduler.now)
        harness.scheduler.runUntilIdle()
        #expect(flushed == nil, "a flush waits while there is no room")
        for number in acknowledged { #expect(try harness.overlay(range(number * 8, 1))[0]?.first == UInt8(number + 1)) }
        harness.machine.faults.capacityBytes = .max
        log.tick(now: harness.scheduler.now)
        harness.scheduler.runUntilIdle()
        #expect(throws: Never.self) { try #require(flushed).get() }
        #expect(acknowledged.count == 20)
        try harness.flush()
        harness.crash(power: true)
        try harness.open()
        for number in 0..<20 as Range<UInt64> {
            #expect(try harness.overlay(range(number * 8, 1))[0]?.first == UInt8(number + 1))
        }
    }

    @Test(arguments: [0, 50, 100] as [UInt64]) func aReadOnlyFileSystemLosesNothing(atOncePercent: UInt64) throws {
        let harness = try LogHarness()
        harness.machine.faults.atOncePercent = atOncePercent
        let log = try harness.open()
        for number in 0..<10 as Range<UInt64> { try harness.append(range(number * 8, 8), fill: UInt8(number + 1)) }
        let point = try harness.seal()
        try harness.append(range(80, 8), fill: 11)
        harness.machine.faults.isReadOnly = true
        var written: Result<Void, WriteLogError>?
        var flushed: Result<Void, WriteLogError>?
        var released: Result<Void, WriteLogError>?
        log.append(range(88, 8), data: ByteBuffer(repeating: 12, count: 4096), now: harness.scheduler.now) { written = $0 }
        log.flush { flushed = $0 }
        log.release(through: point) { released = $0 }
        for _ in 0..<3 {
            harness.scheduler.runUntilIdle()
            log.tick(now: harness.scheduler.now)
        }
        harness.scheduler.runUntilIdle()
        #expect(written == nil && flushed == nil && released == nil, "all wait")
        #expect(log.obstacle == .readOnly && log.isWaitingForSpace && log.failure == nil)
        #expect(try harness.overlay(range(80, 16)).map { $0?.first } == [UInt8](repeating: 11, count: 8) + [UInt8](repeating: 12, count: 8))
        harness.machine.faults.isReadOnly = false
        log.tick(now: harness.scheduler.now)
        harness.scheduler.runUntilIdle()
        #expect(throws: Never.self) { try #require(written).get() }
        #expect(throws: Never.self) { try #require(flushed).get() }
        #expect(throws: Never.self) { try #require(released).get() }
        #expect(log.obstacle == nil && !log.isWaitingForSpace)
        harness.crash(power: true)
        try harness.open()
        #expect(try harness.overlay(range(80, 16)).map { $0?.first } == [UInt8](repeating: 11, count: 8) + [UInt8](repeating: 12, count: 8))
        #expect(try harness.overlay(range(0, 80)).allSatisfy { $0 == nil }, "what was released is gone")
    }

    @Test func aFileThatCannotBeRemovedHoldsUpNobody() throws {
        let harness = try LogHarness()
        let log = try harness.open()
        try harness.append(range(0, 8), fill: 1)
        let point = try harness.seal()
        try harness.append(range(8, 8), fill: 2)
        try harness.flush()
        harness.machine.faults.deniesNames = true
        var released: Result<Void, WriteLogError>?
        log.release(through: point) { released = $0 }
        harness.scheduler.runUntilIdle()
        #expect(released == nil && log.obstacle == .readOnly)
        // The file of the epoch that gathers is there, and takes more.
        try harness.append(range(16, 8), fill: 3)
        try harness.flush()
        #expect(!log.isWaitingForSpace && log.obstacle == .readOnly)
        harness.machine.faults.deniesNames = false
        log.tick(now: harness.scheduler.now)
        harness.scheduler.runUntilIdle()
        #expect(throws: Never.self) { try #require(released).get() }
        #expect(log.obstacle == nil)
    }

    @Test func aFailingDiskEndsTheLogLoudly() throws {
        let harness = try LogHarness()
        let log = try harness.open()
        try harness.append(range(0, 8), fill: 1)
        try harness.flush()
        harness.machine.faults.failsWrites = true
        log.append(range(8, 8), data: ByteBuffer(repeating: 2, count: 4096), now: harness.scheduler.now) { _ in }
        #expect(throws: WriteLogError.self) { try harness.flush() }
        #expect(log.failure != nil)
        #expect(throws: WriteLogError.self) { try harness.append(range(0, 1), fill: 3) }
        #expect(throws: WriteLogError.self) { try harness.seal() }
        #expect(
            try harness.overlay(range(0, 16)).map { $0?.first } == [UInt8](repeating: 1, count: 8)
                + [UInt8](repeating: 2, count: 8))
        harness.machine.faults.failsWrites = false
        #expect(throws: WriteLogError.self) { try harness.flush() }
        #expect(throws: WriteLogError.self) { try harness.wait { log.close(completion: $0) } }
    }

    @Test func closesAfterAFlush() throws {
        let harness = try LogHarness()
        let log = try harness.open()
        log.append(range(0, 8), data: ByteBuffer(repeating: 1, count: 4096), now: harness.scheduler.now) { _ in }
        try harness.wait { log.close(completion: $0) }
        #expect(throws: WriteLogError.closed) { try harness.append(range(0, 1), fill: 2) }
        harness.crash(power: true)
        try harness.open()
        #expect(try harness.overlay(range(0, 8)).allSatisfy { $0?.first == 1 })
    }
}
