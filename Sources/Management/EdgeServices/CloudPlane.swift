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
import Tunnels
import Volumes
import WriteLog

/// The data plane of the cloud edge: the target, the volumes, their logs and the cache, all on one event loop.
final class CloudPlane {
    typealias ServedVolume = ServedDevice.LocalVolume

    /// A volume that this edge has the grant for.
    final class Served {
        var grant: VolumeGrant
        /// What its initiators prove to know.
        var credentials: CHAPCredentials
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
        /// The target, or the unit in it, is being taken away, and who waits for the end of that; it goes up again then, if it may.
        var isWithdrawing = false
        var withdrawWaiters: [() -> Void] = []
        var exportsWhenWithdrawn = false
        /// The volume is being given back: nobody may write any more. Which grants were asked for last when that began; nil while it is not.
        var releasedAfterGrants: UInt64?
        var isReleasing: Bool { releasedAfterGrants != nil }
        /// The last delay of a point that was told.
        var delayTold: (refusal: PointRefusal, at: NIODeadline)?
        /// When it was told last that the log is full.
        var logFullToldAt: NIODeadline?
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
            grant: VolumeGrant, secrets: VolumeSecrets, reservations: ReservationFile, device: ServedDevice, unit: LogicalUnit,
            directory: OpenDirectory
        ) {
            self.grant = grant
            keys = secrets.keys
            credentials = secrets.credentials
            self.reservations = reservations
            self.directory = directory
            volume = device.volume
            self.device = device
            self.unit = unit
        }
    }

    /// How often time passes for the volumes.
    static let tickInterval: TimeAmount = .milliseconds(50)
    /// What comes again and again while something lasts is told this often.
    static let retellInterval: TimeAmount = .seconds(60)

    let eventLoop: any EventLoop
    let threadPool: NIOThreadPool
    let target: StorageTargetServer
    /// The same volumes over NBD; nil when that is not configured.
    let networkBlock: NetworkBlockServer?
    let recorder: EventRecorder
    /// Random, new for each start: home tells by it whether the process is still the same.
    let incarnation = UInt64.random(in: 1 ... .max)
    /// What home has of what points bring it; nil when nothing is referred to.
    let homeBlocks: PeerBlocks?
    private var withdrawals: [LinkMessage] = []
    /// More volumes than that do not go while home waits for their points.
    private static let withdrawalsMax = 1_024
    private(set) var link: PeerLink?
    /// What home has told of the services that are reached over the link, and what their connections may take of memory.
    var tunnelSettings: [TunnelSettings] = []
    let tunnelBudget: WindowBudget
    /// What is sent at most, by peers; an edge that joins anew may have another one.
    private var shapings: [String: LinkShaping] = [:]
    private(set) var isRevoked = false
    /// The cache, or one that stands in for it; nil until home has sent its key. See CloudPlane+Cache.swift.
    var cache: SecureCache<LocalDirectory>?
    var cacheChanges = CacheChanges()
    /// What volumes have read of it, those that are served no more among them.
    var cacheTally = CacheTally()
    /// What the cache's own records, and how it is divided, are sealed under.
    var cacheKey: SecretKey?
    var cacheTrouble: CacheTrouble?
    /// The volumes that home has granted, also those that it or this edge can't serve for now; nil until home has told.
    var granted: Set<VolumeIdentifier>?
    private(set) var served: [VolumeIdentifier: Served] = [:]
    /// How often home was asked for its grants.
    var grantsAsked: UInt64 = 0
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
    var cacheDamage = CacheDamageNotice()
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
    /// A minute of the link home is over.
    var onMinute: (_ peer: String, LinkHistory.Sample) -> Void = { _, _ in }

    init(
        eventLoop: any EventLoop, threadPool: NIOThreadPool, target: StorageTargetServer,
        networkBlock: NetworkBlockServer? = nil, recorder: EventRecorder, sentBlocks: SentBlocks? = nil,
        tunnelBudget: WindowBudget = WindowBudget(byteCountMax: 0)
    ) {
        self.tunnelBudget = tunnelBudget
        self.eventLoop = eventLoop
        self.threadPool = threadPool
        self.target = target
        self.networkBlock = networkBlock
        self.recorder = recorder
        homeBlocks = sentBlocks.map { PeerBlocks(table: $0, salt: 0) }
    }

    // MARK: The link

    /// Limits what is sent home, over this link and those that come after it.
    func shape(_ shapings: [String: LinkShaping]) {
        self.shapings = shapings
        if let link { link.shaping = shapings[link.peer] ?? LinkShaping() }
    }

    func install(_ link: PeerLink) {
        link.blocks = homeBlocks
        // With a new certificate the link goes on as another one.
        if let earlier = self.link, earlier.peer == link.peer { link.history = earlier.history }
        self.link?.tunnels?.stop()
        link.tunnels = makeTunnels()
        link.onMinute = { [unowned self, peer = link.peer] in onMinute(peer, $0) }
        self.link = link
        link.shaping = shapings[link.peer] ?? LinkShaping()
        link.onSessionStarted = { [unowned self] in
            for served in served.values { served.volume.linkSessionStarted() }
            onGrantsWanted()
        }
        link.onConnectivityTold = { [recorder] in recorder.record(link: $0, peer: "the on-prem edge") }
        link.onConnectivityChanged = { [unowned self] isConnected in
            for served in served.values { served.volume.linkConnectivityChanged(isConnected: isConnected) }
        }
        link.onWritable = { [unowned self] in
            sendWithdrawals()
            for served in served.values { served.volume.linkWritable() }
        }
        link.onTurn = { [unowned self] volume in served[volume]?.volume.linkWritable() }
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
        tunnelSettings = []
        link?.tunnels?.stop()
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
        // Home says it when it ends the link, or to an edge that comes again.
        if let link, !isRevoked, !link.endpoint.isConnected, case .goodbye(PeerLink.revokedReason)? = link.endpoint.lastCloseReason {
            wasRevoked()
        }
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
        case .readData(let read, _, _), .readZeroes(let read, _, _), .readReferences(let read, _, _, _, _), .readFailed(let read, _),
            .allocationReply(let read, _):
            servedByTag[UInt16(read >> 48)]?.volume.receive(message)
        case .pointPieceRequest(let volume, let point, _):
            if let served = served[volume] { return served.volume.receive(message) }
            if withdrawals.count < Self.withdrawalsMax { withdrawals.append(.pointWithdrawn(volume: volume, point: point)) }
            sendWithdrawals()
        case .pointReceived(let volume, _), .pointApplied(let volume, _), .pointRefused(let volume, _, _):
            served[volume]?.volume.receive(message)
        default: break
        }
    }

    /// Volumes that are served no more have no one to tell home that it waits in vain.
    private func sendWithdrawals() {
        while let message = withdrawals.last, link?.endpoint.send(message, class: .demand) ?? true { withdrawals.removeLast() }
    }

    // MARK: Volumes

    /// A number for the answers to a volume's reads; nil when all are taken.
    func freeTag() -> UInt16? {
        for _ in 0...UInt16.max {
            lastTag &+= 1
            if servedByTag[lastTag] == nil { return lastTag }
        }
        return nil
    }

    func add(_ entry: Served, tag: UInt16) {
        served[entry.volume.identifier] = entry
        servedByTag[tag] = entry
    }

    func remove(_ identifier: VolumeIdentifier) -> Served? {
        guard let entry = served.removeValue(forKey: identifier) else { return nil }
        homeBlocks?.forget(identifier)
        countReads(of: entry)
        cacheTally.forget(identifier)
        servedByTag = servedByTag.filter { $0.value !== entry }
        return entry
    }

    /// True when all volumes are there that this edge is to serve: what is unknown then will not come.
    func setReady(_ isReady: Bool) {
        target.isReady = isReady
        networkBlock?.isReady = isReady
    }

    func entry(named name: String) -> Served? { served.values.first { $0.grant.name == name } }

    /// Stops serving, flushes the logs and closes them. What is unsent stays in them for the next start.
    func stop(completion: @escaping () -> Void) {
        isStopping = true
        ticker?.cancel()
        link?.tunnels?.stop()
        for entry in served.values { entry.device.limit(nil) }
        stopFrontEnds { [self] in
            let entries = Array(served.values)
            var remaining = entries.count + 1
            let done = { [self] in
                remaining -= 1
                if remaining > 0 { return }
                endCacheChanges { [self] in
                    guard let cache else { return completion() }
                    cache.close { _ in completion() }
                }
            }
            for entry in entries { entry.volume.close(reason: "this edge is stopping", completion: done) }
            done()
        }
    }
}
