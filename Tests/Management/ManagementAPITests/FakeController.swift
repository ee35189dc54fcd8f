import APIModels
import Foundation
import Hummingbird
import HummingbirdTesting
import Logging
import Synchronization
import Testing

@testable import ManagementAPI

/// An edge that holds its disks and volumes in memory.
final class FakeController: EdgeController {
    struct State {
        var disks: [String: Disk] = ["alpha": Samples.disk]
        var volumes: [String: Volume] = ["mail": Samples.volume]
        var revoked: [String] = []
        var creations = 0
        var healthy = true
        var failure: (any Error)?
        var sealed = SealResult.State.applied
    }

    let events = EventLog(startingAfter: 100, limit: 20)
    let state = Mutex(State())

    struct DiskFull: Error {}

    func problem(of error: any Error) -> Problem? {
        error is DiskFull ? Problem(status: 507, code: "no_space", title: "There is no room", detail: "the disk is full") : nil
    }

    func edge() async throws -> EdgeStatus {
        if let failure = state.withLock({ $0.failure }) { throw failure }
        return Samples.edge
    }

    func health() async -> Health {
        let healthy = state.withLock { $0.healthy }
        return Health(
            healthy: healthy, state: healthy ? .running : .degraded, problems: healthy ? [] : ["The state disk is full."])
    }

    func metrics() async -> [MetricSample] {
        [MetricSample("causeway_volumes", help: "Volumes.", kind: .gauge, value: 1)]
    }

    func edges() async throws -> [PeerEdge] { [Samples.peer] }
    func changeEdge(identifier: String, _ change: EdgeChange) async throws -> PeerEdge { Samples.peer }
    func tunnels() async throws -> [Tunnel] { [Samples.tunnel] }
    func tunnel(named name: String) async throws -> Tunnel { Samples.tunnel }
    func createTunnel(_ request: TunnelCreate) async throws -> Tunnel { Samples.tunnel }
    func deleteTunnel(named name: String) async throws {}
    func revokeEdge(identifier: String) async throws {
        guard identifier == Samples.peer.identifier else { throw APIError.notFound("edge", identifier) }
        state.withLock { $0.revoked.append(identifier) }
    }
    func links() async throws -> [Link] { [Samples.link] }

    func linkHistory(peer: String, seconds: Int, samples: Int) async throws -> LinkHistory {
        guard peer == Samples.link.peer else { throw APIError.notFound("link", peer) }
        var history = Samples.history
        history.stepSeconds = seconds / samples
        return history
    }

