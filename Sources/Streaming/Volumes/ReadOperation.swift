import Blocks
import NIOCore

/// One read of a front end that is put together from several places.
///
/// The unsent writes that overlay the range are looked up when the operation starts, and stay
/// readable until it ends; so whatever else the pieces come from may be older in those sectors
/// without harm.
final class ReadOperation {
    let range: SectorRange
    /// Where the answer is put together. Who fills a piece there by himself says so by `filled`.
    let destination: ReadDestination
    private var pendingPieces = 1
    private var filledByteCount = 0
    private var failure: BlockDeviceError?
    private let completion: (Result<ByteBuffer, BlockDeviceError>) -> Void

    init(_ range: SectorRange, completion: @escaping (Result<ByteBuffer, BlockDeviceError>) -> Void) {
        self.range = range
        self.completion = completion
        destination = ReadDestination(byteCount: range.byteCount)
    }

    /// Where a piece begins in the answer.
    func offset(of piece: SectorRange) -> Int { Int(clamping: piece.byteOffset - range.byteOffset) }

    /// A piece is on its way. Each is matched by one `filled`, `fill`, `clear`, `skip` or `fail`.
    func expectPiece() { pendingPieces += 1 }

    /// All pieces have been asked for.
    func allPiecesExpected() { finishPiece() }

    /// The bytes of `piece` stand in the destination.
    func filled(_ piece: SectorRange) {
        filledByteCount += piece.byteCount
        finishPiece()
    }

    /// The bytes of `piece` have come: they are in `source`, `sourceOffset` bytes behind its reader index.
    func fill(_ piece: SectorRange, from source: ByteBuffer, sourceOffset: Int) {
        guard let slice = source.getSlice(at: source.readerIndex + sourceOffset, length: piece.byteCount),
            destination.copy(slice, to: offset(of: piece))
        else { return fail(.medium("a piece of \(piece) came back short")) }
        filled(piece)
    }

    /// The piece is all zeroes.
    func clear(_ piece: SectorRange) {
        guard destination.clear(at: offset(of: piece), byteCount: piece.byteCount) else {
            return fail(.medium("\(piece) is not in \(range)"))
        }
        filled(piece)
    }

    /// The bytes of the piece are expected as other pieces now.
    func skip() { finishPiece() }

    /// The piece can't be had.
    func fail(_ error: BlockDeviceError) {
        failure = failure ?? error
        finishPiece()
    }

    private func finishPiece() {
        pendingPieces -= 1
        if pendingPieces > 0 { return }
        if let failure { return completion(.failure(failure)) }
        // What nobody filled would be memory of somebody else's.
        guard filledByteCount == range.byteCount else {
            return completion(.failure(.medium("\(range) came back with \(filledByteCount) of its bytes")))
        }
        completion(.success(destination.take()))
    }
}
