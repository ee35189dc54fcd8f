import Blocks
import Checksums
import NIOCore

/// What a file with the name of a point turned out to be.
enum PointFileContent {
    /// All of it is there.
    case complete(PointHeader, PointIndex)
    /// It was never received: a crash came before its commit was durable. The header when that is readable.
    case incomplete(PointHeader?)
}

/// Reads a point file from its beginning and checks every byte, with bounded memory.
///
/// The file is hostile until it has been checked: nothing in it makes this trap or take more memory than one piece.
final class PointFileScan<File: StorageFile> {
    private let file: File
    private let limits: PointJournalLimits
    private let completion: (Result<PointFileContent, StorageFileError>) -> Void
    private var buffer = ByteBuffer()
    /// Where the next byte of `buffer` stands in the file.
    private(set) var offset: UInt64 = 0
    private var header: PointHeader?
    private var pieces: [PointPiece] = []
    private var digest = PointDigest()

    private enum Progress {
        case needs(Int)
        case ended(PointFileContent)
    }

    init(
        file: File, limits: PointJournalLimits, completion: @escaping (Result<PointFileContent, StorageFileError>) -> Void
    ) {
        self.file = file
        self.limits = limits
        self.completion = completion
    }

    /// Runs the scan; the completion is called once.
    func run() {
        switch parse() {
        case .ended(let content): completion(.success(content))
        case .needs(let byteCount):
            let wanted = max(byteCount, limits.applyBatchBytes)
            file.read(at: offset + UInt64(buffer.readableBytes), byteCount: wanted - buffer.readableBytes) { [self] result in
                switch result {
                case .failure(let error): completion(.failure(error))
                case .success(var more):
                    buffer.discardReadBytes()
                    buffer.writeBuffer(&more)
                    // The file ends before what would have to be there.
                    if buffer.readableBytes < byteCount { return completion(.success(.incomplete(header))) }
                    run()
                }
            }
        }
    }

    private func consume(_ byteCount: Int) {
        buffer.moveReaderIndex(forwardBy: byteCount)
        offset += UInt64(byteCount)
    }

    /// Takes what is in the buffer, until more is needed or the file's fate is known.
    private func parse() -> Progress {
        guard let header else {
            guard buffer.readableBytes >= PointFormat.headerBytes else { return .needs(PointFormat.headerBytes) }
            guard let byteCount = PointHeader.byteCount(buffer) else { return .ended(.incomplete(nil)) }
            guard buffer.readableBytes >= byteCount else { return .needs(byteCount) }
            guard let header = PointHeader(buffer) else { return .ended(.incomplete(nil)) }
            self.header = header
            consume(byteCount)
            return parse()
        }
        while true {
            guard buffer.readableBytes >= PointFormat.commitBytes else { return .needs(PointFormat.commitBytes) }
            if let commit = PointCommit(buffer, after: header) { return .ended(content(header, commit)) }
            guard let piece = PointPiece(header: buffer, at: offset), piece.range.end <= header.sectorCount,
                piece.dataBytes <= limits.pieceBytesMax, pieces.count < limits.piecesPerPointMax
            else { return .ended(.incomplete(header)) }
            let whole = PointFormat.pieceHeaderBytes + piece.dataBytes
            guard buffer.readableBytes >= whole else { return .needs(whole) }
            consume(PointFormat.pieceHeaderBytes)
            if piece.dataOffset == nil {
                digest.addZeroes(piece.range)
            } else {
                guard let data = buffer.getSlice(at: buffer.readerIndex, length: piece.dataBytes),
                    CRC32C.checksum(of: data) == piece.checksum
                else { return .ended(.incomplete(header)) }
                digest.add(piece.range, data: data)
                consume(piece.dataBytes)
            }
            pieces.append(piece)
        }
    }

    private func content(_ header: PointHeader, _ commit: PointCommit) -> PointFileContent {
        guard commit.offset == offset, commit.pieces == digest.pieceCount, commit.digest == digest.value else {
            return .incomplete(header)
        }
        return .complete(header, PointIndex(point: header.point, pieces: pieces))
    }
}
