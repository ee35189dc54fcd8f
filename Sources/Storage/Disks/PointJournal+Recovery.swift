import Blocks
import NIOCore

// Opening:
//
//   list ─> read position (or make it), make it durable ─> scan the files behind it, and make the complete ones durable
//        ─> find the undo files that lead back from there ─> put aside what an ended attachment left held ─> see that the disk is the one that it was ─> apply the others in order
//        ─> take the position over for a new attachment ─> remove what is left over ─> directory durable
//
// What a crash can leave: at most one incomplete file, that of the point after the last received one;
// files at or before the applied position, and files of an earlier attachment, whose removal was not
// durable. Anything else, a hole in the received points above all, is damage, and the journal says so
// instead of guessing.

extension PointJournal {
    private typealias Done = (Result<Void, PointJournalError>) -> Void

    func recover(_ completion: @escaping (Result<Void, PointJournalError>) -> Void) {
        directory.list { [self] result in
            switch result {
            case .failure(let error): completion(.failure(PointJournalError(journal: error)))
            case .success(let names):
                let points = names.compactMap { PointFormat.point(ofFile: $0) }.sorted()
                keptNames = Set(names.filter(PointFormat.isKeptFile))
                staleUndoNames = names.filter { PointFormat.isUnfinishedUndoFile($0) || PointFormat.point(ofUndoFile: $0) != nil }
                if names.contains(PositionRecord.fileName) { return readPosition(points, completion) }
                guard points.isEmpty else {
                    return completion(.failure(.corrupt("there are point files and no file `\(PositionRecord.fileName)`")))
                }
                createPosition(completion)
            }
        }
    }

    private func createPosition(_ completion: @escaping Done) {
        takeFingerprint { [self] result in
            switch result {
            case .failure(let error): completion(.failure(error))
            case .success(let fingerprint): createPosition(fingerprint, completion)
            }
        }
    }

    /// Makes the position file whole under another name, so that it never exists without a valid slot.
    private func createPosition(_ fingerprint: DiskFingerprint, _ completion: @escaping Done) {
        let fail = { (error: StorageFileError) in completion(.failure(PointJournalError(journal: error))) }
        directory.open(PositionRecord.temporaryName, create: true) { [self] result in
            guard case .success(let file) = result else { return result.failure.map(fail) ?? () }
            positionFile = file
            record = PositionRecord(sequence: 0, volume: volume, position: position, fingerprint: fingerprint)
            var both = record.encoded()
            record.sequence = 1
            var second = record.encoded()
            both.writeBuffer(&second)
            file.write(both, at: 0) { [self] result in
                if let error = result.failure { return fail(error) }
                file.synchronize { [self] result in
                    if let error = result.failure { return fail(error) }
                    directory.rename(PositionRecord.temporaryName, to: PositionRecord.fileName) { [self] result in
                        if let error = result.failure { return fail(error) }
                        directory.synchronize { completion($0.mapError { PointJournalError(journal: $0) }) }
                    }
                }
            }
        }
    }

    private func readPosition(_ points: [PointNumber], _ completion: @escaping Done) {
        directory.open(PositionRecord.fileName, create: false) { [self] result in
            guard case .success(let file) = result else {
                return result.failure.map { completion(.failure(PointJournalError(journal: $0))) } ?? ()
            }
            positionFile = file
            // What a killed process wrote last may be in memory only. Files are removed because of it, so it has to be durable before they are.
            file.synchronizeAndForget { [self] result in
                if let error = result.failure { return completion(.failure(PointJournalError(journal: error))) }
                file.read(at: 0, byteCount: 2 * PositionRecord.slotBytes) { [self] result in
                    switch result {
                    case .failure(let error): completion(.failure(PointJournalError(journal: error)))
                    case .success(let buffer): takePosition(buffer, points, completion)
                    }
                }
            }
        }
    }

