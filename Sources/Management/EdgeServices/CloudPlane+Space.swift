import APIModels
import Blocks
import EdgeConfiguration
import Files
import NIOCore
import Volumes
import WriteLog

// The operator sees it coming: write logs that fill, and a file system that will not hold them at full size.

/// The logs leave the cache less than its size.
struct CacheBound: Equatable {
    var sizeBytes: UInt64
    /// With so much it goes on.
    var leftBytes: UInt64

    /// What is so, why, and what to do.
    var text: String {
        "the file system of the state directory has no room for \(ByteSize.rounded(sizeBytes - leftBytes)) of the cache besides what the write "
            + "logs may still take: it goes on with \(ByteSize.rounded(leftBytes)). Free some there, or make the cache or the logs smaller"
    }
}

/// What the file system of the state directory has room for, against what the write logs may still take of it.
struct StateSpace {
    /// How often it is looked at; and while it can't hold the logs at full size.
    static let interval: TimeAmount = .seconds(5)
    static let shortInterval: TimeAmount = .seconds(1)

    /// Opened by the control plane; nil until then.
    var directory: OpenDirectory?
    fileprivate var watch = FillWatch()
    /// When it was looked at last; nil to have it looked at soon.
    var lookedAt: NIODeadline?
    fileprivate var isLooking = false
    /// The logs have less than their size, so that some room is left.
    fileprivate var isShort = false
    /// The file of the cache when it is on this file system, and what it had taken when it was opened: whatever logs need, it has that.
    fileprivate(set) var cacheFile: OpenFile?
    var cacheBytesAtOpening: UInt64 = 0
    /// The logs bound the cache.
    fileprivate var bounded = LastingNotice()
    fileprivate(set) var cacheBound: CacheBound?
    /// How large logs may become that have no size of their own.
    var edgeLogBytes: UInt64 = 0
    /// The logs of volumes that are not open here, and may be at any time.
    fileprivate var unopened: [VolumeIdentifier: LogShares.Log] = [:]

    /// How far what the logs may still take has come towards what there is; nil when it is well below half.
    var step: FillStep? { watch.step }
}

extension CloudPlane {
    // MARK: Logs

    func logFills(_ entry: Served, _ fill: LogFill) {
        guard let step = fill.step else { return }
        let age = fill.oldestAge.map { ", its oldest write is \(Self.seconds($0)) old" } ?? ""
        let estimate = fill.timeUntilFull.map { "; at this rate it is full in about \(Self.seconds($0))" } ?? ""
        recorder.record(
            "log.filling", subject: entry.grant.name, logSubject: entry.volume.identifier.description,
            severity: step == .half ? .info : .warning,
            "the write log is \(step.percent) % full: \(ByteSize.rounded(fill.usedBytes)) of \(ByteSize.rounded(fill.sizeBytes))\(age)\(estimate)"
                + (fill.isSlowing ? "; writers are slowed" : "")
                + (step == .half ? "" : ": see to the link, or give the log more with `causeway volume set --log-size`")
        )
    }

    func logEased(_ entry: Served, _ fill: LogFill) {
        recorder.record(
            "log.eased", subject: entry.grant.name, logSubject: entry.volume.identifier.description,
            "the write log has room again: \(ByteSize.rounded(fill.usedBytes)) of \(ByteSize.rounded(fill.sizeBytes)) are used")
    }

    func unsentIsLate(_ entry: Served, _ age: TimeAmount) {
        recorder.record(
            "points.late", subject: entry.grant.name, logSubject: entry.volume.identifier.description, severity: .warning,
            "the oldest write that is not home is \(Self.seconds(age)) old: see to the link, and to the on-prem edge")
    }

    func unsentHasCaughtUp(_ entry: Served) {
        recorder.record(
            "points.caught_up", subject: entry.grant.name, logSubject: entry.volume.identifier.description,
            "writes come home in time again")
    }