    func changeLink(peer: String, _ change: LinkChange) async throws -> Link {
        guard peer == Samples.link.peer else { throw APIError.notFound("link", peer) }
        var link = Samples.link
        link.shaping.rates = change.rates ?? link.shaping.rates
        link.shaping.schedule = (change.schedule ?? link.shaping.schedule) + (change.append ?? [])
        return link
    }
    func disks() async throws -> [Disk] { state.withLock { Array($0.disks.values) } }
    func disk(named name: String) async throws -> Disk {
        guard let disk = state.withLock({ $0.disks[name] }) else { throw APIError.notFound("disk", name) }
        return disk
    }
    func createDisk(_ request: DiskCreate) async throws -> Disk {
        try state.withLock { state in
            if state.disks[request.name] != nil { throw APIError.exists("disk", request.name) }
            let disk = Disk(
                name: request.name, path: request.path, kind: .file, sizeBytes: 4_096, state: .available,
                readOnly: request.readOnly ?? false)
            state.disks[request.name] = disk
            state.creations += 1
            return disk
        }
    }
    func changeDisk(named name: String, _ change: DiskChange) async throws -> Disk {
        var disk = try await disk(named: name)
        guard change.sizeBytes >= disk.sizeBytes else {
            throw APIError.conflict("disk_shrink", "A disk does not shrink", detail: "it has more bytes", action: "make it larger")
        }
        disk.sizeBytes = change.sizeBytes
        return disk
    }
    func rescanDisk(named name: String) async throws -> Disk { try await disk(named: name) }
    func deleteDisk(named name: String) async throws {
        guard state.withLock({ $0.disks.removeValue(forKey: name) }) != nil else { throw APIError.notFound("disk", name) }
    }
    func volumes() async throws -> [Volume] { state.withLock { Array($0.volumes.values) } }
    func volume(named name: String) async throws -> Volume {
        guard let volume = state.withLock({ $0.volumes[name] }) else { throw APIError.notFound("volume", name) }
        return volume
    }
    func createVolume(_ request: VolumeCreate) async throws -> Volume {
        state.withLock { state in
            let volume = Volume(name: request.name, identifier: "00ff", disk: request.disk, state: .detached, sizeBytes: 4_096)
            state.volumes[request.name] = volume
            return volume
        }
    }
    func regions(ofVolume name: String) async throws -> VolumeRegions {
        _ = try await volume(named: name)
        return Samples.regions
    }
    func changeRegions(ofVolume name: String, _ change: RegionChange) async throws -> VolumeRegions {
        var regions = try await regions(ofVolume: name)
        if let policy = change.policy, change.startBytes == nil { regions.defaultPolicy = policy == .cloudOnly ? .cloudOnly : .onPrem }
        return regions
    }
    func changeVolume(named name: String, _ change: VolumeChange) async throws -> Volume {
        var volume = try await volume(named: name)
        if let limits = change.limits { volume.limits = limits.isEmpty ? nil : limits }
        if let readOnly = change.readOnly { volume.readOnly = readOnly }
        if let policy = change.policy { volume.policy = policy }
        if let size = change.writeLogSizeBytes { volume.writeLog = .init(sizeBytes: size, isOwnSize: size > 0) }
        state.withLock { $0.volumes[name] = volume }
        return volume
    }
    func deleteVolume(named name: String) async throws {
        guard state.withLock({ $0.volumes.removeValue(forKey: name) }) != nil else { throw APIError.notFound("volume", name) }
    }
    func attachVolume(named name: String, _ request: AttachRequest) async throws -> Volume {
        var volume = try await volume(named: name)
        volume.state = request.edge == "slow" ? .attaching : .serving
        return volume
    }
    func detachVolume(named name: String, force: Bool, toPoint point: UInt64?) async throws -> DetachResult {
        DetachResult(volume: try await volume(named: name).name, unsentBytes: force ? 512 : 0, forced: force, point: point)
    }
    func points(ofVolume name: String) async throws -> KeptPoints {
        _ = try await volume(named: name)
        return Samples.points
    }
    func content(ofVolume name: String, at point: UInt64) async throws -> any PointContent {
        _ = try await volume(named: name)
        return FakeContent(byteCount: 3 << 20, endsAt: point == 6 ? 2 << 20 : .max)
    }
    func beginBracket(_ subject: BracketSubject, _ request: BracketCreate) async throws -> Bracket {
        Bracket(name: subject.name, state: .open)
    }
    func bracket(_ subject: BracketSubject) async throws -> Bracket { Bracket(name: subject.name, state: .open) }
    func sealBracket(_ subject: BracketSubject) async throws -> Bracket { Samples.bracket }
    func endBracket(_ subject: BracketSubject) async throws -> Bracket { Bracket(name: subject.name, state: .ended) }
    func cache() async throws -> EdgeCache { Samples.cache }
    func cacheShare(ofVolume name: String) async throws -> CacheShare {
        _ = try await volume(named: name)
        return Samples.cacheShare
    }
    func changeCacheShare(ofVolume name: String, _ change: CacheShareChange) async throws -> CacheShare {
        try await cacheShare(ofVolume: name)
    }
    func changeCache(_ change: CacheChange) async throws -> EdgeCache {
        var cache = Samples.cache
        cache.wantedSizeBytes = change.sizeBytes ?? cache.wantedSizeBytes
        // A smaller one takes a while.
        if cache.wantedSizeBytes > cache.sizeBytes { cache.sizeBytes = cache.wantedSizeBytes }
        return cache
    }
    func setCachePartition(named name: String, to byteCount: UInt64?) async throws -> EdgeCache {
        var cache = Samples.cache
        cache.partitions = byteCount.map { [CachePartition(name: name, sizeBytes: $0, heldBytes: 0)] } ?? []
        return cache
    }
    func groups() async throws -> [VolumeGroup] { [Samples.group] }
    func group(named name: String) async throws -> VolumeGroup {
        guard name == Samples.group.name else { throw APIError.notFound("group", name) }
        return Samples.group
    }
    func createGroup(_ request: GroupCreate) async throws -> VolumeGroup {
        VolumeGroup(name: request.name, identifier: "8", members: [], policy: request.policy ?? .init())
    }
    func changeGroup(named name: String, _ change: GroupChange) async throws -> VolumeGroup { try await group(named: name) }
    func deleteGroup(named name: String) async throws { _ = try await group(named: name) }
    func detachGroup(named name: String, force: Bool) async throws -> GroupDetachResult {
        GroupDetachResult(
            group: try await group(named: name).name, volumes: [try await detachVolume(named: "mail", force: force, toPoint: nil)],
            forced: force)
    }
    func sealGroup(named name: String, wait: SealResult.State, timeout: Duration) async throws -> GroupSealResult {
        GroupSealResult(group: try await group(named: name).name, point: 3, members: [.init(volume: "mail", point: 7)], state: wait)
    }
    func sealVolume(named name: String, wait: SealResult.State, timeout: Duration) async throws -> SealResult {
        SealResult(volume: try await volume(named: name).name, point: 7, state: min(wait, state.withLock { $0.sealed }))
    }
    func credentials(ofVolume name: String) async throws -> VolumeCredentials {
        _ = try await volume(named: name)
        return Samples.credentials
    }
    func exportRecoveryKeys(ofVolume name: String?) async throws -> RecoveryKeys {
        guard let name else { return Samples.recoveryKeys }
        return RecoveryKeys(
            exportedAt: Samples.time, onPremEdge: "1f3a",
            volumes: [
                .init(volume: try await volume(named: name).name, identifier: "i", disk: "d", sectorCount: 8, dataKey: Data(count: 32))
            ])
    }
    func shredVolume(named name: String, force: Bool) async throws -> ShredResult {
        ShredResult(volume: try await volume(named: name).name, destroyedGenerations: [2], edgeTold: true, unsentBytes: force ? nil : 0)
    }
    func rotateKey(ofVolume name: String) async throws -> KeyRotation {
        KeyRotation(volume: try await volume(named: name).name, generation: 3, inForce: state.withLock { $0.sealed } != .sealed)
    }
    func dataKeys() async throws -> [DataKey] { Samples.keys }
    func masterKey() async throws -> MasterKeyInfo { MasterKeyInfo(madeAt: Samples.time, wrappedKeys: 2) }
    func rotateMasterKey() async throws -> MasterKeyInfo { try await masterKey() }
    func createPairingToken(_ request: PairingTokenCreate) async throws -> PairingToken {
        PairingToken(token: "abc", expiresAt: Samples.time + Double(request.validSeconds ?? 3_600))
    }
    func join(_ request: JoinRequestBody) async throws -> PeerEdge { Samples.peer }
}

