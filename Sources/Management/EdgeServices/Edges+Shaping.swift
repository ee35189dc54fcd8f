import APIModels
import Foundation
import LinkProtocol
import ManagementAPI

// Limits on what an edge sends (X6): each edge limits its own direction, at its own API, with the link down too.

extension OnPremEdge {
    func changeLink(peer: String, _ change: LinkChange) async throws -> APIModels.Link {
        guard let record = try? store.edge(peer), record.revokedAt == nil else { throw APIError.notFound("link", peer) }
        _ = try shapings.change(record.id, change, in: environment.directory)
        applyShapings()
        let link = try await links().first { $0.peer == peer }
        return link ?? APIModels.Link(peer: peer, state: .down, since: startedAt)
    }

    /// Links that have not been up since this edge started, whose limits wait for them.
    func linksWithShapingOnly(besides peers: Set<String>) -> [APIModels.Link] {
        shapings.byPeer.filter { !peers.contains($0.key) }.map {
            APIModels.Link(peer: $0.key, state: .down, since: startedAt, shaping: $0.value)
        }
    }

    /// An edge gave its name up to another one, which inherits its limits; or it is nobody's any more.
    func moveShaping(from peer: String, to heir: String?) {
        guard shapings.byPeer[peer] != nil else { return }
        do {
            try shapings.move(from: peer, to: heir, in: environment.directory)
            applyShapings()
        } catch {
            environment.recorder.record(
                "link.shaping_lost", subject: heir ?? peer, severity: .warning,
                "the limits of edge \(peer) can't be \(heir == nil ? "removed" : "given to \(heir ?? "")"): \(error)")
        }
    }

    /// In the order of the changes: `send` makes no other hop.
    private func applyShapings() {
        let all = shapings.byPeer
        plane?.send { $0.shape(all) }
    }

    /// Puts in force what was kept.
    func readShapings() {
        shapings = environment.readShapings()
        applyShapings()
    }
}

extension CloudEdge {
    func changeLink(peer: String, _ change: LinkChange) async throws -> APIModels.Link {
        guard let identity, identity.onPremEdge == peer else { throw APIError.notFound("link", peer) }
        let shaping = try shapings.change(peer, change, in: environment.directory)
        try await needPlane().run { $0.link?.shaping = shaping }
        guard let link = try await links().first(where: { $0.peer == peer }) else { throw APIError.notFound("link", peer) }
        return link
    }
}

extension EdgeEnvironment {
    func readShapings() -> KeptShapings {
        do {
            return try KeptShapings.read(in: directory)
        } catch {
            recorder.record(
                "link.shaping_lost", severity: .warning,
                "the limits of links can't be read from the state directory (\(error)): nothing is limited now. Set them again")
            return KeptShapings()
        }
    }
}

extension EventRecorder {
    /// Tells which limits came into force.
    func record(shaped rates: LinkRates, peer: String) {
        record("link.shaped", subject: peer, "what is sent to edge \(peer) at most from now on: \(rates.text)")
    }
}
