import Blocks
import NIOCore

extension PointJournal {
    /// Announces a point. Its pieces may follow at once.
    ///
    /// Throws, and changes nothing, when the point can't be taken. A point that was received before is not taken again.
    /// A refused or unfinished point that is still there is dropped first.
    public func begin(point: PointNumber, generation: LeaseGeneration) throws(PointJournalError) -> PointAdmission {
        if let refusal { throw refusal }
        guard generation == lease || isPlanted(.skipsFence) else { throw .fenced(lease: lease, offered: generation) }
        if point >= 1 && point <= position.received { return .alreadyReceived }
        if incoming?.commitCompletion != nil { throw .busy("point \(position.received &+ 1) is being committed") }
        guard point == position.received &+ 1 else { throw .outOfSequence(expected: position.received &+ 1, offered: point) }
        let queuedMax = queue.first.map(isHeld) ?? false ? limits.pointsHeldMax : limits.pointsQueuedMax
        guard queue.count < queuedMax else { throw .busy("\(queue.count) points wait to be applied") }
        guard piecesQueued < limits.piecesQueuedMax else { throw .busy("\(piecesQueued) pieces wait to be applied") }
        if let incoming { refuse(incoming, .notBegun) }
        let header = PointHeader(volume: volume, generation: generation, point: point, sectorCount: sectorCount)
        let fresh = IncomingPoint<Directory.File>(header: header)
        incoming = fresh
        if cleaning == nil { openFile(of: fresh) }
        return .accepted
    }

    /// What the point that was begun carries besides its bytes; called once, before its first piece.
    public func setAttributes(_ attributes: PointAttributes) throws(PointJournalError) {
        guard let incoming, incoming.commitCompletion == nil else { throw refusal ?? .notBegun }
        if let failure = incoming.failure { throw failure }
        if !incoming.setAttributes(attributes) { throw refused(incoming, .damaged("its attributes came twice, or behind a piece")) }
    }

    /// Adds the new bytes of a run of sectors to the point that was begun.
    public func addData(_ range: SectorRange, data: ByteBuffer) throws(PointJournalError) {
        let incoming = try admitPiece(range, byteCount: data.readableBytes)
        guard data.readableBytes == range.byteCount, data.readableBytes <= limits.pieceBytesMax else {
            throw refused(incoming, .damaged("a piece of \(data.readableBytes) bytes for \(range)"))
        }
        if isPlanted(.losesPiece), incoming.pieces.count == 1 { return }
        incoming.add(range, data: data)
        pump(incoming)
    }

    /// Adds a run of sectors that now reads as zeroes to the point that was begun.
    public func addZeroes(_ range: SectorRange) throws(PointJournalError) {
        let incoming = try admitPiece(range, byteCount: 0)
        incoming.addZeroes(range)
        pump(incoming)
    }

    /// True when the owner should bring no more pieces until `whenReady`.
    public var isBusy: Bool { (incoming?.bufferedBytes ?? 0) >= limits.receiveBufferBytesMax }

    /// Runs `body` when there is room for pieces again, at once when there is; also when the point has been refused meanwhile.
    public func whenReady(_ body: @escaping () -> Void) {
        guard let incoming, incoming.failure == nil, isBusy else { return body() }
        incoming.readyWaiters.append(body)
    }

    /// Ends the point: it has this many pieces and this digest. Completes when the point is received, which is to say
    /// durable, or refused, in which case it may be sent again from its beginning.
    public func commit(
        pieces: UInt64, digest: UInt32, completion: @escaping (Result<PointPosition, PointJournalError>) -> Void
    ) {
        guard let incoming, incoming.commitCompletion == nil else { return completion(.failure(refusal ?? .notBegun)) }
        let offered = incoming.header.generation
        if let failure = incoming.failure {
            self.incoming = nil
            return completion(.failure(failure))
        }
        if offered != lease, !isPlanted(.skipsFence) {
            refuse(incoming, .fenced(lease: lease, offered: offered))
        } else if !isPlanted(.losesPiece), pieces != incoming.digest.pieceCount || digest != incoming.digest.value {
            refuse(
                incoming,
                .damaged(
                    "\(incoming.digest.pieceCount) pieces with digest \(incoming.digest.value) arrived, "
                        + "\(pieces) with \(digest) were announced"))
        }
        if let failure = incoming.failure {
            self.incoming = nil
            return completion(.failure(failure))
        }
        incoming.commitCompletion = completion
        incoming.addCommit()
        pump(incoming)
    }

