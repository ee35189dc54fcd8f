import APIModels
import EdgeConfiguration
import Foundation
import ManagementAPI
import NIOCore
import Pairing
import StateStore

/// Tokens, joining and revocation (X1).
extension OnPremEdge {
    /// How long a token is good when nothing is said, and at most.
    static let tokenSeconds = 15 * 60
    static let tokenSecondsMax = 7 * 86_400

    func createPairingToken(_ request: PairingTokenCreate) async throws -> APIModels.PairingToken {
        let seconds = request.validSeconds ?? Self.tokenSeconds
        guard (1...Self.tokenSecondsMax).contains(seconds) else {
            throw APIError.invalid("validSeconds", "a token may be good for 1 to \(Self.tokenSecondsMax) seconds")
        }
        guard let linkAddress else {
            throw APIError.unavailable(
                "starting", "The edge is starting", detail: "it does not listen yet", action: "Try again in a second.")
        }
        let address = try request.connect.map { try Self.dialable($0, "connect") }
        if address != nil, try store.dialledPairingTokens().count >= HomePlane.invitationsMax {
            throw APIError.conflict(
                "too_many_invitations", "Too many edges are invited",
                detail: "\(HomePlane.invitationsMax) edges are being dialled that have not joined yet",
                action: "let them join, or wait until their tokens expire")
        }
        let expires = Date(timeIntervalSince1970: (Date().timeIntervalSince1970 + Double(seconds)).rounded(.down))
        let token = try Pairing.PairingToken(
            authority: authority.fingerprint, addresses: address == nil ? [linkAddress] : [], expires: expires)
        try store.addPairingToken(hash: token.secretHash, expires: expires, address: address?.description)
        if let address { invite(token.secretHash, at: address, until: expires) }
        environment.recorder.record(
            "pairing.token",
            "a pairing token was made; it is good until \(APICoding.string(expires))"
                + (address.map { "; until then the edge that is to use it is dialled at \($0)" } ?? ""))
        return APIModels.PairingToken(token: token.text, expiresAt: expires)
    }

    /// Answers an edge that asks to join with `JoinReply`, or with a problem.
    func join(_ request: ByteBuffer) async -> ByteBuffer {
        do {
            let request = try ControlCoding.decode(JoinRequest.self, from: request)
            return try ControlCoding.encode(try await admit(request))
        } catch {
            pairingRefused(error)
            let problem = Problem(
                status: 403, code: "join_refused", title: "The on-prem edge refused", detail: "\(error)",
                action: "make a new token with `causeway pair` at home: each is good once, and for a short time")
            return (try? ControlCoding.encode(problem)) ?? ByteBuffer()
        }
    }

    /// Anybody who reaches the link's port can be refused: told once in ten seconds, with how many there were.
    private func pairingRefused(_ error: any Error) {
        refusedPairings += 1
        let now = ContinuousClock.now
        if let last = refusedPairingToldAt, now - last < .seconds(10) { return }
        let others = refusedPairings > 1 ? "; and \(refusedPairings - 1) others since it was told last" : ""
        (refusedPairingToldAt, refusedPairings) = (now, 0)
        environment.recorder.record("pairing.refused", severity: .warning, "an edge was not taken in: \(error)\(others)")
    }

    private func admit(_ request: JoinRequest) async throws -> JoinReply {
        guard let hash = request.secretHash else { throw PairingError.badToken("its secret is malformed") }
        let edge = "cloud-" + randomSecret(length: 12).lowercased()
        let name = NameRule.problem(request.name) == nil ? request.name : edge
        let certificate = try authority.issue(signingRequestPEM: request.signingRequest, edge: edge, role: .cloud)
        let record = EdgeRecord(id: edge, name: name, role: Pairing.EdgeRole.cloud.rawValue, certificateSerial: certificate.serial)
        let (replaced, addressText) = try store.redeemPairingToken(hash: hash, edge: record)
        let address = addressText.flatMap { try? NetworkAddress(parsing: $0) }
        plane?.send { plane in
            if let replaced { plane.revoke(edge: replaced) }
            plane.trust(edge: edge)
            plane.endInvitation(hash)
            if let address { plane.dial(edge, at: address) }
        }
        if let replaced {
            // Its tunnels are the new one's, too.
            await setTunnels()
            await moveShaping(from: replaced, to: edge)
            environment.recorder.record(
                "edge.revoked", subject: replaced, severity: .warning,
                "edge \(replaced) gave the name \(name) up to one that joined under it")
        }
        environment.recorder.record("edge.paired", subject: edge, "edge \(name) was paired as \(edge)")
        return JoinReply(
            edge: edge, certificate: certificate.pem, authority: authority.certificatePEM, onPremEdge: identifier,
            addresses: linkAddress.map { [$0] } ?? [])
    }

