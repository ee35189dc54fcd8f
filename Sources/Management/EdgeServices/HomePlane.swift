import APIModels
import Blocks
import Disks
import Foundation
import Link
import LinkProtocol
import LocalFiles
import Logging
import NIOCore
import NIOPosix
import Pairing
import ReadCache
import Tunnels
import Volumes

/// The data plane of the on-prem edge: the links to its cloud edges, and the disks they serve, all on one event loop.
final class HomePlane: LinkListenerDelegate {
    typealias Home = HomeVolume<CachedDisk<LocalDisk>, LocalDirectory>
    typealias Journal = PointJournal<CachedDisk<LocalDisk>, LocalDirectory>

    /// A disk that a cloud edge serves.
    final class Served {
        let volume: Home
        let cachedDisk: CachedDisk<LocalDisk>
        let threads: NIOThreadPool
        let edge: String

        var disk: LocalDisk { cachedDisk.disk }

        init(volume: Home, cachedDisk: CachedDisk<LocalDisk>, threads: NIOThreadPool, edge: String) {
            self.volume = volume
            self.cachedDisk = cachedDisk
            self.threads = threads
            self.edge = edge
        }

        /// Lets go of the disk, when its journal is closed.
        func close() {
            cachedDisk.close()
            HomePlane.end(threads)
        }
    }

    /// Threads for blocking operations of one disk: one that hangs holds its own, and no other disk's, and no journal's.
    private static let diskThreadCount = 8

    private static func end(_ threads: NIOThreadPool) { threads.shutdownGracefully { _ in } }

    /// A point that waits for the other disks of its group.
    struct Held {
        let point: PointNumber
        let since: NIODeadline
        var isTold = false
    }

    let eventLoop: any EventLoop
    let threadPool: NIOThreadPool
    let recorder: EventRecorder
    private(set) var peers: [String: PeerLink] = [:]
    private(set) var served: [VolumeIdentifier: Served] = [:]
    /// Volumes whose disks are being given back: no edge opens them any more, or what it sends would stand behind what was given up.
    private var closing: Set<VolumeIdentifier> = []
    /// Volumes of which it was told that their disks have no room.
    var fullDisksTold: Set<VolumeIdentifier> = []
    /// Which volumes are in which group; nil until the control plane has told.
    var membership: GroupMembership?
    /// Since when the first held point of a volume is held; see HomePlane+Groups.swift.
    var held: [VolumeIdentifier: Held] = [:]
    /// The volumes of each edge that want no more write-behind for now.
    private var holding: [String: Set<VolumeIdentifier>] = [:]
    /// The edges that are let in. The control plane keeps it true, so that a handshake needs no disk. Whoever shows a certificate of
    /// the authority for one of them is it: a renewal must not lock an edge out that dies before it has the answer.
    private(set) var trusted: Set<String> = []
    /// Those that were let in once and are no more.
    private var revoked: Set<String> = []
    private(set) var listener: LinkListener?
    /// Nil until this edge listens; see HomePlane+Dialling.swift.
    var dialingMeans: DialingMeans?
    /// What dials edges, by their identifiers, and those that were invited, by the hashes of their tokens.
    var dialers: [String: LinkDialer] = [:]
    var joinDialers: [String: JoinDialer] = [:]
    private var ticker: RepeatedTask?

    /// Answers a call of an edge; runs on the control plane.
    private let onRequest: @Sendable (_ edge: String, _ session: UInt64, _ method: String, _ body: ByteBuffer) async -> ControlAnswer
    /// Answers an edge that wants to join; runs on the control plane.
    private let onJoin: @Sendable (ByteBuffer) async -> ByteBuffer
    /// An edge has connected; runs on the control plane.
    private let onSeen: @Sendable (_ edge: String) async -> Void
    /// A minute of the link to an edge is over.
    var onMinute: (_ edge: String, LinkHistory.Sample) -> Void = { _, _ in }
    /// What each edge was sent of the disks; nil when nothing is referred to.
    private let sentBlocks: SentBlocks?
    /// What was read of the disks more than once; nil to read them each time.
    let readCache: ReadCache?
    private var peerBlocks: [String: PeerBlocks] = [:]
    /// The services that are reached over the links, by edge, and what their connections may take of memory.
    var tunnelSettings: [String: [TunnelSettings]] = [:]
    let tunnelBudget: WindowBudget
    /// What is sent to each edge at most.
    private var shapings: [String: LinkShaping] = [:]

