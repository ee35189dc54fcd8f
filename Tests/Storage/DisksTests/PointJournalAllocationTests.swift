import Blocks
import NIOCore
import SimulatedStorage
import Testing

@testable import Disks

@Suite struct PointJournalAllocationTests {
    private func range(_ start: UInt64, _ end: UInt64) -> SectorRange { SectorRange(from: start, to: end) }

    /// A journal that is busy is sent the point again when it has applied more.
    private func sendWhenThereIsRoom(
        _ point: PointNumber, to journal: SimulatedJournal, of world: JournalWorld,
        completion: @escaping (Result<PointPosition, PointJournalError>) -> Void
    ) throws {
        while true {
            do {
                return try world.send(point, generation: 7, to: journal, completion: completion)
            } catch {
                guard case .busy = error else { throw error }
            }
            try #require(world.scheduler.step(), "busy, and nothing is under way")
        }
    }

    @Test("invariant: deallocated sectors are zeroes after every point that was received, applied or not")
    func pointsUnderWay() throws {
        var answers = 0
        for seed in UInt64(1)...60 {
            let world = JournalWorld(seed: seed)
            let journal = try #require(try world.open()?.get())
            journal.setLease(7)
            for point in PointNumber(1)...8 {
                var isReceived = false
                try sendWhenThereIsRoom(point, to: journal, of: world) { isReceived = (try? $0.get()) != nil }
                while !isReceived, world.scheduler.step() {}
                // The point is received; how far it is applied is chance.
                for _ in 0..<world.random.below(6) { _ = world.scheduler.step() }
                let start = world.random.below(JournalWorld.sectorCount)
                let asked = range(start, start + 1 + world.random.below(JournalWorld.sectorCount - start))
                var answer: Result<[AllocationExtent], PointJournalError>?
                journal.allocation(of: asked) { answer = $0 }
                #expect(answer == nil, "no completion comes before the call has returned")
                while answer == nil, world.scheduler.step() {}
                let extents = try #require(try answer?.get())
                answers += 1
                let content = world.state(after: point)
                var next = start
                for extent in extents {
                    #expect(extent.range.start == next && asked.contains(extent.range))
                    next = extent.range.end
                    if extent.allocation == .mapped { continue }
                    let bytes = content[Int(extent.range.byteOffset)..<Int(extent.range.end) * 512]
                    #expect(bytes.allSatisfy { $0 == 0 }, "seed \(seed), point \(point), \(extent)")
                }
                #expect(next == asked.end)
            }
        }
        #expect(answers == 60 * 8)
    }

    @Test("zeroes of a point that is not applied are deallocated already, and its data is mapped")
    func unapplied() throws {
        let world = JournalWorld(seed: 3)
        let journal = try #require(try world.open()?.get())
        journal.setLease(7)
        // The disk holds bytes in its second block before.
        let old = ByteBuffer(repeating: 1, count: 8 * 512)
        world.disk.write(old, at: 8 * 512) { _ in }
        world.scheduler.runUntilIdle()
        world.machine.faults.failsReads = false
        _ = try journal.begin(point: 1, generation: 7)
        var digest = PointDigest()
        digest.addZeroes(range(8, 16))
        try journal.addZeroes(range(8, 16))
        let data = ByteBuffer(repeating: 2, count: 512)
        digest.add(range(20, 21), data: data)
        try journal.addData(range(20, 21), data: data)
        var answer: [AllocationExtent]?
        journal.commit(pieces: 2, digest: digest.value) { _ in
            journal.allocation(of: SectorRange(from: 8, to: 21)) { answer = try? $0.get() }
        }
        world.scheduler.runUntilIdle()
        let extents = try #require(answer)
        #expect(extents.first?.allocation == .deallocated)
        #expect(extents.first.map { $0.range.start == 8 && $0.range.end >= 16 } ?? false)
        #expect(extents.last == AllocationExtent(range: range(20, 21), allocation: .mapped) || extents.last?.range.start ?? 0 > 15)
        #expect(extents.last?.allocation == .mapped)
    }

    @Test("what is not on the disk is refused, and so is one question too many")
    func refusals() throws {
        let world = JournalWorld(seed: 4)
        let journal = try #require(try world.open()?.get())
        var answers: [Result<[AllocationExtent], PointJournalError>] = []
        journal.allocation(of: range(0, JournalWorld.sectorCount + 1)) { answers.append($0) }
        journal.allocation(of: range(5, 5)) { answers.append($0) }
        #expect(answers == [.failure(.outOfRange(range(0, JournalWorld.sectorCount + 1))), .failure(.outOfRange(range(5, 5)))])
        answers = []
        for _ in 0..<journal.limits.allocationsInFlightMax + 1 { journal.allocation(of: range(0, 8)) { answers.append($0) } }
        guard case .failure(.busy)? = answers.first, answers.count == 1 else { throw TestFailure("\(answers)") }
        // A journal that closes waits for the questions that are out.
        var isClosed = false
        journal.close { isClosed = true }
        #expect(!isClosed)
        world.scheduler.runUntilIdle()
        #expect(isClosed)
        #expect(answers.count == journal.limits.allocationsInFlightMax + 1)
    }
}
