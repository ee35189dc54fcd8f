import Blocks
import NIOCore

extension PointJournal {
    /// The points before the one on the disk that can be looked at and gone back to, oldest first.
    public var pastPoints: [PastPoint] {
        undos.filter { $0.point <= position.applied }.map {
            PastPoint(point: $0.point - 1, leftAtMilliseconds: $0.leftAtMilliseconds, attributes: $0.attributes, byteCount: $0.byteCount)
        }
    }

    /// Changes how many points are kept, from the next one on that is applied; what is too many by now goes at once.
    public func keep(_ keeping: PointKeeping) {
        self.keeping = keeping
        pruneUndos()
        startApplying()
    }

    /// Makes durable from which point on undo files are made, when that has changed; between two points, as all that writes the
    /// position. False when there is nothing to do.
    func recordKeeping() -> Bool {
        if isRecordingKeeping { return true }
        guard state == .open, !isRecordingAgreement, pinnedPoint == nil, (record.keptFrom > 0) != (keeping.pointsMax > 0) else {
            return false
        }
        writeKeptFrom(keeping.pointsMax > 0 ? position.applied &+ 1 : 0) { [self] in startApplying() }
        return true
    }

    private func writeKeptFrom(_ point: PointNumber, then next: @escaping () -> Void) {
        isRecordingKeeping = true
        endViews { .notKept($0) }
        var changed = record
        changed.sequence &+= 1
        changed.keptFrom = point
        writePosition(changed) { [self] result in
            isRecordingKeeping = false
            // Also those that were about to be opened: what comes now is applied without them.
            endViews { .notKept($0) }
            if case .failure(let error) = result {
                applying = nil
                return state == .closed ? finishCloseIfIdle() : fail(error)
            }
            // None of them leads to the disk as it will be.
            while !undos.isEmpty { dropOldestUndo() }
            next()
            finishCloseIfIdle()
        }
    }

    /// Removes what is kept beyond the limits.
    func pruneUndos() {
        guard state == .open, rollBack == nil else { return }
        while undos.count > keeping.pointsMax || undoBytes > keeping.bytesMax, isOldestUndoFree { dropOldestUndo() }
    }

    /// True when there is an undo file that may go: its point is on the disk, and the way back to the pinned point does not lead over it.
    private var isOldestUndoFree: Bool {
        undos.first.map { $0.point <= position.applied && $0.point <= pinnedPoint ?? .max } ?? false
    }

    /// Keeps the way back to a past point open whatever is applied and whatever `keep` says, as long as it is pinned; nil for none.
    public func pin(_ point: PointNumber?) {
        pinnedPoint = point
        guard point == nil else { return }
        pruneUndos()
        startApplying()
    }

    /// Gives the oldest kept point up. The removal need not be durable: an older file that comes back still fits the others.
    private func dropOldestUndo() {
        guard let oldest = undos.popFirst() else { return }
        undoBytes -= oldest.byteCount
        removalsInFlight += 1
        directory.remove(PointFormat.undoFileName(oldest.point)) { [self] _ in
            removalsInFlight -= 1
            finishCloseIfIdle()
        }
    }

    /// Room is short: the oldest kept point goes, and views that hold the files of others, so that the next attempt may find some. False
    /// when none is left.
    @discardableResult
    func makeRoom() -> Bool {
        endViews { .noSpace("room was needed: point \($0) is not kept any more") }
        guard rollBack == nil, isOldestUndoFree else { return false }
        dropOldestUndo()
        return true
    }

    // MARK: Capturing

    /// True when what the point overwrites has to be kept before it may be applied.
    func mustCapture(_ received: ReceivedPoint<Directory.File>) -> Bool {
        guard record.keptFrom > 0, record.volume == volume, received.index.point >= record.keptFrom else { return false }
        // A crash came behind it: the disk may have part of the point, and the file is from before.
        return undos.last?.point != received.index.point || isPlanted(.capturesHalfAppliedPoint)
    }

