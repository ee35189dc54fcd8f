import APIModels
import EdgeConfiguration
import Foundation
import Link
import LinkProtocol
import ManagementAPI
import NIOCore
import Pairing

/// Joining, the certificate, and the link home (X1).
extension CloudEdge {
    /// How long a join waits for home to dial.
    private static let dialPatience = TimeAmount.seconds(50)

    /// Sets up the link home: dials, or listens until home dials.
    func connect(_ identity: CloudIdentity) async throws {
        guard let plane else { return }
        let listenAddress = cloud.linkListen
        let address = listenAddress == nil ? try homeAddress(identity) : nil
        let (logger, loop, loopTurns, connections) = (
            environment.logger, environment.eventLoop, environment.loopTurns, cloud.linkConnections
        )
        let home = identity.onPremEdge
        let credentials = identity.credentials
        let (recorder, congestionControl) = (environment.recorder, environment.congestionControl)
        let wayHome = try await LoopConfined.make(on: loop) {
            let authorize: (PeerCertificate) -> PeerIdentity? = { certificate in
                guard let parsed = try? EdgeCertificate(der: certificate.der), parsed.role == .onprem, parsed.edgeIdentifier == home
                else { return nil }
                return PeerIdentity(home)
            }
            let wayHome: WayHome
            if let address {
                let endpoint = LinkEndpoint(role: .initiator, eventLoop: loop, logger: logger, congestionControl: congestionControl)
                let dialer = try LinkDialer(
                    endpoint: endpoint, host: address.host, port: Int(address.port), credentials: credentials, connections: connections,
                    logger: logger, authorize: authorize)
                wayHome = WayHome(dialer, endpoint: endpoint)
            } else {
                wayHome = try WayHome(
                    listeningFor: PeerIdentity(home), eventLoop: loop, credentials: credentials, congestionControl: congestionControl,
                    logger: logger, authorize: authorize)
            }
            let link = PeerLink(peer: home, endpoint: wayHome.link, eventLoop: loop, loopTurns: loopTurns)
            wayHome.link.delegate = link
            link.onShaped = { recorder.record(shaped: $0, peer: home) }
            link.onRequest = { [weak self] _, method, body in
                guard let self else { return ControlAnswer(status: 503, body: ByteBuffer()) }
                return await self.answer(method, body)
            }
            plane.onLoop { $0.install(link) }
            return wayHome
        }
        self.wayHome = wayHome
        let listening = listenAddress.map { (host: $0.host, port: Int($0.port)) }
        do {
            let bound = try await loop.flatSubmit { wayHome.future { $0.start(listeningAt: listening) } }.get()
            linkAddress = bound?.hostAndPort
            if let linkAddress { recorder.record("edge.listening", "listening for the on-prem edge at \(linkAddress)") }
        } catch {
            throw EdgeFailure(
                .unavailable, "link.listen: can't listen at \(listenAddress.map { "\($0)" } ?? ""): \(NetworkFailure(error))")
        }
    }

    /// Where home is: the configuration's word, or the token's.
    private func homeAddress(_ identity: CloudIdentity) throws -> NetworkAddress {
        if let address = cloud.linkConnect { return address }
        guard let text = identity.addresses.first else {
            throw EdgeFailure(.configuration, "link.connect is missing, and the pairing names no address")
        }
        return try NetworkAddress(parsing: text)
    }

    /// Asks home for a new certificate when the old one is getting old, and dials anew with it (X1).
    func renewIfNeeded() async {
        guard let identity, !isJoining, let plane else { return }
        // A home of an earlier version makes no certificates with which it could dial.
        let isForServers = identity.isForServers || hasRenewedForServers
        let version = (try? await plane.run { $0.link?.endpoint.version }) ?? nil
        let homeCanDial = !isForServers && (version ?? 0) >= LinkVersion.tunnels
        guard identity.needsRenewal() || homeCanDial, !isJoining else { return }
        isJoining = true
        defer { isJoining = false }
        do {
            let key = EdgeKey()
            let answer: RenewAnswer = try await call(
                ControlMethod.renew, RenewCall(signingRequest: try key.signingRequest(edge: identity.edge)), timeout: .seconds(30))
            let renewed = identity.renewed(certificate: answer.certificate, key: key)
            try renewed.save(in: environment.directory)
            hasRenewedForServers = true
            self.identity = renewed
            let reason = "this edge has a new certificate"
            try await needPlane().run { $0.link?.endpoint.close(reason: reason) }
            try await wayHome?.run { $0.stop(reason: reason) }
            try await connect(renewed)
            environment.recorder.record("edge.renewed", "this edge has a new certificate")
        } catch {
            environment.recorder.record(
                "edge.renewal_failed", severity: .warning,
                "the certificate could not be renewed: \(Problem(describing: error).detail ?? "")")
        }
    }