    init(
        eventLoop: any EventLoop, threadPool: NIOThreadPool, recorder: EventRecorder, sentBlocks: SentBlocks?, readCache: ReadCache?,
        tunnelBudget: WindowBudget,
        onRequest: @escaping @Sendable (_ edge: String, _ session: UInt64, _ method: String, _ body: ByteBuffer) async -> ControlAnswer,
        onJoin: @escaping @Sendable (ByteBuffer) async -> ByteBuffer, onSeen: @escaping @Sendable (_ edge: String) async -> Void
    ) {
        self.eventLoop = eventLoop
        self.threadPool = threadPool
        self.recorder = recorder
        self.sentBlocks = sentBlocks
        self.readCache = readCache
        self.tunnelBudget = tunnelBudget
        self.onRequest = onRequest
        self.onJoin = onJoin
        self.onSeen = onSeen
    }

    // MARK: Links

    /// - Parameter connections: how many each link has that this edge dials.
    func listen(
        host: String, port: Int, credentials: LinkCredentials, congestionControl: CongestionControl, connections: Int, logger: Logger
    ) throws -> EventLoopFuture<SocketAddress> {
        let listener = try LinkListener(
            eventLoop: eventLoop, credentials: credentials, logger: logger, congestionControl: congestionControl)
        listener.delegate = self
        self.listener = listener
        dialingMeans = DialingMeans(credentials: credentials, connections: connections, logger: logger)
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        ticker = eventLoop.scheduleRepeatedTask(initialDelay: .seconds(1), delay: .seconds(1)) { _ in
            for peer in bound.value.peers.values { peer.tick() }
            bound.value.watchHeldPoints()
            bound.value.watchFullDisks()
        }
        return listener.start(host: host, port: port)
    }

    func trust(edge: String) { trusted.insert(edge) }

    /// Edges that are told that they were revoked when they come: an unknown one may be of a later state than this.
    func remember(revoked edges: Set<String>) { revoked.formUnion(edges) }

    /// Limits what is sent to edges, those included that are not connected yet.
    func shape(_ shapings: [String: LinkShaping]) {
        self.shapings = shapings
        for (edge, peer) in peers { peer.shaping = shapings[edge] ?? LinkShaping() }
    }

    /// Lets an edge in no more, and ends its link.
    func revoke(edge: String) {
        trusted.remove(edge)
        revoked.insert(edge)
        listener?.drop(PeerIdentity(edge), reason: PeerLink.revokedReason)
        dialers.removeValue(forKey: edge)?.stop()
        peers[edge]?.tunnels?.stop()
        peers[edge] = nil
        for served in served.values where served.edge == edge { served.volume.sessionLost() }
    }

    func linkListener(_ listener: LinkListener, authorize certificate: PeerCertificate) -> PeerIdentity? {
        edge(of: certificate).map { PeerIdentity($0) }
    }

    func linkListener(_ listener: LinkListener, farewellTo certificate: PeerCertificate) -> String? {
        guard let edge = (try? EdgeCertificate(der: certificate.der))?.edgeIdentifier, revoked.contains(edge) else { return nil }
        return PeerLink.revokedReason
    }

