import Blocks
import NIOCore

extension WriteLog {
    /// The points that are sealed, durable and not released, in order.
    public var sealedPoints: [SealedPoint] {
        epochs.compactMap { epoch in
            guard epoch.isSealed, let sealedAt = epoch.sealedAt else { return nil }
            return SealedPoint(number: epoch.number, byteCount: epoch.byteCount, sealedAt: sealedAt)
        }
    }

    /// What the log holds of writes that came after `point`: with the last point that home has, what would be lost with this log.
    public func backlog(after point: PointNumber) -> LogBacklog {
        let later = epochs.lazy.filter { $0.number > point }
        return LogBacklog(
            bytes: later.reduce(0) { $0 + $1.byteCount }, points: later.count { $0.isSealed && $0.sealedAt != nil },
            oldestAppendAt: later.first { $0.hasWrites }?.firstAppendAt)
    }

    /// What a point carries, when it is sealed, durable and not released; nil too when it carries nothing.
    public func attributes(of point: PointNumber) -> PointAttributes? {
        epochs.first { $0.number == point && $0.isSealed }?.attributes
    }

    /// True when the epoch that gathers holds writes: the next seal makes a point.
    public var hasUnsealedWrites: Bool { current.hasWrites }

    /// True when every point that was ever sealed is durable.
    public var isSealingDone: Bool { lastSealedPoint == current.number - 1 }

    /// What a point holds of a range: each sector once, in ascending order. Empty for a point that is not in `sealedPoints`.
    public func contents(of point: PointNumber, in range: SectorRange) -> [LogSegment] {
        guard let epoch = epochs.first(where: { $0.number == point && $0.isSealed }) else { return [] }
        var segments: [LogSegment] = []
        epoch.map.forEach(in: range) { segments.append(LogSegment(range: $0.range, content: $0.value.content)) }
        return segments
    }

    /// What a point holds: each sector once, in ascending order. Empty for a point that is not in `sealedPoints`.
    public func contents(of point: PointNumber) -> [LogSegment] {
        guard let epoch = epochs.first(where: { $0.number == point && $0.isSealed }) else { return [] }
        var segments: [LogSegment] = []
        segments.reserveCapacity(epoch.map.count)
        epoch.map.forEach { segments.append(LogSegment(range: $0.range, content: $0.value.content)) }
        return segments
    }

    /// Forgets the points up to `point`, which are sealed, at once, and removes their files, oldest first.
    ///
    /// Completes when the removal is durable. A crash before that may bring the points back; then they are released again.
    public func release(through point: PointNumber, completion: @escaping (Result<Void, WriteLogError>) -> Void) {
        if let refusal { return completion(.failure(refusal)) }
        let count = epochs.prefix { $0.isSealed && $0.number <= point }.count
        let released = Array(epochs.prefix(count))
        epochs.removeFirst(count)
        for epoch in released {
            let indexedBefore = indexBytes
            epochsIndexBytes -= epoch.indexSize.byteCount
            forget(epoch)
            // Its files count as they go; where it took more of the index than of them, the rest counts now.
            let indexed = limits.logBytes(ofIndex: indexedBefore - indexBytes)
            releasedBytes += indexed - min(indexed, epoch.contentBytes)
        }
        let files = released.flatMap(\.files)
        releases.append((point, files, completion))
        removeReleased()
        synchronizeIfNeeded()
        pump()
    }

    /// Takes from the overlay what is still the newest of an epoch that goes.
    private func forget(_ epoch: LogEpoch) {
        epoch.map.forEach { extent in
            var stale: [SectorRange] = []
            map.forEach(in: extent.range) { newest in
                if newest.value.batch.epoch == epoch.number { stale.append(newest.range) }
            }
            for range in stale { map.remove(range) }
        }
        epoch.map.removeAll()
    }

    /// Removes the files of released epochs from the row, once the log's name and numbers are durable in a file that stays.
    func removeReleased() {
        guard failure == nil, !isReleasing, !removing.rests, let release = releases.first else { return }
        guard release.files.isEmpty || epochs[0].files.first?.isEstablished == true else { return }
        isReleasing = true
        removeFiles { [self] in
            isReleasing = false
            removing.succeeded()
            guard let done = releases.popFirst() else { return }
            done.completion(.success(()))
            // Files that are gone may have made room.
            if writing.obstacle == .noSpace { writing.retry() }
            admitHeld()
            removeReleased()
        }
    }

    /// Removes the files of the oldest release one by one, each removal durable before the next: a crash leaves no hole in the row
    /// of files. Where nothing can be removed for now, the next tick goes on.
    private func removeFiles(then done: @escaping () -> Void) {
        guard let file = releases.first?.files.first else { return done() }
        takeOutOfRow(file) { [self] removed, spareName in
            guard failure == nil else { return }
            if case .failure(let error) = removed {
                isReleasing = false
                guard let obstacle = LogObstacle(error) else { return poison(.file(error)) }
                return removing.met(obstacle)
            }
            let isHasty = isPlanted(.blanksBeforeTheNameIsGone)
            if isHasty, let spareName { keep(file, as: spareName) }
            directory.synchronize { [self] synchronized in
                guard failure == nil else { return }
                if case .failure(let error) = synchronized { return poison(.file(error)) }
                releasedBytes += file.writeOffset
                forget(file)
                if let spareName, !isHasty { keep(file, as: spareName) }
                // A close has taken the releases away; what is left of their files the next process finds released again.
                if !releases.isEmpty { releases[0].files.removeFirst() }
                removeFiles(then: done)
            }
        }
    }
}
