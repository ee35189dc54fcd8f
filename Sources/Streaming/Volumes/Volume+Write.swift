import Blocks
import CloudOnlyDisk
import NIOCore
import WriteLog

// The write path (W3). A write is acknowledged when the log's file has it, so that the death of the process loses
// nothing, and with FUA when the log is durable. A full log makes writers wait, up to the policy's deadline.

extension Volume {
    public func write(
        _ range: SectorRange, data: ByteBuffer, durability: WriteDurability,
        completion: @escaping (Result<Void, BlockDeviceError>) -> Void
    ) {
        if let error = checkWrite(range) { return completion(.failure(error)) }
        if data.readableBytes != range.byteCount { return completion(.failure(.outOfRange)) }
        if range.isEmpty { return completion(.success(())) }
        beginWrite(range)
        if let cloudOnly { return write(range, data, durability, over: cloudOnly, completion) }
        writeToLog(range, data, durability, completion)
    }

    public func writeZeroes(
        _ range: SectorRange, durability: WriteDurability, completion: @escaping (Result<Void, BlockDeviceError>) -> Void
    ) {
        if let error = checkWrite(range) { return completion(.failure(error)) }
        if range.isEmpty { return completion(.success(())) }
        beginWrite(range)
        if let cloudOnly { return write(range, nil, durability, over: cloudOnly, completion) }
        writeToLog(range, nil, durability, completion)
    }

    public func flush(completion: @escaping (Result<Void, BlockDeviceError>) -> Void) {
        if let refusal { return completion(.failure(refusal)) }
        statistics.flushes &+= 1
        if let cloudOnly { return flush(over: cloudOnly, completion) }
        log.flush { [self] result in completion(result.mapError { deviceError($0) }) }
    }

    /// What was written is on the disk at home: a point is sealed, and has been applied.
    public func settle(completion: @escaping (Result<Void, BlockDeviceError>) -> Void) {
        seal(until: .applied) { result in completion(result.map { _ in () }) }
    }

    private func checkWrite(_ range: SectorRange) -> BlockDeviceError? {
        isWriteProtected ? .writeProtected : check(range)
    }

    private func beginWrite(_ range: SectorRange) {
        statistics.writes &+= 1
        statistics.writtenBytes &+= UInt64(range.byteCount)
    }

    /// Has the writes that arrive in one turn of `eventLoop` go to the log together, and those that a log which is nearly full
    /// puts off when they are due. Without it each goes by itself, and what was put off goes on with the next `tick`.
    public func gatherTurns(of eventLoop: any EventLoop) {
        let admit: (NIODeadline) -> Void = { [weak self] in
            self?.log.admitDue(now: $0)
            self?.cloudOnly?.disk.admitDue(now: $0)
        }
        let boundAdmit = NIOLoopBound(admit, eventLoop: eventLoop)
        onAdmissionDue = { due in eventLoop.scheduleTask(deadline: due) { boundAdmit.value(.now()) } }
        log.onAdmissionDue = onAdmissionDue
        let write: () -> Void = { [weak self] in self?.writeGathered() }
        let bound = NIOLoopBound(write, eventLoop: eventLoop)
        let writeOnLoop: @Sendable () -> Void = { bound.value() }
        gatherTurns { eventLoop.execute(writeOnLoop) }
    }

    /// The same for other kinds of turns: `atEndOfTurn` has `writeGathered` called when this one is over.
    public func gatherTurns(_ atEndOfTurn: @escaping () -> Void) {
        onGathering = atEndOfTurn
        log.onGathering = atEndOfTurn
        if let cloudOnly { gatherTurns(of: cloudOnly.disk) }
    }

    /// The same for the cloud-only disk, which may come later.
    func gatherTurns(of disk: CloudOnlyDisk<Directory>) {
        disk.onGathering = onGathering
        disk.onAdmissionDue = onAdmissionDue
    }

    /// Writes what has gathered in this turn.
    public func writeGathered() {
        log.writeGathered()
        cloudOnly?.disk.writeGathered()
    }

    /// Writes bytes, or zeroes when there are none, to the log.
    func writeToLog(
        _ range: SectorRange, _ data: ByteBuffer?, _ durability: WriteDurability,
        _ completion: @escaping (Result<Void, BlockDeviceError>) -> Void
    ) {
        if let data {
            log.append(range, data: data, now: clock()) { [self] result in finishWrite(result, durability, completion) }
        } else {
            log.appendZeroes(range, now: clock()) { [self] result in finishWrite(result, durability, completion) }
        }
    }

    private func finishWrite(
        _ result: Result<Void, WriteLogError>, _ durability: WriteDurability,
        _ completion: @escaping (Result<Void, BlockDeviceError>) -> Void
    ) {
        switch (result, durability) {
        case (.failure(let error), _): completion(.failure(deviceError(error)))
        case (.success, .ordered): completion(.success(()))
        case (.success, .durable): log.flushAcknowledged { [self] result in completion(result.mapError { deviceError($0) }) }
        }
    }

    /// Fails writes that have waited for room longer than the policy allows; the others keep their places.
    func expireWrites(now: NIODeadline) {
        let full = WriteLogError.noSpace("it empties when the link carries points home")
        if log.isWaitingForSpace { log.failHeld(appendedBefore: now - policy.writeTimeout, full) }
        if log.isFull != isLogFullTold {
            isLogFullTold = log.isFull
            if isLogFullTold { onEvent(.logFull) }
        }
        guard let (obstacle, since) = logObstacleTold else { return }
        if now - max(since, logWaitersFailedAt ?? since) > policy.writeTimeout {
            logWaitersFailedAt = now
            let error = WriteLogError.noSpace("its file system \(obstacle == .readOnly ? "takes no changes" : "is full")")
            if log.obstacle != nil { log.failWaiting(error) }
            if let disk = cloudOnly?.disk, disk.obstacle != nil { disk.failWaiting(error) }
        }
    }

    /// How often a log whose file system took no changes is tried again.
    static var logRetryDelay: TimeAmount { .seconds(1) }

    func retryLog(now: NIODeadline) {
        if let last = logRetriedAt, now - last < Self.logRetryDelay { return }
        logRetriedAt = now
        log.tick(now: now)
        cloudOnly?.disk.retryJournal()
    }

    func deviceError(_ error: WriteLogError) -> BlockDeviceError {
        switch error {
        case .noSpace(let reason): return .noSpace("the write log of volume \(identifier) has no room: \(reason)")
        case .closed: return refusal ?? .stopped("the volume is closed")
        case .tooLarge: return .outOfRange
        default:
            return stopItself("the write log of volume \(identifier) failed: \(error)")
        }
    }

    /// Stops the volume and tells the owner, once.
    /// - Returns: what a machine is told whose operation shows what is wrong.
    func stopItself(_ reason: String) -> BlockDeviceError {
        if refusal == nil {
            stop(.stopped(reason), error: .stopped(reason))
            onEvent(.stopped(reason))
        }
        return .medium(reason)
    }
}
