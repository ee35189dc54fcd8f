import APIModels
import Blocks
import Ciphers
import CloudOnlyDisk
import Files
import Foundation
import Link
import LinkProtocol
import LocalFiles
import Logging
import NIOCore
import NIOPosix
import ISCSI
import NetworkBlockServer
import RateLimits
import SCSI
import SecureCache
import StorageTarget
import Volumes
import WriteLog

/// The data plane of the cloud edge: the target, the volumes, their logs and the cache, all on one event loop.
final class CloudPlane {
    typealias ServedVolume = ServedDevice.LocalVolume

    /// A volume that this edge has the grant for.
    final class Served {
        var grant: VolumeGrant
        /// The keys that are not destroyed, and under which of them the cloud-only disk is; nil for no such disk.
        var keys: DataKeys
        var cloudOnlyKeyGeneration: KeyGeneration?
        /// Home is being told of keys that are not needed any more.
        var isRetiringKeys = false
        /// It was told that home knows older keys only.
        var isOlderKeyTold = false
        let reservations: ReservationFile
        let volume: ServedVolume
        /// The volume behind its limits.
        let device: ServedDevice
        let unit: LogicalUnit
        /// Home has opened the volume at least once, so its history is known to be whole.
        var wasOpened = false
        /// The target is up.
        var isExported = false
        /// The volume is being given back: nobody may write any more.
        var isReleasing = false
        /// The last delay of a point that was told.
        var delayTold: (refusal: PointRefusal, at: NIODeadline)?
        /// Home has been asked to open the volume and has not answered.
        var isOpening = false
        /// The size of the write log that was set for this volume; nil for the edge's. And the one that it is to have: its bound is
        /// less where the file system has no room for it.
        var ownLogBytes: UInt64?
        var logSizeBytes: UInt64 = 0
        /// Where its log is, and what is kept beside it.
        let directory: OpenDirectory
        /// Its write policy is being changed or kept; it has to be kept once more then.
        var isChangingRegions = false
        var mustSaveRegions = false
        /// How far its cloud-only disk had come when that was kept last, and that it is being kept.
        var keptMark: CloudOnlyMark?
        var isKeepingMark = false
        /// Who waits for the first open.
        var openWaiters: [(Result<Void, any Error>) -> Void] = []

        init(
            grant: VolumeGrant, keys: DataKeys, reservations: ReservationFile, device: ServedDevice, unit: LogicalUnit,
            directory: OpenDirectory
        ) {
            self.grant = grant
            self.keys = keys
            self.reservations = reservations
            self.directory = directory
            volume = device.volume
            self.device = device
            self.unit = unit
        }
    }

    /// How often time passes for the volumes.
    static let tickInterval: TimeAmount = .milliseconds(50)

    let eventLoop: any EventLoop
    let threadPool: NIOThreadPool
    let target: StorageTargetServer
    /// The same volumes over NBD; nil when that is not configured.
    let networkBlock: NetworkBlockServer?
    let recorder: EventRecorder
    /// Random, new for each start: home tells by it whether the process is still the same.
    let incarnation = UInt64.random(in: 1 ... .max)
    private(set) var link: PeerLink?
    private(set) var isRevoked = false
    /// The cache, or one that stands in for it; nil until home has sent its key. See CloudPlane+Cache.swift.
    var cache: SecureCache<LocalDirectory>?
    var cacheTrouble: CacheTrouble?
    private(set) var served: [VolumeIdentifier: Served] = [:]
    /// The groups of volumes that home has granted; see CloudPlane+Groups.swift.
    var groups: [GroupIdentifier: GroupEntry] = [:]
    /// The last bracket of each volume and group; see CloudPlane+Brackets.swift.
    var brackets: [BracketSubject: PointBracket] = [:]
    /// Targets that are not to come up before all their volumes have been tried.
    var heldTargets: Set<String> = []
    private var servedByTag: [UInt16: Served] = [:]
    private var lastTag: UInt16 = 0
    private var ticker: RepeatedTask?
    var cacheSavedAt = NIODeadline.now()
    var cacheFailureToldAt: NIODeadline?
    var cacheSavedInserts: UInt64 = 0
    /// Nothing is opened any more.
    private(set) var isStopping = false
    /// When it was last kept how far the cloud-only disks have come; see CloudPlane+Regions.swift.
    var marksKeptAt = NIODeadline.now()
    /// When it was last looked which keys are needed; see CloudPlane+Keys.swift.
    var keysLookedAt = NIODeadline.now()
    /// How many pages of keys could not be locked in memory when that was told last.
    var unlockedPagesTold = 0
    /// What the file system of the state directory has room for; see CloudPlane+Space.swift.
    var stateSpace = StateSpace()
    /// Called when a session with home has begun, and when home says that the grants have changed.
    var onGrantsWanted: () -> Void = {}

