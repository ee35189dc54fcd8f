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
    final class HomeBench {
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

    static func block(_ fill: UInt8) -> ByteBuffer { ByteBuffer(repeating: fill, count: BlockGeometry.blockBytes) }

    static func digest(_ fill: UInt8) throws -> BlockDigest {
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