    /// Gives a paired edge a certificate for a new key, beside its old one, which ends by itself.
    func renew(_ edge: String, _ call: RenewCall) throws -> RenewAnswer {
        let certificate = try authority.issue(signingRequestPEM: call.signingRequest, edge: edge, role: .cloud)
        try store.setCertificateSerial(certificate.serial, ofEdge: edge)
        environment.recorder.record("edge.renewed", subject: edge, "edge \(edge) has a new certificate")
        return RenewAnswer(certificate: certificate.pem)
    }

    func edges() async throws -> [PeerEdge] {
        let connected = try await connectedEdges()
        return try store.edges().map { Self.peer($0, isConnected: connected.contains($0.id)) }
    }

    func connectedEdges() async throws -> Set<String> {
        try await needPlane().run { plane in Set(plane.peers.values.filter { $0.endpoint.isConnected }.map(\.peer)) }
    }

    private static func peer(_ record: EdgeRecord, isConnected: Bool) -> PeerEdge {
        PeerEdge(
            identifier: record.id, name: record.name, role: APIModels.EdgeRole(rawValue: record.role) ?? .cloud, connected: isConnected,
            pairedAt: record.createdAt, revoked: record.revokedAt != nil, lastSeen: isConnected ? Date() : record.lastSeen,
            address: record.address)
    }

    func revokeEdge(identifier: String) async throws {
        let record: EdgeRecord
        do { record = try store.edge(identifier) } catch { throw APIError.notFound("edge", identifier) }
        try store.revokeEdge(record.id)
        let edge = record.id
        try await needPlane().run { $0.revoke(edge: edge) }
        await moveShaping(from: edge, to: nil)
        environment.recorder.record(
            "edge.revoked", subject: edge, severity: .warning,
            "edge \(record.name) was revoked; volumes attached to it are to be detached with --force")
    }

    func changeEdge(identifier: String, _ change: EdgeChange) async throws -> PeerEdge {
        guard let record = try? store.edge(identifier), record.revokedAt == nil else { throw APIError.notFound("edge", identifier) }
        let edge = record.id
        let address = try change.address.map { try Self.dialable($0, "address") }
        switch (address, change.dials) {
        case (nil, true?), (_?, nil), (_?, false?): break
        case (_?, true?): throw APIError.invalid("dials", "an edge that dials has no address")
        case (nil, _): throw APIError.invalid("address", "say where the edge is dialled, or that it dials")
        }
        try store.setAddress(address?.description, ofEdge: edge)
        try await needPlane().run { $0.dial(edge, at: address) }
        environment.recorder.record(
            "edge.address", subject: edge,
            "edge \(record.name) \(address.map { "is dialled at \($0) from now on" } ?? "is dialled no more")")
        let connected = try await connectedEdges()
        return Self.peer(try store.edge(edge), isConnected: connected.contains(edge))
    }

    /// Dials the edges that don't dial, and those that were invited.
    func dialEdges(_ plane: LoopConfined<HomePlane>) async {
        for edge in (try? store.edges()) ?? [] where edge.revokedAt == nil {
            guard let address = edge.address.flatMap({ try? NetworkAddress(parsing: $0) }) else { continue }
            plane.send { $0.dial(edge.id, at: address) }
        }
        for token in (try? store.dialledPairingTokens()) ?? [] {
            if let address = token.address.flatMap({ try? NetworkAddress(parsing: $0) }) {
                invite(token.hash, at: address, until: token.expires)
            }
        }
    }

    private func invite(_ hash: String, at address: NetworkAddress, until expires: Date) {
        let deadline = NIODeadline.now() + .milliseconds(Int64(max(0, expires.timeIntervalSinceNow * 1_000)))
        plane?.send { $0.invite(hash, at: address, until: deadline) }
    }

    private static func dialable(_ text: String, _ field: String) throws -> NetworkAddress {
        do { return try NetworkAddress(dialling: text) } catch { throw APIError.invalid(field, "\(error)") }
    }

    func links() async throws -> [APIModels.Link] {
        let links = try await needPlane().run { plane in
            plane.peers.values.map { link in
                let dialer = plane.dialers[link.peer]
                return LinkReport.link(of: link, lastError: dialer?.lastError, isDialled: dialer != nil)
            }
        }
        // Of edges that have not come since this one started there is nothing but that.
        let away = Set(try store.edges().filter { $0.revokedAt == nil }.map(\.id)).subtracting(links.map(\.peer))
        let kept = await shapings?.byPeer ?? [:]
        return (links + away.map { APIModels.Link(peer: $0, state: .down, since: startedAt, shaping: kept[$0] ?? LinkShaping()) }).sorted {
            $0.peer < $1.peer
        }
    }
}