    /// Makes the undo file of a point, and goes on with the point.
    func capture(_ application: PointApplication<Directory.File>) {
        let index = application.received.index
        if index.point == damagedUndo {
            // The disk may have part of the point, so that it can't be asked any more for what was there.
            let error = PointJournalError.corrupt("`\(PointFormat.undoFileName(index.point))` is damaged")
            return goOnWithout(application, error)
        }
        let header = PointHeader(
            volume: volume, generation: lease ?? 0, point: index.point, sectorCount: sectorCount, attributes: record.mark,
            leftAtMilliseconds: wallClock())
        let capture = UndoCapture<Directory.File>(header: header, extents: index.covered)
        application.capture = capture
        directory.open(PointFormat.unfinishedUndoFileName(index.point), create: true) { [self] result in
            switch result {
            case .failure(let error): giveUpKeeping(application, PointJournalError(journal: error))
            case .success(let file):
                capture.writer.file = file
                file.truncate(to: 0) { [self] result in
                    if case .failure(let error) = result { return giveUpKeeping(application, PointJournalError(journal: error)) }
                    captureNext(application, capture)
                }
            }
        }
    }

    private func captureNext(_ application: PointApplication<Directory.File>, _ capture: UndoCapture<Directory.File>) {
        if state == .closed { return stop(application, .closed) }
        switch capture.next(bytesMax: limits.applyBatchBytes) {
        case .end:
            capture.writer.addCommit()
            writeCaptured(application, capture) { [self] in finishCapture(application, capture) }
        case .ask(let range):
            disk.allocation(of: range, extentsMax: AllocationExtents.answerMax) { [self] result in
                capture.answered((try? result.get()) ?? [])
                captureNext(application, capture)
            }
        case .take(let runs): read(runs, application, capture)
        }
    }

    private func read(
        _ runs: [AllocationExtent], _ application: PointApplication<Directory.File>, _ capture: UndoCapture<Directory.File>
    ) {
        var data = [ByteBuffer?](repeating: nil, count: runs.count)
        var failure: PointJournalError?
        // One more, so that nothing ends before all has been asked for.
        var left = 1
        let ended = { [self] in
            left -= 1
            if left > 0 { return }
            if let failure { return giveUpKeeping(application, failure) }
            guard capture.writer.pieces.count + runs.count <= limits.piecesPerPointMax else {
                return giveUpKeeping(application, .noSpace("what it overwrites lies in more than \(limits.piecesPerPointMax) pieces"))
            }
            for (run, bytes) in zip(runs, data) {
                if let bytes, !bytes.isAllZeroes { capture.writer.add(run.range, data: bytes) } else { capture.writer.addZeroes(run.range) }
            }
            guard capture.writer.bufferedBytes >= limits.writeBytes else { return captureNext(application, capture) }
            writeCaptured(application, capture) { [self] in captureNext(application, capture) }
        }
        for (index, run) in runs.enumerated() where run.allocation == .mapped {
            left += 1
            disk.read(at: run.range.byteOffset, byteCount: run.range.byteCount) { result in
                switch result {
                case .failure(let error): failure = failure ?? PointJournalError(disk: error)
                case .success(let bytes) where bytes.readableBytes < run.range.byteCount:
                    failure = failure ?? .disk("\(bytes.readableBytes) bytes came for \(run.range): the disk has become shorter")
                case .success(let bytes): data[index] = bytes
                }
                ended()
            }
        }
        ended()
    }

    /// Writes what has gathered. Where room is short, older points go first.
    private func writeCaptured(
        _ application: PointApplication<Directory.File>, _ capture: UndoCapture<Directory.File>, then next: @escaping () -> Void
    ) {
        guard let file = capture.writer.file else { return }
        let (bytes, offset) = capture.writer.takeStaging()
        capture.byteCount = offset + UInt64(bytes.readableBytes)
        while undoBytes + capture.byteCount > keeping.bytesMax, makeRoom() {}
        guard capture.byteCount <= keeping.bytesMax || state == .recovering else {
            return giveUpKeeping(application, .noSpace("point \(application.received.index.point) changes more than may be kept"))
        }
        write(bytes, at: offset, to: file, capture) { [self] result in
            if case .failure(let error) = result { return giveUpKeeping(application, error) }
            capture.writer.wrote(byteCount: bytes.readableBytes)
            next()
        }
    }

