import APIModels
import Blocks
import EdgeConfiguration
import Files
import Foundation
import Link
import ManagementAPI
import NIOCore
import Pairing
import ReadCache
import StateStore
import Tunnels
import Volumes

/// The control plane as the data plane knows it: it does not keep it alive.
struct WeakEdge<Edge: Actor>: Sendable {
    weak let value: Edge?

    init(_ edge: Edge?) { value = edge }
}

/// The on-prem edge: the authority over disks, volumes, leases, keys and edges.
///
/// Every change is durable in the state store before it is acted on.
actor OnPremEdge: EdgeController {
    nonisolated let events: EventLog
    let environment: EdgeEnvironment
    let store: StateStore
    let authority: CertificateAuthority
    var keys: EdgeKeys
    let identifier: String
    let startedAt = Date()
    var plane: LoopConfined<HomePlane>?
    var configuredDisks: [Configuration.Disk]
    var linkAddress: String?
    var apiAddress: String?
    var warnings: [String] = []
    /// The leases of attached volumes, by volume identifier; the incarnation is only known here.
    var leases: [String: VolumeLease] = [:]
    /// Why a volume's disk could not be opened, by volume name.
    var diskFailures: [String: String] = [:]
    /// Those whose disk is not the one that was served.
    var diskRetries: [String: DiskRetry] = [:]
    /// Names of volumes that are being attached, detached or deleted: one at a time.
    var busyVolumes: Set<String> = []
    /// Those among them that are being detached.
    var detachingVolumes: Set<String> = []
    /// Attachments that are ended by force, with others of their group: nobody opens their volumes any more.
    var endingVolumes: Set<String> = []
    /// How often the data plane was told which volumes are in which group.
    var membershipsTold: UInt64 = 0
    /// Edges that were not taken in and that no event has told of yet, and when one did last.
    var refusedPairings = 0
    var refusedPairingToldAt: ContinuousClock.Instant?
    /// Opens of a volume come one after the other: the last one that began.
    var opening: [String: Task<VolumeOpenReply, any Error>] = [:]
    var reopening: Task<Void, Never>?
    /// What is sent to each cloud edge at most; nil until there is a plane.
    var shapings: KeptShapings?
    /// What passed over the links; nil until there is a plane.
    var history: KeptHistory?

    init(environment: EdgeEnvironment, onPrem: Configuration.OnPrem) throws {
        self.environment = environment
        events = environment.recorder.log
        configuredDisks = onPrem.disks
        do {
            let directory = environment.directory
            store = try StateStore(directory: directory) { try EdgeKeys.wrapPlainKey($0, identifier: $1, in: directory) }
            authority = try CertificateAuthority.load(in: directory, name: environment.configuration.name)
            keys = try EdgeKeys.open(store: store, directory: directory)
            identifier = try Self.loadIdentifier(in: directory)
        } catch let failure as EdgeFailure {
            throw failure
        } catch {
            throw EdgeFailure(.state, "the state directory \(environment.directory.path) can't be used: \(error)")
        }
    }

    private static func loadIdentifier(in directory: OpenDirectory) throws -> String {
        do {
            let bytes = try directory.readFile("identifier", byteCountMax: 64)
            let text = String(decoding: bytes, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
            if EdgeIdentifier.isValid(text) { return text }
            throw EdgeFailure(.state, "\(directory.path)/identifier is damaged; put the right file back")
        } catch let error as FileSystemError {
            // Only a file that was never there is made: cloud edges trust the name in it.
            if !error.isNotFound { throw error }
        }
        let text = "onprem-" + VolumeIdentifier.random().description.prefix(12)
        try directory.replaceFile("identifier", with: Array(text.utf8))
        return text
    }

    /// Opens the disks of attached volumes, then listens for links.
    func start(_ onPrem: Configuration.OnPrem) async throws {
        let environment = environment
        let plane = try await LoopConfined.make(on: environment.eventLoop) { [weak self] in
            let edge = WeakEdge(self)
            return HomePlane(
                eventLoop: environment.eventLoop, loopTurns: environment.loopTurns, threadPool: environment.threadPool,
                recorder: environment.recorder,
                sentBlocks: environment.makeSentBlocks(),
                readCache: onPrem.readCacheBytes == 0 ? nil : ReadCache(byteCount: Int(clamping: onPrem.readCacheBytes)),
                tunnelBudget: WindowBudget(byteCountMax: environment.memory.tunnelWindowBytes),
                onRequest: { peer, session, method, body in
                    guard let self = edge.value else { return ControlAnswer(status: 503, body: ByteBuffer()) }
                    return await self.answer(peer, session, method, body)
                },
                onJoin: { request in await edge.value?.join(request) ?? ByteBuffer() },
                onSeen: { peer in await edge.value?.noteSeen(peer) })
        }
        self.plane = plane
        let known = try store.edges()
        let (trusted, revoked) = (Set(known.filter { $0.revokedAt == nil }.map(\.id)), Set(known.filter { $0.revokedAt != nil }.map(\.id)))
        try await plane.run { plane in
            trusted.forEach(plane.trust)
            plane.remember(revoked: revoked)
        }
        await readShapings(plane, for: trusted)
        await setTunnels()
        let history = KeptHistory(environment)
        self.history = history
        await history.keepOnly(Set(try store.edges().map(\.id)))
        plane.send { $0.onMinute = { peer, minute in Task { await history.keep(minute, peer: peer) } } }
        warnOfMissingDisks()
        await openAttachedDisksFirst()
        try await listen(onPrem, plane)
        await dialEdges(plane)
        reopening = Task { [weak self] in
            // A disk that was missing or locked is tried again: no event tells when that ends.
            while !Task.isCancelled {
                try? await Task.sleep(for: .seconds(5))
                await self?.openAttachedDisks()
            }
        }
    }

    private func listen(_ onPrem: Configuration.OnPrem, _ plane: LoopConfined<HomePlane>) async throws {
        let (address, connections) = (onPrem.linkListen, onPrem.linkConnections)
        let key = EdgeKey()
        // The server's certificate is made anew at each start: the peers trust the authority, not this certificate.
        let certificate = try authority.issue(
            key: key, edge: identifier, role: .onprem, validitySeconds: CertificateAuthority.validitySeconds / 2)
        let credentials = LinkCredentials(
            certificateChainPEM: certificate.pem + "\n" + authority.certificatePEM, privateKeyPEM: key.pem,
            authorityPEM: authority.certificatePEM)
        let (logger, congestionControl) = (environment.logger, environment.congestionControl)
        do {
            let bound = try await plane.eventLoop.flatSubmit { [plane] in
                plane.future {
                    try $0.listen(
                        host: address.host, port: Int(address.port), credentials: credentials, congestionControl: congestionControl,
                        connections: connections, logger: logger)
                }
            }.get()
            linkAddress = bound.hostAndPort
        } catch {
            throw EdgeFailure(.unavailable, "link.listen: can't listen at \(address): \(NetworkFailure(error))")
        }
        environment.recorder.record("edge.listening", "listening for links at \(linkAddress ?? "")")
    }

    func setAPIAddress(_ address: String) { apiAddress = address }

    func noteSeen(_ edge: String) { try? store.markEdgeSeen(edge) }

    /// Ends links and closes disks; what was received and not applied stays in the journals.
    func stop() async {
        reopening?.cancel()
        if let plane {
            let begun = try? await plane.run { plane in
                plane.peers.values.compactMap { link in link.history.finish().map { (link.peer, $0) } }
            }
            _ = try? await plane.call { (plane: HomePlane, done: @escaping (Result<Bool, any Error>) -> Void) in
                plane.stop { done(.success(true)) }
            }
            for (peer, minute) in begun ?? [] { await history?.keep(minute, peer: peer) }
        }
        // The store stays open: calls of edges that are on their way may still read it, every change in it is durable when it
        // returns, and the process ends now.
    }

    /// Takes over what a reload may change: disks that were added to the configuration, or removed and not in use, and sizes that
    /// have grown.
    func reload(_ onPrem: Configuration.OnPrem) async {
        configuredDisks = keepingServedDisks(in: onPrem.disks)
        warnOfMissingDisks()
        await rescanServedDisks()
        // A disk may be read-only now, or no longer.
        for edge in Set(((try? store.volumes()) ?? []).compactMap(\.edge)) { try? await notifyGrantsChanged(edge) }
    }

    /// A path that was mistyped shall not wait for the first attach to be noticed.
    private func warnOfMissingDisks() {
        for disk in configuredDisks where Self.look(at: disk.path) == nil {
            environment.recorder.record(
                "disk.missing", subject: disk.name, severity: .warning,
                "the disk \(disk.name) of the configuration file can't be read: there is nothing at \(disk.path), or no right to it")
        }
    }

    /// The new declarations, but for disks of attached volumes: those stay what they were, or the volume would go on with another
    /// disk at the next start.
    private func keepingServedDisks(in declared: [Configuration.Disk]) -> [Configuration.Disk] {
        let served = Set(((try? store.volumes()) ?? []).filter { $0.state == .attached }.map(\.disk))
        var disks = declared
        for old in configuredDisks where served.contains(old.name) {
            let index = disks.firstIndex { $0.name == old.name }
            if let index, disks[index].path == old.path { continue }
            environment.recorder.record(
                "disk.kept", subject: old.name, severity: .warning,
                "the configuration \(index == nil ? "removes" : "moves") disk \(old.name), from which a volume is served: it stays at \(old.path). "
                    + "Put it back, or detach the volume first: the next start would find another disk or none")
            if let index { disks[index] = old } else { disks.append(old) }
        }
        return disks
    }

    func needPlane() throws -> LoopConfined<HomePlane> {
        guard let plane else { throw APIError.starting }
        return plane
    }

    // MARK: The edge itself

    nonisolated func problem(of error: any Error) -> Problem? { Problem(known: error) }

    func edge() async throws -> EdgeStatus {
        EdgeStatus(
            name: environment.configuration.name, identifier: identifier, role: .onprem, version: edgeVersion, startedAt: startedAt,
            state: plane == nil ? .starting : await problems().isEmpty ? .running : .degraded,
            stateDirectory: environment.directory.path,
            addresses: .init(api: apiAddress, link: linkAddress), warnings: warnings + diskFailures.values.sorted())
    }

    /// What keeps volumes from being served or their points from coming home. No names: whoever asks for health has shown no token.
    private func problems() async -> [String] {
        var problems: [String] = []
        let add = { (count: Int, text: String) in if count > 0 { problems.append("\(text): \(count)") } }
        add(diskFailures.count, "disks of attached volumes that can't be opened")
        let journals = try? await plane?.run { plane in
            (stalled: plane.journals.count { $0.stallReason != nil }, held: plane.held.values.count { $0.isTold })
        }
        add(journals?.stalled ?? 0, "disks without room for the points that have come")
        add(journals?.held ?? 0, "volumes whose points wait for others of their group")
        let edges = Set((try? store.volumes())?.filter { $0.state == .attached }.compactMap(\.edge) ?? [])
        let connected = (try? await connectedEdges()) ?? edges
        add(edges.subtracting(connected).count, "cloud edges with volumes that are not connected")
        return problems
    }

    func health() async -> Health {
        let problems = await problems()
        return Health(
            healthy: plane != nil && linkAddress != nil, state: plane == nil ? .starting : problems.isEmpty ? .running : .degraded,
            problems: problems)
    }
}