/// An edge that leaves out everything that a role may leave out.
struct BareController: EdgeController {
    let events = EventLog()
    func edge() async throws -> EdgeStatus { Samples.edge }
    func health() async -> Health { Health(healthy: true, state: .running) }
    func metrics() async -> [MetricSample] { [] }
}

/// One value of each model with every field set, and one with as few as it can have.
enum Samples {
    static let time = Date(timeIntervalSince1970: 1_764_115_200.25)
    static let edge = EdgeStatus(
        name: "harbour", identifier: "1f3a", role: .onprem, version: "0.1.0", startedAt: time, state: .running,
        stateDirectory: "/state",
        addresses: .init(api: "127.0.0.1:1", link: "127.0.0.1:2", iscsi: ["127.0.0.1:3"]), warnings: ["w"])
    static let tunnel = Tunnel(
        name: "ldap", edge: "77", direction: .toHome, listen: "10.0.0.5:389", connect: "ldap:389", precedence: .interactive,
        allow: ["10.0.0.0/8"], state: .listening, message: "m", connections: 1, connectionsTotal: 2, refusedTotal: 3, sentBytes: 4,
        receivedBytes: 5)
    static let peer = PeerEdge(
        identifier: "77", name: "cloud", role: .cloud, connected: true, pairedAt: time, lastSeen: time, address: "w:1")
    static let link = Link(
        peer: "77", state: .up, connections: 2, roundTripMilliseconds: 40.5, baseRoundTripMilliseconds: 40, lastError: "reset",
        traffic: [.init(trafficClass: "demand", sentBytes: 1, sentWireBytes: 2, receivedBytes: 3, receivedWireBytes: 4)],
        reconnects: 1, connectionsLost: 8,
        line: .init(
            lossShare: 0.01, lossy: true, bytesPerSecond: 12_500_000, windowBytes: 7, inFlightBytes: 8, queuedBytes: 9,
            retransmittedBytes: 10, copiedFrames: 11),
        since: time, shaping: shaping, ratesInForce: rates,
        deduplication: .init(referredBytes: 5, wrongBytes: 6))
    static let rates = LinkRates(
        totalBytesPerSecond: 10_001, demandBytesPerSecond: 10_002, writeBehindBytesPerSecond: 10_003)
    static let shaping = LinkShaping(
        rates: rates, schedule: [.init(days: [.monday, .sunday], from: "08:00", until: "18:00", rates: rates)])
    static let period = LinkShaping.Period(days: [.monday], from: "08:00", until: "18:00")
    static let disk = Disk(
        name: "alpha", path: "/disks/alpha", kind: .file, sizeBytes: 1 << 30, state: .inUse, usedBy: "mail", message: "m")
    static let volume = Volume(
        name: "mail", identifier: "00ab", disk: "alpha", edge: "77", state: .serving, message: "m", sizeBytes: 1 << 30,
        target: .init(name: "mail", iqn: "iqn.2026-01.com.example:mail", portals: ["127.0.0.1:3260"], chapUser: "u", mutual: true),
        url: "iscsi://u%SECRET@127.0.0.1:3260/iqn.2026-01.com.example:mail/0", nbdURL: "nbd://127.0.0.1:10809/mail", generation: 3,
        points: .init(lastSealed: 9, received: 8, applied: 7, appliedConsistency: .application, appliedLabel: "l"),
        unsent: .init(bytes: 1, points: 1, oldestSeconds: 0.5),
        writeLog: .init(usedBytes: 1, sizeBytes: 2, isOwnSize: true, fullInSeconds: 0.5, waitedWrites: 3, waitSeconds: 0.25, indexBytes: 4),
        cache: .init(), cloudOnlyBytes: 4_096, keeping: .init(points: 12), limits: limits, throttle: .init(), readOnly: false,
        removable: true)
    static let points = KeptPoints(
        volume: "mail", keeping: .init(points: 12), onDisk: 7, past: [.init(point: 6, leftAt: time, bytes: 1_024, label: "nightly", cut: 3)]
    )
    static let limits = Volume.Limits(operationsPerSecond: 500, burstOperations: 2_000, bytesPerSecond: 50 << 20, burstBytes: 100 << 20)
    static let credentials = VolumeCredentials(
        user: "u", secret: "s3cret-s3cret", mutualUser: "m", mutualSecret: "other-secret",
        url: "iscsi://u%s3cret-s3cret@127.0.0.1:3260/iqn/0")
    static let cache = EdgeCache(
        path: "/cache", state: .running, message: "m", sizeBytes: 1 << 30, wantedSizeBytes: 1 << 30, blocks: 7, partitions: [])
    static let group = VolumeGroup(
        name: "mail", identifier: "9", members: [.init(volume: "mail", point: 7, received: 7, applied: 7)], policy: .init(),
        cut: .init(count: 1, lastSeconds: 0.0001, longestSeconds: 0.001))
    static let bracket = Bracket(
        name: "mail", state: .sealed, label: "l", point: 7, consistency: .application, remainingSeconds: 1, message: "m")
    static let recoveryKeys = RecoveryKeys(
        exportedAt: time, onPremEdge: "1f3a",
        volumes: [
            .init(
                volume: "mail", identifier: "00ab", disk: "alpha", sectorCount: 2_048, generation: 1, dataKey: Data(repeating: 7, count: 32)
            )
        ],
        caches: [.init(edge: "77", key: Data(repeating: 8, count: 32))])
    static let keys = [
        DataKey(volume: "mail", identifier: "00ab", generation: 1, state: .destroyed, madeAt: time, destroyedAt: time),
        DataKey(volume: "mail", identifier: "00ab", generation: 2, state: .active, madeAt: time),
    ]
    static let problem = Problem(
        status: 404, code: "c", title: "t", detail: "d", action: "a", instance: "/i", errors: [.init(field: "f", message: "m")])

