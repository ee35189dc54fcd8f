import Blocks
import Ciphers
import NIOCore
import SimulatedStorage
import Testing

@testable import WriteLog

/// Rotation of the key while the log is open. Under load and through crashes it is in WriteLogCrashTests.
@Suite struct WriteLogKeyTests {
    private func range(_ start: UInt64, _ count: UInt64) throws -> SectorRange { try #require(SectorRange(start: start, count: count)) }

    private func rotate(_ harness: LogHarness) throws {
        let next = try #require(DataKeys([1: harness.keys.newestKey, 2: try .random()]))
        harness.keys = next
        try #require(harness.log).use(next)
        harness.scheduler.runUntilIdle()
    }

    private func forgetOlder(_ harness: LogHarness) { harness.keys = DataKeys(harness.keys.newestKey, generation: harness.keys.newest) }

    @Test func aLogWithoutWritesNeedsTheOldKeyNoMore() throws {
        let harness = try LogHarness()
        let log = try harness.open()
        #expect(log.keyGenerations == [1])
        try rotate(harness)
        #expect(log.keyGenerations == [2])
        #expect(harness.directory.names == ["epoch-0000000000000001-1.log"])
        forgetOlder(harness)
        harness.crash(power: true)
        #expect(try harness.open().logIdentifier == log.logIdentifier)
    }

    @Test func whatIsThereStaysReadableAndGoesWithItsPoint() throws {
        let harness = try LogHarness()
        let log = try harness.open()
        try harness.append(try range(0, 8), fill: 1)
        try harness.flush()
        try rotate(harness)
        try harness.append(try range(4, 8), fill: 2)
        try harness.flush()
        #expect(log.keyGenerations == [1, 2])
        let content = try harness.overlay(try range(0, 12)).map { $0?.first }
        #expect(content == [1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2])
        harness.crash(power: true)
        let again = try harness.open()
        #expect(try harness.overlay(try range(0, 12)).map { $0?.first } == content)
        #expect(again.keyGenerations == [1, 2])
        let point = try harness.seal()
        #expect(again.keyGenerations == [1, 2], "it is not home yet")
        try harness.release(through: point)
        #expect(again.keyGenerations == [2])
        forgetOlder(harness)
        harness.crash(power: true)
        #expect(try harness.open().keyGenerations == [2])
    }

    @Test func aKeyThatIsNotAtHandIsNamed() throws {
        let harness = try LogHarness()
        try harness.open()
        try harness.append(try range(0, 8), fill: 1)
        try harness.flush()
        try rotate(harness)
        try harness.append(try range(0, 8), fill: 2)
        try harness.flush()
        let all = harness.keys
        harness.crash(power: true)
        forgetOlder(harness)
        #expect(harness.openError() == .missingKey(1))
        harness.keys = DataKeys(try #require(all[1]))
        #expect(harness.openError() == .missingKey(2))
        harness.keys = DataKeys(try .random(), generation: 1)
        #expect(harness.openError() == .wrongKey)
    }

    /// The disk is full when the key is rotated: what was sealed for a retry goes where it was to go, all else under the new key.
    @Test func aRotationWithoutRoomGoesOnWhenThereIsSome() throws {
        let harness = try LogHarness()
        let log = try harness.open()
        try harness.append(try range(0, 8), fill: 1)
        harness.machine.faults.capacityBytes = 0
        var isWritten = false
        log.append(try range(8, 8), data: ByteBuffer(repeating: 2, count: 4096), now: harness.scheduler.now) { _ in isWritten = true }
        harness.scheduler.runUntilIdle()
        try rotate(harness)
        #expect(!isWritten && log.obstacle == .noSpace)
        harness.machine.faults.capacityBytes = .max
        log.tick(now: harness.scheduler.now)
        harness.scheduler.runUntilIdle()
        #expect(isWritten && log.obstacle == nil)
        try harness.append(try range(16, 8), fill: 3)
        try harness.flush()
        #expect(log.keyGenerations == [1, 2])
        harness.crash(power: true)
        try harness.open()
        #expect(
            try harness.overlay(try range(0, 24)).map { $0?.first } == Array(repeating: 1, count: 8) + Array(repeating: 2, count: 8)
                + Array(repeating: 3, count: 8))
    }

    /// What waited to be removed is still there, and opens under the older key only: home must not destroy that.
    @Test func aFailedLogCanNotSayWhichKeysItNeeds() throws {
        let harness = try LogHarness()
        let log = try harness.open()
        try harness.append(try range(0, 8), fill: 1)
        let point = try harness.seal()
        try rotate(harness)
        try harness.append(try range(8, 8), fill: 2)
        try harness.flush()
        harness.machine.faults.isReadOnly = true
        log.release(through: point) { _ in }
        harness.scheduler.runUntilIdle()
        #expect(log.keyGenerations == [1, 2], "the removal rests")
        harness.machine.faults.isReadOnly = false
        harness.machine.faults.failsWrites = true
        log.append(try range(16, 8), data: ByteBuffer(repeating: 3, count: 4096), now: harness.scheduler.now) { _ in }
        harness.scheduler.runUntilIdle()
        #expect(log.failure != nil)
        #expect(log.keyGenerations == nil)
        harness.machine.faults.failsWrites = false
        harness.crash(power: false)
        try harness.open()
        #expect(try harness.overlay(try range(8, 8)).map { $0?.first } == Array(repeating: 2, count: 8))
    }
}
