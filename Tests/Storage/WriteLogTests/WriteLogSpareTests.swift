import Blocks
import Ciphers
import NIOCore
import SimulatedStorage
import Testing

@testable import WriteLog

/// Files that take another epoch when theirs is home.
@Suite struct WriteLogSpareTests {
    /// Writes `count` blocks of one point, seals and releases it.
    @discardableResult
    private func point(_ harness: LogHarness, blocks count: UInt64, fill: UInt8) throws -> PointNumber {
        for number in 0..<count { try harness.append(range(number * 8, 8), fill: fill) }
        let number = try harness.seal()
        try harness.release(through: number)
        return number
    }

    private func tend(_ harness: LogHarness) throws {
        try #require(harness.log).observe(now: harness.scheduler.now)
        harness.scheduler.runUntilIdle()
    }

    private func header(_ name: String, in harness: LogHarness) throws -> LogFileHeader {
        try LogFileHeader(parsing: ByteBuffer(bytes: try #require(harness.directory.file(name)).content.prefix(4096)))
    }

    private func checkAccounts(_ log: Log, _ harness: LogHarness) throws {
        #expect(log.statistics.fileBytes == harness.directory.byteCount)
        let content = (log.epochs.flatMap(\.files) + log.releases.flatMap(\.files)).reduce(UInt64(0)) { $0 + $1.writeOffset }
        #expect(log.usedBytes == content + UInt64(log.statistics.unwrittenBytes))
    }

    @Test func aReleasedFileTakesTheNextEpoch() throws {
        let harness = try LogHarness()
        let log = try harness.open()
        try point(harness, blocks: 40, fill: 1)
        #expect(harness.directory.spares.count == 1)
        let spare = try #require(harness.directory.file(harness.directory.spares[0]))
        let size = spare.content.count
        #expect(spare.content.prefix(4096).allSatisfy { $0 == 0 }, "nobody needs its salt any more")
        try checkAccounts(log, harness)
        // The file of epoch 2 was made while that of epoch 1 was there.
        try harness.append(range(0, 8), fill: 2)
        #expect(try harness.seal() == 2)
        #expect(harness.directory.spares.isEmpty)
        let next = try #require(harness.directory.file("epoch-0000000000000003.log"))
        #expect(next.content.count == size)
        #expect(try header("epoch-0000000000000003.log", in: harness).isRecycled)
        try checkAccounts(log, harness)
        #expect(log.usedBytes < 20_000)
        for number in 0..<60 as Range<UInt64> { try harness.append(range(number * 8, 8), fill: UInt8(number + 1)) }
        try harness.flush()
        try checkAccounts(log, harness)
        #expect(try harness.seal() == 3)
        harness.crash(power: true)
        #expect(try harness.readOffline(range(0, 480)).map { $0?.first } == (0..<480).map { UInt8($0 / 8 + 1) })
        try harness.open()
        #expect(try harness.overlay(range(0, 480)).map { $0?.first } == (0..<480).map { UInt8($0 / 8 + 1) })
        #expect(harness.machine.overwrittenFiles.isEmpty)
    }

    /// A recycled file grows for nothing until it is full, and its size stays when it is sealed.
    @Test func flushesOverwriteWhatIsThere() throws {
        let harness = try LogHarness()
        let log = try harness.open()
        try point(harness, blocks: 100, fill: 1)
        try harness.append(range(0, 8), fill: 2)
        #expect(try harness.seal() == 2)
        let file = try #require(harness.directory.file("epoch-0000000000000003.log"))
        let size = file.content.count
        for number in 0..<90 as Range<UInt64> {
            try harness.append(range(number * 8, 8), fill: 3)
            try harness.flush()
            #expect(file.content.count == size)
        }
        #expect(try harness.seal() == 3)
        #expect(file.content.count == size)
        try checkAccounts(log, harness)
    }

    /// Points are larger and smaller than those before them, and every crash shows what was flushed and nothing else.
    @Test(arguments: 0..<6 as Range<UInt64>)
    func whatAnEpochHasLeftIsNeverTakenForAnother(seed: UInt64) throws {
        let harness = try LogHarness(seed: seed)
        harness.machine.faults.atOncePercent = seed % 2 * 100
        let random = harness.random
        try harness.open()
        for round in 1...8 as ClosedRange<UInt8> {
            // The same numbers of batches again and again, so that old ones stand where new ones would.
            let blocks = random.within(1...12)
            for number in 0..<UInt64(blocks) { try harness.append(range(number * 8, 8), fill: round) }
            try harness.flush()
            let isCrashing = random.chance(percent: 40)
            if isCrashing {
                let log = try #require(harness.log)
                for number in 0..<3 as Range<UInt64> {
                    log.append(range(300 + number * 8, 8), data: ByteBuffer(repeating: 99, count: 4096), now: harness.scheduler.now) { _ in
                    }
                }
                for _ in 0..<random.within(0...6) { _ = harness.scheduler.step() }
                harness.crash(power: random.chance(percent: 70))
                let read = try harness.readOffline(range(0, 324))
                try harness.open()
                #expect(try harness.overlay(range(0, 324)) == read)
            }
            let shown = try harness.overlay(range(0, 300)).map { $0?.first }
            #expect(shown == (0..<300).map { $0 < blocks * 8 ? round : nil })
            let number = try harness.seal()
            try harness.release(through: number)
            if random.chance(percent: 50) { try tend(harness) }
        }
        #expect(harness.machine.overwrittenFiles.isEmpty, "a nonce has sealed two texts")
    }

    /// A release, the tending of its file and the next seal, cut off after each of their steps.
    @Test(arguments: [true, false], 0..<30)
    func aCrashAtAnyStepLeavesARow(power: Bool, steps: Int) throws {
        let harness = try LogHarness(seed: UInt64(steps))
        let log = try harness.open()
        try point(harness, blocks: 4, fill: 1)
        for number in 0..<3 as Range<UInt64> { try harness.append(range(number * 8, 8), fill: 2) }
        #expect(try harness.seal() == 2)
        try harness.append(range(0, 8), fill: 3)
        log.release(through: 2) { _ in }
        for _ in 0..<steps / 2 { _ = harness.scheduler.step() }
        var (isSealed, isFlushed) = (false, false)
        log.seal(now: harness.scheduler.now) { isSealed = $0.isSuccess }
        log.append(range(8, 8), data: ByteBuffer(repeating: 4, count: 4096), now: harness.scheduler.now) { _ in }
        log.flush { isFlushed = $0.isSuccess }
        for _ in 0..<steps { _ = harness.scheduler.step() }
        harness.crash(power: power)
        let again = try harness.open()
        #expect(again.logIdentifier == log.logIdentifier)
        #expect(again.lastSealedPoint >= (isSealed ? 3 : 2))
        #expect(again.statistics.fileBytes == harness.directory.byteCount)
        let shown = try harness.overlay(range(0, 16)).map { $0?.first }
        #expect(shown[0] == 3 || !isSealed && (shown[0] == 2 || shown[0] == nil))
        if isFlushed { #expect(shown[8] == 4) }
        // And it goes on, over what it has.
        for fill in 5...7 as ClosedRange<UInt8> { try point(harness, blocks: 3, fill: fill) }
        #expect(harness.machine.overwrittenFiles.isEmpty)
    }

    /// The most that an old batch can be: whole, at the place of the next one, of that epoch, with that number.
    @Test func aBatchOfAnotherFileIsNoBatch() throws {
        let harness = try LogHarness()
        try harness.open()
        try harness.append(range(0, 8), fill: 1)
        try harness.flush()
        harness.crash(power: false)
        // Part 1 of the epoch, with batch 2.
        try harness.open()
        try harness.append(range(0, 8), fill: 2)
        try harness.flush()
        harness.crash(power: false)
        let first = try #require(harness.directory.file("epoch-0000000000000001.log"))
        let second = try #require(harness.directory.file("epoch-0000000000000001-1.log"))
        // The first file is made recycled, with the batch of the other behind its own; the other one never was.
        var old = try header("epoch-0000000000000001.log", in: harness)
        old.isRecycled = true
        let cipher = BlockCipher(key: try harness.keys.newestKey.derive(salt: old.salt, purpose: LogFormat.keyPurpose))
        let head = Array(try #require(old.encoded(cipher: cipher)).readableBytesView)
        let batchEnd = 4096 + 4608
        let forged = head + first.content[4096..<batchEnd] + second.content[4096..<batchEnd]
        let copy = try LogHarness(seed: 2)
        try copy.write(forged, to: "epoch-0000000000000001.log")
        #expect(try copy.readOffline(range(0, 8)).map { $0?.first } == Array(repeating: 1, count: 8))
        let reader: LogReader<SimulatedDirectory> = try copy.wait {
            LogReader.open(directory: copy.directory, volume: copy.volume, keys: copy.keys, completion: $0)
        }
        #expect(reader.tornTail == nil && reader.lastBatch == 1)
        let log = try copy.open()
        #expect(try copy.overlay(range(0, 8)).map { $0?.first } == Array(repeating: 1, count: 8))
        #expect(log.nextSequence == 2)
    }

    /// What was durable and is missing is noticed, though there are old batches behind it.
    @Test func aHoleBeforeADurableBatchIsNoticedInARecycledFile() throws {
        let harness = try LogHarness()
        try harness.open()
        try point(harness, blocks: 30, fill: 1)
        try harness.append(range(0, 8), fill: 2)
        #expect(try harness.seal() == 2)
        for number in 0..<6 as Range<UInt64> {
            try harness.append(range(number * 8, 8), fill: 3)
            try harness.flush()
        }
        let name = "epoch-0000000000000003.log"
        #expect(try header(name, in: harness).isRecycled)
        try #require(harness.directory.file(name)).flipBit(at: 4096 + 2 * 4608 + 700)
        harness.crash(power: true)
        guard case .corrupt = harness.openError() else {
            Issue.record("a durable batch was dropped in silence")
            return
        }
    }

    @Test func aFileThatIsReadIsNotOverwritten() throws {
        let harness = try LogHarness()
        harness.machine.faults.residentPercent = 0
        let log = try harness.open()
        for number in 0..<20 as Range<UInt64> { try harness.append(range(number * 8, 8), fill: 1) }
        var held: [LogSegment] = log.segments(in: range(0, 160))
        let number = try harness.seal()
        try harness.release(through: number)
        let spare = try #require(harness.directory.spares.first)
        try point(harness, blocks: 20, fill: 2)
        try point(harness, blocks: 20, fill: 3)
        #expect(harness.directory.spares.contains(spare), "it waits for its readers")
        for segment in held {
            let bytes = try harness.wait { log.read(segment, completion: $0) }
            #expect(bytes.readableBytesView.allSatisfy { $0 == 1 })
        }
        // A read that is on its way is a reader too.
        let last = try #require(held.last)
        var read: Result<ByteBuffer, WriteLogError>?
        log.read(last) { read = $0 }
        held = []
        #expect(log.spares.contains { $0.isRead })
        harness.scheduler.runUntilIdle()
        #expect(throws: Never.self) { try #require(read).get() }
    }

    @Test func aFileWithoutReadersIsTaken() throws {
        let harness = try LogHarness()
        let log = try harness.open()
        var held: [LogSegment] = []
        for number in 0..<20 as Range<UInt64> { try harness.append(range(number * 8, 8), fill: 1) }
        held = log.segments(in: range(0, 160))
        try harness.release(through: try harness.seal())
        let spare = try #require(harness.directory.spares.first)
        try point(harness, blocks: 1, fill: 2)
        #expect(held.count == 20 && harness.directory.spares.contains(spare))
        held = []
        try point(harness, blocks: 1, fill: 2)
        #expect(!harness.directory.spares.contains(spare))
    }

    // MARK: Room

    @Test func sparesTakeAQuarterAndGiveWayToWriters() throws {
        let harness = try LogHarness()
        harness.limits.logBytesMax = 1 << 20
        let log = try harness.open()
        for round in 0..<20 as Range<UInt8> {
            // Several points at once, so that their files come back together.
            for _ in 0..<3 {
                for number in 0..<10 as Range<UInt64> { try harness.append(range(number * 8, 8), fill: round) }
                _ = try harness.seal()
            }
            try harness.release(through: log.lastSealedPoint)
            try tend(harness)
            try checkAccounts(log, harness)
            #expect(log.spares.count <= LogFormat.sparesMax)
            #expect(log.fileBytes - log.contentBytes <= 1 << 18)
        }
        #expect(!log.spares.isEmpty)
        // Writers get all of the log, and nobody waits before it is full.
        var written: UInt64 = 0
        while log.usedBytes + 2 * 5_120 + 4096 <= 1 << 20 {
            try harness.append(range(written * 8, 8), fill: 7)
            written += 1
            try tend(harness)
            #expect(harness.directory.byteCount <= 1 << 20)
        }
        #expect(written > 190 && log.spares.isEmpty && !log.isWaitingForSpace)
        try checkAccounts(log, harness)
    }

    @Test func aSmallerLogHasLessRoomForThem() throws {
        let harness = try LogHarness()
        harness.limits.logBytesMax = 4 << 20
        let log = try harness.open()
        for _ in 0..<4 {
            for number in 0..<40 as Range<UInt64> { try harness.append(range(number * 8, 8), fill: 1) }
            _ = try harness.seal()
        }
        try harness.release(through: 4)
        #expect(harness.directory.spares.count == 4)
        log.resize(logBytesMax: 1 << 20)
        harness.scheduler.runUntilIdle()
        #expect(harness.directory.spares.count == 1)
        log.resize(logBytesMax: 8 << 10)
        harness.scheduler.runUntilIdle()
        #expect(harness.directory.spares.isEmpty)
        try checkAccounts(log, harness)
    }

    /// A file that is larger than all the room keeps its first part.
    @Test func aLargeFileIsCut() throws {
        let harness = try LogHarness()
        harness.limits.logBytesMax = 8 << 20
        let log = try harness.open()
        for number in 0..<12 as Range<UInt64> { try harness.append(range(number * 512, 512), fill: 1) }
        try harness.release(through: try harness.seal())
        try tend(harness)
        #expect(log.spares.map(\.byteCount) == [2 << 20])
        try checkAccounts(log, harness)
    }

    @Test(arguments: [0, 100] as [UInt64]) func aFullFileSystemGetsThemBackFirst(atOncePercent: UInt64) throws {
        let harness = try LogHarness()
        harness.machine.faults.atOncePercent = atOncePercent
        let log = try harness.open()
        for _ in 0..<4 {
            for number in 0..<40 as Range<UInt64> { try harness.append(range(number * 8, 8), fill: 1) }
            _ = try harness.seal()
        }
        try harness.release(through: 4)
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
        try checkAccounts(log, harness)
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

    /// Room behind the batches of points that are sealed is given back too.
    @Test func aFullFileSystemGetsTheRoomOfSealedPoints() throws {
        let harness = try LogHarness()
        let log = try harness.open()
        try point(harness, blocks: 100, fill: 1)
        try point(harness, blocks: 1, fill: 2)
        // Epoch 3 has the large file now, and hardly uses it.
        try harness.append(range(0, 8), fill: 3)
        #expect(try harness.seal() == 3)
        #expect(log.fileBytes - log.contentBytes > 100 * 4096)
        harness.machine.faults.capacityBytes = harness.machine.usedBytes
        for number in 0..<80 as Range<UInt64> { try harness.append(range(number * 8, 8), fill: 4) }
        #expect(log.obstacle == nil)
        try harness.flush()
        try checkAccounts(log, harness)
        harness.crash(power: true)
        try harness.open()
        #expect(try harness.overlay(range(0, 640)).allSatisfy { $0?.first == 4 })
    }

    @Test func whatCannotBeRenamedOrRemovedHoldsUpNobody() throws {
        let harness = try LogHarness()
        let log = try harness.open()
        try point(harness, blocks: 20, fill: 1)
        harness.machine.faults.deniesNames = true
        log.resize(logBytesMax: 20 << 10)
        harness.scheduler.runUntilIdle()
        #expect(harness.directory.spares.count == 1 && log.failure == nil)
        harness.machine.faults.deniesNames = false
        log.tick(now: harness.scheduler.now)
        try tend(harness)
        #expect(harness.directory.spares.isEmpty)
        try checkAccounts(log, harness)
    }

    @Test func aSpareThatSomebodyRemovedIsDoneWithout() throws {
        let harness = try LogHarness()
        let log = try harness.open()
        try point(harness, blocks: 20, fill: 1)
        harness.directory.remove(harness.directory.spares[0]) { _ in }
        harness.scheduler.runUntilIdle()
        try harness.append(range(0, 8), fill: 2)
        #expect(try harness.seal() == 2)
        try harness.append(range(0, 8), fill: 3)
        try harness.flush()
        try checkAccounts(log, harness)
    }

    // MARK: Restarts, keys, versions

    @Test func aRestartKeepsThem() throws {
        let harness = try LogHarness()
        try harness.open()
        for _ in 0..<3 {
            for number in 0..<20 as Range<UInt64> { try harness.append(range(number * 8, 8), fill: 1) }
            _ = try harness.seal()
        }
        try harness.release(through: 3)
        #expect(harness.directory.spares.count == 3)
        let closing = try #require(harness.log)
        try harness.wait { closing.close(completion: $0) }
        harness.crash(power: true)
        // More than a log keeps, and one that is nothing but a name.
        for number in 40..<50 as Range<UInt64> { try harness.write([1, 2, 3], to: LogFormat.spareName(number)) }
        let log = try harness.open()
        try tend(harness)
        #expect(log.spares.count == LogFormat.sparesMax && harness.directory.spares.count == LogFormat.sparesMax)
        #expect(log.spares.allSatisfy { $0.state == .ready })
        try checkAccounts(log, harness)
        try point(harness, blocks: 5, fill: 2)
        try point(harness, blocks: 5, fill: 3)
        #expect(log.spareNumber > 49 && Set(log.spares.map(\.name)).count == log.spares.count)
        try checkAccounts(log, harness)
    }

    /// A log that is lost and made anew has nothing to do with the files of the other.
    @Test func aNewLogTakesNone() throws {
        let harness = try LogHarness()
        try harness.open()
        try point(harness, blocks: 20, fill: 1)
        harness.crash(power: true)
        for name in harness.directory.names where name.hasPrefix("epoch-") { harness.directory.remove(name) { _ in } }
        harness.scheduler.runUntilIdle()
        try harness.open()
        #expect(harness.directory.names == ["epoch-0000000000000001.log"])
    }

    @Test func sparesNeedNoKey() throws {
        let harness = try LogHarness()
        let log = try harness.open()
        try point(harness, blocks: 20, fill: 1)
        #expect(harness.directory.spares.count == 1)
        harness.keys = try #require(DataKeys([1: harness.keys.newestKey, 2: try .random()]))
        log.use(harness.keys)
        harness.scheduler.runUntilIdle()
        #expect(log.keyGenerations == [2])
        harness.keys = DataKeys(harness.keys.newestKey, generation: 2)
        try harness.append(range(0, 8), fill: 2)
        try harness.flush()
        harness.crash(power: true)
        try harness.open()
        #expect(try harness.overlay(range(0, 8)).allSatisfy { $0?.first == 2 })
    }

    /// The next log waits for what this one has asked of its files: a header that is removed late would be that of another epoch.
    @Test(arguments: 0..<20) func aClosedLogTouchesNothingAnyMore(steps: Int) throws {
        let harness = try LogHarness(seed: UInt64(steps))
        let log = try harness.open()
        for number in 0..<20 as Range<UInt64> { try harness.append(range(number * 8, 8), fill: 1) }
        _ = try harness.seal()
        log.release(through: 1) { _ in }
        for _ in 0..<steps { _ = harness.scheduler.step() }
        try harness.wait { log.close(completion: $0) }
        #expect(log.changesOfRoom == 0)
        try harness.open()
        try point(harness, blocks: 3, fill: 2)
        try point(harness, blocks: 3, fill: 3)
        try harness.append(range(0, 8), fill: 4)
        try harness.flush()
        harness.crash(power: true)
        try harness.open()
        #expect(try harness.overlay(range(0, 8)).allSatisfy { $0?.first == 4 })
    }

    /// A log with unsent points from before files were recycled, as the encoder of that version wrote it.
    @Test func aLogOfVersion1GoesOn() throws {
        let harness = try LogHarness()
        let identifier = LogIdentifier(high: 5, low: 6)
        let encoding = LogEncoding(volume: harness.volume)
        for epoch in 1...2 as ClosedRange<UInt64> {
            let header = LogFileHeader(
                volume: harness.volume, log: identifier, epoch: epoch, part: 0, firstBatch: epoch * 2 - 1, epochFirstBatch: epoch * 2 - 1,
                durableThrough: epoch * 2 - 2, keyGeneration: 1, salt: [UInt8](repeating: UInt8(epoch), count: 32), version: 1)
            let cipher = BlockCipher(key: try harness.keys.newestKey.derive(salt: header.salt, purpose: LogFormat.keyPurpose))
            var file = try #require(header.encoded(cipher: cipher))
            for sequence in epoch * 2 - 1...epoch * 2 {
                let batch = LogBatch(epoch: epoch, sequence: sequence)
                _ = batch.add(.data, start: sequence * 8, count: 8, data: ByteBuffer(repeating: UInt8(sequence), count: 4096))
                if epoch == 1, sequence == 2 { _ = batch.add(.seal, start: 1, count: 0, data: nil) }
                var bytes = ByteBuffer()
                let content = LogBatchContent(batch, durableThrough: sequence - 1)
                #expect(encoding.encode(content, cipher: cipher, binding: LogBinding(header), into: &bytes))
                // As that version had it: the checksum is over the header alone, and the version is 1.
                #expect(bytes.getInteger(at: 4, as: UInt16.self) == 1)
                file.writeBuffer(&bytes)
            }
            try harness.write(Array(file.readableBytesView), to: LogFormat.fileName(epoch: epoch, part: 0))
        }
        let expected = (8..<40).map { UInt8($0 / 8) }
        #expect(try harness.readOffline(range(8, 32)).map { $0?.first } == expected)
        let log = try harness.open()
        #expect(log.logIdentifier == identifier && log.sealedPoints.map(\.number) == [1])
        #expect(try harness.overlay(range(8, 32)).map { $0?.first } == expected)
        #expect(try header("epoch-0000000000000002-1.log", in: harness).version == 2)
        try harness.append(range(40, 8), fill: 5)
        _ = try harness.seal()
        try harness.release(through: 2)
        // The files of the older version take epochs as the others do.
        #expect(!harness.directory.spares.isEmpty)
        try point(harness, blocks: 10, fill: 6)
        try point(harness, blocks: 1, fill: 7)
        try harness.append(range(0, 8), fill: 8)
        try harness.flush()
        harness.crash(power: true)
        try harness.open()
        #expect(try harness.overlay(range(0, 8)).allSatisfy { $0?.first == 8 })
    }
}
