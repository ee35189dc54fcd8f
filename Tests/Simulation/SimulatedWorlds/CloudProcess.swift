import Blocks
import LinkProtocol
import NIOCore
import SecureCache
import SimulatedStorage
import Volumes

/// A cloud edge's process in a simulated world: its cache, its end of the link, its volumes.
final class CloudProcess {
    /// What a cache is made of, on an edge's machine.
    static let cacheDirectories = ["state", "cache"]

    private unowned let world: World
    private let edge: SimulatedEdge
    let end: LinkEnd
    /// What home has; few entries, so that some are forgotten.
    let homeBlocks = SentBlocks(byteCount: 4 << 10).map { PeerBlocks(table: $0, salt: 0) }
    private var cache: SecureCache<SimulatedDirectory>?
    private(set) var volumes: [ServedVolume] = []
    private var group: VolumeGroup<SimulatedDirectory>?
    private var isConnected = false
    private(set) var isDead = false
    private var lastCall: UInt64 = 0
    private var calls: [UInt64: (UInt16, ByteBuffer) -> Void] = [:]

    init(edge: SimulatedEdge, world: World) {
        self.world = world
        self.edge = edge
        end = LinkEnd(role: .initiator, scheduler: world.scheduler)
        edge.machine.directory("state").open("cache", create: true) { [weak self] result in
            guard let self, !isDead, case .success(let file) = result else { return }
            openCache(file)
        }
    }

    func die() {
        isDead = true
        world.tally.namedInPoints += homeBlocks?.statistics.referredBlocks ?? 0
        world.tally.namedInPointsInVain += homeBlocks?.statistics.wrongBlocks ?? 0
        end.die()
        for served in volumes { served.die() }
    }

    private func openCache(_ file: SimulatedFile) {
        SecureCache.open(
            file: file, directory: edge.machine.directory("cache"), byteCount: edge.cacheBytes, keys: world.cacheKeys(ofEdge: edge.number),
            limits: world.cacheLimits, division: edge.cacheDivision, random: world.scheduler.random.source
        ) { [weak self] result in
            guard let self, !isDead else { return }
            switch result {
            case .success(let opened):
                take(opened)
                if opened.isUnusable { openCacheLater(file) }
            // The file system is full.
            case .failure(.file(.noSpace)): openCacheLater(file)
            case .failure(let error): world.fail("the cache did not open: \(error)")
            }
        }
    }

    /// The daemon tries again until it can be opened.
    private func openCacheLater(_ file: SimulatedFile) {
        world.scheduler.schedule(after: .milliseconds(100)) { [weak self] in
            if self?.isDead == false { self?.openCache(file) }
        }
    }

    /// Begins with a cache, or with one that stands in for it; goes on with the one that was stood in for.
    private func take(_ opened: SecureCache<SimulatedDirectory>) {
        guard let standIn = cache else { return start(opened) }
        if opened.isUnusable { return opened.close { _ in } }
        opened.takeOver(from: standIn)
        for served in volumes { served.core?.replaceCache(opened) }
        standIn.close { _ in }
        cache = opened
        world.tally.standIns += 1
    }

    /// False when there is no cache to be resized, or when its division would not fit.
    func resizeCache(to byteCount: UInt64) -> Bool {
        changeCache { cache throws(CacheError) in try cache.resize(to: byteCount) }
    }

    /// Others need the rest of its file system.
    func boundCacheFile(bytesMax: UInt64) {
        _ = changeCache { cache throws(CacheError) in cache.boundFile(bytesMax: bytesMax) }
    }

    /// False when there is no cache to be divided, or when the division does not fit.
    func divideCache(_ division: CacheDivision) -> Bool {
        changeCache { cache throws(CacheError) in try cache.divide(division) }
    }