    private func write(
        _ bytes: ByteBuffer, at offset: UInt64, to file: Directory.File, _ capture: UndoCapture<Directory.File>,
        completion: @escaping (Result<Void, PointJournalError>) -> Void
    ) {
        file.write(bytes, at: offset) { [self] result in
            switch result {
            case .success: completion(.success(()))
            case .failure(.noSpace) where makeRoom(): write(bytes, at: offset, to: file, capture, completion: completion)
            case .failure(let error): completion(.failure(PointJournalError(journal: error)))
            }
        }
    }

    /// All of it is in the file: it gets its name when that is durable, and counts when the name is.
    private func finishCapture(_ application: PointApplication<Directory.File>, _ capture: UndoCapture<Directory.File>) {
        guard let file = capture.writer.file else { return }
        let point = application.received.index.point
        let failed = { [self] (error: StorageFileError) in giveUpKeeping(application, PointJournalError(journal: error)) }
        let isHasty = isPlanted(.appliesBeforeUndoIsDurable)
        let name = { [self] in
            directory.rename(PointFormat.unfinishedUndoFileName(point), to: PointFormat.undoFileName(point)) { [self] result in
                if case .failure(let error) = result { return failed(error) }
                if isHasty { return captured(application, capture, file) }
                directory.synchronize { [self] result in
                    if case .failure(let error) = result { return failed(error) }
                    captured(application, capture, file)
                }
            }
        }
        if isHasty { return name() }
        file.synchronize { result in
            if case .failure(let error) = result { return failed(error) }
            name()
        }
    }

    private func captured(
        _ application: PointApplication<Directory.File>, _ capture: UndoCapture<Directory.File>, _ file: Directory.File
    ) {
        application.capture = nil
        let header = capture.writer.header
        undos.append(
            UndoFile(
                point: header.point, byteCount: capture.byteCount, leftAtMilliseconds: header.leftAtMilliseconds ?? 0,
                attributes: header.attributes))
        undoBytes += capture.byteCount
        staleUndoNames.removeAll { $0 == PointFormat.undoFileName(header.point) }
        if state == .closed {
            file.close()
            return stop(application, .closed)
        }
        let index = PointIndex(point: header.point, pieces: capture.writer.pieces)
        let undo = OpenUndo(ReceivedPoint(index: index, attributes: header.attributes, file: file), sectorCount: header.sectorCount)
        for view in views.values { view.add(undo) }
        beginWriting(application)
    }

    /// What a point overwrites can't be kept: the points before it are given up, and it is applied.
    private func giveUpKeeping(_ application: PointApplication<Directory.File>, _ error: PointJournalError) {
        guard let capture = application.capture else { return }
        application.capture = nil
        capture.writer.dropStaging()
        capture.writer.file?.close()
        if state == .closed { return stop(application, .closed) }
        let point = application.received.index.point
        removalsInFlight += 1
        // One that stays is emptied by the next attempt, and removed by recovery.
        directory.remove(PointFormat.unfinishedUndoFileName(point)) { [self] _ in
            removalsInFlight -= 1
            finishCloseIfIdle()
        }
        goOnWithout(application, error)
    }

    /// Applies a point of which nothing is kept: no way leads back over it.
    private func goOnWithout(_ application: PointApplication<Directory.File>, _ error: PointJournalError) {
        let point = application.received.index.point
        writeKeptFrom(point &+ 1) { [self] in
            onKeepingGivenUp?(point, error)
            beginWriting(application)
        }
    }

    /// Ends all views, and the opening of others.
    func endViews(_ error: (PointNumber) -> PointJournalError) {
        viewsEnded &+= 1
        for view in views.values { view.fail(error(view.point)) }
    }
}
