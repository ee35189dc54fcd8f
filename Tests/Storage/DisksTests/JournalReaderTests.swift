import Blocks
import SimulatedStorage
import Testing

@testable import Disks

/// That a reader finds no fault with what crashes leave is shown with the crashes; here is what they don't leave.
@Suite struct JournalReaderTests {
    /// A journal with two points that were received and not applied: the process died in time.
    private func world() throws -> JournalWorld {
        for seed in 1...200 as ClosedRange<UInt64> {
            let world = JournalWorld(seed: seed)
            guard let journal = try world.open()?.get() else { continue }
            journal.setLease(7)
            try world.send(1, generation: 7, to: journal) { _ in
                try? world.send(2, generation: 7, to: journal) { _ in world.machine.killProcess() }
            }
            world.scheduler.runUntilIdle()
            let startsWithData = world.pieces(of: 1).first?.data != nil
            if startsWithData, try world.report().points.map(\.state) == [.received, .received] { return world }
        }
        throw TestFailure("no seed leaves two points")
    }

    @Test func tellsWhatIsThere() throws {
        let report = try world().report()
        #expect(report.volume == JournalWorld.volume && report.position?.applied == 0)
        #expect(report.points.map(\.number) == [1, 2] && report.points.allSatisfy { $0.generation == 7 })
        #expect(report.damages.isEmpty)
        #expect(try JournalWorld(seed: 1).report() == JournalReport(), "a journal that was never used")
    }

    @Test(arguments: [10, 70, 96]) func aDamagedPointIsFound(at offset: Int) throws {
        let world = try world()
        world.directory.file(PointFormat.fileName(1))?.flipBit(at: offset)
        let report = try world.report()
        #expect(report.points.map(\.state) == [.incomplete, .received])
        #expect(report.damages.map(\.file) == [PointFormat.fileName(1)])
        #expect((report.damages.first?.offset ?? 0) <= UInt64(offset))
        guard case .failure(.corrupt)? = world.open() else { throw TestFailure("the journal was opened") }
    }

    @Test func aMissingPointIsFound() throws {
        let world = try world()
        world.directory.remove(PointFormat.fileName(1)) { _ in }
        world.scheduler.runUntilIdle()
        let report = try world.report()
        #expect(report.damages.map(\.file) == [PointFormat.fileName(1)])
        #expect(report.damages.first?.text.contains("missing") == true)
    }

    @Test func aDamagedPositionIsFound() throws {
        let world = try world()
        world.directory.file(PositionRecord.fileName)?.flipBit(at: 4096 + 20)
        #expect(try world.report().damages.map(\.offset) == [4096])
        world.directory.file(PositionRecord.fileName)?.flipBit(at: 20)
        #expect(try world.report().damages.map(\.offset) == [0, 4096])
        world.directory.remove(PositionRecord.fileName) { _ in }
        world.scheduler.runUntilIdle()
        #expect(try world.report().damages.count == 1)
    }
}
