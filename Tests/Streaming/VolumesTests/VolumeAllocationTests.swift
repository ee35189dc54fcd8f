import Blocks
import LinkProtocol
import SimulatedStorage
import Testing

@testable import Volumes

/// What a volume says of its allocation, and how often it asks home for it.
@Suite struct VolumeAllocationTests {
    private final class Bench {
        private let bench: VolumeBench
        /// The questions that reached home.
        private(set) var questions: [(number: UInt64, range: SectorRange)] = []

        init() throws {
            bench = try VolumeBench()
            bench.onSent = { [unowned self] message in
                if case .allocationRequest(let number, _, let range) = message { questions.append((number, range)) }
            }
            bench.connect()
        }

        var scheduler: Scheduler { bench.scheduler }
        var identifier: VolumeIdentifier { bench.identifier }
        var volume: Volume<SimulatedDirectory> { bench.volume }

        /// Asks the volume, and answers as a home whose disk has data in its first 64 sectors only.
        func ask(_ range: SectorRange) -> [AllocationExtent]? {
            var answer: [AllocationExtent]?
            let asked = questions.count
            volume.allocation(of: range) { if case .success(let extents) = $0 { answer = extents } }
            for question in questions[asked...] { reply(to: question) }
            return answer
        }

        func reply(to question: (number: UInt64, range: SectorRange)) {
            let data = SectorRange(from: 0, to: 64).intersection(question.range)
            var runs = [AllocationRun(sectorCount: question.range.count - data.count, allocation: .deallocated)]
            if !data.isEmpty { runs.insert(AllocationRun(sectorCount: data.count, allocation: .mapped), at: 0) }
            volume.receive(.allocationReply(read: question.number, runs: runs.filter { $0.sectorCount > 0 }))
        }

        func write(block: UInt64) { bench.write(block: block) }
    }

    private let disk = SectorRange(from: 0, to: 2_048)

    @Test func homeIsAskedOnceForWhatOneAnswerTells() throws {
        let bench = try Bench()
        #expect(
            bench.ask(disk) == [
                AllocationExtent(range: SectorRange(from: 0, to: 64), allocation: .mapped),
                AllocationExtent(range: SectorRange(from: 64, to: 2_048), allocation: .deallocated),
            ])
        let rest = SectorRange(from: 60, to: 100)
        #expect(
            bench.ask(rest) == [
                AllocationExtent(range: SectorRange(from: 60, to: 64), allocation: .mapped),
                AllocationExtent(range: SectorRange(from: 64, to: 100), allocation: .deallocated),
            ])
        #expect(bench.questions.count == 1)
    }

    @Test func unsentWritesAreToldOverWhatIsRemembered() throws {
        let bench = try Bench()
        _ = bench.ask(disk)
        bench.write(block: 16)
        let hole = SectorRange(from: 120, to: 200)
        #expect(
            bench.ask(hole) == [
                AllocationExtent(range: SectorRange(from: 120, to: 128), allocation: .deallocated),
                AllocationExtent(range: SectorRange(from: 128, to: 136), allocation: .mapped),
                AllocationExtent(range: SectorRange(from: 136, to: 200), allocation: .deallocated),
            ])
        #expect(bench.questions.count == 1)
    }

    @Test func homeIsAskedAgainWhenThingsMayHaveChanged() throws {
        let bench = try Bench()
        let volume = bench.volume
        _ = bench.ask(disk)
        // The log lets go of writes: only home can tell of them now.
        bench.write(block: 16)
        volume.seal(until: .received) { _ in }
        bench.scheduler.runUntilIdle()
        volume.receive(.pointReceived(volume: bench.identifier, point: 1))
        bench.scheduler.runUntilIdle()
        _ = bench.ask(SectorRange(from: 512, to: 2_048))
        #expect(bench.questions.count == 2)
        volume.grow(to: 4_096)
        _ = bench.ask(SectorRange(from: 512, to: 2_048))
        #expect(bench.questions.count == 3)
        volume.linkSessionStarted()
        volume.opened(VolumeOpenReply(generation: 1, receivedPoint: 1, appliedPoint: 1))
        _ = bench.ask(SectorRange(from: 512, to: 2_048))
        #expect(bench.questions.count == 4)
        _ = bench.ask(SectorRange(from: 512, to: 2_048))
        #expect(bench.questions.count == 4)
    }

    /// An answer that was given before the log let go of a write knows nothing of it.
    @Test func anAnswerThatWasOnItsWayIsNotKept() throws {
        let bench = try Bench()
        let volume = bench.volume
        var answers = 0
        volume.allocation(of: disk) { _ in answers += 1 }
        bench.write(block: 16)
        volume.seal(until: .received) { _ in }
        bench.scheduler.runUntilIdle()
        volume.receive(.pointReceived(volume: bench.identifier, point: 1))
        bench.scheduler.runUntilIdle()
        bench.reply(to: try #require(bench.questions.first))
        #expect(answers == 1)
        _ = bench.ask(SectorRange(from: 512, to: 2_048))
        #expect(bench.questions.count == 2)
    }
}
