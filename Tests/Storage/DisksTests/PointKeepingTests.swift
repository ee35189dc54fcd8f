import Blocks
import NIOCore
import SimulatedStorage
import Testing

@testable import Disks

extension JournalWorld {
    /// Sends points until `last` is on the disk.
    func bring(to last: PointNumber, _ journal: SimulatedJournal) throws {
        journal.setLease(1)
        while journal.position.received < last {
            try send(journal.position.received + 1, generation: 1, to: journal) { _ in }
            scheduler.runUntilIdle()
        }
    }

    func openView(of point: PointNumber, _ journal: SimulatedJournal) throws -> PastView<SimulatedFile, SimulatedDirectory> {
        var result: Result<PastView<SimulatedFile, SimulatedDirectory>, PointJournalError>?
        journal.openPast(point) { result = $0 }
        scheduler.runUntilIdle()
        guard let result else { throw TestFailure("the view was never opened") }
        return try result.get()
    }

    /// The whole disk as a view has it, read in pieces of odd lengths.
    func content(of view: PastView<SimulatedFile, SimulatedDirectory>) throws -> [UInt8] {
        var content: [UInt8] = []
        var start: UInt64 = 0
        while start < view.sectorCount {
            let range = SectorRange(from: start, to: min(view.sectorCount, start + 7))
            var result: Result<ByteBuffer, PointJournalError>?
            view.read(range) { result = $0 }
            scheduler.runUntilIdle()
            guard let result else { throw TestFailure("the view was never read") }
            content += try result.get().readableBytesView
            start = range.end
        }
        return content
    }

    /// The disk as it was at a past point.
    func past(_ point: PointNumber, _ journal: SimulatedJournal) throws -> [UInt8] {
        let view = try openView(of: point, journal)
        defer { view.close() }
        return try content(of: view)
    }

    func rollBack(to point: PointNumber, _ journal: SimulatedJournal) -> Result<PointPosition, PointJournalError>? {
        var result: Result<PointPosition, PointJournalError>?
        journal.setLease(nil)
        journal.rollBack(to: point) { result = $0 }
        scheduler.runUntilIdle()
        return result
    }
}

@Suite struct PointKeepingTests {
    private static func world(seed: UInt64 = 5, pointsMax: Int = 4, bytesMax: UInt64 = 1 << 20) -> JournalWorld {
        let world = JournalWorld(seed: seed)
        world.keeping = PointKeeping(pointsMax: pointsMax, bytesMax: bytesMax)
        return world
    }

    @Test func theLastPointsCanBeReadAsTheyWere() throws {
        let world = Self.world()
        let journal = try #require(try world.open()?.get())
        try world.bring(to: 9, journal)
        #expect(journal.pastPoints.map(\.point) == [5, 6, 7, 8])
        for point in PointNumber(5)...9 {
            let isExact = try world.past(point, journal) == world.state(after: point)
            #expect(isExact, "point \(point)")
        }
        #expect(throws: PointJournalError.notKept(4)) { try world.past(4, journal) }
        #expect(throws: PointJournalError.notKept(10)) { try world.past(10, journal) }
        // What was attached is a past point too.
        let other = Self.world()
        let begun = try #require(try other.open()?.get())
        try other.bring(to: 2, begun)
        let isExact = try other.past(0, begun) == other.state(after: 0)
        #expect(isExact)
    }

    /// The way back that somebody has asked for stays open while the rest comes home.
    @Test func aPinnedPointStaysWhateverIsApplied() throws {
        let world = Self.world(pointsMax: 2)
        let journal = try #require(try world.open()?.get())
        try world.bring(to: 4, journal)
        #expect(journal.pastPoints.map(\.point) == [2, 3])
        let expected = try world.past(2, journal)
        journal.pin(2)
        try world.bring(to: 9, journal)
        #expect(journal.pastPoints.map(\.point) == [2, 3, 4, 5, 6, 7, 8])
        // Nor does it go with those that are to be kept no more.
        journal.keep(.none)
        world.scheduler.runUntilIdle()
        #expect(try world.past(2, journal) == expected)
        journal.keep(PointKeeping(pointsMax: 2, bytesMax: 1 << 20))
        journal.pin(nil)
        world.scheduler.runUntilIdle()
        #expect(journal.pastPoints.map(\.point) == [7, 8])
    }

