import APIModels
import Blocks
import EdgeConfiguration
import Files
import Foundation
import Link
import LocalFiles
import ManagementAPI
import NIOCore
import NIOPosix
import NetworkBlockServer
import Pairing
import StorageTarget
import Tunnels
import Volumes

/// The cloud edge: serves what home grants it.
///
/// It keeps its certificate, encrypted logs and an encrypted cache. Everything else it asks home for at each session.
actor CloudEdge: EdgeController {
    nonisolated let events: EventLog
    let environment: EdgeEnvironment
    /// What the configuration says; `reload` takes over a part of a new one.
    var cloud: Configuration.Cloud
    let startedAt = Date()
    var identity: CloudIdentity?
    var plane: LoopConfined<CloudPlane>?
    /// How the link home comes about. It lives on the loop, as the plane does.
    var wayHome: LoopConfined<WayHome>?
    /// Where this edge listens for home, unless it dials.
    var linkAddress: String?
    /// What is sent home at most; nil until there is a plane.
    var shapings: KeptShapings?
    /// What passed over the link; nil until there is a plane.
    var history: KeptHistory?
    /// What was said of partitions, shares and pins is known, and the cache has it, or what stands in for it.
    var isDivisionRead = false
    var targetAddresses: [String] = []
    /// The NBD listeners as the beginnings of URLs, `nbd://host:port`.
    var networkBlockAddresses: [String] = []
    var apiAddress: String?
    var warnings: [String] = []
    /// The grants as home told them last.
    var grants: [VolumeGrant] = []
    /// The secrets that came with them; nil before the first.
    var secrets: ReceivedSecrets?
    /// It was told that home sends plain keys.
    var arePlainKeysTold = false
    var isRefreshing = false
    var mustRefreshAgain = false
    var isRefreshScheduled = false
    /// Why a granted volume could not be opened here, by identifier.
    var openFailures: [String: String] = [:]
    /// The services that are reached over the link, as home told them last.
    var tunnelGrants: [TunnelGrant] = []
    var released = ReleasedAttachments()
    /// Joining is one at a time.
    var isJoining = false
    var renewing: Task<Void, Never>?
    /// A certificate was asked for with which home may dial this edge.
    var hasRenewedForServers = false
    /// Tries a cache again that can't be opened.
    var retryingCache: Task<Void, Never>?

    init(environment: EdgeEnvironment, cloud: Configuration.Cloud) throws {
        self.environment = environment
        self.cloud = cloud
        events = environment.recorder.log
        do {
            identity = try CloudIdentity.load(in: environment.directory)
        } catch {
            throw EdgeFailure(.state, "the pairing in \(environment.directory.path) can't be read: \(error)")
        }
    }

    /// Listens for initiators, and dials home if this edge is paired.
    func start() async throws {
        let environment = environment
        let isPaired = identity != nil
        let security = try cloud.nbd.map { try Self.networkBlockSecurity($0) }
        let limits = environment.memory.target
        let discovery: DiscoveryAuthentication =
            switch cloud.discoveryAuthentication {
            case .optional: .optional
            case .required: .required
            case .none: .none
            }
        let keepsProcessorsAwake = cloud.keepsProcessorsAwake
        let plane = try await LoopConfined.make(on: environment.eventLoop) { [weak self, limits] in
            let wakefulness =
                keepsProcessorsAwake
                ? ProcessorWakefulness(eventLoop: environment.eventLoop, keep: ProcessorsAwake(recorder: environment.recorder).keep) : nil
            // Until home has told the grants, an unknown target is one that may be there soon.
            let target = StorageTargetServer(
                eventLoop: environment.eventLoop, limits: limits, logger: environment.logger, isReady: !isPaired, discovery: discovery,
                wakefulness: wakefulness)
            let networkBlock = security.map {
                NetworkBlockServer(
                    eventLoop: environment.eventLoop, limits: environment.memory.networkBlock, security: $0, logger: environment.logger,
                    isReady: !isPaired, wakefulness: wakefulness)
            }
            let plane = CloudPlane(
                eventLoop: environment.eventLoop, threadPool: environment.threadPool, target: target, networkBlock: networkBlock,
                recorder: environment.recorder, sentBlocks: environment.makeSentBlocks(),
                tunnelBudget: WindowBudget(byteCountMax: environment.memory.tunnelWindowBytes))
            plane.stateSpace.directory = environment.directory
            plane.onGrantsWanted = { Task { await self?.refreshGrants() } }
            return plane
        }
        self.plane = plane
        shapings = environment.keptShapings { all in plane.send { $0.shape(all) } }
        let history = KeptHistory(environment)
        self.history = history
        if let identity { await history.keepOnly([identity.onPremEdge]) }
        plane.send { $0.onMinute = { peer, minute in Task { await history.keep(minute, peer: peer) } } }
        for address in cloud.targetListen {
            do {
                let bound = try await plane.eventLoop.flatSubmit {
                    plane.future { $0.target.listen(host: address.host, port: Int(address.port)) }
                }.get()
                targetAddresses.append(bound.hostAndPort)
            } catch {
                throw EdgeFailure(.unavailable, "target.listen: can't listen at \(address): \(NetworkFailure(error))")
            }
        }
        environment.recorder.record("edge.listening", "listening for initiators at \(targetAddresses.joined(separator: ", "))")
        if let nbd = cloud.nbd { try await listenForNBD(nbd, plane) }
        renewing = Task { [weak self] in
            while !Task.isCancelled {
                try? await Task.sleep(for: .seconds(6 * 3_600))
                await self?.renewIfNeeded()
            }
        }
        if let identity {
            try await connect(identity)
        } else {
            environment.recorder.record(
                "edge.unpaired", severity: .warning, "this edge is not paired: run `causeway pair` at home and `causeway join TOKEN` here")
        }
    }

    /// Stops serving, flushes and closes the logs, hangs up.
    func stop() async {
        renewing?.cancel()
        retryingCache?.cancel()
        if let plane {
            let begun = try? await plane.run { plane in plane.link.flatMap { link in link.history.finish().map { (link.peer, $0) } } }
            _ = try? await plane.call { (plane: CloudPlane, done: @escaping (Result<Bool, any Error>) -> Void) in
                plane.stop { done(.success(true)) }
            }
            // The link first, which says goodbye on its connections.
            plane.send { $0.link?.endpoint.close(reason: "the cloud edge is stopping") }
            wayHome?.send { $0.stop(reason: "the cloud edge is stopping") }
            if let (peer, minute) = begun { await history?.keep(minute, peer: peer) }
        }
    }

    func setAPIAddress(_ address: String) { apiAddress = address }

    func needPlane() throws -> LoopConfined<CloudPlane> {
        guard let plane else { throw APIError.starting }
        return plane
    }

    // MARK: The edge itself

    nonisolated func problem(of error: any Error) -> Problem? { Problem(known: error) }

    func edge() async throws -> EdgeStatus {
        let isConnected = try await plane?.run { $0.link?.endpoint.isConnected ?? false } ?? false
        let isRevoked = try await plane?.run { $0.isRevoked } ?? false
        let trouble = try await plane?.run { $0.cacheTrouble }
        let revocation = isRevoked ? ["home has revoked this edge"] : []
        return EdgeStatus(
            name: environment.configuration.name, identifier: identity?.edge ?? "", role: .cloud, version: edgeVersion,
            startedAt: startedAt,
            state: plane == nil ? .starting : isConnected && openFailures.isEmpty && trouble == nil ? .running : .degraded,
            stateDirectory: environment.directory.path,
            addresses: .init(api: apiAddress, link: linkAddress, iscsi: targetAddresses, nbd: networkBlockAddresses),
            warnings: warnings + revocation + (trouble.map { ["the cache: \($0.detail)"] } ?? []) + openFailures.values.sorted())
    }

    func health() async -> Health {
        let link = try? await plane?.run {
            (isConnected: $0.link?.endpoint.isConnected ?? false, hasCache: $0.cache != nil, trouble: $0.cacheTrouble)
        }
        var problems: [String] = []
        if identity == nil {
            problems.append("this edge is not paired")
        } else if link?.isConnected != true {
            problems.append("the link is down")
        } else if link?.hasCache != true {
            problems.append("the cache is not open")
        }
        if let trouble = link?.trouble { problems.append(trouble.problem) }
        if !openFailures.isEmpty { problems.append("volumes that can't be opened: \(openFailures.count)") }
        // No names: whoever asks for health has shown no token.
        let states = (try? await statuses())?.map(\.state) ?? []
        for (state, text) in [(APIModels.Volume.State.full, "have a full write log"), (.stopped, "have stopped"), (.fenced, "are fenced")] {
            let count = states.count { $0 == state }
            if count > 0 { problems.append("volumes that \(text): \(count)") }
        }
        let waiting = (try? await plane?.run { plane in plane.groups.values.count { !$0.group.awaited.isEmpty } }) ?? 0
        if waiting > 0 { problems.append("groups without points, because a volume is not served: \(waiting)") }
        let filling = (try? await plane?.run { plane in plane.served.values.count { $0.volume.logFill.step == .nearlyFull } }) ?? 0
        if filling > 0 { problems.append("volumes whose write log is \(FillStep.nearlyFull.percent) % full: \(filling)") }
        let late = (try? await plane?.run { plane in plane.served.values.count { $0.volume.isUnsentLate } }) ?? 0
        if late > 0 { problems.append("volumes whose writes do not come home in time: \(late)") }
        if let step = try? await plane?.run({ $0.stateSpace.step }), step == .nearlyFull {
            problems.append("the file system of the state directory can't hold the write logs at full size for long")
        }
        return Health(
            healthy: plane != nil, state: plane == nil ? .starting : problems.isEmpty ? .running : .degraded, problems: problems)
    }

    func links() async throws -> [APIModels.Link] {
        guard let wayHome else { return [] }
        let lastError = try await wayHome.run { $0.lastError }
        return try await needPlane().run { plane in plane.link.map { [LinkReport.link(of: $0, lastError: lastError)] } ?? [] }
    }

    func edges() async throws -> [PeerEdge] {
        guard let identity else { return [] }
        let isConnected = try await needPlane().run { $0.link?.endpoint.isConnected ?? false }
        return [
            PeerEdge(identifier: identity.onPremEdge, name: identity.onPremEdge, role: .onprem, connected: isConnected, pairedAt: startedAt)
        ]
    }
}