    /// The cloud edge that a certificate of the authority belongs to; nil when it is let in no more, or is none.
    func edge(of certificate: PeerCertificate) -> String? {
        guard let parsed = try? EdgeCertificate(der: certificate.der), parsed.role == .cloud, let edge = parsed.edgeIdentifier,
            trusted.contains(edge)
        else { return nil }
        return edge
    }

    func linkListener(_ listener: LinkListener, created link: LinkEndpoint, for peer: PeerIdentity) {
        let edge = peer.name
        let peerLink = PeerLink(peer: edge, endpoint: link, eventLoop: eventLoop)
        link.delegate = peerLink
        peers[edge] = peerLink
        peerLink.blocks = blocks(of: edge)
        peerLink.tunnels = makeTunnels()
        peerLink.tunnels?.set(tunnelSettings[edge] ?? [])
        peerLink.onShaped = { [recorder] in recorder.record(shaped: $0, peer: edge) }
        peerLink.shaping = shapings[edge] ?? LinkShaping()
        peerLink.onMinute = { [unowned self] in onMinute(edge, $0) }
        peerLink.onRequest = { [onRequest] session, method, body in await onRequest(edge, session, method, body) }
        peerLink.onSessionStarted = { [unowned self] in
            for served in served.values where served.edge == edge { served.volume.sessionLost() }
        }
        peerLink.onConnectivityChanged = { [unowned self] isConnected in
            recorder.record(
                isConnected ? "link.up" : "link.down", subject: edge, severity: isConnected ? .info : .warning,
                "the link to edge \(edge) is \(isConnected ? "up" : "down")")
            if isConnected { Task { [onSeen] in await onSeen(edge) } }
        }
        peerLink.onWritable = { [unowned self] in
            for served in served.values where served.edge == edge { served.volume.linkWritable() }
        }
        peerLink.onTurn = { [unowned self] volume in
            if let served = served[volume], served.edge == edge { served.volume.linkWritable() }
        }
        peerLink.onMessage = { [unowned self] message in route(message, from: edge, link: link) }
    }

    func linkListener(
        _ listener: LinkListener, join request: ByteBuffer, from address: SocketAddress?, reply: @escaping (ByteBuffer) -> Void
    ) {
        answerJoin(request, reply: reply)
    }

    func answerJoin(_ request: ByteBuffer, reply: @escaping (ByteBuffer) -> Void) {
        let bound = NIOLoopBound(reply, eventLoop: eventLoop)
        Task { [onJoin, eventLoop] in
            let answer = await onJoin(request)
            eventLoop.execute { bound.value(answer) }
        }
    }

    private func route(_ message: LinkMessage, from edge: String, link: LinkEndpoint) {
        switch message {
        case .readRequest(let read, let volume, _), .readPlainRequest(let read, let volume, _, _),
            .allocationRequest(let read, let volume, _):
            if let home = home(volume, of: edge) { return home.receive(message) }
            _ = link.send(.readFailed(read: read, status: .notOpen), class: .demand)
        case .pointBegin(let volume, _, let point):
            if let home = home(volume, of: edge) { return home.receive(message) }
            _ = link.send(.pointRefused(volume: volume, point: point, refusal: .notOpen), class: .control)
        case .pointAttributes(let volume, _, _), .pointData(let volume, _, _, _), .pointZeroes(let volume, _, _),
            .pointCommit(let volume, _, _, _), .pointReferences(let volume, _, _, _, _, _), .pointPiece(let volume, _, _, _),
            .pointWithdrawn(let volume, _):
            home(volume, of: edge)?.receive(message)
        default: break
        }
    }

    private func home(_ volume: VolumeIdentifier, of edge: String) -> Home? {
        served[volume].flatMap { $0.edge == edge ? $0.volume : nil }
    }

    // MARK: Disks and volumes

