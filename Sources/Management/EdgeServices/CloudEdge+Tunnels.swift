import APIModels
import Link
import ManagementAPI
import NIOCore
import Tunnels

/// Tunnels at a cloud edge: it listens where home says, and connects to what home says.
extension CloudEdge {
    func tunnels() async throws -> [Tunnel] {
        let grants = tunnelGrants
        return try await needPlane().run { plane in
            grants.map { grant in
                let listensHere = grant.direction == .toHome
                var tunnel = Tunnel(
                    name: grant.name, direction: grant.direction, listen: listensHere ? grant.address : nil,
                    connect: listensHere ? nil : grant.address, precedence: grant.precedence, allow: grant.allow, state: .waiting)
                TunnelReport.fill(&tunnel, listensHere: listensHere, from: plane.link?.tunnels)
                return tunnel
            }
        }
    }

    func tunnel(named name: String) async throws -> Tunnel {
        guard let tunnel = try await tunnels().first(where: { $0.name == name }) else { throw APIError.notFound("tunnel", name) }
        return tunnel
    }

    /// Takes over what home has told.
    func setTunnels(_ grants: [TunnelGrant]) async {
        tunnelGrants = grants
        let settings = grants.compactMap { grant in
            let listensHere = grant.direction == .toHome
            return TunnelSettings(
                name: grant.name, precedence: grant.precedence, listensAt: listensHere ? grant.address : nil, allow: grant.allow,
                connectsTo: listensHere ? nil : grant.address)
        }
        plane?.send { $0.setTunnels(settings) }
    }
}

extension CloudPlane {
    func setTunnels(_ settings: [TunnelSettings]) {
        tunnelSettings = settings
        link?.tunnels?.set(settings)
    }

    /// The tunnels' end of a new link.
    func makeTunnels() -> TunnelEnd {
        let end = TunnelEnd(role: .initiator, eventLoop: eventLoop, budget: tunnelBudget)
        end.onProblem = { [recorder] in recorder.record(tunnel: $0, problem: $1, isNamedInLog: false) }
        end.set(tunnelSettings)
        return end
    }
}
