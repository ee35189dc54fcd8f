import APIModels
import EdgeConfiguration
import Link
import ManagementAPI
import NIOCore
import StateStore
import Tunnels

// TCP services over the link (X1). Home says which there are, for both directions: an edge in the cloud reaches what home lets it reach, by
// a name, and learns no address of home's.

extension OnPremEdge {
    /// How many tunnels an on-prem edge has at most, and how many networks one names.
    static let tunnelsMax = 256
    static let tunnelNetworksMax = 64

    func tunnels() async throws -> [Tunnel] {
        let records = try store.tunnels()
        return try await needPlane().run { plane in
            records.map { record in
                var tunnel = Tunnel(
                    name: record.name, edge: record.edge, direction: record.isToCloud ? .toCloud : .toHome, listen: record.listen,
                    connect: record.connect, precedence: record.isBulk ? .bulk : .interactive, allow: record.networks, state: .waiting)
                TunnelReport.fill(&tunnel, listensHere: record.isToCloud, from: plane.peers[record.edge]?.tunnels)
                return tunnel
            }
        }
    }

    func createTunnel(_ request: TunnelCreate) async throws -> Tunnel {
        guard let edge = try? store.edge(request.edge), edge.revokedAt == nil else { throw APIError.notFound("edge", request.edge) }
        if try store.tunnels().count >= Self.tunnelsMax {
            throw APIError.conflict(
                "too_many_tunnels", "There are too many tunnels", detail: "an on-prem edge has at most \(Self.tunnelsMax)",
                action: "remove one that is not needed")
        }
        let record = try Self.record(of: request, edge: edge.id)
        do { try store.addTunnel(record) } catch StateStoreError.exists {
            throw APIError.conflict(
                "exists", "The tunnel exists", detail: "there is a tunnel “\(record.name)”",
                action: "choose another name, or remove that one")
        }
        environment.recorder.record(
            "tunnel.created", subject: record.name,
            "\(record.isToCloud ? "home" : "edge \(edge.name)") listens at \(record.listen) for connections to \(record.connect) from "
                + record.networks.joined(separator: ", "))
        await setTunnels()
        try? await notifyGrantsChanged(edge.id)
        return try await tunnel(named: record.name)
    }

    func tunnel(named name: String) async throws -> Tunnel {
        guard let tunnel = try await tunnels().first(where: { $0.name == name }) else { throw APIError.notFound("tunnel", name) }
        return tunnel
    }

    func deleteTunnel(named name: String) async throws {
        let edge = try await tunnel(named: name).edge
        do { try store.removeTunnel(name) } catch StateStoreError.notFound { throw APIError.notFound("tunnel", name) }
        environment.recorder.record("tunnel.removed", subject: name, "the tunnel \(name) was removed, and its connections were reset")
        await setTunnels()
        if let edge { try? await notifyGrantsChanged(edge) }
    }

    private static func record(of request: TunnelCreate, edge: String) throws -> TunnelRecord {
        if let problem = NameRule.problem(request.name) { throw APIError.invalid("name", "\(problem)") }
        let listen: NetworkAddress
        let connect: NetworkAddress
        do { listen = try NetworkAddress(parsing: request.listen) } catch { throw APIError.invalid("listen", "\(error)") }
        do { connect = try NetworkAddress(dialling: request.connect) } catch { throw APIError.invalid("connect", "\(error)") }
        let given = request.allow ?? []
        if given.isEmpty, !listen.isLoopback {
            throw APIError.invalid("allow", "say from which networks clients may come: \(listen) can be reached by other machines")
        }
        if given.count > tunnelNetworksMax { throw APIError.invalid("allow", "at most \(tunnelNetworksMax) networks") }
        let networks = try (given.isEmpty ? ["127.0.0.0/8", "::1"] : given).map { text in
            guard let rule = NetworkRule(text) else { throw APIError.invalid("allow", "“\(text)” is no network: write it like 10.0.0.0/8") }
            return rule.description
        }
        return TunnelRecord(
            name: request.name, edge: edge, isToCloud: request.direction == .toCloud, listen: listen.description,
            connect: connect.description, isBulk: request.precedence == .bulk, allow: networks.joined(separator: "\n"))
    }

    /// What an edge has to know of its tunnels.
    func tunnelGrants(_ edge: String) throws -> [TunnelGrant] {
        try store.tunnels().filter { $0.edge == edge }.map { record in
            TunnelGrant(
                name: record.name, direction: record.isToCloud ? .toCloud : .toHome,
                address: record.isToCloud ? record.connect : record.listen, precedence: record.isBulk ? .bulk : .interactive,
                allow: record.isToCloud ? [] : record.networks)
        }
    }

    /// Has this side's ends know what there is.
    func setTunnels() async {
        let settings = ((try? store.tunnels()) ?? []).compactMap { record -> (edge: String, settings: TunnelSettings)? in
            TunnelSettings(
                name: record.name, precedence: record.isBulk ? .bulk : .interactive, listensAt: record.isToCloud ? record.listen : nil,
                allow: record.networks, connectsTo: record.connect
            ).map { (record.edge, $0) }
        }
        let byEdge = Dictionary(grouping: settings, by: \.edge).mapValues { $0.map(\.settings) }
        plane?.send { $0.setTunnels(byEdge) }
    }
}

extension TunnelRecord {
    fileprivate var networks: [String] { allow.split(separator: "\n").map(String.init) }
}

extension HomePlane {
    /// The services that are reached over the links, by edge.
    func setTunnels(_ settings: [String: [TunnelSettings]]) {
        tunnelSettings = settings
        for (edge, peer) in peers { peer.tunnels?.set(settings[edge] ?? []) }
    }

    /// The tunnels' end of a new link.
    func makeTunnels() -> TunnelEnd {
        let end = TunnelEnd(role: .acceptor, eventLoop: eventLoop, budget: tunnelBudget)
        end.onProblem = { [recorder] in recorder.record(tunnel: $0, problem: $1, isNamedInLog: true) }
        return end
    }
}

extension EventRecorder {
    /// Tells what is wrong with a tunnel.
    /// - Parameter isNamed: false in the cloud, where the log on the disk says no names and addresses of the customer's; the events do.
    func record(tunnel name: String, problem text: String, isNamedInLog isNamed: Bool) {
        record(
            "tunnel.problem", subject: name, logSubject: isNamed ? nil : "a tunnel", severity: .warning, "the tunnel \(name): \(text)",
            logMessage: isNamed ? nil : "a tunnel has a problem: see `causeway events`")
    }
}
