import Blocks
import NIOCore
import SimulatedStorage
import Testing

@testable import Disks

/// A sparse disk on a file system that is full.
@Suite struct StallTests {
    private static func content(of range: SectorRange, _ journal: SimulatedJournal, _ world: JournalWorld) throws -> [UInt8] {
        var result: Result<ByteBuffer, PointJournalError>?
        journal.read(range) { result = $0 }
        world.scheduler.runUntilIdle()
        guard let result else { throw TestFailure("a read waits for a disk without room") }
        return Array(try result.get().readableBytesView)
    }

    @Test(
        "reads see every point that was received, more come, and all are on the disk when there is room", arguments: UInt64(1)..<12)
    func readsGoOn(seed: UInt64) throws {
        let world = JournalWorld(seed: seed)
        world.limits.pointsHeldMax = 6
        let journal = try #require(try world.open()?.get())
        try world.bring(to: 2, journal)
        world.machine.faults.lacksRoomInHolesOf = "disk"
        let whole = SectorRange(from: 0, to: JournalWorld.sectorCount)
        for point in PointNumber(3)...8 {
            try world.send(point, generation: 1, to: journal) { _ in }
            world.scheduler.runUntilIdle()
            // Points whose writes all found room are on the disk; the others wait, and show all the same.
            #expect(try Self.content(of: whole, journal, world) == world.state(after: point))
            journal.retryStalled()
            world.scheduler.runUntilIdle()
        }
        #expect(journal.position.received == 8)
        var applied: Result<PointPosition, PointJournalError>?
        journal.whenAllApplied { applied = $0 }
        world.machine.faults.lacksRoomInHolesOf = nil
        journal.retryStalled()
        world.scheduler.runUntilIdle()
        #expect(try applied?.get().applied == 8)
        #expect(journal.stallReason == nil)
        #expect(try Self.content(of: whole, journal, world) == world.state(after: 8))
        #expect(world.disk.content.withUnsafeBytes { Array($0) } == world.state(after: 8))
    }

    @Test("who waits for the disk itself hears of it; the limit on what is received holds; a kill leaves a whole journal")
    func limits() throws {
        let world = JournalWorld(seed: 3)
        world.limits.pointsHeldMax = 4
        let journal = try #require(try world.open()?.get())
        try world.bring(to: 1, journal)
        world.machine.faults.lacksRoomInHolesOf = "disk"
        var refused: PointJournalError?
        for point in PointNumber(2)...30 {
            do throws(PointJournalError) {
                try world.send(point, generation: 1, to: journal) { _ in }
                world.scheduler.runUntilIdle()
            } catch {
                refused = error
                break
            }
        }
        guard case .busy? = refused else { throw TestFailure("the journal takes points without end: \(String(describing: refused))") }
        guard case .noSpace? = journal.stallReason else { throw TestFailure("it is not stalled") }
        var applied: Result<PointPosition, PointJournalError>?
        journal.whenAgreedApplied { applied = $0 }
        // Half of all writes find room by chance: the queue may move a little, and stalls again.
        for _ in 0..<40 where applied == nil {
            journal.retryStalled()
            world.scheduler.runUntilIdle()
        }
        #expect(applied != nil)
        let received = journal.position.received
        world.machine.killProcess()
        world.machine.faults.lacksRoomInHolesOf = nil
        let again = try #require(try world.open()?.get())
        #expect(again.position.applied == received)
        #expect(world.disk.content.withUnsafeBytes { Array($0) } == world.state(after: received))
    }
}
