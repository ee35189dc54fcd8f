import NIOCore
import WriteLog

// How full the write log is, what the operator hears of it, and its bound, which may change while the volume serves.

/// How full a volume's write log is.
public struct LogFill: Equatable, Sendable {
    /// Bytes that what was written takes in it, and how many it may.
    public let usedBytes: UInt64
    public let sizeBytes: UInt64
    /// Bytes of its files, also of those that wait to be used again.
    public let fileBytes: UInt64
    /// The age of the oldest write in it; nil when there is none.
    public let oldestAge: TimeAmount?
    /// When it will be full if all goes on as in the last minutes; nil while it does not fill, is full, or nobody knows.
    public let timeUntilFull: TimeAmount?
    /// The step that it has reached; nil below the lowest.
    public let step: FillStep?
    /// It is so full that writers are slowed.
    public let isSlowing: Bool
}

/// What a volume's write log has in memory.
public struct LogMemory: Equatable, Sendable {
    /// Bytes of writes that no file holds yet; see `WriteLogLimits.unwrittenBytesMax`.
    public let unwrittenBytes: Int
    /// Bytes of its index; see `WriteLogLimits.logBytesPerIndexByte`.
    public let indexBytes: Int
}

extension Volume {
    /// What the write log has in memory now.
    public var logMemory: LogMemory { LogMemory(unwrittenBytes: log.statistics.unwrittenBytes, indexBytes: log.indexBytes) }

    /// How full the write log is now.
    public var logFill: LogFill {
        let (statistics, now) = (log.statistics, clock())
        let bound = log.limits.logBytesMax
        return LogFill(
            usedBytes: statistics.usedBytes, sizeBytes: bound, fileBytes: statistics.fileBytes,
            oldestAge: statistics.oldestAppendAt.map { now - $0 },
            // Of a log whose writers wait already, because its file system is full, the bound tells nothing.
            timeUntilFull: isLogFull ? nil : logFillEstimate.timeUntilFull(used: statistics.usedBytes, bound: bound, now: now),
            step: logFillWatch.step,
            isSlowing: log.isSlowing)
    }

    /// Writes that had to wait because the log was full or nearly so, and how long they did, all together.
    public var logWaits: (writes: UInt64, time: TimeAmount) { (log.statistics.waitedAppends, log.statistics.waitedTime) }

    /// Changes how many bytes the write log may take. More is felt at once, also by writers that wait; less as the log drains.
    public func resizeLog(to byteCount: UInt64) {
        guard byteCount != log.limits.logBytesMax else { return }
        log.resize(logBytesMax: byteCount)
        if refusal == nil { watchLog(now: clock()) }
    }

    /// Tells the log the time, and the owner when the log passes a step on the way to full.
    func watchLog(now: NIODeadline) {
        log.observe(now: now)
        watchObstacle(now: now)
        let used = log.usedBytes
        logFillEstimate.observe(used: used, now: now)
        switch logFillWatch.observe(used: used, bound: log.limits.logBytesMax) {
        case .reached: onEvent(.logFilling(logFill))
        case .over: onEvent(.logEased(logFill))
        case nil: break
        }
        switch unsentAgeWatch.observe(oldest: log.statistics.oldestAppendAt.map { now - $0 }, objective: policy.recoveryPointObjective) {
        case .late(let age): onEvent(.unsentLate(age))
        case .over: onEvent(.unsentCaughtUp)
        case nil: break
        }
    }

    /// The oldest unsent write is much older than the recovery point objective.
    public var isUnsentLate: Bool { refusal == nil && unsentAgeWatch.isLate }

    /// Tells the owner when the file system under the log stands in the way, in which way, and when it does no more.
    private func watchObstacle(now: NIODeadline) {
        let told = logObstacleTold
        let met = logObstacle
        guard met != told?.obstacle else { return }
        logObstacleTold = met.map { ($0, told?.since ?? now) }
        if let obstacle = met {
            onEvent(.logObstructed(obstacle))
        } else if let told {
            logWaitersFailedAt = nil
            onEvent(.logUnobstructed(now - told.since))
        }
    }
}
