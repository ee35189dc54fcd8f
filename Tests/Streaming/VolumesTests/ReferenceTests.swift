import Blocks
import Ciphers
import Disks
import LinkProtocol
import NIOCore
import SimulatedStorage
import Testing

@testable import Volumes

/// Blocks that are named instead of sent (X4), at home and at the cloud edge.
@Suite struct ReferenceTests {
    /// A disk at home whose block *n* is filled with the value that `fills` has for it.
    private final class HomeBench {
        let scheduler = Scheduler(seed: 5)
        let identifier = VolumeIdentifier(high: 3, low: 4)
        let blocks: PeerBlocks
        private let disk: SimulatedFile
        private(set) var volume: HomeVolume<SimulatedFile, SimulatedDirectory>?
        private var sent: [LinkMessage] = []
        private var lastRead: UInt64 = 0

        init(fills: [UInt64: UInt8], sectorCount: UInt64 = 2_048) throws {
            blocks = PeerBlocks(table: try #require(SentBlocks(byteCount: 64 << 10)), salt: 1)
            var content = [UInt8](repeating: 0, count: Int(sectorCount) * BlockGeometry.sectorBytes)
            for (block, fill) in fills {
                let start = Int(block) * BlockGeometry.blockBytes
                for byte in start..<min(content.count, start + BlockGeometry.blockBytes) { content[byte] = fill }
            }
            let machine = SimulatedMachine(scheduler: scheduler)
            disk = machine.disk("disk", holding: content)
            PointJournal.open(disk: disk, sectorCount: sectorCount, directory: machine.directory("journal"), volume: identifier) {
                [self] result in
                guard case .success(let journal) = result else { return }
                let volume = HomeVolume(identifier: identifier, journal: journal)
                volume.downlink = { [self] message, _, _ in
                    sent.append(message)
                    return true
                }
                volume.peerBlocks = blocks
                volume.readSource = { [identifier] source, range, completion in
                    guard source == identifier else { return completion(nil) }
                    journal.read(range) { completion(try? $0.get()) }
                }
                self.volume = volume
            }
            scheduler.runUntilIdle()
            volume?.opened(generation: 1) { _ in }
            scheduler.runUntilIdle()
        }

        /// What the edge is answered that asks for blocks.
        func read(_ blocks: Range<UInt64>, count sectors: UInt64? = nil) -> [LinkMessage] {
            lastRead += 1
            let start = blocks.lowerBound * BlockGeometry.sectorsPerBlock
            let end = sectors.map { start + $0 } ?? blocks.upperBound * BlockGeometry.sectorsPerBlock
            return ask(.readRequest(read: lastRead, volume: identifier, range: SectorRange(from: start, to: end)))
        }

        func readPlainly(_ block: UInt64, offset: UInt32) -> [LinkMessage] {
            ask(.readPlainRequest(read: lastRead, volume: identifier, range: SectorRange(block: block), offset: offset))
        }

        func ask(_ messages: LinkMessage...) -> [LinkMessage] {
            sent = []
            for message in messages { volume?.receive(message) }
            scheduler.runUntilIdle()
            return sent
        }

        /// The first byte of a block of the disk.
        func fill(of block: Int) -> UInt8 { disk.content[block * BlockGeometry.blockBytes] }
    }

    private static func block(_ fill: UInt8) -> ByteBuffer { ByteBuffer(repeating: fill, count: BlockGeometry.blockBytes) }