    static let history = LinkHistory(
        peer: link.peer, stepSeconds: 1,
        samples: [
            .init(
                time: Date(timeIntervalSince1970: 1_700_000_000), seconds: 1, upSeconds: 1, roundTripMilliseconds: 40,
                longestRoundTripMilliseconds: 41, connections: 4, traffic: link.traffic)
        ])
    static let whole: [(String, any Encodable & Sendable)] = [
        ("EdgeStatus", edge), ("PeerEdge", peer), ("EdgeChange", EdgeChange(address: "w:1", dials: false)),
        ("Tunnel", tunnel), ("TunnelPage", Page(items: [tunnel], next: "n")),
        (
            "TunnelCreate",
            TunnelCreate(
                name: "n", edge: "e", direction: .toCloud, listen: "a:1", connect: "b:2", precedence: .bulk, allow: ["10.0.0.0/8"])
        ),
        ("PeerEdgePage", Page(items: [peer], next: "n")), ("Link", link),
        ("LinkChange", LinkChange(rates: rates, schedule: shaping.schedule, remove: [period], append: shaping.schedule)),
        ("LinkSchedulePeriod", period), ("LinkShaping", shaping), ("LinkRates", rates),
        ("LinkScheduleEntry", shaping.schedule[0]), ("LinkPage", Page(items: [link], next: "n")), ("LinkTraffic", link.traffic[0]),
        ("LinkDeduplication", Link.Deduplication(referredBytes: 1)), ("LinkLine", link.line ?? .init()),
        ("LinkHistory", history), ("LinkSample", history.samples[0]),
        ("Disk", disk),
        ("DiskPage", Page(items: [disk], next: "n")),
        ("DiskCreate", DiskCreate(name: "a", path: "/a", readOnly: true)), ("Volume", volume),
        ("VolumePage", Page(items: [volume], next: "n")),
        ("VolumeTarget", volume.target ?? .init(iqn: "")), ("VolumePoints", volume.points), ("VolumeUnsent", volume.unsent ?? .init()),
        ("VolumeWriteLog", volume.writeLog ?? .init()), ("VolumeCache", Volume.Cache()), ("VolumePolicy", volume.policy),
        ("VolumeLimits", limits), ("VolumeKeeping", Volume.Keeping(points: 12)), ("KeptPoints", points), ("PastPoint", points.past[0]),
        ("VolumeThrottle", Volume.Throttle()), ("VolumeIO", volume.io),
        ("VolumeCredentials", credentials),
        ("RecoveryKeys", recoveryKeys), ("RecoveryVolumeKey", recoveryKeys.volumes[0]), ("RecoveryCacheKey", recoveryKeys.caches[0]),
        ("DataKey", keys[0]), ("DataKeyPage", Page(items: keys, next: "n")), ("MasterKey", MasterKeyInfo(madeAt: time, wrappedKeys: 1)),
        ("KeyRotation", KeyRotation(volume: "mail", generation: 2, inForce: true)), ("ShredRequest", ShredRequest(force: true)),
        ("ShredResult", ShredResult(volume: "mail", destroyedGenerations: [1], edgeTold: true, unsentBytes: 0)),
        ("SealResult", SealResult(volume: "mail", point: 1, state: .sealed)), ("VolumeGroupPage", Page(items: [group], next: "n")),
        ("VolumeGroup", group), ("GroupMember", group.members[0]),
        ("GroupCut", VolumeGroup.Cut(count: 1, lastSeconds: 0.0001, longestSeconds: 0.001)),
        ("GroupSealResult", GroupSealResult(group: "mail", point: 2, members: [.init(volume: "mail", point: 1)], state: .sealed)),
        ("GroupSealMember", GroupSealResult.Member(volume: "mail", point: 1)),
        ("GroupDetachResult", GroupDetachResult(group: "mail", volumes: [.init(volume: "mail", unsentBytes: 0)], forced: false)),
        ("Bracket", bracket), ("BracketCreate", BracketCreate(label: "l", timeoutSeconds: 1)),
        ("GroupCreate", GroupCreate(name: "mail", volumes: ["mail"], policy: .init())),
        ("GroupChange", GroupChange(volumes: ["mail"], policy: .init())),
        ("DetachResult", DetachResult(volume: "mail", unsentBytes: 0, heldPoints: 2, point: 7)),
        ("EdgeCache", cache), ("CacheChange", CacheChange(sizeBytes: 1 << 30)),
        ("CachePartitionSize", CachePartitionSize(sizeBytes: 1 << 24)),
        ("CachePartition", CachePartition(name: "lab", sizeBytes: 1 << 24, heldBytes: 1)), ("CacheShare", cacheShare),
        ("CachePin", cacheShare.pins[0]),
        (
            "CacheShareChange",
            CacheShareChange(partition: "lab", guaranteedBytes: 1, mostBytes: 1 << 30, pin: cacheShare.pins, unpin: cacheShare.pins)
        ),
        ("VolumeRegions", regions), ("VolumeRegion", regions.regions[0]),
        (
            "RegionChange",
            RegionChange(startBytes: 4_096, sizeBytes: 8_192, policy: .cloudOnly, writes: .image, origin: .found)
        ),
        (
            "VolumeCreate",
            VolumeCreate(
                name: "v", disk: "d", edge: "e", target: "t", logicalUnit: 1, chap: chap, allowedInitiators: ["iqn.x"], policy: .init(),
                keeping: .init(points: 1), limits: limits, readOnly: true, removable: true, attach: true)
        ),
        (
            "VolumeChange",
            VolumeChange(policy: .init(), keeping: .init(points: 1), limits: limits, readOnly: true, writeLogSizeBytes: 1 << 30)
        ),
        ("DiskChange", DiskChange(sizeBytes: 1 << 30)),
        ("Chap", chap), ("AttachRequest", AttachRequest(edge: "e")), ("DetachRequest", DetachRequest(force: true, toPoint: 6)),
        ("PairingTokenCreate", PairingTokenCreate(validSeconds: 60, connect: "w:1")),
        ("PairingToken", PairingToken(token: "t", expiresAt: time)),
        ("JoinRequestBody", JoinRequestBody(token: "t", name: "n", connect: "h:1")), ("Event", event),
        ("EventPage", Page(items: [event], next: "n")),
        ("Health", Health(healthy: false, state: .degraded, problems: ["p"])), ("Problem", problem),
        ("InvalidField", Problem.InvalidField(field: "f", message: "m")),
        ("APIToken", APIToken(name: "n", fingerprint: "f", createdAt: time)),
    ]