    @Test func keptPointsComeBackAfterARestart() throws {
        let world = Self.world()
        try world.bring(to: 7, try #require(try world.open()?.get()))
        world.machine.cutPower()
        let journal = try #require(try world.open()?.get())
        #expect(journal.pastPoints.map(\.point) == [3, 4, 5, 6])
        try world.bring(to: 8, journal)
        for point in PointNumber(4)...8 {
            let isExact = try world.past(point, journal) == world.state(after: point)
            #expect(isExact, "point \(point)")
        }
        let times = journal.pastPoints.map(\.leftAtMilliseconds)
        #expect(times == times.sorted())
    }

    @Test func aViewStaysAsItIsWhilePointsComeAndItsFilesGo() throws {
        let world = Self.world()
        let journal = try #require(try world.open()?.get())
        try world.bring(to: 5, journal)
        let view = try world.openView(of: 2, journal)
        let expected = world.state(after: 2)
        // Reads and points at once: step by step, so that they meet everywhere.
        var reads = 0
        journal.setLease(1)
        for point in PointNumber(6)...14 {
            try world.send(point, generation: 1, to: journal) { _ in }
            while world.scheduler.step() {
                let start = world.random.below(JournalWorld.sectorCount)
                let range = SectorRange(from: start, to: min(JournalWorld.sectorCount, start + 1 + world.random.below(9)))
                guard world.random.chance(percent: 10) else { continue }
                view.read(range) { result in
                    guard case .success(let data) = result else {
                        if case .failure(.busy) = result { return }
                        Issue.record("the view can't be read: \(result)")
                        return
                    }
                    reads += 1
                    let first = Int(range.byteOffset)
                    let isExact = Array(data.readableBytesView) == Array(expected[first..<first + range.byteCount])
                    #expect(isExact, "\(range) while point \(point) comes")
                }
            }
        }
        #expect(reads > 20)
        #expect(journal.pastPoints.first?.point == 10)
        let isExact = try world.content(of: view) == expected
        #expect(isExact)
        view.close()
    }

    @Test(arguments: PointNumber(2)...6) func theDiskGoesBack(target: PointNumber) throws {
        let world = Self.world()
        let journal = try #require(try world.open()?.get())
        try world.bring(to: 6, journal)
        #expect(world.rollBack(to: target, journal) == .success(PointPosition(received: target, applied: target)))
        let isExact = world.disk.content == world.state(after: target)
        #expect(isExact)
        #expect(journal.pastPoints.map(\.point) == Array(2..<target))
        journal.close {}
        world.scheduler.runUntilIdle()
        // The next attachment takes the disk as it is, and nothing of the one before stays.
        let next = try #require(try world.open(volume: VolumeIdentifier(high: 7, low: 7))?.get())
        #expect(next.position == PointPosition(received: 0, applied: 0))
        #expect(next.pastPoints.isEmpty)
        #expect(world.directory.names == ["position"])
    }

    /// What a power cut brings back of the files of applied points is not taken for received once the position is behind them.
    @Test(arguments: UInt64(0)..<15) func appliedPointsDoNotComeBackOverThePast(seed: UInt64) throws {
        let world = Self.world(seed: seed)
        let journal = try #require(try world.open()?.get())
        try world.bring(to: 5, journal)
        // At once, while the removal of the last point's file is under way.
        var isToGoBack = true
        journal.onApplied = { point in
            guard point == 6, isToGoBack else { return }
            isToGoBack = false
            journal.setLease(nil)
            journal.whenAgreedApplied { _ in world.scheduler.schedule(after: .milliseconds(0)) { journal.rollBack(to: 4) { _ in } } }
        }
        try world.send(6, generation: 1, to: journal) { _ in }
        for _ in 0..<world.random.within(40...220) where !world.scheduler.step() { break }
        world.machine.cutPower()
        let next = try #require(try world.open()?.get())
        #expect([4, 5, 6].contains(next.position.applied))
        let isExact = world.disk.content == world.state(after: next.position.applied)
        #expect(isExact, "seed \(seed), at \(next.position)")
    }

    @Test func aDamagedUndoFileKeepsTheDiskAsItIs() throws {
        let world = Self.world()
        let journal = try #require(try world.open()?.get())
        try world.bring(to: 6, journal)
        let before = world.disk.content
        world.directory.open(PointFormat.undoFileName(4), create: false) { result in
            guard case .success(let file) = result else { return }
            file.write(ByteBuffer(bytes: [1, 2, 3, 4]), at: 90) { _ in }
        }
        world.scheduler.runUntilIdle()
        guard case .failure(.corrupt) = world.rollBack(to: 2, journal) else {
            Issue.record("went back over a damaged file")
            return
        }
        #expect(world.disk.content == before)
        #expect(throws: PointJournalError.self) { try world.past(3, journal) }
        // Nearer than the damage all is well.
        #expect(world.rollBack(to: 4, journal) == .success(PointPosition(received: 4, applied: 4)))
        let isExact = world.disk.content == world.state(after: 4)
        #expect(isExact)
    }

    @Test func keepingIsTurnedOffAndOn() throws {
        let world = Self.world()
        let journal = try #require(try world.open()?.get())
        try world.bring(to: 3, journal)
        journal.keep(.none)
        world.scheduler.runUntilIdle()
        #expect(journal.pastPoints.isEmpty)
        #expect(world.directory.names == ["position"])
        try world.bring(to: 5, journal)
        journal.keep(PointKeeping(pointsMax: 2, bytesMax: 1 << 20))
        try world.bring(to: 7, journal)
        #expect(journal.pastPoints.map(\.point) == [5, 6])
        journal.keep(PointKeeping(pointsMax: 1, bytesMax: 1 << 20))
        world.scheduler.runUntilIdle()
        #expect(journal.pastPoints.map(\.point) == [6])
        let isExact = try world.past(6, journal) == world.state(after: 6)
        #expect(isExact)
    }

    /// A view that is open when nothing is kept any more must not go on without the points that come then.
    @Test func aViewEndsWhenItsPointIsGivenUp() throws {
        let world = Self.world()
        let journal = try #require(try world.open()?.get())
        try world.bring(to: 5, journal)
        let view = try world.openView(of: 3, journal)
        journal.keep(.none)
        try world.bring(to: 7, journal)
        #expect(throws: PointJournalError.notKept(3)) { try world.content(of: view) }
        view.close()
    }

    /// The disk has part of the point, and what was there before is only in the file.
    @Test func aDamagedUndoFileOfAHalfAppliedPointIsNotMadeAnew() throws {
        for steps in stride(from: 20, to: 200, by: 4) {
            let world = Self.world(seed: 9)
            let journal = try #require(try world.open()?.get())
            try world.bring(to: 4, journal)
            try world.send(5, generation: 1, to: journal) { _ in }
            for _ in 0..<steps where !world.scheduler.step() { break }
            guard world.directory.names.contains(PointFormat.undoFileName(5)), journal.position.applied == 4 else { continue }
            world.machine.killProcess()
            world.directory.open(PointFormat.undoFileName(5), create: false) { result in
                guard case .success(let file) = result else { return }
                file.write(ByteBuffer(bytes: [9, 9, 9]), at: 20) { _ in }
            }
            world.scheduler.runUntilIdle()
            let next = try #require(try world.open()?.get())
            #expect(next.position.applied == 5)
            #expect(next.pastPoints.isEmpty, "\(next.pastPoints)")
            let isExact = world.disk.content == world.state(after: 5)
            #expect(isExact)
        }
    }

    /// Points matter more than what is kept of them.
    @Test func whatCantBeKeptIsGivenUpAndPointsGoOn() throws {
        let world = Self.world(bytesMax: 4_000)
        let journal = try #require(try world.open()?.get())
        var given: [PointNumber] = []
        journal.onKeepingGivenUp = { point, _ in given.append(point) }
        try world.bring(to: 12, journal)
        let isExact = world.disk.content == world.state(after: 12)
        #expect(isExact)
        #expect(!given.isEmpty)
        for past in journal.pastPoints {
            let isExact = try world.past(past.point, journal) == world.state(after: past.point)
            #expect(isExact, "point \(past.point)")
        }
    }

    /// Room that undo files take is room that points need.
    @Test func keptPointsGoWhereTheFileSystemIsFull() throws {
        let world = Self.world(pointsMax: 50)
        let journal = try #require(try world.open()?.get())
        try world.bring(to: 6, journal)
        world.machine.faults.capacityBytes = world.machine.usedBytes + 3_000
        journal.setLease(1)
        var attempts = 0
        while journal.position.applied < 14, attempts < 200 {
            attempts += 1
            try? world.send(journal.position.received + 1, generation: 1, to: journal) { _ in }
            world.scheduler.runUntilIdle()
        }
        #expect(journal.position.applied == 14)
        let isExact = world.disk.content == world.state(after: 14)
        #expect(isExact)
        for past in journal.pastPoints {
            let isExact = try world.past(past.point, journal) == world.state(after: past.point)
            #expect(isExact, "point \(past.point)")
        }
    }

    /// Crashes at every step, of points and of ways back: what is kept is exact, and a way back that was begun ends.
    @Test(arguments: UInt64(0)..<8) func whatIsKeptIsExactThroughCrashes(block: UInt64) throws {
        for seed in (block * 3)..<(block * 3 + 3) { try Self.crash(seed: seed) }
    }

    private static func crash(seed: UInt64) throws {
        let world = world(seed: seed)
        for round in 0..<10 {
            let context: Comment = "seed \(seed), round \(round)"
            var journal: SimulatedJournal?
            world.startOpening { if case .success(let opened) = $0 { journal = opened } }
            let isShort = world.random.chance(percent: 40)
            runSteps(world, isShort ? world.random.within(0...40) : 10_000)
            if let journal {
                let isExact = world.disk.content == world.state(after: journal.position.applied)
                #expect(isExact, context)
                for past in journal.pastPoints {
                    let isExact = try world.past(past.point, journal) == world.state(after: past.point)
                    #expect(isExact, "point \(past.point) of \(journal.position), \(context)")
                }
                work(world, journal)
            } else {
                #expect(isShort, context)
            }
            if world.random.chance(percent: 50) { world.machine.killProcess() } else { world.machine.cutPower() }
        }
        let journal = try #require(try world.open()?.get())
        let isExact = world.disk.content == world.state(after: journal.position.applied)
        #expect(isExact, "seed \(seed), at the end")
    }

    /// Sends points for some steps; or goes back, and is cut short somewhere.
    private static func work(_ world: JournalWorld, _ journal: SimulatedJournal) {
        let past = journal.pastPoints
        if !past.isEmpty, world.random.chance(percent: 35) {
            let target = past[Int(world.random.below(UInt64(past.count)))].point
            journal.setLease(nil)
            journal.rollBack(to: target) { _ in }
            return runSteps(world, world.random.within(0...90))
        }
        journal.setLease(1)
        var isAlive = true
        func next() {
            guard isAlive, journal.state == .open else { return }
            do throws(PointJournalError) {
                try world.send(journal.position.received + 1, generation: 1, to: journal) { _ in next() }
            } catch {
                if case .busy = error { world.scheduler.schedule(after: .milliseconds(3)) { next() } }
            }
        }
        next()
        runSteps(world, world.random.within(0...160))
        isAlive = false
    }

    private static func runSteps(_ world: JournalWorld, _ count: Int) {
        for _ in 0..<count where !world.scheduler.step() { return }
    }
}