    private func takePosition(_ slots: ByteBuffer, _ points: [PointNumber], _ completion: @escaping Done) {
        guard let found = PositionRecord(file: slots) else {
            return completion(.failure(.corrupt("neither slot of the file `\(PositionRecord.fileName)` is valid")))
        }
        record = found
        position = found.position
        let applied = found.position.applied
        if isPlanted(.forgetsReceivedPoints) { return scan([], leftOver: points, completion) }
        // On the way back none is received: what is there was put aside, and that is not durable.
        if found.rollingBackTo != nil { return removeAll(points, completion) }
        scan(points.filter { $0 > applied }[...], leftOver: points.filter { $0 <= applied }, completion)
    }

    private func removeAll(_ points: [PointNumber], _ completion: @escaping Done) {
        removeNames(points.map { PointFormat.fileName($0) }[...]) { [self] result in
            if case .failure = result { return completion(result) }
            scan([], leftOver: [], completion)
        }
    }

    /// Looks at the files behind the position, one by one, and queues those that were received.
    private func scan(_ points: ArraySlice<PointNumber>, leftOver: [PointNumber], _ completion: @escaping Done) {
        guard let point = points.first else {
            let last = queue.last?.index.point ?? record.position.applied
            // A crash may have come while the points behind were put aside.
            var end = last
            while end < record.position.received, keptNames.contains(PointFormat.keptFileName(end + 1, of: record.volume)) { end += 1 }
            guard end >= record.position.received else {
                return completion(
                    .failure(.corrupt("point \(last &+ 1) was received and its file is missing or damaged")))
            }
            position.received = last
            guard !queue.isEmpty else { return findUndos(leftOver, completion) }
            return directory.synchronize { [self] result in
                if let error = result.failure { return completion(.failure(PointJournalError(journal: error))) }
                findUndos(leftOver, completion)
            }
        }
        directory.open(PointFormat.fileName(point), create: false) { [self] result in
            guard case .success(let file) = result else {
                return result.failure.map { completion(.failure(PointJournalError(journal: $0))) } ?? ()
            }
            // A process that was killed between writing and synchronizing leaves a file that is complete in memory only, and so does a sync that
            // failed. Half of it on the disk and the file gone would be beyond repair.
            file.synchronizeAndForget { [self] result in
                if let error = result.failure { return completion(.failure(PointJournalError(journal: error))) }
                scan(point, in: file, then: points.dropFirst(), leftOver: leftOver, completion)
            }
        }
    }

    private func scan(
        _ point: PointNumber, in file: Directory.File, then points: ArraySlice<PointNumber>, leftOver: [PointNumber],
        _ completion: @escaping Done
    ) {
        PointFileScan(file: file, limits: limits) { [self] result in
            switch result {
            case .failure(let error): completion(.failure(PointJournalError(journal: error)))
            case .success(.complete(let header, let index))
            where header.volume == record.volume && header.point == point && header.leftAtMilliseconds == nil:
                let expected = (queue.last?.index.point ?? record.position.applied) &+ 1
                if point != expected {
                    return completion(
                        .failure(.corrupt("point \(point) is there and point \(expected) is missing or damaged")))
                }
                if header.sectorCount > sectorCount {
                    return completion(
                        .failure(
                            .disk("it has \(sectorCount) sectors now and had \(header.sectorCount) when point \(point) came"))
                    )
                }
                piecesQueued += index.pieces.count
                queue.append(ReceivedPoint(index: index, attributes: header.attributes, file: file))
                scan(points, leftOver: leftOver, completion)
            case .success:
                file.close()
                scan(points, leftOver: leftOver + [point], completion)
            }
        }.run()
    }

    /// Takes the undo files that lead back from the applied point, or from the one behind it, which may be half applied. Those that
    /// don't, because some between were given up or the way back went past them, are removed in the end.
    private func findUndos(_ leftOver: [PointNumber], _ completion: @escaping Done) {
        let points = Set(staleUndoNames.compactMap { PointFormat.point(ofUndoFile: $0) })
        let newest = queue.first.map { $0.index.point }.flatMap { points.contains($0) ? $0 : nil } ?? record.position.applied
        var oldest = newest
        while oldest > max(record.keptFrom, 1), points.contains(oldest - 1) { oldest -= 1 }
        guard record.keptFrom > 0, newest >= record.keptFrom, points.contains(newest) else { return keepHeldPoints(leftOver, completion) }
        findUndos((oldest...newest).reversed()[...], leftOver, completion)
    }