    static let smallest: [(String, any Encodable & Sendable)] = [
        ("EdgeStatus", EdgeStatus(name: "n", identifier: "", role: .cloud, version: "0", startedAt: time, state: .starting)),
        ("Tunnel", Tunnel(name: "n", direction: .toCloud, precedence: .bulk, state: .waiting)),
        ("TunnelCreate", TunnelCreate(name: "n", edge: "e", listen: "a:1", connect: "b:2")),
        ("PeerEdge", PeerEdge(identifier: "i", name: "n", role: .onprem, connected: false, pairedAt: time)),
        ("Link", Link(peer: "p", state: .down, since: time)),
        ("Disk", Disk(name: "n", path: "", kind: .blockDevice, sizeBytes: 0, state: .missing)),
        ("DiskPage", Page<Disk>(items: [])), ("Volume", Volume(name: "n", identifier: "i", state: .detached, sizeBytes: 0)),
        ("VolumeTarget", Volume.Target(iqn: "q")), ("VolumeUnsent", Volume.Unsent()), ("VolumeWriteLog", Volume.WriteLog()),
        ("DiskCreate", DiskCreate(name: "a", path: "/a")),
        ("VolumeCreate", VolumeCreate(name: "v", disk: "d")), ("VolumeChange", VolumeChange()), ("VolumeLimits", Volume.Limits()),
        ("KeptPoints", KeptPoints(volume: "v", onDisk: 0)), ("PastPoint", PastPoint(point: 0, leftAt: time, bytes: 0)),
        ("Chap", VolumeCreate.Chap(user: "u", secret: "twelve-bytes")), ("GroupChange", GroupChange()),
        ("Bracket", Bracket(name: "v", state: .open)), ("BracketCreate", BracketCreate()),
        ("GroupCreate", GroupCreate(name: "g", volumes: [])),
        ("VolumeGroup", VolumeGroup(name: "g", identifier: "i", members: [], policy: .init())),
        ("GroupMember", VolumeGroup.Member(volume: "v", point: nil, received: 0, applied: 0)),
        ("VolumeCredentials", VolumeCredentials(user: "u", secret: "s")),
        ("DetachResult", DetachResult(volume: "v", unsentBytes: nil, forced: true)),
        ("EdgeCache", EdgeCache(path: "/c", state: .waiting)), ("CacheChange", CacheChange()),
        ("CachePartition", CachePartition(name: "lab", sizeBytes: 1, heldBytes: 0)), ("CacheShare", CacheShare(volume: "v")),
        ("CacheShareChange", CacheShareChange()),
        ("DataKey", keys[1]), ("MasterKey", MasterKeyInfo(madeAt: nil, wrappedKeys: 0)), ("ShredRequest", ShredRequest()),
        ("ShredResult", ShredResult(volume: "v", destroyedGenerations: [], edgeTold: nil, unsentBytes: nil)),
        ("RegionChange", RegionChange()), ("AttachRequest", AttachRequest()), ("DetachRequest", DetachRequest()),
        ("PairingTokenCreate", PairingTokenCreate()),
        ("JoinRequestBody", JoinRequestBody(token: "t")), ("Event", Event(sequence: 1, time: time, kind: "k", message: "m")),
        ("Problem", Problem(status: 500, code: "c", title: "t")), ("APIToken", APIToken(name: "n", fingerprint: "f")),
    ]

