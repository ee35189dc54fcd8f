import Blocks
import NIOCore
import SimulatedStorage
import Testing

@testable import Disks

@Suite struct PointJournalTests {
    /// An open journal with a lease of generation 7.
    private func opened(_ world: JournalWorld, volume: VolumeIdentifier = JournalWorld.volume) throws -> SimulatedJournal {
        let journal = try #require(try world.open(volume: volume)?.get())
        journal.setLease(7)
        return journal
    }

    @Test func pointsReachTheDiskInOrder() throws {
        let world = JournalWorld(seed: 1)
        let journal = try opened(world)
        var applied: [PointNumber] = []
        journal.onApplied = { applied.append($0) }
        for point in PointNumber(1)...12 {
            var answer: Result<PointPosition, PointJournalError>?
            try world.send(point, generation: 7, to: journal) { answer = $0 }
            world.scheduler.runUntilIdle()
            #expect(try answer?.get().received == point)
        }
        #expect(applied == Array(1...12))
        #expect(journal.position == PointPosition(received: 12, applied: 12))
        #expect(world.disk.content == world.state(after: 12))
        #expect(world.directory.names == ["position"])
    }

    @Test func aDiskThatGrowsIsWrittenBehindItsOldEnd() throws {
        let world = JournalWorld(seed: 20)
        let journal = try opened(world)
        let end = JournalWorld.sectorCount
        let range = SectorRange(from: end - 1, to: end + 3)
        var digest = PointDigest()
        let data = ByteBuffer(repeating: 7, count: range.byteCount)
        digest.add(range, data: data)
        // A point that began before is of the old size: its file says so, and recovery holds it to that.
        #expect(try journal.begin(point: 1, generation: 7) == .accepted)
        world.disk.truncate(to: (end + 16) * 512) { _ in }
        world.scheduler.runUntilIdle()
        journal.diskDidGrow(to: end + 16)
        #expect(throws: PointJournalError.outOfRange(range)) { try journal.addData(range, data: data) }
        // Sent again, it is of the new one.
        #expect(try journal.begin(point: 1, generation: 7) == .accepted)
        try journal.addData(range, data: data)
        var answer: Result<PointPosition, PointJournalError>?
        journal.commit(pieces: 1, digest: digest.value) { answer = $0 }
        world.scheduler.runUntilIdle()
        #expect(try answer?.get().received == 1)
        var read: Result<ByteBuffer, PointJournalError>?
        journal.read(range) { read = $0 }
        world.scheduler.runUntilIdle()
        #expect(try read?.get() == data)
        // It does not shrink again.
        journal.diskDidGrow(to: end)
        #expect(journal.sectorCount == end + 16)
    }