    private func changeCache(_ body: (SecureCache<SimulatedDirectory>) throws(CacheError) -> Void) -> Bool {
        guard let cache, !cache.isUnusable else { return false }
        checkCache()
        defer { checkCache() }
        do throws(CacheError) {
            try body(cache)
            return true
        } catch {
            guard case .division = error else {
                world.fail("the cache can't be changed: \(error)")
                return false
            }
            return false
        }
    }

    /// The cache's tables must agree.
    func checkCache() {
        if let fault = cache?.tableFault { world.fail("the cache's tables don't agree: \(fault)") }
    }

    /// The cache forgets a volume, which goes on without what was there: it is detached and comes back, or it gets another key. What stands in
    /// for a cache must not: a volume that is detached there does not come back under its identifier.
    func forgetInCache(_ volume: SimulatedVolume, changesKey: Bool) {
        guard let cache, !cache.isUnusable, let served = volumes.first(where: { $0.volume === volume && !$0.isFenced }), served.core != nil
        else { return }
        world.tally.forgotten += 1
        if changesKey { return volume.rotateKey() }
        cache.detach(volume: volume.identifier)
        cache.attach(volume: volume.identifier, key: volume.keys.all.newestKey, generation: volume.keys.all.newest)
    }

    /// A volume that another edge has by now is served here no more, and what the cache has of it is gone.
    func forgetShredded(_ volume: SimulatedVolume) {
        for served in volumes where served.volume === volume && served.isFenced { served.die() }
        volumes.removeAll { $0.volume === volume && $0.isFenced }
        cache?.detach(volume: volume.identifier)
        checkCache()
    }

    private func start(_ cache: SecureCache<SimulatedDirectory>) {
        self.cache = cache
        serve(world.volumes.filter { $0.edge == edge.number })
        end.onAction = { [weak self] action in self?.handle(action) }
        edge.line.cloudStarted(end)
    }

    /// Takes volumes that home has given to this edge. Before the cache is open that has time. Some can't be opened for a while.
    func serve(_ granted: [SimulatedVolume]) {
        if cache == nil { return }
        for volume in granted {
            grouped[volume.number] = volume.isInGroup
            guard volume.isInGroup, world.scheduler.random.chance(percent: 15) || volume.number == edge.lateVolume else {
                volumes.append(ServedVolume(volume, process: self, world: world))
                continue
            }
            late.append(volume)
            world.scheduler.schedule(microseconds: 50_000...1_500_000) { [weak self] in
                guard let self, !isDead, volume.edge == edge.number else { return }
                late.removeAll { $0 === volume }
                volumes.append(ServedVolume(volume, process: self, world: world))
            }
        }
        edge.lateVolume = nil
    }

    /// Which volumes are in the group, as home has told this process.
    private var grouped: [Int: Bool] = [:]
    /// Volumes of this edge that are not served yet.
    private var late: [SimulatedVolume] = []

    func isGrouped(_ volume: SimulatedVolume) -> Bool { grouped[volume.number] ?? false }

    /// Home has told of a change: a volume has left the group, or joined it.
    func membershipChanged() {
        learnMembership()
        group?.noteLastNumber(world.lastCutNumber)
        setMembers()
    }

    /// Home tells which volumes a group has together with the number of its last cut, as of one instant: the number alone is of the term
    /// that begins with a change, and cuts of the volumes before it would be counted there.
    private func learnMembership() {
        for volume in world.volumes where volume.edge == edge.number { grouped[volume.number] = volume.isInGroup }
    }

    /// The last cut that this process knows of; nil before there is a group, and before all logs have been read.
    var lastCutNumber: UInt64? { late.isEmpty && volumes.allSatisfy { $0.core != nil } ? group?.lastNumber : nil }

    /// True while the points of a cut are being made durable.
    var isSealingGroup: Bool { group?.isSealing ?? false }

