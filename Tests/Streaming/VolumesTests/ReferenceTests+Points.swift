import Blocks
import LinkProtocol
import NIOCore
import SimulatedStorage
import Testing

@testable import Volumes

/// Blocks of points that are named instead of sent, at home and at the cloud edge.
extension ReferenceTests {
    // MARK: Points, at home

    /// A point that has block 2 of the disk once more from block 20 on, and block 21 after that as it says.
    private func point(_ bench: HomeBench, named: [(block: UInt64, fill: UInt8)], real: [UInt8]) throws -> [LinkMessage] {
        var digest = PointDigest()
        var messages: [LinkMessage] = [.pointBegin(volume: bench.identifier, generation: 1, point: 1)]
        for (index, name) in named.enumerated() {
            let range = SectorRange(block: 20 + UInt64(index))
            digest.add(range, data: Self.block(real[index]))
            messages.append(
                .pointReferences(
                    volume: bench.identifier, point: 1, start: range.start, source: bench.identifier, block: name.block,
                    digests: [try Self.digest(name.fill)]))
        }
        let end = SectorRange(block: 40)
        digest.add(end, data: Self.block(77))
        messages.append(.pointData(volume: bench.identifier, point: 1, start: end.start, data: Self.block(77)))
        messages.append(.pointCommit(volume: bench.identifier, point: 1, pieces: digest.pieceCount, digest: digest.value))
        return messages
    }

    @Test("blocks of a point that are here under their names need no bytes")
    func namedPoint() throws {
        let bench = try HomeBench(fills: [2: 7, 3: 8])
        var sent: [LinkMessage] = []
        for message in try point(bench, named: [(2, 7), (3, 8)], real: [7, 8]) { sent += bench.ask(message) }
        let expected: [LinkMessage] = [
            .pointReceived(volume: bench.identifier, point: 1), .pointApplied(volume: bench.identifier, point: 1),
        ]
        #expect(sent == expected)
        #expect([20, 21, 40].map { bench.fill(of: $0) } == [7, 8, 77])
        #expect(bench.volume?.statistics.referredBlocks == 2)
    }

    @Test("blocks that are not are asked for, and what follows waits for them")
    func askedPoint() throws {
        let bench = try HomeBench(fills: [2: 7, 3: 8])
        var sent: [LinkMessage] = []
        for message in try point(bench, named: [(2, 9), (3, 8)], real: [9, 8]) { sent += bench.ask(message) }
        let question = LinkMessage.pointPieceRequest(volume: bench.identifier, point: 1, range: SectorRange(block: 20))
        #expect(sent == [question])
        // What was not asked for, or is another point's, is nothing.
        let stray = bench.ask(
            .pointPiece(volume: bench.identifier, point: 1, start: 21 * 8, data: Self.block(1)),
            .pointPiece(volume: bench.identifier, point: 2, start: 20 * 8, data: Self.block(1)),
            .pointPiece(volume: bench.identifier, point: 1, start: 0, data: Self.block(1)),
            .pointWithdrawn(volume: bench.identifier, point: 2))
        #expect(stray.isEmpty)
        let answer = bench.ask(.pointPiece(volume: bench.identifier, point: 1, start: 20 * 8, data: Self.block(9)))
        #expect(answer.first == .pointReceived(volume: bench.identifier, point: 1))
        #expect([20, 21, 40].map { bench.fill(of: $0) } == [9, 8, 77])
    }

    @Test("a point whose bytes will not come is refused, and does not hold up the next; nor does a lost session")
    func withdrawnPoint() throws {
        let bench = try HomeBench(fills: [2: 7])
        let messages = try point(bench, named: [(2, 9)], real: [9])
        for message in messages { _ = bench.ask(message) }
        let refusal = LinkMessage.pointRefused(volume: bench.identifier, point: 1, refusal: .damaged)
        #expect(bench.ask(.pointWithdrawn(volume: bench.identifier, point: 1)) == [refusal])
        for message in messages { _ = bench.ask(message) }
        let wrong = bench.ask(.pointPiece(volume: bench.identifier, point: 1, start: 20 * 8, data: Self.block(6)))
        #expect(wrong == [refusal], "it has not the digest that was named")
        for message in messages { _ = bench.ask(message) }
        bench.volume?.opened(generation: 1) { _ in }
        bench.scheduler.runUntilIdle()
        #expect(bench.ask(.pointPiece(volume: bench.identifier, point: 1, start: 20 * 8, data: Self.block(9))).isEmpty)
        var sent: [LinkMessage] = []
        for message in try point(bench, named: [(2, 7)], real: [7]) { sent += bench.ask(message) }
        #expect(sent.first == .pointReceived(volume: bench.identifier, point: 1))
    }