    private static func digest(_ fill: UInt8) throws -> BlockDigest {
        let hasher = try #require(BlockHasher())
        return BlockDigest(try #require(block(fill).withUnsafeReadableBytes { hasher.hash($0) }))
    }

    @Test("the digest is SHA-256")
    func digests() throws {
        let hasher = try #require(BlockHasher())
        let known: [(String, UInt64)] = [("abc", 0xba78_16bf_8f01_cfea), ("", 0xe3b0_c442_98fc_1c14), ("abc", 0xba78_16bf_8f01_cfea)]
        for (text, first) in known {
            #expect(ByteBuffer(string: text).withUnsafeReadableBytes { hasher.hash($0)?.0 } == first)
        }
    }

    // MARK: At home

    @Test("a block that the edge was sent is named where an equal one is asked for, and sent to who asks for itself")
    func named() throws {
        let bench = try HomeBench(fills: [2: 7, 9: 7, 10: 8])
        #expect(bench.read(2..<3) == [.readData(read: 1, offset: 0, data: Self.block(7))])
        let reference = LinkMessage.readReferences(
            read: 2, offset: 0, source: bench.identifier, block: 2, digests: [try Self.digest(7)])
        #expect(bench.read(9..<10) == [reference])
        #expect(bench.read(2..<3) == [.readData(read: 3, offset: 0, data: Self.block(7))], "who asks for it does not have it")
        #expect(bench.read(10..<11) == [.readData(read: 4, offset: 0, data: Self.block(8))])
        #expect(bench.read(0..<1) == [.readZeroes(read: 5, offset: 0, byteCount: 4_096)], "zeroes are cheaper still")
        #expect(bench.blocks.statistics.referredBlocks == 1)
        #expect(bench.blocks.statistics.wrongBlocks == 0)
    }

    @Test("runs are named at once, between what has to be sent")
    func runs() throws {
        var fills: [UInt64: UInt8] = [:]
        for block in 0..<20 as Range<UInt64> {
            fills[block] = UInt8(block) + 1
            fills[100 + block] = UInt8(block) + 1
        }
        // One of them differs.
        fills[107] = 200
        let bench = try HomeBench(fills: fills)
        _ = bench.read(0..<20)
        let digests = try (0..<20 as Range<UInt8>).map { try Self.digest($0 + 1) }
        let answer: [LinkMessage] = [
            .readReferences(read: 2, offset: 0, source: bench.identifier, block: 0, digests: Array(digests[..<7])),
            .readData(read: 2, offset: 7 * 4_096, data: Self.block(200)),
            .readReferences(read: 2, offset: 8 * 4_096, source: bench.identifier, block: 8, digests: Array(digests[8...])),
        ]
        #expect(bench.read(100..<120) == answer)
    }

    @Test("bytes that are asked for themselves are sent, at their place in the answer, and are what is named from then on")
    func plain() throws {
        let bench = try HomeBench(fills: [2: 7, 9: 7, 12: 7])
        _ = bench.read(2..<3)
        _ = bench.read(9..<10)
        #expect(bench.readPlainly(9, offset: 8_192) == [.readData(read: 2, offset: 8_192, data: Self.block(7))])
        #expect(bench.blocks.statistics.wrongBlocks == 1)
        let reference = LinkMessage.readReferences(
            read: 3, offset: 0, source: bench.identifier, block: 9, digests: [try Self.digest(7)])
        #expect(bench.read(12..<13) == [reference])
    }

    @Test("a block that the end of the disk cuts, parts of blocks, and edges of an older version have bytes only")
    func unnamed() throws {
        let bench = try HomeBench(fills: [2: 7, 9: 7, 255: 7], sectorCount: 2_044)
        _ = bench.read(2..<3)
        let (cut, part) = (ByteBuffer(repeating: 7, count: 2_048), ByteBuffer(repeating: 7, count: 1_536))
        #expect(bench.read(255..<256, count: 4) == [.readData(read: 2, offset: 0, data: cut)])
        #expect(bench.read(9..<10, count: 3) == [.readData(read: 3, offset: 0, data: part)])
        bench.volume?.linkVersion = { LinkVersion.references - 1 }
        #expect(bench.read(9..<10) == [.readData(read: 4, offset: 0, data: Self.block(7))])
    }

    @Test("when guesses are often wrong, nobody who waits for a few blocks is made to wait for one, for a while that grows")
    func doubt() throws {
        let bench = try HomeBench(fills: [2: 7, 9: 7])
        let isNamed = { bench.read(2..<3).contains { if case .readReferences = $0 { true } else { false } } }
        _ = bench.read(9..<10)
        #expect(isNamed())
        for pause in [PeerBlocks.pauses.lowerBound, 2 * PeerBlocks.pauses.lowerBound] {
            // The last that is asked for is what block 2 is named after.
            for _ in 0...PeerBlocks.wrongBlocksMax { _ = bench.readPlainly(9, offset: 0) }
            let answers = (0..<pause).map { _ in
                let isNamed = isNamed()
                if !isNamed { bench.blocks.note(Self.seven, at: BlockPlace(volume: bench.identifier, block: 9)) }
                return isNamed
            }
            #expect(!answers.contains(true))
            #expect(isNamed())
        }
    }

    private static let seven =
        BlockHasher().flatMap { hasher in block(7).withUnsafeReadableBytes { hasher.hash($0) } }.map { BlockDigest($0) }
        ?? BlockDigest((0, 0, 0, 0))

    // MARK: What was sent

    @Test("a table takes what it may, the oldest go first, and edges don't share")
    func table() throws {
        let table = try #require(SentBlocks(byteCount: 64 * 4))
        let (one, other) = (PeerBlocks(table: table, salt: 1), PeerBlocks(table: table, salt: 2))
        let volume = VolumeIdentifier(high: 1, low: 1)
        // All of one bucket of four.
        let digests = (0..<6 as Range<UInt64>).map { BlockDigest(($0, 0, 0, 0)) }
        for (block, digest) in digests.enumerated() { one.note(digest, at: BlockPlace(volume: volume, block: UInt64(block))) }
        let found = digests.map { one.source(of: $0, isUrgent: true)?.block }
        #expect(found == [nil, nil, 2, 3, 4, 5])
        #expect(digests.allSatisfy { other.source(of: $0, isUrgent: true) == nil })
        let moved = BlockPlace(volume: volume, block: 1 << 47)
        one.note(digests[2], at: moved)
        #expect(one.source(of: digests[2], isUrgent: false) == moved)
    }

    // MARK: At the cloud edge

    /// A volume that has asked for blocks 8 to 16, and has block 2 in its cache.
    private func cloudBench() throws -> (bench: VolumeBench, read: UInt64, answer: () -> ByteBuffer?) {
        let bench = try VolumeBench()
        bench.connect()
        bench.write(block: 2, fill: 7)
        bench.volume.seal(until: .received) { _ in }
        bench.scheduler.runUntilIdle()
        bench.home(has: 1)
        var answer: ByteBuffer?
        bench.volume.read(SectorRange(from: 64, to: 128)) { answer = try? $0.get() }
        bench.scheduler.runUntilIdle()
        var asked: UInt64?
        for case .readRequest(let read, _, SectorRange(from: 64, to: 128)) in bench.sent { asked = read }
        bench.sent = []
        return (bench, try #require(asked), { answer })
    }

    @Test("a named block that is in the cache takes the place of its bytes; what is not, or differs, is asked for")
    func resolved() throws {
        let (bench, read, answer) = try cloudBench()
        let zeroes = UInt32(5 * 4_096)
        bench.volume.receive(.readZeroes(read: read, offset: UInt32(3 * 4_096), byteCount: zeroes))
        // Right, wrong, and not here.
        let named: [(block: UInt64, fill: UInt8)] = [(2, 7), (2, 8), (200, 9)]
        for (place, name) in named.enumerated() {
            let digest = try Self.digest(name.fill)
            bench.volume.receive(
                .readReferences(read: read, offset: UInt32(place * 4_096), source: bench.identifier, block: name.block, digests: [digest]))
        }
        bench.scheduler.runUntilIdle()
        #expect(answer() == nil)
        let questions = bench.sent.compactMap { message -> SectorRange? in
            guard case .readPlainRequest(read, bench.identifier, let range, let offset) = message else { return nil }
            #expect(UInt64(offset) == range.byteOffset - 64 * 512)
            return range
        }
        #expect(Set(questions) == [SectorRange(block: 9), SectorRange(block: 10)])
        for range in questions {
            let offset = UInt32(range.byteOffset - 64 * 512)
            bench.volume.receive(.readData(read: read, offset: offset, data: Self.block(UInt8(range.start / 8))))
        }
        bench.scheduler.runUntilIdle()
        var expected = Self.block(7)
        expected.writeImmutableBuffer(Self.block(9))
        expected.writeImmutableBuffer(Self.block(10))
        expected.writeRepeatingByte(0, count: Int(zeroes))
        #expect(answer() == expected)
        #expect(bench.volume.statistics.referredBlocks == 1)
    }

    @Test("a run of which some blocks differ is taken in part")
    func parts() throws {
        let (bench, read, answer) = try cloudBench()
        for block in 3..<6 as Range<UInt64> { bench.write(block: block, fill: UInt8(block)) }
        bench.volume.seal(until: .received) { _ in }
        bench.scheduler.runUntilIdle()
        bench.home(has: 2)
        bench.sent = []
        let digests = try [7, 3, 99, 5].map { try Self.digest($0) }
        bench.volume.receive(.readZeroes(read: read, offset: UInt32(4 * 4_096), byteCount: UInt32(4 * 4_096)))
        bench.volume.receive(.readReferences(read: read, offset: 0, source: bench.identifier, block: 2, digests: digests))
        bench.scheduler.runUntilIdle()
        let question = LinkMessage.readPlainRequest(
            read: read, volume: bench.identifier, range: SectorRange(block: 10), offset: UInt32(2 * 4_096))
        #expect(bench.sent == [question])
        bench.volume.receive(.readData(read: read, offset: UInt32(2 * 4_096), data: Self.block(99)))
        bench.scheduler.runUntilIdle()
        #expect(answer()?.getBytes(at: 2 * 4_096, length: 1) == [99])
        #expect(answer()?.getBytes(at: 3 * 4_096, length: 1) == [5])
    }

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

    @Test("names that no fetch waits for, that are twice too many, or come too late, change nothing")
    func garbage() throws {
        let (bench, read, answer) = try cloudBench()
        let digest = try Self.digest(7)
        let messages: [LinkMessage] = [
            .readReferences(read: read &+ 1, offset: 0, source: bench.identifier, block: 2, digests: [digest]),
            .readReferences(read: read, offset: 7, source: bench.identifier, block: 2, digests: [digest]),
            .readReferences(read: read, offset: UInt32(8 * 4_096), source: bench.identifier, block: 2, digests: [digest]),
            .readReferences(read: read, offset: 0, source: bench.identifier, block: .max - 9, digests: Array(repeating: digest, count: 9)),
        ]
        for message in messages { bench.volume.receive(message) }
        bench.scheduler.runUntilIdle()
        #expect(bench.sent.isEmpty)
        // Nothing of that place is in any cache, and the number of the block is as large as can be.
        bench.volume.receive(
            .readReferences(read: read, offset: 0, source: bench.identifier, block: .max - 8, digests: Array(repeating: digest, count: 8)))
        #expect(bench.sent.count == 1)
        bench.volume.receive(.readReferences(read: read, offset: 0, source: bench.identifier, block: 2, digests: [digest]))
        bench.scheduler.runUntilIdle()
        #expect(bench.sent.count == 1, "all of it has been referred to already")
        // A new session: what was asked in the old one is void.
        bench.volume.linkSessionStarted()
        bench.connect()
        bench.volume.receive(.readReferences(read: read, offset: 0, source: bench.identifier, block: 2, digests: [digest]))
        bench.scheduler.runUntilIdle()
        #expect(answer() == nil)
        let kinds = bench.sent.dropFirst().map { if case .readRequest = $0 { true } else { false } }
        #expect(kinds == [true])
    }
}
