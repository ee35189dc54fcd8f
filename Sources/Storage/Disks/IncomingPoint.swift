import Blocks
import Checksums
import NIOCore

/// A point that is arriving: what of it is in memory, on its way to the file, and in the file.
///
/// The header and each piece are appended to `staging`; whenever enough has gathered it is written behind what
/// was written before. Offsets are given out in order, so the writes may complete in any order.
final class IncomingPoint<File: StorageFile> {
    private(set) var header: PointHeader
    var file: File?
    /// The file has been asked for and is not there yet.
    var isOpening = false
    private(set) var staging = ByteBuffer()
    /// Where `staging` belongs in the file.
    private(set) var stagingOffset: UInt64 = 0
    private(set) var writesInFlight = 0
    private(set) var bytesInFlight = 0
    private(set) var digest = PointDigest()
    private(set) var pieces: [PointPiece] = []
    /// Why the point is refused; once there is a reason nothing more is written.
    var failure: PointJournalError?
    /// Set when the point is to be committed.
    var commitCompletion: ((Result<PointPosition, PointJournalError>) -> Void)?
    var isSynchronizing = false
    /// Those who wait for room.
    var readyWaiters: [() -> Void] = []

    init(header: PointHeader) {
        self.header = header
        staging = header.encoded()
    }

    /// Takes what the point carries besides its bytes: once, and before any piece. False when it is too late.
    func setAttributes(_ attributes: PointAttributes) -> Bool {
        guard header.attributes == nil, pieces.isEmpty, stagingOffset == 0 else { return false }
        header.attributes = attributes
        staging = header.encoded()
        return true
    }

    var bufferedBytes: Int { staging.readableBytes + bytesInFlight }
    private var endOffset: UInt64 { stagingOffset + UInt64(staging.readableBytes) }

    func add(_ range: SectorRange, data: ByteBuffer) {
        digest.add(range, data: data)
        let piece = PointPiece(
            range: range, dataOffset: endOffset + UInt64(PointFormat.pieceHeaderBytes), checksum: CRC32C.checksum(of: data))
        pieces.append(piece)
        piece.writeHeader(to: &staging)
        staging.writeImmutableBuffer(data)
    }

    func addZeroes(_ range: SectorRange) {
        digest.addZeroes(range)
        let piece = PointPiece(range: range, dataOffset: nil, checksum: 0)
        pieces.append(piece)
        piece.writeHeader(to: &staging)
    }

    func addCommit() {
        var record = PointCommit(pieces: digest.pieceCount, digest: digest.value, offset: endOffset).encoded(after: header)
        staging.writeBuffer(&record)
    }

    /// Takes what has gathered, to be written at the offset that comes with it.
    func takeStaging() -> (bytes: ByteBuffer, offset: UInt64) {
        let taken = (bytes: staging, offset: stagingOffset)
        stagingOffset += UInt64(staging.readableBytes)
        writesInFlight += 1
        bytesInFlight += taken.bytes.readableBytes
        staging = ByteBuffer()
        return taken
    }

    func wrote(byteCount: Int) {
        writesInFlight -= 1
        bytesInFlight -= byteCount
    }

    /// Drops what would be written, when it will not be.
    func dropStaging() {
        staging = ByteBuffer()
        pieces = []
    }
}
