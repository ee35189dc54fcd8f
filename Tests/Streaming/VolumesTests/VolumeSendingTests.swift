import Blocks
import LinkProtocol
import NIOCore
import SimulatedStorage
import Testing
import WriteLog

@testable import Volumes

/// Points on a link that takes less than there is, from logs that have to be read.
@Suite struct VolumeSendingTests {
    /// A link that takes so many bytes in each turn of its clock, and gives its senders turns.
    private final class NarrowLink {
        private let turns = SendingTurns<Int>()
        private let scheduler: Scheduler
        private var benches: [VolumeBench] = []
        private var room = 0

        init(scheduler: Scheduler) { self.scheduler = scheduler }

        func add(_ bench: VolumeBench) {
            let sender = benches.count
            benches.append(bench)
            bench.volume.uplink = { [unowned self, unowned bench] message, _, _ in
                turns.send(message.encodedBytes, of: sender) {
                    guard room >= message.encodedBytes else { return false }
                    room -= message.encodedBytes
                    bench.sent.append(message)
                    return true
                }
            }
        }

        /// The bytes of one turn: what it did not use of those before, it has lost.
        func carry(_ byteCount: Int, every time: TimeAmount, times: Int) {
            for _ in 0..<times {
                room = byteCount
                turns.run { benches[$0].volume.linkWritable() }
                _ = scheduler.run(until: scheduler.now + time)
            }
        }
    }

    /// A volume with a sealed point of blocks that don't touch.
    private func bench(
        _ scheduler: Scheduler, blocks: UInt64, residentPercent: UInt64, latencyMicroseconds: ClosedRange<Int>
    ) throws -> VolumeBench {
        let machine = SimulatedMachine(scheduler: scheduler)
        let policy = VolumePolicy(recoveryPointObjective: .seconds(3_600), sealBytes: 1 << 30)
        let bench = try VolumeBench(scheduler: scheduler, machine: machine, sectorCount: blocks * 16, policy: policy)
        for block in 0..<blocks {
            bench.write(block: block * 2, fill: UInt8(truncatingIfNeeded: block * 7 + 1))
        }
        bench.volume.seal(until: .received) { _ in }
        scheduler.runUntilIdle()
        machine.faults.residentPercent = residentPercent
        machine.faults.latencyMicroseconds = latencyMicroseconds
        return bench
    }

    /// Each has one block of the log's at a time, or all: the disk of one is as fast as the link needs, if it is asked in time.
    @Test("a volume whose point has to be read from the disk has as much of a busy link as one that has all in memory")
    func equalShares() throws {
        let scheduler = Scheduler(seed: 3)
        let benches = try [100, 0, 100].map {
            try bench(scheduler, blocks: 1_000, residentPercent: $0, latencyMicroseconds: 200...900)
        }
        let link = NarrowLink(scheduler: scheduler)
        for bench in benches {
            link.add(bench)
            bench.connect()
        }
        link.carry(100_000, every: .milliseconds(10), times: 60)
        let shares = benches.map { Double($0.pointBytes) / Double(benches.reduce(0) { $0 + $1.pointBytes }) }
        #expect(shares.allSatisfy { abs($0 - 1.0 / 3) < 0.02 }, "\(shares)")
        link.carry(100_000, every: .milliseconds(10), times: 90)
        for bench in benches { #expect(bench.pointBytes == 1_000 * BlockGeometry.blockBytes) }
    }

    @Test("alone, a volume fills the link though each read of its disk takes longer than the link needs for what it brings")
    func alone() throws {
        let scheduler = Scheduler(seed: 4)
        let bench = try bench(scheduler, blocks: 1_000, residentPercent: 0, latencyMicroseconds: 800...1_200)
        let link = NarrowLink(scheduler: scheduler)
        link.add(bench)
        bench.connect()
        // Eight blocks in the time of one read.
        link.carry(8 * 4_200, every: .milliseconds(1), times: 60)
        #expect(bench.pointBytes > 400 * BlockGeometry.blockBytes)
    }

    @Test("on a link that takes nothing no more is made ready than a little, of zeroes too")
    func closedLink() throws {
        let scheduler = Scheduler(seed: 5)
        let bench = try bench(scheduler, blocks: 1, residentPercent: 100, latencyMicroseconds: 10...20)
        bench.volume.grow(to: 64_000)
        for run in 1..<500 as Range<UInt64> {
            bench.volume.writeZeroes(SectorRange(from: run * 100, to: run * 100 + 8), durability: .ordered) { _ in }
        }
        bench.volume.seal(until: .received) { _ in }
        scheduler.runUntilIdle()
        bench.volume.uplink = { [unowned bench] message, _, _ in
            if bench.sent.count >= 5 { return false }
            bench.sent.append(message)
            return true
        }
        bench.connect()
        for _ in 0..<100 {
            bench.volume.linkWritable()
            scheduler.runUntilIdle()
        }
        #expect((1...PointState.outboxMax).contains(bench.volume.points.outbox.count))
    }

    @Test("runs go out in order, whole, and with the digest of what was sent, whichever read ends first", arguments: 1...20)
    func order(seed: UInt64) throws {
        let scheduler = Scheduler(seed: seed)
        let bench = try bench(scheduler, blocks: 200, residentPercent: 50, latencyMicroseconds: 10...2_000)
        // Zeroes among them, which nobody reads.
        let zeroes = SectorRange(from: 160, to: 480)
        bench.volume.writeZeroes(zeroes, durability: .durable) { _ in }
        bench.volume.seal(until: .received) { _ in }
        scheduler.runUntilIdle()
        let link = NarrowLink(scheduler: scheduler)
        link.add(bench)
        bench.connect()
        // A new session in the middle of it begins anew; what was read for the one before comes too late.
        link.carry(20_000, every: .milliseconds(1), times: 5)
        bench.volume.linkSessionStarted()
        bench.sent = []
        bench.connect()
        link.carry(20_000, every: .milliseconds(1), times: 200)
        var digest = PointDigest()
        var commits = 0
        var last: UInt64 = 0
        for message in bench.sent {
            switch message {
            case .pointBegin:
                digest = PointDigest()
                last = 0
            case .pointData(_, _, let start, let data):
                let range = SectorRange(from: start, to: start + UInt64(data.readableBytes / BlockGeometry.sectorBytes))
                let fill = UInt8(truncatingIfNeeded: start / 16 * 7 + 1)
                #expect(range.start >= last && data == ByteBuffer(repeating: fill, count: data.readableBytes))
                digest.add(range, data: data)
                last = range.end
            case .pointZeroes(_, _, let range):
                #expect(range == zeroes)
                digest.addZeroes(range)
                last = range.end
            case .pointCommit(_, _, let pieces, let value):
                #expect(pieces == digest.pieceCount && value == digest.value)
                commits += 1
            default: break
            }
        }
        #expect(commits == 2)
        #expect(bench.pointBytes == 200 * BlockGeometry.blockBytes)
    }
}
