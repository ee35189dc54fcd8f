import APIModels
import Foundation
import LinkProtocol
import ManagementAPI

// Limits on what an edge sends (X6): each edge limits its own direction, at its own API, with the link down too.

extension OnPremEdge {
    func changeLink(peer: String, _ change: LinkChange) async throws -> APIModels.Link {
        guard let record = try? store.edge(peer), record.revokedAt == nil else { throw APIError.notFound("link", peer) }
        let shaping = try await needShapings().change(record.id, change)
        // It may have been revoked while that was kept.
        guard try store.edge(record.id).revokedAt == nil else {
            await moveShaping(from: record.id, to: nil)
            throw APIError.notFound("link", peer)
        }
        let link = try await links().first { $0.peer == record.id }
        return link ?? APIModels.Link(peer: record.id, state: .down, since: startedAt, shaping: shaping)
    }

    /// An edge gave its name up to another one, which inherits its limits; or it is nobody's any more.
    func moveShaping(from peer: String, to heir: String?) async {
        do {
            try await shapings?.move(from: peer, to: heir)
        } catch {
            environment.recorder.record(
                "link.shaping_lost", subject: heir ?? peer, severity: .warning,
                "the limits of edge \(peer) can't be \(heir == nil ? "removed" : "given to \(heir ?? "")"): \(error)")
        }
    }

    /// Puts in force what was kept, but for edges that were revoked when it could not be kept that their limits go.
    func readShapings(_ plane: LoopConfined<HomePlane>, for edges: Set<String>) async {
        let shapings = environment.keptShapings { all in plane.send { $0.shape(all) } }
        self.shapings = shapings
        try? await shapings.keepOnly(edges)
    }

    private func needShapings() throws -> KeptShapings {
        guard let shapings else { throw APIError.starting }
        return shapings
    }
}

extension CloudEdge {
    func changeLink(peer: String, _ change: LinkChange) async throws -> APIModels.Link {
        guard let identity, identity.onPremEdge == peer else { throw APIError.notFound("link", peer) }
        guard let shapings else { throw APIError.starting }
        try await shapings.change(peer, change)
        guard let link = try await links().first(where: { $0.peer == peer }) else { throw APIError.notFound("link", peer) }
        return link
    }
}

extension EdgeEnvironment {
    /// What is sent to peers at most, as it was kept.
    /// - Parameter enforce: puts limits in force; it is called at once, and with each change, in the order of the changes.
    func keptShapings(enforce: @escaping @Sendable ([String: LinkShaping]) -> Void) -> KeptShapings {
        var kept: [String: LinkShaping] = [:]
        do {
            kept = try KeptShapings.read(in: directory)
        } catch {
            recorder.record(
                "link.shaping_lost", severity: .warning,
                "the limits of links can't be read from the state directory (\(error)): nothing is limited now. Set them again")
        }
        return KeptShapings(kept, directory: directory, threadPool: threadPool, enforce: enforce)
    }
}

extension EventRecorder {
    /// Tells which limits came into force.
    func record(shaped rates: LinkRates, peer: String) {
        record("link.shaped", subject: peer, "what is sent to edge \(peer) at most from now on: \(rates.text)")
    }
}
