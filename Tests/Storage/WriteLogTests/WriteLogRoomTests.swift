import Blocks
import Ciphers
import NIOCore
import SimulatedStorage
import Testing

@testable import WriteLog

/// What files that wait for an epoch take, and how they give way.
@Suite struct WriteLogRoomTests {
    @Test func sparesTakeAQuarterAndGiveWayToWriters() throws {
        let harness = try LogHarness()
        harness.limits.logBytesMax = 1 << 20
        let log = try harness.open()
        for round in 0..<20 as Range<UInt8> {
            try harness.points(3, blocks: 10, fill: round)
            try harness.tend()
            try harness.checkAccounts(log)
            #expect(log.spares.count <= LogFormat.sparesMax)
            #expect(log.fileBytes - log.contentBytes <= 1 << 18)
        }
        #expect(!log.spares.isEmpty)
        // Writers get all of the log, and nobody waits before it is full.
        var written: UInt64 = 0
        while log.usedBytes + 2 * 5_120 + 4096 <= 1 << 20 {
            try harness.append(range(written * 8, 8), fill: 7)
            written += 1
            try harness.tend()
            #expect(harness.directory.byteCount <= 1 << 20)
        }
        #expect(written > 190 && log.spares.isEmpty && !log.isWaitingForSpace)
        try harness.checkAccounts(log)
    }

    @Test func aSmallerLogHasLessRoomForThem() throws {
        let harness = try LogHarness()
        harness.limits.logBytesMax = 4 << 20
        let log = try harness.open()
        try harness.points(4, blocks: 40, fill: 1)
        #expect(harness.directory.spares.count == 4)
        log.resize(logBytesMax: 1 << 20)
        harness.scheduler.runUntilIdle()
        #expect(harness.directory.spares.count == 1)
        log.resize(logBytesMax: 8 << 10)
        harness.scheduler.runUntilIdle()
        #expect(harness.directory.spares.isEmpty)
        try harness.checkAccounts(log)
    }

    /// A file that is larger than all the room keeps its first part.
    @Test func aLargeFileIsCut() throws {
        let harness = try LogHarness()
        harness.limits.logBytesMax = 8 << 20
        let log = try harness.open()
        for number in 0..<12 as Range<UInt64> { try harness.append(range(number * 512, 512), fill: 1) }
        try harness.release(through: try harness.seal())
        try harness.tend()
        #expect(log.spares.map(\.byteCount) == [2 << 20])
        try harness.checkAccounts(log)
    }

    @Test(arguments: [0, 100] as [UInt64]) func aFullFileSystemGetsThemBackFirst(atOncePercent: UInt64) throws {
        let harness = try LogHarness()
        harness.machine.faults.atOncePercent = atOncePercent
        let log = try harness.open()
        try harness.points(4, blocks: 40, fill: 1)
        #expect(harness.directory.spares.count == 4)
        // Room for none but what is there: four files of 200 KiB wait.
        harness.machine.faults.capacityBytes = harness.machine.usedBytes
        var obstacles = 0
        for number in 0..<150 as Range<UInt64> {
            try harness.append(range(number * 8, 8), fill: 2)
            if log.obstacle != nil { obstacles += 1 }
        }
        try harness.flush()
        #expect(obstacles == 0)
        try harness.checkAccounts(log)
        // Then it is full, as it would be without them, and goes on with what a release brings.
        var written: Result<Void, WriteLogError>?
        log.append(range(0, 512), data: ByteBuffer(repeating: 3, count: 256 << 10), now: harness.scheduler.now) { written = $0 }
        harness.scheduler.runUntilIdle()
        #expect(written == nil && log.obstacle == .noSpace && harness.directory.spares.isEmpty)
        harness.machine.faults.capacityBytes += 512 << 10
        log.tick(now: harness.scheduler.now)
        harness.scheduler.runUntilIdle()
        #expect(throws: Never.self) { try #require(written).get() }
        harness.crash(power: false)
        try harness.open()
        #expect(try harness.overlay(range(0, 512)).allSatisfy { $0?.first == 3 })
    }

    /// What is on its way back is waited for, also by a log that is being closed.
    @Test(arguments: 0..<20 as Range<UInt64>) func roomThatIsBeingGivenBackIsWaitedFor(seed: UInt64) throws {
        let harness = try LogHarness(seed: seed)
        let log = try harness.open()
        try harness.point(blocks: 40, fill: 1)
        try harness.tend()
        #expect(harness.directory.spares.count == 1)
        harness.machine.faults.capacityBytes = harness.machine.usedBytes
        log.giveRoomBack()
        var written: Result<Void, WriteLogError>?
        log.append(range(0, 160), data: ByteBuffer(repeating: 2, count: 80 << 10), now: harness.scheduler.now) { written = $0 }
        for _ in 0..<seed % 4 { _ = harness.scheduler.step() }
        try harness.wait { log.close(completion: $0) }
        #expect(throws: Never.self) { try #require(written).get() }
        try harness.open()
        #expect(try harness.overlay(range(0, 160)).allSatisfy { $0?.first == 2 })
    }

    /// Room behind the batches of points that are sealed is given back too.
    @Test func aFullFileSystemGetsTheRoomOfSealedPoints() throws {
        let harness = try LogHarness()
        let log = try harness.open()
        try harness.point(blocks: 100, fill: 1)
        try harness.point(blocks: 1, fill: 2)
        // Epoch 3 has the large file now, and hardly uses it.
        try harness.append(range(0, 8), fill: 3)
        #expect(try harness.seal() == 3)
        #expect(log.fileBytes - log.contentBytes > 100 * 4096)
        harness.machine.faults.capacityBytes = harness.machine.usedBytes
        for number in 0..<80 as Range<UInt64> { try harness.append(range(number * 8, 8), fill: 4) }
        #expect(log.obstacle == nil)
        try harness.flush()
        try harness.checkAccounts(log)
        harness.crash(power: true)
        try harness.open()
        #expect(try harness.overlay(range(0, 640)).allSatisfy { $0?.first == 4 })
    }

    @Test func whatCannotBeRenamedOrRemovedHoldsUpNobody() throws {
        let harness = try LogHarness()
        let log = try harness.open()
        try harness.point(blocks: 20, fill: 1)
        harness.machine.faults.deniesNames = true
        log.resize(logBytesMax: 20 << 10)
        harness.scheduler.runUntilIdle()
        #expect(harness.directory.spares.count == 1 && log.failure == nil)
        harness.machine.faults.deniesNames = false
        log.tick(now: harness.scheduler.now)
        try harness.tend()
        #expect(harness.directory.spares.isEmpty)
        try harness.checkAccounts(log)
    }

    @Test func aSpareThatSomebodyRemovedIsDoneWithout() throws {
        let harness = try LogHarness()
        let log = try harness.open()
        try harness.point(blocks: 20, fill: 1)
        harness.directory.remove(harness.directory.spares[0]) { _ in }
        harness.scheduler.runUntilIdle()
        try harness.append(range(0, 8), fill: 2)
        #expect(try harness.seal() == 2)
        try harness.append(range(0, 8), fill: 3)
        try harness.flush()
        try harness.checkAccounts(log)
    }
}
