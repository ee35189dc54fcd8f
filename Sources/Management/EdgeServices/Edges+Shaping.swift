import APIModels
import Foundation
import LinkProtocol
import ManagementAPI

// Limits on what an edge sends (X6): each edge limits its own direction, at its own API, with the link down too.

extension OnPremEdge {
    func changeLink(peer: String, _ change: LinkChange) async throws -> APIModels.Link {
        guard let record = try? store.edge(peer), record.revokedAt == nil else { throw APIError.notFound("link", peer) }
        _ = try shapings.change(record.id, change, in: environment.directory)
        let all = shapings.byPeer
        try await needPlane().run { $0.shape(all) }
        guard let link = try await links().first(where: { $0.peer == peer }) else {
            // It has not been connected since this edge started: the limits wait for it.
            return APIModels.Link(peer: peer, state: .down, since: startedAt, shaping: all[peer] ?? LinkShaping())
        }
        return link
    }

    /// Puts in force what was kept.
    func readShapings() async throws {
        shapings = environment.readShapings()
        let all = shapings.byPeer
        try await needPlane().run { $0.shape(all) }
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