    init(
        eventLoop: any EventLoop, threadPool: NIOThreadPool, target: StorageTargetServer,
        networkBlock: NetworkBlockServer? = nil, recorder: EventRecorder
    ) {
        self.eventLoop = eventLoop
        self.threadPool = threadPool
        self.target = target
        self.networkBlock = networkBlock
        self.recorder = recorder
    }

    // MARK: The link

    func install(_ link: PeerLink) {
        self.link = link
        link.onSessionStarted = { [unowned self] in
            for served in served.values { served.volume.linkSessionStarted() }
            onGrantsWanted()
        }
        link.onConnectivityChanged = { [unowned self] isConnected in
            recorder.record(
                isConnected ? "link.up" : "link.down", severity: isConnected ? .info : .warning,
                isConnected ? "the link to the on-prem edge is up" : "the link to the on-prem edge is down")
            for served in served.values { served.volume.linkConnectivityChanged(isConnected: isConnected) }
            if !isConnected, case .goodbye(PeerLink.revokedReason)? = link.endpoint.lastCloseReason { wasRevoked() }
        }
        link.onWritable = { [unowned self] in
            for served in served.values { served.volume.linkWritable() }
        }
        link.onNotice = { [unowned self] method in
            if method == ControlMethod.grantsChanged { onGrantsWanted() }
        }
        link.onMessage = { [unowned self] message in route(message) }
        ticker?.cancel()
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        ticker = eventLoop.scheduleRepeatedTask(initialDelay: Self.tickInterval, delay: Self.tickInterval) { _ in bound.value.tick() }
    }

    /// Nothing that is written here can go home any more: no machine may go on believing that it does.
    private func wasRevoked() {
        isRevoked = true
        recorder.record(
            "edge.revoked", severity: .error,
            "home has revoked this edge: its volumes are stopped; what is unsent stays in the write logs")
        for served in served.values {
            withdraw(served)
            served.volume.openRefused("home has revoked this edge")
        }
    }

    private func tick() {
        link?.tick()
        for served in served.values { served.volume.tick() }
        for entry in groups.values { tick(entry) }
        expireBrackets()
        saveCache()
        keepMarks()
        retireKeys()
        watchLockedMemory()
        watchSpace()
    }

    private func route(_ message: LinkMessage) {
        switch message {
        case .readData(let read, _, _), .readZeroes(let read, _, _), .readFailed(let read, _), .allocationReply(let read, _):
            servedByTag[UInt16(read >> 48)]?.volume.receive(message)
        case .pointReceived(let volume, _), .pointApplied(let volume, _), .pointRefused(let volume, _, _):
            served[volume]?.volume.receive(message)
        default: break
        }
    }

    // MARK: Volumes