    static let chap = VolumeCreate.Chap(user: "u", secret: "twelve-bytes", mutualUser: "m", mutualSecret: "twelve-other")
    static let cacheShare = CacheShare(
        volume: "mail", partition: "lab", guaranteedBytes: 1 << 26, mostBytes: 1 << 30, pins: [.init(startBytes: 0, sizeBytes: 4_096)],
        pinnedBytes: 4_096, pinnedHeldBytes: 4_096, heldBytes: 8_192)
    static let regions = VolumeRegions(
        volume: "mail", defaultPolicy: .onPrem,
        regions: [.init(startBytes: 4_096, sizeBytes: 8_192, policy: .cloudOnly, origin: .operator, cloudOnlyBytes: 4_096)],
        regionsMax: 256, cloudOnlyBytes: 4_096, imaging: true)
    static let event = Event(sequence: 1, time: time, kind: "link.up", subject: "edge/77", message: "Up.", severity: .warning)
}

/// A disk whose every piece of a mebibyte has the number of the piece, until it breaks off.
struct FakeContent: PointContent {
    let byteCount: UInt64
    let endsAt: UInt64

    func read(at offset: UInt64, byteCount: Int) async throws -> ByteBuffer {
        if offset >= endsAt { throw APIError.conflict("broken", "It broke off", detail: "", action: "") }
        return ByteBuffer(repeating: UInt8(offset >> 20) + 1, count: byteCount)
    }
}