    /// Opens and locks a disk, brings it to its last received point, and serves it to an edge. A disk of less than
    /// `sectorCountMin`, which the edge knows it to have, has shrunk, and is not served.
    func serve(
        _ identifier: VolumeIdentifier, path: String, sectorCountMin: UInt64, journal: LocalDirectory, keeping: PointKeeping, edge: String,
        completion: @escaping (Result<UInt64, any Error>) -> Void
    ) {
        if let served = served[identifier] { return completion(.success(served.disk.sectorCount)) }
        let threads = NIOThreadPool(numberOfThreads: Self.diskThreadCount)
        threads.start()
        LocalDisk.open(path: path, eventLoop: eventLoop, threadPool: threads) { [self] result in
            switch result {
            case .failure(let error):
                Self.end(threads)
                completion(.failure(Problem(describing: error)))
            case .success(let disk) where disk.sectorCount < sectorCountMin:
                disk.close()
                Self.end(threads)
                let sectorBytes = UInt64(BlockGeometry.sectorBytes)
                completion(.failure(Problem.shrunk(path, from: sectorCountMin * sectorBytes, to: disk.sectorCount * sectorBytes)))
            case .success(let disk):
                let cachedDisk = CachedDisk(disk, cache: readCache)
                Journal.open(
                    disk: cachedDisk, sectorCount: disk.sectorCount, directory: journal, volume: identifier,
                    keeping: keeping,
                    wallClock: { UInt64(max(0, Date().timeIntervalSince1970 * 1_000)) }
                ) { [self] result in
                    switch result {
                    case .failure(let error):
                        cachedDisk.close()
                        Self.end(threads)
                        completion(.failure(Problem(describing: error, disk: path)))
                    case .success(let journal):
                        install(identifier, journal, cachedDisk, threads, edge)
                        completion(.success(disk.sectorCount))
                    }
                }
            }
        }
    }

    private func install(
        _ identifier: VolumeIdentifier, _ journal: Journal, _ disk: CachedDisk<LocalDisk>, _ threads: NIOThreadPool, _ edge: String
    ) {
        let volume = Home(identifier: identifier, journal: journal)
        volume.downlink = { [unowned self] message, trafficClass, isBulk in
            peers[edge]?.send(message, of: identifier, class: trafficClass, bulk: isBulk) ?? false
        }
        volume.preferredPieceBytes = { [unowned self] in peers[edge]?.endpoint.preferredPieceBytes ?? 16 << 10 }
        volume.linkVersion = { [unowned self] in peers[edge]?.endpoint.version ?? LinkVersion.oldest }
        volume.peerBlocks = blocks(of: edge)
        volume.readSource = { [unowned self] source, range, completion in
            guard let home = home(source, of: edge) else { return completion(nil) }
            home.sourceBlocks(range, completion: completion)
        }
        volume.onReceiving = { [unowned self] isReceiving in hold(identifier, of: edge, !isReceiving) }
        var lastRefusal: (refusal: PointRefusal, at: NIODeadline)?
        volume.onRefused = { [recorder] point, refusal in
            // The edge tries again each second; a minute of that is one event.
            if let last = lastRefusal, last.refusal == refusal, NIODeadline.now() - last.at < .seconds(60) { return }
            lastRefusal = (refusal, .now())
            recorder.record(
                "point.refused", subject: identifier.description, severity: .warning,
                "point \(point) could not be taken: \(Self.explanation(of: refusal))")
        }
        journal.onFailed = { [recorder, weak volume] error in
            volume?.journalStopped()
            recorder.record(
                "journal.failed", subject: identifier.description, severity: .error,
                "the point journal stopped: \(error); received points are kept and are applied when the disk opens again")
        }
        journal.onKeepingGivenUp = { [recorder] point, error in
            recorder.record(
                "points.not_kept", subject: identifier.description, severity: .warning,
                "what point \(point) has overwritten could not be kept: the points before it are given up (\(error))")
        }
        journal.onHeld = { [unowned self] in settleGroups() }
        if journal.keptPoints > 0 {
            recorder.record(
                "points.kept", subject: identifier.description, severity: .warning,
                "\(journal.keptPoints) points of the attachment before were held for its group and are on no disk: they are kept in the "
                    + "journal's directory as held-*.journal until you remove them")
        }
        served[identifier] = Served(volume: volume, cachedDisk: disk, threads: threads, edge: edge)
        settleGroups()
    }