    func join(_ request: JoinRequestBody) async throws -> PeerEdge {
        if let identity {
            throw APIError.conflict(
                "already_paired", "The edge is paired", detail: "this edge is paired with \(identity.onPremEdge) as \(identity.edge)",
                action: "a new pairing needs a new state directory; volumes must be detached first")
        }
        if isJoining {
            throw APIError.conflict(
                "joining", "The edge is joining", detail: "another join is under way", action: "wait for its end")
        }
        isJoining = true
        defer { isJoining = false }
        let token = try Self.parseToken(request.token)
        let name = request.name ?? environment.configuration.name
        // Before home is asked: an edge that is taken in there and can't keep its certificate here would have used up the token.
        try CloudIdentity.checkRoom(in: environment.directory)
        let key = EdgeKey()
        let message = JoinRequest(
            token: token, name: name, signingRequest: try key.signingRequest(edge: name), softwareVersion: edgeVersion)
        let (answer, address) = try await ask(token, message, connect: request.connect)
        guard let reply = try? ControlCoding.decode(JoinReply.self, from: answer) else {
            throw (try? ControlCoding.decode(Problem.self, from: answer))
                ?? Problem(
                    status: 502, code: "join_failed", title: "Joining failed", detail: "the on-prem edge gave an answer that makes no sense"
                )
        }
        // The token's word is what everything to come is trusted by.
        guard (try? EdgeCertificate(pem: reply.authority))?.fingerprint == token.authority else {
            throw Problem(
                status: 502, code: "join_failed", title: "Joining failed",
                detail: "the on-prem edge names another authority than the token", action: "make a new token with `causeway pair` at home")
        }
        let identity = CloudIdentity(reply: reply, name: name, key: key, joinedAt: address)
        try identity.save(in: environment.directory)
        self.identity = identity
        try await needPlane().run { $0.setReady(false) }
        try await connect(identity)
        environment.recorder.record("edge.paired", "this edge is paired as \(identity.edge)")
        return PeerEdge(
            identifier: identity.edge, name: name, role: .cloud, connected: false, pairedAt: Date(), revoked: false, lastSeen: nil)
    }

    private static func parseToken(_ text: String) throws -> Pairing.PairingToken {
        do {
            let token = try Pairing.PairingToken(text: text)
            try token.checkExpiry()
            return token
        } catch {
            throw Problem(
                status: 400, code: "bad_token", title: "The token can't be used", detail: "\(error)",
                action: "make a new one with `causeway pair` at home; each is good once, and for a short time")
        }
    }

    /// Asks the edge that made the token; or waits until that one dials, when the token says so.
    /// Home's answer, and where it was reached; nil for the latter when home has dialled.
    private func ask(
        _ token: Pairing.PairingToken, _ message: JoinRequest, connect: String?
    ) async throws -> (answer: ByteBuffer, address: NetworkAddress?) {
        try checkDirection(token, connect: connect)
        let request = try ControlCoding.encode(message)
        if token.homeDials { return (try await askWhenDialled(token, request), nil) }
        let address =
            try connect.map { try NetworkAddress(parsing: $0) } ?? cloud.linkConnect
            ?? NetworkAddress(parsing: token.addresses.first ?? "")
        do {
            let answer = try await LinkJoin.exchange(
                host: address.host, port: Int(address.port), expectedAuthorityFingerprint: token.authority.bytes, request: request,
                authorize: Self.isOnPrem)
            return (answer, address)
        } catch {
            throw Problem(
                status: 502, code: "join_failed", title: "Joining failed", detail: "the on-prem edge at \(address): \(error)",
                action: "see to it that the on-prem edge runs and that its link port can be reached from here")
        }
    }

    private func askWhenDialled(_ token: Pairing.PairingToken, _ request: ByteBuffer) async throws -> ByteBuffer {
        guard let address = cloud.linkListen else { throw APIError.starting }
        let key = EdgeKey()
        // What it shows is looked at by nobody; TLS wants something.
        let certificate = try CertificateAuthority(name: environment.configuration.name).issue(key: key, edge: "joining", role: .cloud)
        let own = LinkCredentials(certificateChainPEM: certificate.pem, privateKeyPEM: key.pem, authorityPEM: certificate.pem)
        do {
            return try await LinkJoin.exchangeWhenDialled(
                host: address.host, port: Int(address.port), own: own, expectedAuthorityFingerprint: token.authority.bytes,
                request: request, patience: Self.dialPatience, authorize: Self.isOnPrem)
        } catch {
            throw Problem(
                status: 502, code: "join_failed", title: "Joining failed",
                detail: error == .timedOut
                    ? "the on-prem edge did not dial this one at \(address) within \(Self.dialPatience.nanoseconds / 1_000_000_000) s"
                    : "waiting for the on-prem edge at \(address): \(error)",
                action:
                    "see to it that the address in `causeway pair --connect` leads here from the on-prem edge, then join again: with the "
                    + "same token, or a new one if it was used")
        }
    }

    /// Token and configuration must agree on who dials.
    private func checkDirection(_ token: Pairing.PairingToken, connect: String?) throws {
        if token.homeDials == (cloud.linkListen != nil) { return }
        if token.homeDials {
            throw APIError.conflict(
                "home_dials", "The on-prem edge dials", detail: "with this token the on-prem edge dials this one, which listens nowhere",
                action: "write link.listen in place of link.connect into this edge's configuration, or make a token without --connect")
        }
        throw APIError.conflict(
            "home_must_dial", "The on-prem edge has to dial",
            detail: "this edge has link.listen: it waits for the on-prem edge, and this token is for an edge that dials",
            action: "make a token with `causeway pair --connect HOST:PORT`, the address of this edge as it is reached from home")
    }

    /// True for a certificate of an on-prem edge.
    private static func isOnPrem(_ certificate: PeerCertificate) -> Bool {
        (try? EdgeCertificate(der: certificate.der))?.role == .onprem
    }
}
