import Blocks
import NIOCore
import SimulatedStorage
import Testing

@testable import Disks

/// Points of a volume in a group: received, held, agreed to.
@Suite struct PointJournalGroupTests {
    private static let group = GroupIdentifier(high: 4, low: 4)

    private static func cut(_ number: UInt64, _ point: PointNumber) -> GroupPoint {
        GroupPoint(group: group, number: number, members: [.init(volume: JournalWorld.volume, point: point, isSealed: true)])
    }

    private static func carrying(_ point: PointNumber) -> PointAttributes {
        PointAttributes(consistency: .application, label: "nightly \(point)", group: cut(point, point))
    }

    private func opened(_ world: JournalWorld, volume: VolumeIdentifier = JournalWorld.volume) throws -> SimulatedJournal {
        let journal = try #require(try world.open(volume: volume)?.get())
        journal.setLease(7)
        return journal
    }

    private func send(_ points: ClosedRange<PointNumber>, to journal: SimulatedJournal, _ world: JournalWorld) throws {
        for point in points {
            var answer: Result<PointPosition, PointJournalError>?
            try world.send(point, generation: 7, carrying: Self.carrying(point), to: journal) { answer = $0 }
            world.scheduler.runUntilIdle()
            #expect(try answer?.get().received == point)
        }
    }

    private func read(_ journal: SimulatedJournal, _ world: JournalWorld) throws -> [UInt8] {
        var read: Result<ByteBuffer, PointJournalError>?
        journal.read(SectorRange(from: 0, to: JournalWorld.sectorCount)) { read = $0 }
        world.scheduler.runUntilIdle()
        return Array(try #require(try read?.get()).readableBytesView)
    }

    @Test("a point of a group is received, read, and not applied before it is agreed to", arguments: 1...8 as ClosedRange<UInt64>)
    func held(seed: UInt64) throws {
        let world = JournalWorld(seed: seed)
        let journal = try opened(world)
        var told = 0
        journal.onHeld = { told += 1 }
        try send(1...5, to: journal, world)
        #expect(told == 5)
        #expect(journal.position == PointPosition(received: 5, applied: 0))
        #expect(world.disk.content == world.state(after: 0), "the disk stays at the last agreed point")
        #expect(try read(journal, world) == world.state(after: 5), "a read sees what was received")
        journal.agree(through: 3, cut: Self.cut(3, 3))
        world.scheduler.runUntilIdle()
        #expect(journal.position == PointPosition(received: 5, applied: 3))
        #expect(world.disk.content == world.state(after: 3))
        #expect(journal.agreedCut == Self.cut(3, 3))
        #expect(journal.appliedAttributes == Self.carrying(3))
        #expect(try read(journal, world) == world.state(after: 5))
        journal.agree(through: 5, cut: nil)
        world.scheduler.runUntilIdle()
        #expect(world.disk.content == world.state(after: 5), "a volume that leaves its group goes on")
    }

    /// Whatever a crash interrupts: the disk is opened at a cut, the one before or the one that was agreed to, and held points stay.
    @Test("an agreement outlives a crash at any moment of its being applied", arguments: 1...20 as ClosedRange<UInt64>)
    func crash(seed: UInt64) throws {
        let world = JournalWorld(seed: seed)
        let journal = try opened(world)
        try send(1...4, to: journal, world)
        journal.agree(through: 3, cut: Self.cut(3, 3))
        _ = world.scheduler.run(until: world.scheduler.now + .microseconds(Int64(seed) * 120))
        world.machine.cutPower()
        let reopened = try opened(world)
        #expect(reopened.position.received == 4)
        #expect([0, 3].contains(reopened.position.applied), "it is at \(reopened.position.applied)")
        #expect(world.disk.content == world.state(after: reopened.position.applied))
        #expect(reopened.heldPoints.map(\.point) == Array(reopened.position.applied + 1...4))
        #expect(try read(reopened, world) == world.state(after: 4))
        if reopened.position.applied == 3 { #expect(reopened.agreedCut == Self.cut(3, 3)) }
        reopened.agree(through: 4, cut: Self.cut(4, 4))
        world.scheduler.runUntilIdle()
        #expect(world.disk.content == world.state(after: 4))
    }

    /// Also when the disk was changed meanwhile by its owner, and when a crash interrupts the opening.
    @Test("what an ended attachment left held is never applied, and kept", arguments: 1...20 as ClosedRange<UInt64>)
    func nextAttachment(seed: UInt64) throws {
        let world = JournalWorld(seed: seed)
        let journal = try opened(world)
        try send(1...4, to: journal, world)
        journal.agree(through: 2, cut: Self.cut(2, 2))
        world.scheduler.runUntilIdle()
        world.machine.killProcess()
        var interrupted: SimulatedJournal?
        let nextVolume = VolumeIdentifier(high: 8, low: 8)
        PointJournal.open(
            disk: world.disk, sectorCount: JournalWorld.sectorCount, directory: world.directory, volume: nextVolume, limits: world.limits
        ) { interrupted = try? $0.get() }
        _ = world.scheduler.run(until: world.scheduler.now + .microseconds(Int64(seed) * 150))
        _ = interrupted
        world.machine.cutPower()
        let next = try opened(world, volume: nextVolume)
        #expect(world.disk.content == world.state(after: 2), "the disk is at the last common cut")
        #expect(next.position == PointPosition(received: 0, applied: 0))
        #expect(next.agreedCut == nil)
        let kept = world.directory.names.filter(PointFormat.isKeptFile).sorted()
        #expect(kept == [3, 4].map { PointFormat.keptFileName($0, of: JournalWorld.volume) })
    }

    @Test("whoever reads the journal of a stopped edge is told what is held, and at which cut the disk is")
    func offline() throws {
        let world = JournalWorld(seed: 4)
        let journal = try opened(world)
        try send(1...4, to: journal, world)
        journal.agree(through: 2, cut: Self.cut(2, 2))
        world.scheduler.runUntilIdle()
        world.machine.killProcess()
        let report = try world.report()
        #expect(report.points.filter { $0.state == .held }.map(\.number) == [3, 4])
        #expect(report.points.filter { $0.state == .received }.isEmpty)
        #expect(report.points.last?.group == Self.cut(4, 4))
        #expect(report.cut == Self.cut(2, 2) && report.agreed == 2 && report.damages.isEmpty)
    }

    @Test("held points have a limit, at which the next one is refused until there is an agreement")
    func limit() throws {
        let world = JournalWorld(seed: 5)
        world.limits.pointsHeldMax = 4
        let journal = try opened(world)
        try send(1...4, to: journal, world)
        #expect(throws: PointJournalError.busy("4 points wait to be applied")) { try journal.begin(point: 5, generation: 7) }
        journal.agree(through: 2, cut: Self.cut(2, 2))
        world.scheduler.runUntilIdle()
        try send(5...5, to: journal, world)
    }

    @Test("attributes come once, and before any piece")
    func order() throws {
        let world = JournalWorld(seed: 6)
        let journal = try opened(world)
        #expect(try journal.begin(point: 1, generation: 7) == .accepted)
        let range = SectorRange(from: 0, to: 1)
        try journal.addData(range, data: ByteBuffer(repeating: 1, count: range.byteCount))
        #expect(throws: PointJournalError.damaged("its attributes came twice, or behind a piece")) {
            try journal.setAttributes(Self.carrying(1))
        }
    }
}
