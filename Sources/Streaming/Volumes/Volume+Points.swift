import Blocks
import LinkProtocol
import NIOCore
import WriteLog

// Sealing and letting go of points (W4, W5). PointState.swift draws the way of a point, Volume+Sending.swift sends it.

extension Volume {
    /// The points, as the API shows them.
    public var pointNumbers: (lastSealed: PointNumber, received: PointNumber, applied: PointNumber) {
        (log.lastSealedPoint, points.received, points.applied)
    }

    /// The lease's generation that this edge holds.
    public var generation: LeaseGeneration { points.generation }

    /// What has been written here and is not yet durable at home. The log holds more: points that home has received, until the cache
    /// has taken their blocks over.
    public var unsent: LogBacklog { log.backlog(after: points.received) }

    /// Seals what has been written so far, and completes when it has come as far as `progress`.
    ///
    /// With nothing unsent it completes at once, with the number of the last point.
    public func seal(
        until progress: PointProgress, completion: @escaping (Result<PointNumber, BlockDeviceError>) -> Void
    ) {
        seal(carrying: nil, until: progress, completion: completion)
    }

    /// Seals what has been written so far, with something to say of it: then there is a point even with nothing unsent. In a group
    /// it is the group that is sealed; one that is not there yet is waited for.
    public func seal(
        carrying seal: PointSeal?, until progress: PointProgress,
        completion: @escaping (Result<PointNumber, BlockDeviceError>) -> Void
    ) {
        if let refusal { return completion(.failure(refusal)) }
        if points.waiters.count + points.sealsAwaitingGroup.count >= Self.sealWaitersMax || log.sealedPoints.count >= Self.pointsSealedMax {
            return completion(.failure(.unreachable("too many points of this volume wait to go home; try again later")))
        }
        // A point of its own would take the disk at home beyond the cut at which the others of the group are.
        if isAwaitingGroup {
            return points.sealsAwaitingGroup.append(AwaitingSeal(seal: seal, progress: progress, completion: completion))
        }
        let sealed = { [self] (point: PointNumber) in
            if let refusal { return completion(.failure(refusal)) }
            points.waiters.append(PointWaiter(point: point, progress: progress, completion: completion))
            pointWasSealed(point)
        }
        if let group {
            group.seal(carrying: seal) { [self] result in
                switch result {
                case .success(let cut): sealed(cut.point(of: identifier) ?? log.lastSealedPoint)
                case .failure(let error): completion(.failure(refusal ?? error))
                }
            }
            return
        }
        let now = clock()
        log.seal(now: now, attributes: seal?.attributes(at: now), isForced: seal != nil) { [self] result in
            switch result {
            case .success(let point): sealed(point)
            case .failure(let error): completion(.failure(deviceError(error)))
            }
        }
    }

    /// Runs of sectors from which on a point is sealed: home bounds the pieces of a point.
    static var extentsPerPointMax: Int { 1 << 17 }
    /// Unsent points from which on age alone seals no more.
    static var pointsSealedByTimeMax: Int { 64 }
    /// Unsent points from which on nobody may ask for one more.
    static var pointsSealedMax: Int { 1_024 }
    /// How many callers of `seal` may wait at once.
    static var sealWaitersMax: Int { 1_000 }

    /// How far a point may outgrow the policy, in time and in bytes, while sealed points wait to be sent: an overwrite within it
    /// crosses the link no more, and behind a line that carries less than is written a point that is sealed early is not home
    /// earlier.
    static var mergeFactor: Int { 4 }
    /// What a point may outgrow the policy to, in bytes: home bounds the pieces of a point.
    static var mergedBytesMax: Int { 1 << 30 }