    func logIsFull(_ entry: Served) {
        // Each point that goes home makes room for a moment, which writers fill again.
        if let told = entry.logFullToldAt, NIODeadline.now() - told < Self.retellInterval { return }
        entry.logFullToldAt = .now()
        recorder.record(
            "log.full", subject: entry.grant.name, logSubject: entry.volume.identifier.description, severity: .warning,
            "the write log is full: writers wait until the link has carried points home")
    }

    func logObstructed(_ entry: Served, _ obstacle: LogObstacle) {
        let (kind, text) =
            switch obstacle {
            case .noSpace:
                ("log.no_space", "the file system of the state directory is full: free space there; writers wait until there is room")
            case .readOnly:
                ("log.read_only", "the file system of the state directory takes no changes: make it writable; writers wait until it is")
            }
        recorder.record(kind, subject: entry.grant.name, logSubject: entry.volume.identifier.description, severity: .error, text)
    }

    func logUnobstructed(_ entry: Served, after time: TimeAmount) {
        recorder.record(
            "log.writable", subject: entry.grant.name, logSubject: entry.volume.identifier.description,
            "the write log can be written again, after \(Self.seconds(time)); nothing that was acknowledged is lost")
    }

    private static func seconds(_ time: TimeAmount) -> String { "\(max(0, time.nanoseconds) / 1_000_000_000) s" }

    // MARK: The file system

    /// Looks now and then whether the file system can hold what the logs may still take.
    func watchSpace() {
        let now = NIODeadline.now()
        guard let directory = stateSpace.directory, !stateSpace.isLooking,
            stateSpace.lookedAt.map({ now - $0 >= (stateSpace.isShort ? StateSpace.shortInterval : StateSpace.interval) }) ?? true
        else { return }
        stateSpace.isLooking = true
        stateSpace.lookedAt = now
        let cacheFile = stateSpace.cacheFile
        measure(directory, cacheFile) { [self] result in
            stateSpace.isLooking = false
            // A cache that was opened meanwhile was looked at for itself. A file system that does not answer has events of its own, from what
            // can't be written there.
            if stateSpace.cacheFile === cacheFile, case .success(let measured) = result { compareSpace(measured) }
        }
    }

    /// What is found on the file system.
    private struct Measured: Sendable {
        var free: UInt64
        /// What the cache has taken, if it is there.
        var cached: UInt64?
        var unopened: [(VolumeIdentifier, LogShares.Log)]
    }

    private func measure(
        _ directory: OpenDirectory, _ cacheFile: OpenFile?, completion: @escaping (Result<Measured, any Error>) -> Void
    ) {
        let edgeBytes = stateSpace.edgeLogBytes
        let unopened = (granted ?? []).filter { served[$0] == nil }
        onThread(
            {
                let logs = unopened.map { ($0, LogSize.share(ofUnopened: $0, in: directory, edgeBytes: edgeBytes)) }
                return Measured(
                    free: try directory.space().freeBytes, cached: try cacheFile?.information().allocatedBytes, unopened: logs)
            }, completion: completion)
    }

    /// Goes on with a cache that was opened, which may be beside the logs: it takes no room before it is known what they need.
    /// - Parameter adopt: makes it the cache; false when it is not taken.
    func shareSpace(withCacheIn file: OpenFile?, adopt: @escaping () -> Bool) {
        guard let file, let directory = stateSpace.directory else {
            if adopt() {
                stateSpace.cacheFile = nil
                noticeLoosening()
            }
            return
        }
        measure(directory, file) { [self] result in
            guard adopt() else { return }
            stateSpace.cacheFile = file
            stateSpace.cacheBytesAtOpening = (try? result.get())?.cached ?? 0
            if case .success(let measured) = result { return compareSpace(measured) }
            // Where nothing is known it keeps what it has, until the next look.
            cache?.boundFile(bytesMax: 0)
            stateSpace.lookedAt = nil
        }
    }

    /// Takes over what home has granted: each of these volumes has a log, or gets one.
    /// - Parameter edgeLogBytes: how large the logs may become that have no size of their own.
    func setGranted(_ granted: Set<VolumeIdentifier>, edgeLogBytes: UInt64) {
        self.granted = granted
        stateSpace.edgeLogBytes = edgeLogBytes
        // Until the next look, which is soon.
        for volume in granted where served[volume] == nil && stateSpace.unopened[volume] == nil {
            stateSpace.unopened[volume] = LogShares.Log(sizeBytes: edgeLogBytes, takenBytes: 0)
        }
        stateSpace.lookedAt = nil
    }