    /// Newest first: what is behind one that can't be read is of no use.
    private func findUndos(_ points: ArraySlice<PointNumber>, _ leftOver: [PointNumber], _ completion: @escaping Done) {
        let done = { [self] in
            let names = Set(undos.map { PointFormat.undoFileName($0.point) })
            staleUndoNames.removeAll { names.contains($0) }
            keepHeldPoints(leftOver, completion)
        }
        guard let point = points.first else { return done() }
        directory.open(PointFormat.undoFileName(point), create: false) { [self] result in
            guard case .success(let file) = result else {
                // An error that may pass must not cost what is kept.
                return result.failure.map { completion(.failure(PointJournalError(journal: $0))) } ?? ()
            }
            readUndoHeader(of: file) { [self] found in
                file.close()
                guard let (bytes, size) = found else {
                    return completion(.failure(.journal("`\(PointFormat.undoFileName(point))` can't be read")))
                }
                guard let header = PointHeader(bytes), isUndo(header, of: point) else {
                    if point > record.position.applied { damagedUndo = point }
                    return done()
                }
                undos.prepend(
                    UndoFile(
                        point: point, byteCount: size, leftAtMilliseconds: header.leftAtMilliseconds ?? 0, attributes: header.attributes))
                undoBytes += size
                findUndos(points.dropFirst(), leftOver, completion)
            }
        }
    }

    /// The beginning of a file as the medium has it, and its size: the point behind it is applied because it is there.
    private func readUndoHeader(of file: Directory.File, completion: @escaping ((ByteBuffer, UInt64)?) -> Void) {
        file.synchronizeAndForget { synchronized in
            guard case .success = synchronized else { return completion(nil) }
            file.read(at: 0, byteCount: PointHeader.byteCountMax) { read in
                file.size { size in
                    guard case .success(let bytes) = read, case .success(let size) = size else { return completion(nil) }
                    completion((bytes, size))
                }
            }
        }
    }

    /// What an ended attachment left held is no part of a common cut, and never will be: it is not applied, and not thrown away either.
    private func keepHeldPoints(_ leftOver: [PointNumber], _ completion: @escaping Done) {
        guard record.volume != volume, hasHeldPoints, !isPlanted(.appliesHeldPointsOnDetach) else { return checkDisk(leftOver, completion) }
        putHeldAside(while: { $0.hasHeldPoints }) { [self] result in
            if case .failure = result { return completion(result) }
            checkDisk(leftOver, completion)
        }
    }

    /// Puts all points of the queue aside, none of which is being applied.
    func putQueueAside(_ completion: @escaping (Result<Void, PointJournalError>) -> Void) { putHeldAside(while: { _ in true }, completion) }

    /// Files that are put aside stay under other names until somebody removes them. From the last on, so that a crash leaves no hole
    /// in the row.
    private func putHeldAside(while isToGo: @escaping (PointJournal) -> Bool, _ completion: @escaping Done) {
        guard isToGo(self), let last = queue.last else { return completion(.success(())) }
        let point = last.index.point
        directory.rename(PointFormat.fileName(point), to: PointFormat.keptFileName(point, of: record.volume)) { [self] result in
            if let error = result.failure { return completion(.failure(PointJournalError(journal: error))) }
            directory.synchronize { [self] result in
                if let error = result.failure { return completion(.failure(PointJournalError(journal: error))) }
                last.file.close()
                queue.removeLast()
                piecesQueued -= last.index.pieces.count
                position.received = queue.last?.index.point ?? record.position.applied
                keptPoints += 1
                putHeldAside(while: isToGo, completion)
            }
        }
    }

