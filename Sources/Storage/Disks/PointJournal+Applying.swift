import Blocks
import Checksums
import NIOCore

/// A point that is durable in the journal and not yet on the disk.
struct ReceivedPoint<File: StorageFile> {
    let index: PointIndex
    /// What it carries besides its bytes; nil for nothing.
    let attributes: PointAttributes?
    let file: File
}

/// How far the point that is being applied has come.
final class PointApplication<File: StorageFile> {
    let received: ReceivedPoint<File>
    /// The undo file that is applied, on the way back to a past point.
    let undo: OpenUndo<File>?
    /// What the point overwrites is being kept.
    var capture: UndoCapture<File>?
    /// It waits for reads of the disk that began meanwhile.
    var waitsForReads = false
    /// The first piece that no batch has taken.
    var nextPiece = 0
    /// The batch: its pieces with their data, of which the first `issued` are on their way.
    var batch: [(piece: PointPiece, data: ByteBuffer?)] = []
    var issued = 0
    var writesInFlight = 0
    var failure: PointJournalError?

    init(_ received: ReceivedPoint<File>, undoing undo: OpenUndo<File>? = nil) {
        self.received = received
        self.undo = undo
    }
}

extension PointJournal {
    /// Pieces in one batch, whatever their size.
    private static var batchPiecesMax: Int { 256 }

    /// Starts with the next received point, when there is one and nobody reads what it changes.
    func startApplying() {
        if isPlanted(.appliesOutOfOrder), applying == nil, queue.count > 1 { queue.swapAt(0, 1) }
        guard state == .open || state == .recovering else { return }
        if let applying {
            if applying.waitsForReads { beginWriting(applying) }
            return
        }
        if rollBack != nil || recordKeeping() { return }
        guard let next = queue.first else { return }
        if isHeldForGroup(next) { return recordAgreement() }
        if stall != nil || isRead(next.index) { return }
        let application = PointApplication(next)
        applying = application
        if mustCapture(next) { capture(application) } else { beginWriting(application) }
    }

    /// True when somebody reads what a point changes, or is about to.
    private func isRead(_ index: PointIndex) -> Bool {
        readsInFlight.values.contains { index.overlaps($0) } || readsReady.contains { index.overlaps($0.range) }
    }

    /// Begins to put a point on the disk, when nobody reads what it changes.
    func beginWriting(_ application: PointApplication<Directory.File>) {
        guard state == .open || state == .recovering else { return stop(application, .closed) }
        application.waitsForReads = isRead(application.received.index)
        if !application.waitsForReads { nextBatch(application) }
    }

    /// Takes pieces that stand together in the file, reads them at once, and hands them to the disk.
    private func nextBatch(_ application: PointApplication<Directory.File>) {
        if let failure = application.failure {
            if case .noSpace = failure, application.undo == nil, state == .open { return stall(failure) }
            return stop(application, failure)
        }
        if state == .closed { return stop(application, .closed) }
        let pieces = application.received.index.pieces
        guard application.nextPiece < pieces.count else { return finishPoint(application) }
        // Pieces that overlap go one by one: the later one must win.
        let piecesMax = application.received.index.hasOverlaps ? 1 : Self.batchPiecesMax
        var end = application.nextPiece
        var bytes = 0
        while end < pieces.count, end - application.nextPiece < piecesMax {
            let size = pieces[end].dataBytes + PointFormat.pieceHeaderBytes
            if end > application.nextPiece, bytes + size > limits.applyBatchBytes { break }
            bytes += size
            end += 1
        }
        let taken = Array(pieces[application.nextPiece..<end])
        application.nextPiece = end
        guard let first = taken.first(where: { $0.dataOffset != nil })?.dataOffset,
            let last = taken.last(where: { $0.dataOffset != nil }), let lastOffset = last.dataOffset
        else { return apply(application, taken.map { ($0, nil) }) }
        let byteCount = Int(lastOffset - first) + last.dataBytes
        application.received.file.read(at: first, byteCount: byteCount) { [self] result in
            switch result {
            case .failure(let error): stop(application, PointJournalError(journal: error))
            case .success(let buffer):
                let batch = taken.map { piece in (piece, piece.dataOffset.flatMap { Self.slice(buffer, Int($0 - first), piece) })
                }
                if batch.contains(where: { $0.0.dataOffset != nil && $0.1 == nil }) {
                    return stop(
                        application, .corrupt("the data of point \(application.received.index.point) has changed in its file"))
                }
                apply(application, batch)
            }
        }
    }