    @Test func aPointThatIsSentAgainIsAnsweredAgain() throws {
        let world = JournalWorld(seed: 2)
        let journal = try opened(world)
        try world.send(1, generation: 7, to: journal) { _ in }
        world.scheduler.runUntilIdle()
        #expect(try journal.begin(point: 1, generation: 7) == .alreadyReceived)
        #expect(throws: PointJournalError.outOfSequence(expected: 2, offered: 3)) {
            try journal.begin(point: 3, generation: 7)
        }
        #expect(throws: PointJournalError.outOfSequence(expected: 2, offered: 0)) {
            try journal.begin(point: 0, generation: 7)
        }
    }

    @Test func anotherGenerationIsFenced() throws {
        let world = JournalWorld(seed: 3)
        let journal = try opened(world)
        #expect(throws: PointJournalError.fenced(lease: 7, offered: 6)) { try journal.begin(point: 1, generation: 6) }
        // The lease moves while a point arrives: the rest of it changes nothing.
        #expect(try journal.begin(point: 1, generation: 7) == .accepted)
        let range = SectorRange(from: 0, to: 1)
        try journal.addData(range, data: ByteBuffer(repeating: 9, count: 512))
        var settled = false
        journal.setLease(8) { settled = true }
        #expect(throws: PointJournalError.fenced(lease: 8, offered: 7)) { try journal.addZeroes(range) }
        var answer: Result<PointPosition, PointJournalError>?
        journal.commit(pieces: 1, digest: 0) { answer = $0 }
        world.scheduler.runUntilIdle()
        #expect(answer == .failure(.fenced(lease: 8, offered: 7)))
        #expect(settled)
        #expect(world.directory.names == ["position"])
        #expect(world.disk.content == world.state(after: 0))
        journal.setLease(nil)
        #expect(throws: PointJournalError.fenced(lease: nil, offered: 8)) { try journal.begin(point: 1, generation: 8) }
    }

    @Test func aDamagedPointIsRefusedAndMayComeAgain() throws {
        let world = JournalWorld(seed: 4)
        let journal = try opened(world)
        _ = try journal.begin(point: 1, generation: 7)
        try journal.addData(SectorRange(from: 3, to: 4), data: ByteBuffer(repeating: 1, count: 512))
        var answer: Result<PointPosition, PointJournalError>?
        journal.commit(pieces: 1, digest: 12345) { answer = $0 }
        guard case .failure(.damaged)? = answer else { throw TestFailure("\(String(describing: answer))") }
        // At once, while the file of the refused attempt is still being removed.
        try world.send(1, generation: 7, to: journal) { answer = $0 }
        world.scheduler.runUntilIdle()
        #expect(try answer?.get() == PointPosition(received: 1, applied: 0))
        #expect(world.disk.content == world.state(after: 1))
    }

    @Test func piecesThatCannotBeAreRefused() throws {
        let world = JournalWorld(seed: 5)
        let journal = try opened(world)
        #expect(throws: PointJournalError.notBegun) { try journal.addZeroes(SectorRange(from: 0, to: 1)) }
        let outside = SectorRange(from: 45, to: 49)
        _ = try journal.begin(point: 1, generation: 7)
        #expect(throws: PointJournalError.outOfRange(outside)) { try journal.addZeroes(outside) }
        _ = try journal.begin(point: 1, generation: 7)
        #expect(throws: PointJournalError.self) {
            try journal.addData(SectorRange(from: 0, to: 2), data: ByteBuffer(repeating: 0, count: 512))
        }
        world.scheduler.runUntilIdle()
        try world.send(1, generation: 7, to: journal) { _ in }
        world.scheduler.runUntilIdle()
        #expect(world.disk.content == world.state(after: 1))
    }

    @Test func aFullJournalRefusesThePointAndNothingElse() throws {
        let world = JournalWorld(seed: 6)
        let journal = try opened(world)
        world.machine.faults.capacityBytes = world.machine.usedBytes + 4000
        _ = try journal.begin(point: 1, generation: 7)
        var digest = PointDigest()
        for start in UInt64(0)..<20 {
            let range = SectorRange(from: start, to: start + 1)
            digest.add(range, data: ByteBuffer(repeating: 5, count: 512))
            try journal.addData(range, data: ByteBuffer(repeating: 5, count: 512))
        }
        var answer: Result<PointPosition, PointJournalError>?
        journal.commit(pieces: 20, digest: digest.value) { answer = $0 }
        world.scheduler.runUntilIdle()
        guard case .failure(.noSpace)? = answer else { throw TestFailure("\(String(describing: answer))") }
        #expect(world.directory.names == ["position"])
        #expect(journal.state == .open)
        world.machine.faults.capacityBytes = .max
        try world.send(1, generation: 7, to: journal) { answer = $0 }
        world.scheduler.runUntilIdle()
        #expect(try answer?.get().received == 1)
        #expect(world.disk.content == world.state(after: 1))
    }

    @Test func aDiskThatFailsStopsTheJournalAndLosesNothing() throws {
        let world = JournalWorld(seed: 7)
        let journal = try opened(world)
        var failures: [PointJournalError] = []
        journal.onFailed = { failures.append($0) }
        var blocked: Result<ByteBuffer, PointJournalError>?
        let changed = try #require(world.pieces(of: 1).first?.range)
        try world.send(1, generation: 7, to: journal) { _ in
            world.machine.faults.failsWrites = true
            journal.read(changed) { blocked = $0 }
        }
        world.scheduler.runUntilIdle()
        #expect(failures.count == 1)
        #expect(journal.position == PointPosition(received: 1, applied: 0))
        guard case .failed(let reason) = journal.state else { throw TestFailure("\(journal.state)") }
        #expect(blocked == .failure(reason))
        #expect(throws: reason) { try journal.begin(point: 2, generation: 7) }
        world.machine.faults.failsWrites = false
        let again = try opened(world)
        #expect(again.position == PointPosition(received: 1, applied: 1))
        #expect(world.disk.content == world.state(after: 1))
    }

    @Test func theQueueOfReceivedPointsIsBounded() throws {
        let world = JournalWorld(seed: 8)
        world.limits.pointsQueuedMax = 1
        let journal = try opened(world)
        var refusal: PointJournalError?
        // The next point is begun in the answer to the last, before that one can be applied.
        try world.send(1, generation: 7, to: journal) { _ in
            do throws(PointJournalError) { _ = try journal.begin(point: 2, generation: 7) } catch { refusal = error }
        }
        world.scheduler.runUntilIdle()
        guard case .busy? = refusal else { throw TestFailure("\(String(describing: refusal))") }
        try world.send(2, generation: 7, to: journal) { _ in }
        world.scheduler.runUntilIdle()
        #expect(journal.position == PointPosition(received: 2, applied: 2))
        #expect(world.disk.content == world.state(after: 2))
    }

    @Test func backPressureEndsWhenTheFileHasTaken() throws {
        let world = JournalWorld(seed: 9)
        let journal = try opened(world)
        _ = try journal.begin(point: 1, generation: 7)
        let range = SectorRange(from: 0, to: 16)
        while !journal.isBusy { try journal.addData(range, data: ByteBuffer(repeating: 1, count: 8192)) }
        var ready = 0
        journal.whenReady { ready += 1 }
        #expect(ready == 0)
        world.scheduler.runUntilIdle()
        #expect(ready == 1)
        #expect(!journal.isBusy)
        // Without regard for it, memory still has an end.
        #expect(throws: PointJournalError.self) {
            for _ in 0..<1000 { try journal.addData(range, data: ByteBuffer(repeating: 1, count: 8192)) }
        }
        journal.discardUnfinished()
        world.scheduler.runUntilIdle()
        #expect(world.directory.names == ["position"])
    }

    @Test func readsSeeWhatWasReceived() throws {
        for seed in UInt64(100)..<160 {
            let world = JournalWorld(seed: seed)
            let journal = try opened(world)
            var reads = 0
            for point in PointNumber(1)...6 {
                var isReceived = false
                try? world.send(point, generation: 7, to: journal) { if case .success = $0 { isReceived = true } }
                _ = world.scheduler.run(until: world.scheduler.now + .seconds(10), or: { isReceived })
                let received = journal.position.received
                for _ in 0..<4 {
                    let start = world.random.below(JournalWorld.sectorCount)
                    let range = SectorRange(from: start, to: min(JournalWorld.sectorCount, start + 8))
                    journal.read(range) { result in
                        reads += 1
                        guard case .success(let bytes) = result else {
                            Issue.record("seed \(seed): \(result)")
                            return
                        }
                        // Each sector is as it was after that point or a later one.
                        for sector in range.start..<range.end {
                            let got = bytes.getBytes(at: bytes.readerIndex + Int(sector - range.start) * 512, length: 512)
                            let isRight = (received...max(received, journal.position.received)).contains {
                                let content = world.state(after: $0)
                                return got.map { $0[...] } == content[Int(sector) * 512..<(Int(sector) + 1) * 512]
                            }
                            #expect(isRight, "seed \(seed), sector \(sector), after point \(received)")
                        }
                    }
                }
            }
            world.scheduler.runUntilIdle()
            #expect(reads == 24)
        }
    }

    @Test func aNewAttachmentStartsAtZeroAfterTheOldOneIsApplied() throws {
        let world = JournalWorld(seed: 10)
        let journal = try opened(world)
        try world.send(1, generation: 7, to: journal) { _ in world.machine.killProcess() }
        world.scheduler.runUntilIdle()
        let other = try opened(world, volume: VolumeIdentifier(high: 8, low: 9))
        #expect(other.position == PointPosition(received: 0, applied: 0))
        #expect(world.disk.content == world.state(after: 1))
        #expect(world.directory.names == ["position"])
    }

    @Test func closingLetsWhatIsInFlightEnd() throws {
        let world = JournalWorld(seed: 11)
        let journal = try opened(world)
        var answer: Result<PointPosition, PointJournalError>?
        var isClosed = false
        try world.send(1, generation: 7, to: journal) { answer = $0 }
        journal.close { isClosed = true }
        #expect(!isClosed)
        world.scheduler.runUntilIdle()
        #expect(isClosed)
        #expect(try answer?.get().received == 1)
        #expect(throws: PointJournalError.closed) { try journal.begin(point: 2, generation: 7) }
        #expect(try opened(world).position == PointPosition(received: 1, applied: 1))
    }

    @Test func damageThatNoCrashLeavesIsReported() throws {
        let world = JournalWorld(seed: 12)
        let journal = try opened(world)
        try world.send(1, generation: 7, to: journal) { _ in
            try? world.send(2, generation: 7, to: journal) { _ in world.machine.killProcess() }
        }
        world.scheduler.runUntilIdle()
        let names = world.directory.names.filter { $0.hasPrefix("point") }
        let oldest = try #require(names.first)
        world.directory.file(oldest)?.flipBit(at: 100)
        if names.count == 2 {
            guard case .failure(.corrupt)? = world.open() else { throw TestFailure("a hole was taken for whole") }
        }
        world.directory.file("position")?.flipBit(at: 20)
        world.directory.file("position")?.flipBit(at: 4096 + 20)
        guard case .failure(.corrupt)? = world.open() else { throw TestFailure("a broken position was taken") }
    }
}

struct TestFailure: Error {
    let text: String
    init(_ text: String) { self.text = text }
}