    private func compareSpace(_ measured: Measured) {
        stateSpace.unopened = Dictionary(measured.unopened) { first, _ in first }
        let free = measured.free
        let needed = shareSpace(free: free, cached: measured.cached)
        noticeLoosening()
        let change = stateSpace.watch.observe(used: needed, bound: free)
        switch change {
        case .reached(let step):
            recorder.record(
                "state.filling", severity: step == .half ? .info : .warning,
                "the file system of the state directory has \(ByteSize.rounded(free)) free, and the write logs may still take \(ByteSize.rounded(needed)): "
                    + (needed > free ? "it can't hold them at full size, so they are kept smaller" : "\(step.percent) % of that or more"))
        case .over:
            recorder.record(
                "state.eased",
                "the file system of the state directory has room for the write logs again: \(ByteSize.rounded(free)) are free")
        case nil: break
        }
    }

    /// Bounds the logs and the cache by what the file system has room for, and tells how much the logs may still take by their sizes.
    private func shareSpace(free: UInt64, cached: UInt64?) -> UInt64 {
        let entries = Array(served.values)
        let logs = logShares(entries)
        let cacheShare = cached.flatMap { taken in cache.map { LogShares.Log(sizeBytes: $0.statistics.byteCountWanted, takenBytes: taken) }
        }
        let shares = LogShares(logs: logs, cache: cacheShare, freeBytes: free)
        stateSpace.isShort = shares.pointBytesMax != nil
        // What has been cut off since is the logs' too.
        let held = min(cached ?? .max, cache?.statistics.byteCount ?? .max)
        stateSpace.cacheBytesAtOpening = min(stateSpace.cacheBytesAtOpening, held)
        cache?.boundFile(bytesMax: shares.cacheBytesMax.map { max($0, stateSpace.cacheBytesAtOpening) } ?? .max)
        noticeBound(cacheShare, bytesMax: shares.cacheBytesMax)
        for (entry, bound) in zip(entries, shares.bounds) {
            entry.volume.pointBytesMax = shares.pointBytesMax
            entry.volume.resizeLog(to: bound)
        }
        return LogShares.bytesWanted(logs)
    }

    /// Tells when the logs begin to bound the cache, and when that is over.
    func noticeBound(_ cache: LogShares.Log?, bytesMax: UInt64?) {
        let size = cache?.sizeBytes ?? 0
        let left = max(bytesMax ?? .max, cache?.takenBytes ?? 0)
        stateSpace.cacheBound = left < size ? CacheBound(sizeBytes: size, leftBytes: left) : nil
        switch stateSpace.bounded.observe(left < size, now: .now()) {
        case .begun: recorder.record("cache.bounded", severity: .warning, stateSpace.cacheBound?.text ?? "")
        case .over:
            recorder.record(
                "cache.unbounded",
                "the file system of the state directory has room for all of the cache besides what the write logs may take")
        case nil: break
        }
    }

    /// Those that are open in their order, and then those that are not.
    private func logShares(_ entries: [Served]) -> [LogShares.Log] {
        entries.map(\.logShare) + stateSpace.unopened.filter { served[$0.key] == nil }.values
    }

    /// What the logs may still take by their sizes.
    var logBytesWanted: UInt64 { LogShares.bytesWanted(logShares(Array(served.values))) }

    /// Gives a log another size; what the file system has no room for comes off it at the next look.
    func resizeLog(of entry: Served, to byteCount: UInt64) {
        entry.logSizeBytes = byteCount
        entry.volume.resizeLog(to: byteCount)
        stateSpace.lookedAt = nil
    }
}

extension CloudPlane.Served {
    fileprivate var logShare: LogShares.Log {
        let fill = volume.logFill
        return LogShares.Log(sizeBytes: logSizeBytes, takenBytes: max(fill.usedBytes, fill.fileBytes))
    }
}
