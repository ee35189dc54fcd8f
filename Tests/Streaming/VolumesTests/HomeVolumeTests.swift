import Blocks
import Disks
import LinkProtocol
import NIOCore
import SimulatedStorage
import Testing

@testable import Volumes

/// The home side of a volume against what a link may bring it.
@Suite struct HomeVolumeTests {
    private final class Bench {
        let scheduler = Scheduler(seed: 5)
        let machine: SimulatedMachine
        let disk: SimulatedFile
        let identifier = VolumeIdentifier(high: 3, low: 4)
        private(set) var volume: HomeVolume<SimulatedFile, SimulatedDirectory>?
        private(set) var sent: [LinkMessage] = []
        var takesMessages = true

        init() {
            machine = SimulatedMachine(scheduler: scheduler)
            disk = machine.disk("disk", byteCount: 1 << 20)
            PointJournal.open(disk: disk, sectorCount: 2_048, directory: machine.directory("journal"), volume: identifier) {
                [self] result in
                guard case .success(let journal) = result else { return }
                let volume = HomeVolume(identifier: identifier, journal: journal)
                volume.downlink = { [self] message, _, _ in
                    if takesMessages { sent.append(message) }
                    return takesMessages
                }
                self.volume = volume
            }
            scheduler.runUntilIdle()
        }

        func open(generation: LeaseGeneration) {
            volume?.opened(generation: generation) { _ in }
            scheduler.runUntilIdle()
        }

        /// All messages of a point that writes `byte` to one block.
        func point(_ number: PointNumber, generation: LeaseGeneration, byte: UInt8, digestOffset: UInt32 = 0) -> [LinkMessage] {
            let range = SectorRange(block: 2)
            let data = ByteBuffer(repeating: byte, count: range.byteCount)
            var digest = PointDigest()
            digest.add(range, data: data)
            return [
                .pointBegin(volume: identifier, generation: generation, point: number),
                .pointData(volume: identifier, point: number, start: range.start, data: data),
                .pointCommit(volume: identifier, point: number, pieces: digest.pieceCount, digest: digest.value &+ digestOffset),
            ]
        }

        func receive(_ messages: [LinkMessage]) {
            for message in messages { volume?.receive(message) }
            scheduler.runUntilIdle()
        }

        func takeSent() -> [LinkMessage] {
            defer { sent = [] }
            return sent
        }

        var block: UInt8 { disk.content[2 * 4_096] }
    }

    @Test("long reads are answered whole where nobody compares blocks: no table of them, an old peer, a read that begins within a block")
    func longReadsWithoutDigests() {
        for hasTable in [false, true] {
            for version in [LinkVersion.oldest, LinkVersion.newest] {
                for start in [8, 9] as [UInt64] {
                    let bench = Bench()
                    bench.volume?.linkVersion = { version }
                    if hasTable, let table = SentBlocks(byteCount: 1 << 20) { bench.volume?.peerBlocks = PeerBlocks(table: table, salt: 0) }
                    bench.open(generation: 1)
                    let range = SectorRange(from: start, to: start + 128)
                    bench.receive([.readRequest(read: 1, volume: bench.identifier, range: range)])
                    let count = bench.takeSent().reduce(0) { count, message in
                        switch message {
                        case .readData(_, _, let data): count + data.readableBytes
                        case .readZeroes(_, _, let byteCount): count + Int(byteCount)
                        default: count
                        }
                    }
                    #expect(count == range.byteCount, "table \(hasTable), version \(version), from sector \(start)")
                }
            }
        }
    }