    /// The data of a piece, when it is all there and is what was received.
    private static func slice(_ buffer: ByteBuffer, _ offset: Int, _ piece: PointPiece) -> ByteBuffer? {
        guard let data = buffer.getSlice(at: buffer.readerIndex + offset, length: piece.dataBytes),
            CRC32C.checksum(of: data) == piece.checksum
        else { return nil }
        return data
    }

    private func apply(_ application: PointApplication<Directory.File>, _ batch: [(PointPiece, ByteBuffer?)]) {
        application.batch = batch.map { (piece: $0.0, data: $0.1) }
        application.issued = 0
        issueWrites(application)
    }

    private func issueWrites(_ application: PointApplication<Directory.File>) {
        while application.failure == nil, application.issued < application.batch.count,
            application.writesInFlight < limits.diskWritesInFlightMax
        {
            let (piece, data) = application.batch[application.issued]
            application.batch[application.issued].data = nil
            application.issued += 1
            application.writesInFlight += 1
            let done = { [self] (result: Result<Void, StorageFileError>) in
                application.writesInFlight -= 1
                if case .failure(let error) = result, application.failure == nil {
                    application.failure = PointJournalError(disk: error)
                }
                issueWrites(application)
            }
            if let data {
                disk.write(data, at: piece.range.byteOffset, completion: done)
            } else {
                disk.writeZeroes(at: piece.range.byteOffset, byteCount: UInt64(piece.range.byteCount), completion: done)
            }
        }
        if application.writesInFlight == 0, application.failure != nil || application.issued == application.batch.count {
            nextBatch(application)
        }
    }

    /// All pieces are written: makes the disk durable, then the position.
    private func finishPoint(_ application: PointApplication<Directory.File>) {
        disk.synchronize { [self] result in
            if case .failure(let error) = result { return stop(application, PointJournalError(disk: error)) }
            let point = application.received.index.point
            if let undo = application.undo {
                return writePosition(record(undoing: point, undo.received)) { [self] result in
                    if case .failure(let error) = result { return stop(application, error) }
                    undone(application)
                }
            }
            var next = record
            next.sequence &+= 1
            next.position = PointPosition(received: max(position.received, point), applied: point)
            next.fingerprint = next.fingerprint.applying(application.received.index.pieces)
            next.mark = application.received.attributes
            writePosition(next) { [self] result in
                switch result {
                case .failure(let error): stop(application, error)
                case .success: applied(application)
                }
            }
        }
    }

    /// Writes the state into the slot whose turn it is, durably.
    func writePosition(_ next: PositionRecord, completion: @escaping (Result<Void, PointJournalError>) -> Void) {
        guard let file = positionFile else { return completion(.failure(.closed)) }
        file.write(next.encoded(), at: next.slotOffset) { [self] result in
            if case .failure(let error) = result { return completion(.failure(PointJournalError(journal: error))) }
            file.synchronize { [self] result in
                if case .failure(let error) = result { return completion(.failure(PointJournalError(journal: error))) }
                record = next
                completion(.success(()))
            }
        }
    }

    private func applied(_ application: PointApplication<Directory.File>) {
        let point = application.received.index.point
        applying = nil
        _ = queue.popFirst()
        piecesQueued -= application.received.index.pieces.count
        position.applied = point
        if partialPoint == point { partialPoint = nil }
        remove(application.received)
        pruneUndos()
        onApplied?(point)
        let waiters = appliedWaiters.filter { $0.point <= point }
        appliedWaiters.removeAll { $0.point <= point }
        for waiter in waiters { waiter.completion(.success(position)) }
        unblockReads()
        startApplying()
        finishCloseIfIdle()
    }

    /// Removes the file of an applied point. It need not be durable: a file that comes back after a crash is behind the
    /// position, and recovery removes it. Before the position goes back it is made durable.
    private func remove(_ received: ReceivedPoint<Directory.File>) {
        received.file.close()
        // A new attachment uses the names again, so recovery removes them itself before it ends.
        if state == .recovering { return recoveredPoints.append(received.index.point) }
        removalsInFlight += 1
        directory.remove(PointFormat.fileName(received.index.point)) { [self] _ in
            removalsInFlight -= 1
            finishCloseIfIdle()
        }
    }

    func stop(_ application: PointApplication<Directory.File>, _ error: PointJournalError) {
        applying = nil
        application.capture?.writer.file?.close()
        if let rollBack { return end(rollBack, .failure(error)) }
        switch state {
        case .closed, .failed: finishCloseIfIdle()
        case .open, .recovering: fail(error)
        }
    }
}
