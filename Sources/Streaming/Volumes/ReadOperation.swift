import Blocks
import NIOCore

/// One read of a front end that is put together from several places.
///
/// The unsent writes that overlay the range are looked up when the operation starts, and stay
/// readable until it ends; so whatever else the pieces come from may be older in those sectors
/// without harm.
final class ReadOperation {
    let range: SectorRange
    private var result: ByteBuffer
    private var pendingPieces = 1
    private var failure: BlockDeviceError?
    private let completion: (Result<ByteBuffer, BlockDeviceError>) -> Void

    init(_ range: SectorRange, completion: @escaping (Result<ByteBuffer, BlockDeviceError>) -> Void) {
        self.range = range
        self.completion = completion
        result = ByteBufferAllocator().buffer(capacity: range.byteCount)
        result.writeRepeatingByte(0, count: range.byteCount)
    }

    /// A piece is on its way. Each is matched by one `fill`, `skip` or `fail`.
    func expectPiece() { pendingPieces += 1 }

    /// All pieces have been asked for.
    func allPiecesExpected() { finishPiece() }

    /// The bytes of `piece` have come: they are in `source`, `sourceOffset` bytes behind its reader index.
    func fill(_ piece: SectorRange, from source: ByteBuffer, sourceOffset: Int) {
        let offset = Int(clamping: piece.byteOffset - range.byteOffset)
        if let slice = source.getSlice(at: source.readerIndex + sourceOffset, length: piece.byteCount) {
            result.setBuffer(slice, at: offset)
        } else {
            failure = failure ?? .medium("a piece of \(piece) came back short")
        }
        finishPiece()
    }

    /// The piece is all zeroes, or its bytes are expected as other pieces now.
    func skip() { finishPiece() }

    /// The piece can't be had.
    func fail(_ error: BlockDeviceError) {
        failure = failure ?? error
        finishPiece()
    }

    private func finishPiece() {
        pendingPieces -= 1
        if pendingPieces > 0 { return }
        completion(failure.map { .failure($0) } ?? .success(result))
    }
}