    /// Drops a point that was not committed, because its session is lost. Completes when it is gone; a commit that is
    /// under way ends first, so that `position` says afterwards what to go on with.
    public func discardUnfinished(completion: @escaping () -> Void = {}) {
        if let incoming, incoming.commitCompletion == nil {
            refuse(incoming, .notBegun)
            self.incoming = nil
        }
        whenSettled(completion)
    }

    func whenSettled(_ body: @escaping () -> Void) {
        if cleaning == nil, incoming?.commitCompletion == nil { return body() }
        settleWaiters.append(body)
    }

    private func admitPiece(_ range: SectorRange, byteCount: Int) throws(PointJournalError) -> IncomingPoint<Directory.File> {
        guard let incoming, incoming.commitCompletion == nil else { throw refusal ?? .notBegun }
        if let failure = incoming.failure { throw failure }
        // The size that stands in the file: a disk that has grown since the point began is the next point's.
        guard !range.isEmpty, range.end <= incoming.header.sectorCount else { throw refused(incoming, .outOfRange(range)) }
        guard incoming.pieces.count < limits.piecesPerPointMax else {
            throw refused(incoming, .noSpace("a point has at most \(limits.piecesPerPointMax) pieces"))
        }
        guard incoming.bufferedBytes + byteCount <= 2 * limits.receiveBufferBytesMax else {
            throw refused(incoming, .busy("\(incoming.bufferedBytes) bytes wait to be written to the journal"))
        }
        return incoming
    }

    private func refused(_ incoming: IncomingPoint<Directory.File>, _ error: PointJournalError) -> PointJournalError {
        refuse(incoming, error)
        return error
    }

    private func openFile(of incoming: IncomingPoint<Directory.File>) {
        incoming.isOpening = true
        directory.open(PointFormat.fileName(incoming.header.point), create: true) { [self] result in
            switch result {
            case .failure(let error): opened(incoming, .failure(error))
            case .success(let file):
                incoming.file = file
                // A file that could not be removed earlier may have the name.
                file.truncate(to: 0) { [self] in opened(incoming, $0) }
            }
        }
    }

    private func opened(_ incoming: IncomingPoint<Directory.File>, _ result: Result<Void, StorageFileError>) {
        incoming.isOpening = false
        if case .failure(let error) = result { refuse(incoming, fileFailed(error)) }
        pump(incoming)
    }

    /// The error of a point's file. Where room is short a kept point goes: the sender tries again in a moment.
    private func fileFailed(_ error: StorageFileError) -> PointJournalError {
        if case .noSpace = error { makeRoom() }
        return PointJournalError(journal: error)
    }

    /// Does whatever is next for the point that arrives: a write, the end of a commit, or the removal of a refused one.
    private func pump(_ incoming: IncomingPoint<Directory.File>) {
        if incoming.failure != nil { return removeIfIdle(incoming) }
        guard let file = incoming.file, !incoming.isOpening else { return }
        let isCommitting = incoming.commitCompletion != nil
        // Never so much that the owner waits for room while the journal waits for more.
        let enough = min(limits.writeBytes, limits.receiveBufferBytesMax)
        while incoming.writesInFlight < limits.journalWritesInFlightMax, incoming.staging.readableBytes > 0,
            isCommitting || incoming.staging.readableBytes >= enough
        {
            let (bytes, offset) = incoming.takeStaging()
            file.write(bytes, at: offset) { [self] result in
                incoming.wrote(byteCount: bytes.readableBytes)
                if case .failure(let error) = result { refuse(incoming, fileFailed(error)) }
                pump(incoming)
                if incoming.bufferedBytes < limits.receiveBufferBytesMax { wakeReady(incoming) }
            }
        }
        if isCommitting, incoming.writesInFlight == 0, incoming.staging.readableBytes == 0 { synchronize(incoming, file) }
    }

