import Blocks
import Ciphers
import NIOCore
import SimulatedStorage
import Testing

@testable import WriteLog

/// Files that take another epoch when theirs is home.
@Suite struct WriteLogSpareTests {
    @Test func aReleasedFileTakesTheNextEpoch() throws {
        let harness = try LogHarness()
        let log = try harness.open()
        try harness.point(blocks: 40, fill: 1)
        #expect(harness.directory.spares.count == 1)
        let spare = try #require(harness.directory.file(harness.directory.spares[0]))
        let size = spare.content.count
        #expect(spare.content.prefix(4096).allSatisfy { $0 == 0 }, "nobody needs its salt any more")
        try harness.checkAccounts(log)
        // The file of epoch 2 was made while that of epoch 1 was there.
        try harness.append(range(0, 8), fill: 2)
        #expect(try harness.seal() == 2)
        #expect(harness.directory.spares.isEmpty)
        let next = try #require(harness.directory.file("epoch-0000000000000003.log"))
        #expect(next.content.count == size)
        #expect(try harness.header("epoch-0000000000000003.log").isRecycled)
        try harness.checkAccounts(log)
        #expect(log.usedBytes < 20_000)
        for number in 0..<60 as Range<UInt64> { try harness.append(range(number * 8, 8), fill: UInt8(number + 1)) }
        try harness.flush()
        try harness.checkAccounts(log)
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
        try harness.point(blocks: 100, fill: 1)
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
        try harness.checkAccounts(log)
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
            if random.chance(percent: 50) { try harness.tend() }
        }
        #expect(harness.machine.overwrittenFiles.isEmpty, "a nonce has sealed two texts")
    }

    /// A release, the tending of its file and the next seal, cut off after each of their steps.
    @Test(arguments: [true, false], 0..<30)
    func aCrashAtAnyStepLeavesARow(power: Bool, steps: Int) throws {
        let harness = try LogHarness(seed: UInt64(steps))
        let log = try harness.open()
        try harness.point(blocks: 4, fill: 1)
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
        for fill in 5...7 as ClosedRange<UInt8> { try harness.point(blocks: 3, fill: fill) }
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
        var old = try harness.header("epoch-0000000000000001.log")
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
        try harness.point(blocks: 30, fill: 1)
        try harness.append(range(0, 8), fill: 2)
        #expect(try harness.seal() == 2)
        for number in 0..<6 as Range<UInt64> {
            try harness.append(range(number * 8, 8), fill: 3)
            try harness.flush()
        }
        let name = "epoch-0000000000000003.log"
        #expect(try harness.header(name).isRecycled)
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
        try harness.point(blocks: 20, fill: 2)
        try harness.point(blocks: 20, fill: 3)
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
        try harness.point(blocks: 1, fill: 2)
        #expect(held.count == 20 && harness.directory.spares.contains(spare))
        held = []
        try harness.point(blocks: 1, fill: 2)
        #expect(!harness.directory.spares.contains(spare))
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
        let numbers = 40..<UInt64(42 + LogFormat.sparesMax)
        for number in numbers { try harness.write([1, 2, 3], to: LogFormat.spareName(number)) }
        let log = try harness.open()
        try harness.tend()
        #expect(log.spares.count == LogFormat.sparesMax && harness.directory.spares.count == LogFormat.sparesMax)
        #expect(log.spares.allSatisfy { $0.state == .ready })
        try harness.checkAccounts(log)
        try harness.point(blocks: 5, fill: 2)
        try harness.point(blocks: 5, fill: 3)
        #expect(log.spareNumber >= numbers.upperBound && Set(log.spares.map(\.name)).count == log.spares.count)
        try harness.checkAccounts(log)
    }

    /// A log that is lost and made anew has nothing to do with the files of the other.
    @Test func aNewLogTakesNone() throws {
        let harness = try LogHarness()
        try harness.open()
        try harness.point(blocks: 20, fill: 1)
        harness.crash(power: true)
        for name in harness.directory.names where name.hasPrefix("epoch-") { harness.directory.remove(name) { _ in } }
        harness.scheduler.runUntilIdle()
        try harness.open()
        #expect(harness.directory.names == ["epoch-0000000000000001.log"])
    }

    @Test func sparesNeedNoKey() throws {
        let harness = try LogHarness()
        let log = try harness.open()
        try harness.point(blocks: 20, fill: 1)
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
        #expect(log.changes.count == 0)
        try harness.open()
        try harness.point(blocks: 3, fill: 2)
        try harness.point(blocks: 3, fill: 3)
        try harness.append(range(0, 8), fill: 4)
        try harness.flush()
        harness.crash(power: true)
        try harness.open()
        #expect(try harness.overlay(range(0, 8)).allSatisfy { $0?.first == 4 })
    }

    /// Nor does one that failed, with a batch on its way: written late, it would stand behind the end that the next log has cut.
    @Test(arguments: 0..<20) func aFailedLogTouchesNothingAnyMore(steps: Int) throws {
        let harness = try LogHarness(seed: UInt64(steps))
        let log = try harness.open()
        try harness.append(range(0, 8), fill: 1)
        harness.machine.faults.failsSyncsOf = "epoch-"
        log.flush { _ in }
        for number in 1..<4 as Range<UInt64> {
            log.append(range(number * 8, 8), data: ByteBuffer(repeating: 2, count: 4096), now: harness.scheduler.now) { _ in }
            for _ in 0..<steps % 5 { _ = harness.scheduler.step() }
        }
        for _ in 0..<steps where log.failure == nil { _ = harness.scheduler.step() }
        var isClosed = false
        log.close { _ in
            isClosed = true
            #expect(log.changes.count == 0)
        }
        harness.scheduler.runUntilIdle()
        #expect(isClosed)
    }

    /// What holds nothing is no reason for a log not to open.
    @Test func aFullFileSystemTakesTheSparesOfALogThatOpens() throws {
        let harness = try LogHarness()
        try harness.open()
        try harness.append(range(0, 8), fill: 1)
        try harness.flush()
        try harness.points(3, blocks: 20, fill: 2)
        try harness.append(range(0, 8), fill: 9)
        let closing = try #require(harness.log)
        try harness.wait { closing.close(completion: $0) }
        #expect(!harness.directory.spares.isEmpty)
        harness.machine.faults.capacityBytes = harness.machine.usedBytes
        try harness.open()
        #expect(harness.directory.spares.isEmpty)
        #expect(try harness.overlay(range(0, 8)).allSatisfy { $0?.first == 9 })
    }

    /// A name that is not the only one may be that of a spare and of a backup, or of an epoch.
    @Test func aFileWithAnotherNameIsNeverWrittenTo() throws {
        let harness = try LogHarness()
        let log = try harness.open()
        for block in 0..<20 as Range<UInt64> { try harness.append(range(block * 8, 8), fill: 1) }
        _ = try harness.seal()
        let file = try #require(harness.directory.file("epoch-0000000000000001.log"))
        let content = file.content
        harness.machine.faults.linkedName = "epoch-0000000000000001"
        try harness.release(through: 1)
        try harness.tend()
        #expect(log.spares.isEmpty && harness.directory.spares.isEmpty)
        let isWhole = file.content == content
        #expect(isWhole)
        try harness.checkAccounts(log)
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
        #expect(try harness.header("epoch-0000000000000002-1.log").version == 2)
        try harness.append(range(40, 8), fill: 5)
        _ = try harness.seal()
        try harness.release(through: 2)
        // The files of the older version take epochs as the others do.
        #expect(!harness.directory.spares.isEmpty)
        try harness.point(blocks: 10, fill: 6)
        try harness.point(blocks: 1, fill: 7)
        try harness.append(range(0, 8), fill: 8)
        try harness.flush()
        harness.crash(power: true)
        try harness.open()
        #expect(try harness.overlay(range(0, 8)).allSatisfy { $0?.first == 8 })
    }
}