    /// Reads the reservations of a granted volume, then opens its log, then the volume at home, then its target.
    func open(
        _ grant: VolumeGrant, identifier: VolumeIdentifier, directory: OpenDirectory, logSize: LogSize, regions: StoredRegions,
        policy: VolumePolicy, completion: @escaping (Result<Void, any Error>) -> Void
    ) {
        guard cache != nil, served[identifier] == nil else { return completion(.success(())) }
        guard let keys = grant.dataKeys else {
            return completion(.failure(Problem(status: 500, code: "no_key", title: "Home has sent no key of the volume")))
        }
        let file = ReservationFile(
            directory: directory, volume: identifier, keys: keys, eventLoop: eventLoop, threadPool: threadPool)
        file.load { [self] result in
            switch result {
            case .failure(let error): completion(.failure(error))
            case .success(let reservations):
                openLog(
                    grant, identifier: identifier, directory: directory, keys: keys, logSize: logSize, regions: regions, policy: policy,
                    reservations: (file, reservations), completion: completion)
            }
        }
    }

    private func openLog(
        _ grant: VolumeGrant, identifier: VolumeIdentifier, directory: OpenDirectory, keys: DataKeys, logSize: LogSize,
        regions: StoredRegions, policy: VolumePolicy, reservations: (file: ReservationFile, state: PersistentReservations?),
        completion: @escaping (Result<Void, any Error>) -> Void
    ) {
        guard served[identifier] == nil else { return completion(.success(())) }
        let local = LocalDirectory(directory, eventLoop: eventLoop, threadPool: threadPool)
        WriteLog.open(directory: local, volume: identifier, keys: keys, limits: logSize.limits, random: .system, now: .now()) {
            [self] result in
            switch result {
            case .failure(let error):
                completion(
                    .failure(
                        Problem(
                            status: 500, code: "write_log", title: "The write log can't be opened",
                            detail: "the write log of volume \(identifier): \(error.text)",
                            action: "free space or mend the disk under the state directory, then restart this edge")))
            case .success(let log):
                openRegions(regions, identifier: identifier, sectorCount: grant.sectorCount, keys: keys) { [self] result in
                    // The cache may have taken over from another one since.
                    guard case .success(let disk) = result, let cache else {
                        // The next attempt opens the log again.
                        return log.close { _ in completion(result.map { _ in () }) }
                    }
                    cache.attach(volume: identifier, key: keys.newestKey, generation: keys.newest)
                    serve(
                        grant, identifier: identifier, keys: keys, directory: directory, log: log,
                        disk: disk.map { ($0.disk, regions.table, $0.generation) },
                        logSize: logSize, cache: cache, policy: policy, reservations: reservations, completion: completion)
                }
            }
        }
    }