    /// Seals when the oldest write is old enough, the epoch is large enough, or the log wants room.
    func sealIfDue(now: NIODeadline) {
        if points.isSealing || refusal != nil || isGrouped { return }
        let factor = hasPointWaiting ? Self.mergeFactor : 1
        let age = policy.recoveryPointObjective * factor
        let isOld = log.currentEpochStartedAt.map { now - $0 >= age } ?? false
        let isLarge = log.currentEpochBytes >= min(Self.mergedBytes(policy.sealBytes, factor: factor), pointBytesMax ?? .max)
        // Each sealed point holds a file open: in a long outage of the link, points grow by size, not in number.
        let maySealByTime = log.sealedPoints.count < Self.pointsSealedByTimeMax
        guard
            isOld && maySealByTime || isLarge || log.wantsSeal || log.currentEpochExtents >= Self.extentsPerPointMax
        else { return }
        points.isSealing = true
        log.seal(now: now) { [self] result in
            points.isSealing = false
            if refusal != nil { return }
            switch result {
            case .success(let point): pointWasSealed(point)
            case .failure(let error): _ = deviceError(error)
            }
        }
    }

    /// True while a sealed point waits whose sending has not begun.
    var hasPointWaiting: Bool { points.isWaitingToSend(lastSealed: log.lastSealedPoint) }

    /// What a point may grow to, in bytes, when it may outgrow the objective by `factor`.
    static func mergedBytes(_ sealBytes: Int, factor: Int) -> UInt64 {
        UInt64(clamping: max(sealBytes, min(min(sealBytes, mergedBytesMax) * factor, mergedBytesMax)))
    }

    func pointWasSealed(_ point: PointNumber) {
        onEvent(.point(point, .sealed))
        answerWaiters()
        sendPoints()
    }

    private func answerWaiters() {
        for waiter in points.fulfilledWaiters(sealed: log.lastSealedPoint) { waiter.completion(.success(waiter.point)) }
    }

    func failSealWaiters(_ error: BlockDeviceError) {
        let waiters = points.waiters
        points.waiters = []
        let awaiting = points.sealsAwaitingGroup
        points.sealsAwaitingGroup = []
        for waiter in waiters { waiter.completion(.failure(error)) }
        for seal in awaiting { seal.completion(.failure(error)) }
    }

    // MARK: Answers from home

    func pointWasReceived(_ point: PointNumber) {
        // Home can't have what was never sealed here; the open has checked that, so such a number is damage.
        guard point > points.received, point <= log.lastSealedPoint else { return }
        points.received = point
        onEvent(.point(point, .received))
        answerWaiters()
        promoteNext()
        sendPoints()
        group?.memberProgressed()
    }

    func pointWasApplied(_ point: PointNumber) {
        pointWasReceived(point)
        guard point > points.applied, point <= log.lastSealedPoint else { return }
        points.applied = point
        noteBlocksAtHome()
        onEvent(.point(point, .applied))
        answerWaiters()
    }

    func pointWasRefused(_ point: PointNumber, _ refusal: PointRefusal) {
        // What was on its way behind a point that home had no room for is out of sequence there.
        if let postponed = points.postponedPoint, refusal == .outOfSequence, point > postponed { return }
        switch refusal {
        case .fenced:
            stop(.fenced, error: .stopped("another edge holds the lease on volume \(identifier)"))
            onEvent(.fenced)
        case .notOpen:
            points.sessionLost()
            if isOpenAtHome { askForOpen() }
        case .noSpace:
            points.postpone(point, until: clock() + PointState.retryDelay)
            onEvent(.pointDelayed(point, refusal))
        case .outOfSequence, .damaged, .medium:
            if refusal == .damaged { points.plainPoint = point }
            points.sessionLost()
            points.pausedUntil = clock() + PointState.retryDelay
            onEvent(.pointDelayed(point, refusal))
        }
    }

    func retryPoints(now: NIODeadline) {
        promoteNext()
        // A point that was sealed after whoever waited for it had been told that it takes too long.
        sendPoints()
        guard let until = points.pausedUntil, now >= until else { return }
        if points.postponedPoint != nil {
            // Nothing is opened anew for that: reads that are under way would be asked again with each attempt.
            points.goOn()
            return sendPoints()
        }
        points.pausedUntil = nil
        // Home has forgotten the half of a point that it refused; the open tells where to begin again.
        askForOpen()
    }