    private func setMembers() {
        guard let group else { return }
        let members = volumes.filter { !$0.isFenced && isGrouped($0.volume) }
        let missing = members.filter { $0.core == nil }.map(\.volume) + late.filter { $0.edge == edge.number && isGrouped($0) }
        group.setMembers(members.compactMap(\.core), missing: Set(missing.map(\.identifier)))
        // What the logs know of earlier cuts is known when all of them have been read.
        for served in members where missing.isEmpty && served.volume.joinedAfter == .max { served.volume.joinedAfter = group.lastNumber }
        for served in volumes where served.core?.group == nil { served.core?.leaveGroup() }
    }

    /// The cache, which knows the volume from now on.
    func cache(for volume: SimulatedVolume) -> SecureCache<SimulatedDirectory> {
        guard let cache else { preconditionFailure("a volume is served when the cache is open") }
        cache.attach(volume: volume.identifier, key: volume.keys.all.newestKey, generation: volume.keys.all.newest)
        return cache
    }

    /// When all volumes have their logs, and home can be asked for the number of the last cut, they are a group.
    private func makeGroup(_ identifier: GroupIdentifier) {
        if isDead { return }
        if group != nil { return setMembers() }
        if volumes.contains(where: { $0.core == nil }) { return }
        guard let lastNumber = world.home?.lastCutNumber else {
            return world.scheduler.schedule(after: .milliseconds(20)) { [weak self] in self?.makeGroup(identifier) }
        }
        let random = world.scheduler.random
        let policy = GroupPolicy(recoveryPointObjective: .milliseconds(Int64(random.within(50...800))), sealBytes: 32 << 10)
        let group = VolumeGroup<SimulatedDirectory>(
            identifier: identifier, policy: policy, lastNumber: lastNumber, clock: { [scheduler = world.scheduler] in scheduler.now })
        self.group = group
        learnMembership()
        setMembers()
        tickGroup()
    }

    private func tickGroup() {
        if isDead { return }
        group?.tick()
        world.scheduler.schedule(after: .milliseconds(50)) { [weak self] in self?.tickGroup() }
    }

    /// The volume has its log: it may hear of the link.
    func isReady(_ served: ServedVolume) {
        if let identifier = world.group { makeGroup(identifier) }
        served.core?.linkConnectivityChanged(isConnected: isConnected)
        served.core?.linkSessionStarted()
    }

    /// Asks home to open a volume; only the last question of each volume is answered in the daemon too.
    func call(_ body: ByteBuffer, completion: @escaping (UInt16, ByteBuffer) -> Void) {
        lastCall += 1
        calls[lastCall] = completion
        _ = end.send(.request(call: lastCall, method: "open", body: body), .control, isBulk: false)
    }

    private func handle(_ action: LinkAction) {
        switch action {
        case .sessionStarted:
            calls.removeAll()
            end.turns.reset()
            for served in volumes { served.core?.linkSessionStarted() }
        case .connectivityChanged(let isConnected):
            self.isConnected = isConnected
            for served in volumes { served.core?.linkConnectivityChanged(isConnected: isConnected) }
        case .becameWritable(let trafficClass):
            end.turns.run(trafficClass) { number in volumes.first { $0.volume.number == number && !$0.isFenced }?.core?.linkWritable() }
            for served in volumes { served.core?.linkWritable() }
        case .deliver(.reply(let call, let status, let body), _): calls.removeValue(forKey: call)?(status, body)
        case .deliver(let message, _): served(message)?.core?.receive(message)
        case .closeConnection: break
        }
    }

    private func served(_ message: LinkMessage) -> ServedVolume? {
        switch message {
        case .readData(let read, _, _), .readZeroes(let read, _, _), .readReferences(let read, _, _, _, _), .readFailed(let read, _),
            .allocationReply(let read, _):
            return volumes.first { $0.volume.number + 1 == Int(read >> 48) }
        case .pointPieceRequest(let volume, _, _), .pointReceived(let volume, _), .pointApplied(let volume, _),
            .pointRefused(let volume, _, _):
            return volumes.first { $0.volume.identifier == volume }
        default: return nil
        }
    }
}
