import Blocks
import NIOCore

extension WriteLog {
    // MARK: Flushing

    /// Completes when every write that was ordered before the call survives a crash.
    public func flush(completion: @escaping (Result<Void, WriteLogError>) -> Void) {
        if let refusal { return completion(.failure(refusal)) }
        if isPlanted(.acknowledgesBeforeSync) { return completion(.success(())) }
        waitUntilDurable(nextSequence - 1, completion)
    }

    /// Completes when every write that was acknowledged before the call survives a crash, whatever has gathered behind them.
    public func flushAcknowledged(completion: @escaping (Result<Void, WriteLogError>) -> Void) {
        if let refusal { return completion(.failure(refusal)) }
        waitUntilDurable(writtenThrough, completion)
    }

    /// Completes when batch `sequence` and all before it are durable.
    func waitUntilDurable(_ sequence: UInt64, _ completion: @escaping LogCompletion) {
        if durableThrough >= sequence { return completion(.success(())) }
        durabilityWaiters.append((sequence, completion))
        pump()
        synchronizeIfNeeded()
    }

    /// Starts a round of syncs when somebody waits for what has been written, or a seal is among it: that becomes durable also when
    /// nobody waits for it any more, for the room that the point takes comes back in no other way.
    func synchronizeIfNeeded() {
        guard failure == nil, !isSynchronizing else { return }
        let isToBeDurable = { [writtenThrough, durableThrough] (sequence: UInt64) in
            sequence <= writtenThrough && sequence > durableThrough
        }
        let isWanted = durabilityWaiters.first.map { isToBeDurable($0.sequence) } ?? false
        let isSealWanted = !isSealingDone && epochs.first { !$0.isSealed }?.sealBatch.map(isToBeDurable) ?? false
        guard isWanted || isSealWanted || needsEstablishedFile else { return }
        isSynchronizing = true
        // What completes later than now may be covered or not: it does not count.
        let target = writtenThrough
        let files = epochs.flatMap(\.files).filter { $0.isDirty || !$0.isEstablished }
        synchronize(files[...], target: target)
    }

    /// A release waits for the header of the epoch that is the oldest after it, and the removal of an empty file for that of the one
    /// which takes its place.
    private var needsEstablishedFile: Bool {
        let isReleaseWaiting = !releases.isEmpty && epochs[0].files.first.map { !$0.isEstablished } ?? false
        return isReleaseWaiting || hasEmptyUnderOlderKey && current.files.last.map { !$0.isEstablished } ?? false
    }

    /// Synchronises the files from the oldest epoch's to the newest, then the directory if names changed.
    private func synchronize(_ files: ArraySlice<LogFile>, target: UInt64) {
        guard let file = files.first else { return synchronizeDirectory(target: target) }
        guard file.isDirty else { return synchronize(files.dropFirst(), target: target) }
        file.isDirty = false
        if file.writeOffset > UInt64(LogFormat.headerBytes) { file.flushedThrough = file.writeOffset }
        file.synchronize { [self] result in
            syncs += 1
            finishStep(result) {
                file.isHeaderDurable = true
                self.synchronize(files.dropFirst(), target: target)
            }
        }
    }

    private func synchronizeDirectory(target: UInt64) {
        let established = epochs.flatMap(\.files).filter(\.isHeaderDurable)
        let finish = { [self] in
            for file in established { file.isEstablished = true }
            isSynchronizing = false
            madeDurable(through: target)
        }
        if isPlanted(.forgetsDirectorySync) { return finish() }
        guard isDirectoryDirty else { return finish() }
        isDirectoryDirty = false
        directory.synchronize { [self] result in finishStep(result, finish) }
    }

    /// Goes on after a step of a sync, or ends the log: after a failed sync nobody knows what is on the medium.
    private func finishStep(_ result: Result<Void, StorageFileError>, _ next: () -> Void) {
        guard failure == nil else { return }
        switch result {
        case .success: next()
        case .failure(let error): poison(.file(error))
        }
    }

    private func madeDurable(through sequence: UInt64) {
        durableThrough = max(durableThrough, sequence)
        for epoch in epochs {
            guard !epoch.isSealed, let seal = epoch.sealBatch, seal <= durableThrough else { continue }
            epoch.isSealed = true
            lastSealedPoint = max(lastSealedPoint, epoch.number)
        }
        while let first = durabilityWaiters.first, first.sequence <= durableThrough {
            durabilityWaiters.removeFirst()
            first.completion(.success(()))
        }
        removeReleased()
        removeEmptyUnderOlderKeys()
        synchronizeIfNeeded()
    }

    // MARK: Sealing

    /// Closes the epoch that gathers; writers go on in the next one at once.
    ///
    /// When the call returns the epoch is closed: what was ordered before is in the point, what is appended from now on is not.
    /// Completes with the number of the point when it is durable. An epoch without writes makes no
    /// point, unless `isForced`: the answer is then the last point, which is durable too.
    /// - Parameter attributes: what the point carries; of no use when there is none.
    public func seal(
        now: NIODeadline, attributes: PointAttributes? = nil, isForced: Bool = false,
        completion: @escaping (Result<PointNumber, WriteLogError>) -> Void
    ) {
        if let refusal { return completion(.failure(refusal)) }
        let epoch = current
        if epoch.hasWrites || isForced {
            if let gathering, gathering.records.count + LogAttributes.recordsMax >= LogFormat.batchRecordsMax { closeBatch() }
            let batch = openBatch()
            if let attributes {
                epoch.attributes = attributes
                for record in LogAttributes.records(of: attributes) {
                    _ = batch.add(.attributes, start: record.high, count: record.low, data: nil)
                }
            }
            _ = batch.add(.seal, start: epoch.number, count: 0, data: nil)
            closeBatch()
            epoch.sealedAt = now
            epoch.sealBatch = batch.sequence
            epochs.append(LogEpoch(number: epoch.number + 1))
        }
        let number = current.number - 1
        waitUntilDurable(nextSequence - 1) { completion($0.map { number }) }
    }

    // MARK: Closing

    /// Flushes and gives the files back. The log takes no more calls but reads of segments that are still held.
    public func close(completion: @escaping (Result<Void, WriteLogError>) -> Void) {
        if isClosed { return completion(.failure(.closed)) }
        isClosed = true
        closeCompletion = completion
        let waiting = held.map(\.completion) + releases.map(\.completion)
        held.removeAll()
        releases.removeAll()
        for completion in waiting { completion(.failure(.closed)) }
        if let failure { return finishClosing(.failure(failure)) }
        // One more try; if that meets the obstacle again the owner hears it, and what only the memory holds is lost with it.
        writing.retry()
        waitUntilDurable(nextSequence - 1) { [self] in finishClosing($0) }
    }

    /// Drops what keeps the files open, when nothing changes them any more.
    func finishClosing(_ result: Result<Void, WriteLogError>) {
        failure = failure ?? .closed
        changes.whenEnded { [self] in giveFilesBack(result) }
    }

    private func giveFilesBack(_ result: Result<Void, WriteLogError>) {
        guard let completion = closeCompletion else { return }
        closeCompletion = nil
        let waiting = writeWaiters.map(\.completion)
        writeWaiters.removeAll()
        map.removeAll()
        for epoch in epochs {
            epoch.map.removeAll()
            epoch.files.removeAll()
        }
        emptyFiles.removeAll()
        for spare in spares { spare.close() }
        spares.removeAll()
        for completion in waiting { completion(result) }
        completion(result)
    }
}