    @Test("names of a disk that is not there, or beyond its end, are asked for")
    func foreignSource() throws {
        let bench = try HomeBench(fills: [2: 7])
        let digest = try Self.digest(7)
        for (source, block) in [(VolumeIdentifier(high: 8, low: 8), UInt64(2)), (bench.identifier, 1 << 40), (bench.identifier, .max - 1)] {
            bench.volume?.opened(generation: 1) { _ in }
            bench.scheduler.runUntilIdle()
            let sent = bench.ask(
                .pointBegin(volume: bench.identifier, generation: 1, point: 1),
                .pointReferences(volume: bench.identifier, point: 1, start: 160, source: source, block: block, digests: [digest]))
            #expect(sent == [.pointPieceRequest(volume: bench.identifier, point: 1, range: SectorRange(block: 20))])
        }
    }

    // MARK: Points, at the cloud edge

    private static let fills: [UInt8] = [11, 12, 13, 14]

    /// A volume that has sent a point with blocks 2 to 6.
    private func sendingBench() throws -> VolumeBench {
        let bench = try VolumeBench()
        bench.volume.homeBlocks = PeerBlocks(table: try #require(SentBlocks(byteCount: 64 << 10)), salt: 1)
        bench.connect()
        seal(bench, from: 2, Self.fills)
        return bench
    }

    private func seal(_ bench: VolumeBench, from block: UInt64, _ fills: [UInt8]) {
        bench.sent = []
        let range = SectorRange(from: block * 8, to: (block + UInt64(fills.count)) * 8)
        bench.volume.write(range, data: Self.data(fills), durability: .ordered) { _ in }
        bench.scheduler.runUntilIdle()
        bench.volume.seal(until: .received) { _ in }
        bench.scheduler.runUntilIdle()
    }

    private func names(_ bench: VolumeBench) -> [LinkMessage] {
        bench.sent.filter { if case .pointReferences = $0 { true } else { false } }
    }

    private func reference(_ bench: VolumeBench, _ point: PointNumber, at block: UInt64, after source: UInt64) throws -> LinkMessage {
        .pointReferences(
            volume: bench.identifier, point: point, start: block * 8, source: bench.identifier, block: source,
            digests: try Self.fills.map { try Self.digest($0) })
    }

    private static func data(_ fills: [UInt8]) -> ByteBuffer {
        fills.reduce(into: ByteBuffer()) { $0.writeRepeatingByte($1, count: BlockGeometry.blockBytes) }
    }

    @Test(
        "what home has applied is named in later points, with the digest of the point as of bytes; what is under way is not, nor are few blocks"
    )
    func sentPoint() throws {
        let bench = try sendingBench()
        seal(bench, from: 30, Self.fills)
        #expect(bench.pointBytes == 4 * 4_096, "home has not said that it has them")
        bench.volume.receive(.pointReceived(volume: bench.identifier, point: 2))
        seal(bench, from: 40, Self.fills)
        #expect(bench.pointBytes == 4 * 4_096, "nor that they are on its disk")
        bench.home(has: 2)
        seal(bench, from: 8, [1] + Self.fills + [1])
        var digest = PointDigest()
        digest.add(SectorRange(block: 8), data: Self.block(1))
        digest.add(SectorRange(from: 72, to: 104), data: Self.data(Self.fills))
        digest.add(SectorRange(block: 13), data: Self.block(1))
        #expect(names(bench) == [try reference(bench, 4, at: 9, after: 30)])
        #expect(bench.pointBytes == 2 * 4_096)
        let commit = LinkMessage.pointCommit(volume: bench.identifier, point: 4, pieces: 3, digest: digest.value)
        #expect(digest.pieceCount == 3 && bench.sent.last == commit)
        seal(bench, from: 50, Array(Self.fills.dropLast()))
        #expect(names(bench).isEmpty && bench.pointBytes == 3 * 4_096)
    }

    @Test("what was read from home is named too; not after its volume has gone, and not to an older home")
    func sentAfterRead() throws {
        let bench = try sendingBench()
        bench.sent = []
        let range = SectorRange(from: 240, to: 272)
        bench.volume.read(range) { _ in }
        bench.scheduler.runUntilIdle()
        var asked: UInt64?
        for case .readRequest(let read, _, range) in bench.sent { asked = read }
        let read = try #require(asked)
        bench.volume.receive(.readData(read: read, offset: 0, data: Self.data(Self.fills)))
        bench.scheduler.runUntilIdle()
        seal(bench, from: 12, Self.fills)
        #expect(names(bench) == [try reference(bench, 2, at: 12, after: 30)])
        bench.volume.linkVersion = { LinkVersion.references - 1 }
        seal(bench, from: 60, Self.fills)
        #expect(names(bench).isEmpty && bench.pointBytes == 4 * 4_096)
        bench.volume.linkVersion = { LinkVersion.references }
        bench.volume.homeBlocks?.forget(bench.identifier)
        seal(bench, from: 70, Self.fills)
        #expect(names(bench).isEmpty && bench.pointBytes == 4 * 4_096)
    }

    @Test(
        "bytes that home asks for wait for the link; from a volume that has stopped comes the word that they will not, however long that waits"
    )
    func pieces() throws {
        let bench = try sendingBench()
        bench.home(has: 1)
        seal(bench, from: 20, Self.fills + Self.fills)
        #expect(names(bench).count == 2)
        #expect(bench.pointBytes == 0)
        bench.sent = []
        let uplink = bench.volume.uplink
        bench.volume.uplink = { _, _, _ in false }
        let question = LinkMessage.pointPieceRequest(volume: bench.identifier, point: 2, range: SectorRange(from: 160, to: 192))
        bench.volume.receive(question)
        bench.scheduler.runUntilIdle()
        #expect(bench.sent.isEmpty)
        bench.volume.uplink = uplink
        bench.volume.linkWritable()
        let pieces = bench.sent.compactMap { message -> UInt64? in
            guard case .pointPiece(bench.identifier, 2, let start, let data) = message else { return nil }
            #expect(data == Self.data(Self.fills))
            return start
        }
        #expect(pieces == [160])
        let withdrawal = LinkMessage.pointWithdrawn(volume: bench.identifier, point: 2)
        for range in [SectorRange(from: 160, to: 232), SectorRange(block: 99)] {
            bench.sent = []
            bench.volume.receive(.pointPieceRequest(volume: bench.identifier, point: 2, range: range))
            bench.scheduler.runUntilIdle()
            #expect(bench.sent == [withdrawal], "the point does not have that")
        }
        bench.sent = []
        bench.volume.openRefused("it is over")
        bench.volume.uplink = { _, _, _ in false }
        bench.volume.receive(question)
        bench.volume.uplink = uplink
        bench.volume.linkWritable()
        #expect(bench.sent == [withdrawal])
    }

    @Test("a point that did not arrive as it was sent, or of which home asks too much, is sent without names")
    func plainPoint() throws {
        let bench = try sendingBench()
        bench.home(has: 1)
        seal(bench, from: 20, Self.fills)
        #expect(bench.pointBytes == 0)
        bench.volume.receive(.pointRefused(volume: bench.identifier, point: 2, refusal: .damaged))
        bench.sent = []
        bench.pass(.seconds(2))
        bench.volume.opened(VolumeOpenReply(generation: 1, receivedPoint: 1, appliedPoint: 1))
        bench.scheduler.runUntilIdle()
        #expect(names(bench).isEmpty && bench.pointBytes == 4 * 4_096)
        bench.home(has: 2)
        seal(bench, from: 40, Self.fills)
        #expect(names(bench).count == 1)
        bench.sent = []
        for _ in 0...Volume<SimulatedDirectory>.pieceRequestsMax {
            bench.volume.receive(.pointPieceRequest(volume: bench.identifier, point: 3, range: SectorRange(block: 40)))
            bench.scheduler.runUntilIdle()
        }
        #expect(bench.events.last == .needsOpen)
        #expect(bench.sent.count == Volume<SimulatedDirectory>.pieceRequestsMax)
        bench.sent = []
        bench.volume.opened(VolumeOpenReply(generation: 1, receivedPoint: 2, appliedPoint: 2))
        bench.scheduler.runUntilIdle()
        #expect(names(bench).isEmpty && bench.pointBytes == 4 * 4_096)
    }
}
