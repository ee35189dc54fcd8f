import Blocks
import NIOCore
import SimulatedStorage
import Testing

@testable import Disks

@Suite struct PointFormatTests {
    @Test func recordsComeBack() throws {
        let header = PointHeader(volume: VolumeIdentifier(high: 5, low: 6), generation: 7, point: 8, sectorCount: 9)
        #expect(header.encoded().readableBytes == PointFormat.headerBytes)
        #expect(PointHeader(header.encoded()) == header)
        let commit = PointCommit(pieces: 3, digest: 4, offset: 5)
        #expect(commit.encoded(after: header).readableBytes == PointFormat.commitBytes)
        #expect(PointCommit(commit.encoded(after: header), after: header) == commit)
        let other = PointHeader(volume: VolumeIdentifier(high: 5, low: 6), generation: 8, point: 8, sectorCount: 9)
        #expect(PointCommit(commit.encoded(after: header), after: other) == nil)
        for offset in [UInt64?.none, 132] {
            let piece = PointPiece(range: SectorRange(from: 1, to: 3), dataOffset: offset, checksum: 11)
            var buffer = ByteBuffer()
            piece.writeHeader(to: &buffer)
            #expect(buffer.readableBytes == PointFormat.pieceHeaderBytes)
            #expect(PointPiece(header: buffer, at: 100) == piece)
        }
        let record = PositionRecord(
            sequence: 3, volume: VolumeIdentifier(high: 1, low: 2), position: PointPosition(received: 9, applied: 8))
        #expect(record.encoded().readableBytes == PositionRecord.slotBytes)
        #expect(PositionRecord(slot: record.encoded()) == record)
    }

    @Test func fileNames() {
        #expect(PointFormat.fileName(255) == "point-00000000000000ff.journal")
        #expect(PointFormat.point(ofFile: "point-00000000000000ff.journal") == 255)
        for wrong in [
            "position", "point-ff.journal", "point-00000000000000FF.journal", "point-+0000000000000ff.journal", "point-",
        ] {
            #expect(PointFormat.point(ofFile: wrong) == nil)
        }
    }

    /// Thousands of damaged files: none is taken for whole unless it is unchanged, and none makes the scan trap.
    @Test func damagedFilesAreNeverComplete() throws {
        let world = JournalWorld(seed: 77)
        let journal = try #require(try world.open()?.get())
        journal.setLease(1)
        var bytes: [UInt8] = []
        for point in PointNumber(1)...5 where bytes.count < 3000 {
            try world.send(point, generation: 1, to: journal) { _ in
                bytes = world.directory.file(PointFormat.fileName(point))?.content ?? []
            }
            world.scheduler.runUntilIdle()
        }
        try #require(bytes.count >= 3000)
        #expect(try isComplete(bytes))
        let random = SeededRandom(seed: 5)
        for _ in 0..<4000 {
            var damaged = bytes
            for _ in 0...random.below(3) {
                let offset = Int(random.below(UInt64(damaged.count)))
                switch random.below(4) {
                case 0: damaged[offset] ^= UInt8(1 << random.below(8))
                case 1: damaged[offset] = UInt8(truncatingIfNeeded: random.next())
                case 2: damaged.removeLast(min(damaged.count - 1, Int(random.below(600))))
                default:
                    let end = min(damaged.count, offset + 512)
                    damaged.replaceSubrange(offset..<end, with: [UInt8](repeating: 0, count: end - offset))
                }
            }
            let isSame = damaged == bytes || damaged.starts(with: bytes)
            // Four bytes of a header are reserved and two flags unused, but checksums cover them too.
            #expect(try isComplete(damaged) == isSame)
        }
    }

    private func isComplete(_ bytes: [UInt8]) throws -> Bool {
        var content: PointFileContent?
        PointFileScan(file: MemoryFile(bytes), limits: PointJournalLimits()) { content = try? $0.get() }.run()
        if case .complete? = content { return true }
        #expect(content != nil)
        return false
    }
}

/// Bytes to read, and nothing else; quicker than a simulated file.
private final class MemoryFile: StorageFile {
    private let content: ByteBuffer
    init(_ bytes: [UInt8]) { content = ByteBuffer(bytes: bytes) }

    func read(at offset: UInt64, byteCount: Int, completion: @escaping (Result<ByteBuffer, StorageFileError>) -> Void) {
        let start = min(Int(clamping: offset), content.readableBytes)
        let count = min(byteCount, content.readableBytes - start)
        completion(.success(content.getSlice(at: start, length: count) ?? ByteBuffer()))
    }

    func readIfResident(at offset: UInt64, byteCount: Int, into buffer: inout ByteBuffer) -> Bool { false }
    func write(_ data: ByteBuffer, at offset: UInt64, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        completion(.failure(.denied("a memory file is for reading")))
    }
    func writeZeroes(at offset: UInt64, byteCount: UInt64, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        completion(.failure(.denied("a memory file is for reading")))
    }
    func synchronize(completion: @escaping (Result<Void, StorageFileError>) -> Void) { completion(.success(())) }
    func size(completion: @escaping (Result<UInt64, StorageFileError>) -> Void) {
        completion(.success(UInt64(content.readableBytes)))
    }
    func truncate(to byteCount: UInt64, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        completion(.failure(.denied("a memory file is for reading")))
    }
    func close() {}
}