    /// What an edge was sent, of all its volumes.
    func blocks(of edge: String) -> PeerBlocks? {
        guard let sentBlocks else { return nil }
        if let blocks = peerBlocks[edge] { return blocks }
        let blocks = PeerBlocks(table: sentBlocks, salt: UInt64(peerBlocks.count))
        peerBlocks[edge] = blocks
        return blocks
    }

    /// The journals of all disks that are served.
    var journals: [Journal] { served.values.map(\.volume.journal) }

    func journal(of identifier: VolumeIdentifier) -> Journal? { served[identifier]?.volume.journal }

    private static func explanation(of refusal: PointRefusal) -> String {
        switch refusal {
        case .noSpace: "there is no room for it now; free space in the state directory if this goes on"
        case .medium: "the disk or the journal failed"
        case .fenced: "its writer has lost the lease"
        case .notOpen: "the volume is not open"
        case .outOfSequence: "it is not the next one"
        case .damaged: "it did not arrive as it was sent"
        }
    }

    /// A volume wants no more write-behind for now, or again. The credit is the link's: it is held back while any volume wants that.
    private func hold(_ identifier: VolumeIdentifier, of edge: String, _ isHolding: Bool) {
        var volumes = holding[edge] ?? []
        if isHolding { volumes.insert(identifier) } else { volumes.remove(identifier) }
        holding[edge] = volumes
        peers[edge]?.endpoint.setReceiving(volumes.isEmpty, class: .writeBehind)
    }

    /// Lets go of a disk whose journal has stopped. What it has received stays in the journal's directory.
    func abandon(_ identifier: VolumeIdentifier) {
        guard let served = served.removeValue(forKey: identifier) else { return }
        peerBlocks[served.edge]?.forget(identifier)
        hold(identifier, of: served.edge, false)
        served.volume.sessionLost()
        served.volume.journal.close { served.close() }
    }

    /// What is known of a served volume.
    func progress(_ identifier: VolumeIdentifier) -> (position: PointPosition, sectorCount: UInt64, failure: String?)? {
        guard let served = served[identifier] else { return nil }
        var failure: String?
        if case .failed(let error) = served.volume.journal.state { failure = "\(error)" }
        return (served.volume.journal.position, served.disk.sectorCount, failure)
    }

    /// Ends what an earlier session of the volume left, so that its position is final.
    func prepareOpen(_ identifier: VolumeIdentifier, completion: @escaping (Result<PointPosition, any Error>) -> Void) {
        guard let served = served[identifier], served.volume.journal.state == .open, !closing.contains(identifier) else {
            return completion(.failure(Problem.notServed))
        }
        served.volume.sessionLost { completion(.success(served.volume.journal.position)) }
    }

    /// The lease is durable: takes points of this generation.
    func open(
        _ identifier: VolumeIdentifier, generation: LeaseGeneration, completion: @escaping (Result<PointPosition, any Error>) -> Void
    ) {
        guard let served = served[identifier], !closing.contains(identifier) else { return completion(.failure(Problem.notServed)) }
        served.volume.opened(generation: generation) { completion(.success($0)) }
    }

