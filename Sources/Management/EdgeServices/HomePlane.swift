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
        /// Blocks of it that a point named did not come in time, and have not come since.
        var isHanging = false

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
    static let diskThreadCount = 8

    static func end(_ threads: NIOThreadPool) { threads.shutdownGracefully { _ in } }

    /// A point that waits for the other disks of its group.
    struct Held {
        let point: PointNumber
        let since: NIODeadline
        var isTold = false
    }

    let eventLoop: any EventLoop
    private let loopTurns: LoopTurns
    let threadPool: NIOThreadPool
    let recorder: EventRecorder
    private(set) var peers: [String: PeerLink] = [:]
    var served: [VolumeIdentifier: Served] = [:]
    /// Volumes whose disks are being given back: no edge opens them any more, or what it sends would stand behind what was given up.
    var closing: Set<VolumeIdentifier> = []
    /// Volumes of which it was told that their disks have no room.
    var fullDisksTold: Set<VolumeIdentifier> = []
    /// Which volumes are in which group; nil until the control plane has told.
    var membership: GroupMembership?
    /// Which it is of all that were told.
    var membershipNumber: UInt64 = 0
    /// Since when the first held point of a volume is held; see HomePlane+Groups.swift.
    var held: [VolumeIdentifier: Held] = [:]
    /// The volumes of each edge that want no more write-behind for now.
    var holding: [String: Set<VolumeIdentifier>] = [:]
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
    let sentBlocks: SentBlocks?
    /// What was read of the disks more than once; nil to read them each time.
    let readCache: ReadCache?
    var peerBlocks: [String: PeerBlocks] = [:]
    /// The services that are reached over the links, by edge, and what their connections may take of memory.
    var tunnelSettings: [String: [TunnelSettings]] = [:]
    let tunnelBudget: WindowBudget
    /// What is sent to each edge at most.
    private var shapings: [String: LinkShaping] = [:]

    init(
        eventLoop: any EventLoop, loopTurns: LoopTurns, threadPool: NIOThreadPool, recorder: EventRecorder, sentBlocks: SentBlocks?,
        readCache: ReadCache?,
        tunnelBudget: WindowBudget,
        onRequest: @escaping @Sendable (_ edge: String, _ session: UInt64, _ method: String, _ body: ByteBuffer) async -> ControlAnswer,
        onJoin: @escaping @Sendable (ByteBuffer) async -> ByteBuffer, onSeen: @escaping @Sendable (_ edge: String) async -> Void
    ) {
        self.eventLoop = eventLoop
        self.loopTurns = loopTurns
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
        let peerLink = PeerLink(peer: edge, endpoint: link, eventLoop: eventLoop, loopTurns: loopTurns)
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
        peerLink.onConnectivityTold = { [recorder, onSeen] in
            recorder.record(link: $0, peer: "edge \(edge)", subject: edge)
            // When it comes, and when it was there last.
            Task { await onSeen(edge) }
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

    func home(_ volume: VolumeIdentifier, of edge: String) -> Home? {
        served[volume].flatMap { $0.edge == edge ? $0.volume : nil }
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