    private func serve(
        _ grant: VolumeGrant, identifier: VolumeIdentifier, keys: DataKeys, directory: OpenDirectory, log: WriteLog<LocalDirectory>,
        disk: (CloudOnlyDisk<LocalDirectory>, RegionTable, KeyGeneration)?, logSize: LogSize, cache: SecureCache<LocalDirectory>,
        policy: VolumePolicy,
        reservations: (file: ReservationFile, state: PersistentReservations?),
        completion: @escaping (Result<Void, any Error>) -> Void
    ) {
        guard let tag = freeTag() else {
            return completion(.failure(Problem(status: 503, code: "too_many_volumes", title: "This edge serves too many volumes")))
        }
        let volume = ServedVolume(
            identifier: identifier, routingTag: tag, sectorCount: grant.sectorCount, policy: policy, log: log, cache: cache,
            clock: { .now() })
        volume.uplink = { [unowned self] message, trafficClass, isBulk in
            link?.endpoint.send(message, class: trafficClass, bulk: isBulk) ?? false
        }
        volume.linkVersion = { [unowned self] in link?.endpoint.version ?? LinkVersion.newest }
        volume.gatherTurns(of: eventLoop)
        if let (disk, table, _) = disk { volume.attach(disk, table: table) }
        volume.preferredPieceBytes = { [unowned self] in link?.endpoint.preferredPieceBytes ?? 16 << 10 }
        let identity = LogicalUnitIdentity(
            uniqueHigh: Self.integer(grant.identity.prefix(8)), uniqueLow: Self.integer(grant.identity.suffix(8)), targetName: grant.target,
            isRemovable: grant.isRemovable ?? false)
        volume.isWriteProtected = grant.isReadOnly ?? false
        volume.isAwaitingGroup = grant.isGrouped ?? false
        let device = ServedDevice(volume, eventLoop: eventLoop)
        let number = LogicalUnitNumber(index: grant.logicalUnit ?? 0) ?? LogicalUnitNumber(rawValue: 0)
        let unit = LogicalUnit(device: device, identity: identity, number: number)
        unit.pace(by: eventLoop)
        keep(reservations, of: unit, grant: grant)
        let entry = Served(
            grant: grant, keys: keys, reservations: reservations.file, device: device, unit: unit, directory: directory)
        entry.cloudOnlyKeyGeneration = disk?.2
        reservations.file.use(keys)
        entry.ownLogBytes = logSize.ownBytes
        entry.logSizeBytes = logSize.limits.logBytesMax
        // Before its first point is larger than the file system has room for.
        stateSpace.lookedAt = nil
        entry.openWaiters.append(completion)
        volume.onEvent = { [weak self, weak entry] event in
            guard let self, let entry else { return }
            handle(event, of: entry)
        }
        served[identifier] = entry
        servedByTag[tag] = entry
        volume.linkConnectivityChanged(isConnected: link?.endpoint.isConnected ?? false)
        volume.linkSessionStarted()
    }

    private static func integer(_ bytes: some Sequence<UInt8>) -> UInt64 { bytes.reduce(0) { $0 << 8 | UInt64($1) } }

    private func freeTag() -> UInt16? {
        for _ in 0...UInt16.max {
            lastTag &+= 1
            if servedByTag[lastTag] == nil { return lastTag }
        }
        return nil
    }

    private func handle(_ event: VolumeEvent, of entry: Served) {
        let identifier = entry.volume.identifier.description
        switch event {
        case .needsOpen: openAtHome(entry)
        case .point: break
        case .fenced:
            withdraw(entry)
            recorder.record(
                "volume.fenced", subject: entry.grant.name, logSubject: identifier, severity: .error,
                "another edge has the lease on this volume; it is no longer served here")
        case .stopped(let reason):
            recorder.record("volume.stopped", subject: entry.grant.name, logSubject: identifier, severity: .error, reason)
        case .pointDelayed(let point, let refusal):
            // It is tried again each second; a minute of that is one event.
            if let last = entry.delayTold, last.refusal == refusal, NIODeadline.now() - last.at < .seconds(60) { return }
            entry.delayTold = (refusal, .now())
            recorder.record(
                "point.delayed", subject: entry.grant.name, logSubject: identifier, severity: .warning,
                "home could not take point \(point) (\(refusal)); it is sent again until it can: look at the on-prem edge")
        case .logObstructed(let obstacle): logObstructed(entry, obstacle)
        case .logUnobstructed(let time): logUnobstructed(entry, after: time)
        case .cacheFailed: cacheFailed()
        case .logFilling(let fill): logFills(entry, fill)
        case .logEased(let fill): logEased(entry, fill)
        case .imaged(let range): imaged(range, of: entry)
        case .logFull:
            recorder.record(
                "log.full", subject: entry.grant.name, logSubject: identifier, severity: .warning,
                "the write log is full: writers wait until the link has carried points home")
        }
    }