    /// Takes the lease away, applies what was received, and gives the disk back: at the last common point of its group, if it is in one.
    /// What is held is no part of that. It stays in the journal, and is an error when nothing may be `given up`.
    /// - Parameter completion: hears the last point on the disk, and how many are held.
    func close(
        _ identifier: VolumeIdentifier, givesUp: Bool, rollingBackTo past: PointNumber? = nil,
        completion closed: @escaping (Result<(applied: PointNumber, held: Int), any Error>) -> Void
    ) {
        guard let served = served[identifier], closing.insert(identifier).inserted else { return closed(.failure(Problem.notServed)) }
        let completion = { [self] (result: Result<(applied: PointNumber, held: Int), any Error>) in
            closing.remove(identifier)
            if case .failure = result { served.volume.sessionWasEnded() }
            closed(result)
        }
        let journal = served.volume.journal
        endSessions([identifier]) {
            journal.whenAgreedApplied { [self] result in
                let position: PointPosition
                switch result {
                case .failure(let error): return completion(.failure(Problem(describing: error, disk: served.disk.path)))
                case .success(let reached): position = reached
                }
                let heldCount = journal.heldPoints.count
                if heldCount > 0, !givesUp { return completion(.failure(Problem.held(heldCount))) }
                guard let past else { return giveBack(identifier, served) { completion(.success((position.applied, heldCount))) } }
                journal.rollBack(to: past) { [self] result in
                    switch result {
                    case .failure(let error): completion(.failure(Problem(describing: error, disk: served.disk.path)))
                    // How far it had come, for the group: the way back was asked for.
                    case .success: giveBack(identifier, served) { completion(.success((position.applied, heldCount))) }
                    }
                }
            }
        }
    }

    private func giveBack(_ identifier: VolumeIdentifier, _ entry: Served, completion: @escaping () -> Void) {
        entry.volume.journal.close { [self] in
            entry.close()
            served[identifier] = nil
            peerBlocks[entry.edge]?.forget(identifier)
            held[identifier] = nil
            hold(identifier, of: entry.edge, false)
            completion()
        }
    }

    /// Looks at the size of a served disk again, or makes it larger, and has its journal take what lies behind the old end.
    /// - Returns: true when it has grown.
    func changeSize(
        _ identifier: VolumeIdentifier, to byteCount: UInt64?, completion: @escaping (Result<Bool, any Error>) -> Void
    ) {
        guard let served = served[identifier] else { return completion(.failure(Problem.notServed)) }
        let changed = { (result: Result<Bool, LocalDiskError>) in
            served.volume.journal.diskDidGrow(to: served.disk.sectorCount)
            completion(result.mapError { Problem(describing: $0) })
        }
        if let byteCount {
            served.disk.grow(to: byteCount, completion: changed)
        } else {
            served.disk.rescan(completion: changed)
        }
    }

    /// Makes a file larger that no volume has open.
    func grow(_ path: String, to byteCount: UInt64, completion: @escaping (Result<Bool, any Error>) -> Void) {
        LocalDisk.open(path: path, eventLoop: eventLoop, threadPool: threadPool) { result in
            switch result {
            case .failure(let error): completion(.failure(Problem(describing: error)))
            case .success(let disk):
                disk.grow(to: byteCount) { result in
                    disk.close()
                    completion(result.mapError { Problem(describing: $0) })
                }
            }
        }
    }

    /// What stands at `path`, looked at by opening it for a moment: locked disks show as such.
    func probe(_ path: String, completion: @escaping (Result<(kind: LocalDiskKind, sectorCount: UInt64), any Error>) -> Void) {
        LocalDisk.open(path: path, eventLoop: eventLoop, threadPool: threadPool) { result in
            completion(
                result.map { disk in
                    disk.close()
                    return (disk.kind, disk.sectorCount)
                }.mapError { $0 })
        }
    }

    /// Stops: links end, journals and disks are closed.
    func stop(completion: @escaping () -> Void) {
        ticker?.cancel()
        listener?.stop(reason: "the on-prem edge is stopping")
        stopDialling()
        for peer in peers.values { peer.tunnels?.stop() }
        let entries = served.values
        served = [:]
        var remaining = entries.count
        if remaining == 0 { return completion() }
        for entry in entries {
            entry.volume.journal.close {
                entry.close()
                remaining -= 1
                if remaining == 0 { completion() }
            }
        }
    }
}