/// The API in memory, with one good token.
struct TestAPI {
    static let token = "a-token-of-enough-characters"
    let controller = FakeController()
    var openMetrics = false
    var logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

    func application(_ other: (any EdgeController)? = nil) -> some ApplicationProtocol {
        var options = ManagementServer.Options(host: "127.0.0.1", port: 0, version: "0.1.0")
        options.openMetrics = openMetrics
        return ManagementServer.application(
            options: options, controller: other ?? controller, tokens: BearerTokens([Self.token]), logger: logger)
    }

    /// Sends one request with the token.
    @discardableResult
    func send(
        _ method: HTTPRequest.Method, _ uri: String, _ body: String? = nil, headers: HTTPFields = [:],
        to other: (any EdgeController)? = nil
    ) async throws -> TestResponse {
        try await application(other).test(.router) { client in
            try await Self.send(client, method, uri, body, headers: headers)
        }
    }

    @discardableResult
    static func send(
        _ client: any TestClientProtocol, _ method: HTTPRequest.Method, _ uri: String, _ body: String? = nil,
        headers: HTTPFields = [:]
    ) async throws -> TestResponse {
        var all: HTTPFields = [.authorization: "Bearer \(token)"]
        if body != nil { all[.contentType] = "application/json" }
        for field in headers { all[field.name] = field.value.isEmpty ? nil : field.value }
        return try await client.execute(uri: uri, method: method, headers: all, body: body.map { ByteBuffer(string: $0) })
    }
}

extension TestResponse {
    func decode<Value: Decodable>(_ type: Value.Type = Value.self) throws -> Value {
        try APICoding.decoder().decode(type, from: Data(body.readableBytesView))
    }

    /// The problem document, when the answer is one of this status.
    func problem(_ status: Int) throws -> Problem {
        try #require(self.status.code == status)
        try #require(headers[.contentType] == "application/problem+json")
        let problem = try decode(Problem.self)
        #expect(problem.status == status)
        return problem
    }
}