    // MARK: Promotion

    /// Moves the blocks of the next received point from the log into the cache, then releases it. One that its group needs is asked for again
    /// at each tick.
    private func promoteNext() {
        guard !points.isPromoting, refusal == nil, let next = log.sealedPoints.first?.number, next <= points.received, mayForget(next)
        else { return }
        points.isPromoting = true
        let segments = log.contents(of: next)
        // From here on home answers with this point or a later one; what was asked before may be older.
        for segment in segments { fetches.close(overlapping: segment.range) }
        promote(segments[...], unsynchronizedBytes: 0) { [self] in
            cache.setCurrent(identifier, through: next)
            cache.synchronize { [self] result in
                // Its index in memory is right, so reads go on. After a restart it may show an older block, but then it does not
                // say either that it is current through this point, and `require` forgets the volume's blocks.
                if case .failure = result { onEvent(.cacheFailed) }
                finishPromotion(of: next)
            }
        }
    }

    private func finishPromotion(of point: PointNumber) {
        forgetAllocation()
        points.cutLeavingLog = log.groupPoint(of: point)
        log.release(through: point) { [self] result in
            points.isPromoting = false
            // One that the log could not let go of durably may be back after a crash: for the others it is here still.
            if case .failure(let error) = result { _ = deviceError(error) } else { points.cutLeavingLog = nil }
            promoteNext()
        }
    }

    /// Takes over one run of blocks after the other, so that the loop serves others in between.
    private func promote(_ segments: ArraySlice<LogSegment>, unsynchronizedBytes: Int, completion: @escaping () -> Void) {
        if unsynchronizedBytes >= Self.promotionBytesMax {
            // The cache's own back pressure: more than it can hold unwritten would be forgotten, not kept.
            cache.synchronize { [self] _ in promote(segments, unsynchronizedBytes: 0, completion: completion) }
            return
        }
        var rest = segments
        while let segment = rest.popFirst() {
            let whole = segment.range.wholeBlocks
            invalidateEdges(of: segment.range, whole: whole)
            if whole.isEmpty { continue }
            if case .zeroes = segment.content {
                cache.insertZeroes(identifier, blocks: whole)
                continue
            }
            promote(segment, blocks: whole, unsynchronizedBytes: unsynchronizedBytes) { [self] bytes in
                promote(rest, unsynchronizedBytes: bytes, completion: completion)
            }
            return
        }
        completion()
    }

    private func promote(
        _ segment: LogSegment, blocks: Range<UInt64>, unsynchronizedBytes: Int, completion: @escaping (Int) -> Void
    ) {
        let batch = blocks.prefix(Int(FetchTable.fetchBlocksMax))
        guard let first = batch.first, let last = batch.last else { return completion(unsynchronizedBytes) }
        let run = segment.clipped(to: Self.sectors(of: first..<last + 1))
        log.read(run) { [self] result in
            switch result {
            case .success(let data): cache.insert(identifier, block: first, data: data)
            case .failure: cache.invalidate(identifier, blocks: first..<last + 1)
            }
            promote(
                segment, blocks: last + 1..<blocks.upperBound, unsynchronizedBytes: unsynchronizedBytes + run.range.byteCount,
                completion: completion)
        }
    }

    /// How much is inserted into the cache between two synchronisations.
    private static var promotionBytesMax: Int { 4 << 20 }

    /// Blocks that the point wrote in part: the cache forgets them, home has them whole.
    private func invalidateEdges(of range: SectorRange, whole: Range<UInt64>) {
        let blocks = range.blocks
        if whole.isEmpty {
            cache.invalidate(identifier, blocks: blocks)
            return
        }
        if blocks.lowerBound < whole.lowerBound { cache.invalidate(identifier, blocks: blocks.lowerBound..<whole.lowerBound) }
        if whole.upperBound < blocks.upperBound { cache.invalidate(identifier, blocks: whole.upperBound..<blocks.upperBound) }
    }
}