    private func synchronize(_ incoming: IncomingPoint<Directory.File>, _ file: Directory.File) {
        if isPlanted(.appliesBeforeJournalIsDurable) { return received(incoming, file) }
        if incoming.isSynchronizing { return }
        incoming.isSynchronizing = true
        var left = 2
        let done = { [self] (result: Result<Void, StorageFileError>) in
            left -= 1
            if case .failure(let error) = result, incoming.failure == nil { incoming.failure = fileFailed(error) }
            if left > 0 { return }
            incoming.isSynchronizing = false
            if let failure = incoming.failure {
                // Set aside, so that `refuse` does its whole work.
                incoming.failure = nil
                refuse(incoming, failure)
            } else {
                received(incoming, file)
            }
        }
        file.synchronize(completion: done)
        directory.synchronize(completion: done)
    }

    private func received(_ incoming: IncomingPoint<Directory.File>, _ file: Directory.File) {
        let completion = incoming.commitCompletion
        self.incoming = nil
        position.received = incoming.header.point
        let index = PointIndex(point: incoming.header.point, pieces: incoming.pieces)
        piecesQueued += index.pieces.count
        let isAlone = queue.isEmpty && incoming.header.attributes == nil
        queue.append(ReceivedPoint(index: index, attributes: incoming.header.attributes, file: file))
        completion?(.success(position))
        startApplying()
        if !isAlone, hasHeldPoints { onHeld?() }
        settle()
    }

    /// Refuses the point that arrives. Its file is removed once nothing is in flight to it; until the owner takes notice
    /// (by `commit`, `begin` or `discardUnfinished`) further pieces get the same error.
    func refuse(_ incoming: IncomingPoint<Directory.File>, _ error: PointJournalError) {
        guard incoming.failure == nil else { return }
        incoming.failure = error
        incoming.dropStaging()
        let completion = incoming.commitCompletion
        incoming.commitCompletion = nil
        if completion != nil { self.incoming = nil }
        // A point that waited for an earlier one's removal has no file of its own yet.
        if cleaning == nil {
            cleaning = incoming
            removeIfIdle(incoming)
        }
        wakeReady(incoming)
        completion?(.failure(error))
    }

    private func wakeReady(_ incoming: IncomingPoint<Directory.File>) {
        let waiters = incoming.readyWaiters
        incoming.readyWaiters = []
        for waiter in waiters { waiter() }
    }

    private func removeIfIdle(_ incoming: IncomingPoint<Directory.File>) {
        guard cleaning === incoming, !incoming.isOpening, incoming.writesInFlight == 0, !incoming.isSynchronizing else { return }
        // The name is there, or may be there, whenever the file was asked for; removing a missing one is no error.
        incoming.isOpening = true
        incoming.file?.close()
        incoming.file = nil
        directory.remove(PointFormat.fileName(incoming.header.point)) { [self] _ in
            // When the removal fails the file is emptied by the next attempt, and removed by recovery.
            cleaning = nil
            if let next = self.incoming, next.failure == nil, next.file == nil, !next.isOpening { openFile(of: next) }
            settle()
        }
    }

    private func settle() {
        if cleaning == nil, incoming?.commitCompletion == nil {
            let waiters = settleWaiters
            settleWaiters = []
            for waiter in waiters { waiter() }
        }
        finishCloseIfIdle()
    }
}