    /// Asks home to open the volume for this process; called for each new session.
    private func openAtHome(_ entry: Served) {
        // One at a time: a lost session fails the call that is out, and the new session asks again.
        guard !entry.isOpening, let link, let body = try? ControlCoding.encode(entry.volume.openRequest(incarnation: incarnation)) else {
            return
        }
        entry.isOpening = true
        link.call(ControlMethod.open, body: body, timeout: .seconds(30)) { [weak self, weak entry] result in
            guard let self, let entry else { return }
            entry.isOpening = false
            do {
                let reply = try ControlCoding.decode(VolumeOpenReply.self, from: result.get())
                entry.volume.opened(reply)
                opened(entry)
            } catch let problem as Problem where problem.status == 409 {
                // History split, or the volume is no longer this edge's: trying again can't help.
                entry.volume.openRefused(problem.detail ?? problem.title)
                answerWaiters(of: entry, .failure(problem))
            } catch {
                // The link, or home's disk for now: the volume asks again by itself.
                answerWaiters(of: entry, .failure(error))
            }
        }
    }

    private func opened(_ entry: Served) {
        entry.wasOpened = true
        if entry.mayBeExported { export(entry) }
        answerWaiters(of: entry, .success(()))
    }

    private func answerWaiters(of entry: Served, _ result: Result<Void, any Error>) {
        let waiters = entry.openWaiters
        entry.openWaiters = []
        for waiter in waiters { waiter(result) }
    }

    /// True when all volumes are there that this edge is to serve: what is unknown then will not come.
    func setReady(_ isReady: Bool) {
        target.isReady = isReady
        networkBlock?.isReady = isReady
    }

    func entry(named name: String) -> Served? { served.values.first { $0.grant.name == name } }

    /// Takes the target away, brings every write home, and holds the volume so until home takes the grant back.
    func release(_ entry: Served, completion: @escaping (Result<Void, any Error>) -> Void) {
        if entry.volume.hasCloudOnlyWrites {
            return completion(.failure(Problem.hasCloudOnlyWrites(of: entry.volume, name: entry.grant.name)))
        }
        entry.isReleasing = true
        withdraw(entry) { [self] in
            entry.volume.seal(until: .applied) { [self] result in
                if case .failure(let error) = result {
                    resume(entry)
                    return completion(.failure(Problem(describing: error, volume: entry.grant.name)))
                }
                // Home may have given up waiting meanwhile, and the volume may be served again.
                guard entry.isReleasing, !entry.isExported else { return completion(.failure(Problem.notOpenHere)) }
                if entry.volume.hasCloudOnlyWrites {
                    // Written after the look above, while the target was being withdrawn.
                    resume(entry)
                    return completion(.failure(Problem.hasCloudOnlyWrites(of: entry.volume, name: entry.grant.name)))
                }
                guard entry.volume.isAllHome else { return completion(.failure(Problem.notOpenHere)) }
                completion(.success(()))
            }
        }
    }

    /// Home has kept the grant after all: the volume is served again.
    func resume(_ entry: Served) {
        entry.isReleasing = false
        if entry.wasOpened, entry.volume.isServable { export(entry) }
    }

    /// Lets go of a volume whose grant is gone.
    func close(_ identifier: VolumeIdentifier, completion: @escaping () -> Void) {
        guard let entry = served.removeValue(forKey: identifier) else { return completion() }
        servedByTag = servedByTag.filter { $0.value !== entry }
        takeFromGroup(entry.volume)
        withdraw(entry) { [self] in
            entry.volume.close(reason: "the volume was detached") { [self] in
                cache?.detach(volume: identifier)
                completion()
            }
        }
    }

    /// Stops serving, flushes the logs and closes them. What is unsent stays in them for the next start.
    func stop(completion: @escaping () -> Void) {
        isStopping = true
        ticker?.cancel()
        for entry in served.values { entry.device.limit(nil) }
        stopFrontEnds { [self] in
            let entries = Array(served.values)
            var remaining = entries.count + 1
            let done = { [self] in
                remaining -= 1
                if remaining > 0 { return }
                guard let cache else { return completion() }
                cache.close { _ in completion() }
            }
            for entry in entries { entry.volume.close(reason: "this edge is stopping", completion: done) }
            done()
        }
    }
}