    @Test("a point is received, then applied, and a resend of it is received again without effect")
    func order() {
        let bench = Bench()
        bench.open(generation: 1)
        bench.receive(bench.point(1, generation: 1, byte: 7))
        #expect(
            bench.takeSent() == [.pointReceived(volume: bench.identifier, point: 1), .pointApplied(volume: bench.identifier, point: 1)])
        #expect(bench.block == 7)
        bench.receive(bench.point(1, generation: 1, byte: 9))
        #expect(
            bench.takeSent() == [.pointReceived(volume: bench.identifier, point: 1), .pointApplied(volume: bench.identifier, point: 1)])
        #expect(bench.block == 7)
    }

    @Test("invariant 4: a writer that lost its lease changes nothing, at whatever message it is overtaken")
    func fencing() {
        for cut in 0...3 {
            let bench = Bench()
            bench.open(generation: 1)
            let old = bench.point(1, generation: 1, byte: 1)
            for message in old.prefix(cut) { bench.volume?.receive(message) }
            // The new writer opens while the old one's messages are at any stage; a commit that was complete counts.
            bench.open(generation: 2)
            let isReceived = bench.volume?.journal.position.received == 1
            #expect(isReceived == (cut == 3))
            _ = bench.takeSent()
            bench.receive(Array(old.dropFirst(cut)))
            bench.receive(bench.point(2, generation: 1, byte: 2))
            let refusals = bench.takeSent().filter { if case .pointRefused = $0 { true } else { false } }
            #expect(refusals.contains(.pointRefused(volume: bench.identifier, point: 2, refusal: .fenced)))
            #expect(bench.block == (isReceived ? 1 : 0))
            bench.receive(bench.point(isReceived ? 2 : 1, generation: 2, byte: 5))
            #expect(bench.block == 5)
        }
    }

    @Test("a point out of sequence, or with another digest, is refused and leaves the disk alone")
    func refusals() {
        let bench = Bench()
        bench.open(generation: 1)
        bench.receive(bench.point(3, generation: 1, byte: 7))
        #expect(bench.takeSent() == [.pointRefused(volume: bench.identifier, point: 3, refusal: .outOfSequence)])
        bench.receive(bench.point(1, generation: 1, byte: 7, digestOffset: 1))
        #expect(bench.takeSent() == [.pointRefused(volume: bench.identifier, point: 1, refusal: .damaged)])
        #expect(bench.block == 0)
        bench.receive(bench.point(1, generation: 1, byte: 8))
        #expect(bench.block == 8)
    }

    @Test("nothing is read or written before the volume is open, and after its session is lost")
    func closed() {
        let bench = Bench()
        bench.receive([.readRequest(read: 1, volume: bench.identifier, range: SectorRange(block: 0))])
        bench.receive(bench.point(1, generation: 1, byte: 7))
        let answers = bench.takeSent()
        #expect(answers.contains(.readFailed(read: 1, status: .notOpen)))
        #expect(answers.contains(.pointRefused(volume: bench.identifier, point: 1, refusal: .notOpen)))
        #expect(bench.block == 0)
    }

    /// A detach that has failed leaves the volume with its edge (seed 30790): what that has asked for meanwhile nobody will answer.
    @Test func anEdgeIsToldWhenItsSessionWasEndedAtHome() {
        let bench = Bench()
        bench.open(generation: 1)
        bench.volume?.sessionLost()
        bench.scheduler.runUntilIdle()
        _ = bench.takeSent()
        bench.volume?.sessionWasEnded()
        #expect(bench.takeSent() == [.pointRefused(volume: bench.identifier, point: 1, refusal: .notOpen)])
    }

    @Test("what has storage is told of the disk with every point that was received, in the class of reads")
    func allocation() {
        let bench = Bench()
        bench.receive([.allocationRequest(read: 1, volume: bench.identifier, range: SectorRange(from: 0, to: 8))])
        #expect(bench.takeSent() == [.readFailed(read: 1, status: .notOpen)])
        bench.open(generation: 1)
        bench.receive(bench.point(1, generation: 1, byte: 7))
        _ = bench.takeSent()
        bench.receive([
            .allocationRequest(read: 2, volume: bench.identifier, range: SectorRange(from: 18, to: 23)),
            .allocationRequest(read: 3, volume: bench.identifier, range: SectorRange(from: 2_000, to: 3_000)),
        ])
        let answers = bench.takeSent()
        #expect(answers.contains(.allocationReply(read: 2, runs: [AllocationRun(sectorCount: 5, allocation: .mapped)])))
        #expect(answers.contains(.readFailed(read: 3, status: .outOfRange)))
        // A whole disk is a legal question, and the answer is as long as it says.
        bench.receive([.allocationRequest(read: 4, volume: bench.identifier, range: SectorRange(from: 0, to: 2_048))])
        guard case .allocationReply(4, let runs)? = bench.takeSent().first else {
            Issue.record("no answer")
            return
        }
        #expect(runs.reduce(0) { $0 + $1.sectorCount } == 2_048)
        #expect(runs.contains { $0.allocation == .deallocated })
    }

    @Test("zeroes are not sent as bytes, and answers wait for a link that takes nothing")
    func reads() {
        let bench = Bench()
        bench.open(generation: 1)
        bench.receive(bench.point(1, generation: 1, byte: 7))
        _ = bench.takeSent()
        bench.takesMessages = false
        bench.receive([
            .readRequest(read: 1, volume: bench.identifier, range: SectorRange(block: 0)),
            .readRequest(read: 2, volume: bench.identifier, range: SectorRange(block: 2)),
            .readRequest(read: 3, volume: bench.identifier, range: SectorRange(from: 2_000, to: 3_000)),
        ])
        #expect(bench.takeSent().isEmpty)
        bench.takesMessages = true
        bench.volume?.linkWritable()
        let answers = bench.takeSent()
        #expect(answers.contains(.readZeroes(read: 1, offset: 0, byteCount: 4_096)))
        #expect(answers.contains(.readData(read: 2, offset: 0, data: ByteBuffer(repeating: 7, count: 4_096))))
        #expect(answers.contains(.readFailed(read: 3, status: .outOfRange)))
    }
}