    /// Goes on with the disk that the journal belongs to, and with no other. When an earlier attachment has ended and left
    /// nothing, the disk was its owner's to change.
    private func checkDisk(_ leftOver: [PointNumber], _ completion: @escaping Done) {
        if let target = record.rollingBackTo { return goOnBack(to: target, leftOver, completion) }
        if record.volume != volume, queue.isEmpty { return applyAll(leftOver, completion) }
        checkFingerprint { [self] result in
            if case .failure = result { return completion(result) }
            applyAll(leftOver, completion)
        }
    }

    /// A crash came while the disk went back to a past point: it goes on before anything else.
    private func goOnBack(to target: PointNumber, _ leftOver: [PointNumber], _ completion: @escaping Done) {
        let goOn = { [self] (result: Result<Void, PointJournalError>) in
            if case .failure = result { return completion(result) }
            resumeRollingBack(to: target) { [self] result in
                if case .failure = result { return completion(result) }
                applyAll(leftOver, completion)
            }
        }
        guard record.position.applied > target else { return checkFingerprint(completion: goOn) }
        openUndo(record.position.applied) { [self] result in
            switch result {
            case .failure(let error): completion(.failure(error))
            case .success(let undo): checkFingerprint(besides: undo.received.index.pieces, completion: goOn)
            }
        }
    }

    /// Applies what may be applied: of a volume in a group not what waits for others.
    private func applyAll(_ leftOver: [PointNumber], _ completion: @escaping Done) {
        appliesHeldPoints = record.volume != volume && isPlanted(.appliesHeldPointsOnDetach)
        let last = queue.prefix { !isHeldForGroup($0) }.last?.index.point
        whenApplied(through: last ?? position.applied) { [self] result in
            appliesHeldPoints = false
            switch result {
            case .failure(let error): completion(.failure(error))
            case .success: takeOver(leftOver, completion)
            }
        }
        startApplying()
    }

    /// Starts anew when the directory belonged to another attachment.
    private func takeOver(_ leftOver: [PointNumber], _ completion: @escaping Done) {
        let leftOver = leftOver + recoveredPoints
        guard record.volume != volume else { return remove(leftOver[...], completion) }
        // What is kept of the attachment that has ended leads back from a disk that others may change now.
        staleUndoNames += undos.map { PointFormat.undoFileName($0.point) }
        undos = []
        undoBytes = 0
        takeFingerprint { [self] result in
            guard case .success(let fingerprint) = result else { return completion(result.map { _ in }) }
            let fresh = PositionRecord(
                sequence: record.sequence &+ 1, volume: volume, position: PointPosition(received: 0, applied: 0),
                fingerprint: fingerprint)
            writePosition(fresh) { [self] result in
                if case .failure = result { return completion(result) }
                position = fresh.position
                remove(leftOver[...], completion)
            }
        }
    }

    private func remove(_ leftOver: ArraySlice<PointNumber>, _ completion: @escaping Done) {
        guard let point = leftOver.first else { return removeNames(staleUndoNames[...] + [PositionRecord.temporaryName], completion) }
        directory.remove(PointFormat.fileName(point)) { [self] result in
            if let error = result.failure { return completion(.failure(PointJournalError(journal: error))) }
            remove(leftOver.dropFirst(), completion)
        }
    }
}

extension PointJournal {
    /// Removes what no opening needs again, and makes all removals durable.
    func removeNames(_ names: ArraySlice<String>, _ completion: @escaping (Result<Void, PointJournalError>) -> Void) {
        guard let name = names.first else {
            return directory.synchronize { completion($0.mapError { PointJournalError(journal: $0) }) }
        }
        directory.remove(name) { [self] result in
            // One that stayed might be taken for another's, later.
            if let error = result.failure { return completion(.failure(PointJournalError(journal: error))) }
            removeNames(names.dropFirst(), completion)
        }
    }
}

extension Result {
    /// The error, if it is one.
    fileprivate var failure: Failure? {
        if case .failure(let error) = self { error } else { nil }
    }
}
