import EdgeConfiguration
import Link
import Logging
import NIOCore

// Edges that home dials, because they can't dial home: it is behind a firewall that lets nothing in. Who dials makes no other difference:
// the cloud edge still says hello first, home still names the session, and connections of both ways belong to one link.

extension HomePlane {
    /// What dialling needs.
    struct DialingMeans {
        let credentials: LinkCredentials
        let connections: Int
        let logger: Logger
    }

    /// How many invited edges may be dialled at a time.
    static let invitationsMax = 64

    /// Dials an edge from now on; no more, or at another place, when it did before.
    func dial(_ edge: String, at address: NetworkAddress?) {
        dialers.removeValue(forKey: edge)?.stop()
        guard let address, let means = dialingMeans, let listener, trusted.contains(edge) else { return }
        do {
            let dialer = try LinkDialer(
                endpoint: listener.link(of: PeerIdentity(edge)), host: address.host, port: Int(address.port),
                credentials: means.credentials, connections: means.connections, logger: means.logger
            ) { [unowned self] certificate in
                self.edge(of: certificate) == edge ? PeerIdentity(edge) : nil
            }
            dialers[edge] = dialer
            dialer.start()
        } catch {
            recorder.record("link.not_dialled", subject: edge, severity: .error, "edge \(edge) can't be dialled: \(error)")
        }
    }

    /// Dials an edge that was invited, until it has joined or `deadline` has come.
    /// - Parameter token: the hash of the invitation's secret.
    func invite(_ token: String, at address: NetworkAddress, until deadline: NIODeadline) {
        guard let means = dialingMeans, joinDialers[token] == nil else { return }
        do {
            let dialer = try JoinDialer(
                eventLoop: eventLoop, host: address.host, port: Int(address.port), until: deadline, credentials: means.credentials,
                logger: means.logger
            ) { [unowned self] request, _, reply in answerJoin(request, reply: reply) }
            joinDialers[token] = dialer
            dialer.start()
            let bound = NIOLoopBound(self, eventLoop: eventLoop)
            eventLoop.scheduleTask(deadline: deadline) { bound.value.endInvitation(token) }
        } catch {
            recorder.record("pairing.not_dialled", severity: .error, "the edge at \(address) can't be invited: \(error)")
        }
    }

    /// The invitation was used, or its time is over.
    func endInvitation(_ token: String) { joinDialers.removeValue(forKey: token)?.stop() }

    /// Dials nobody any more.
    func stopDialling() {
        for dialer in dialers.values { dialer.stop() }
        for dialer in joinDialers.values { dialer.stop() }
        dialers = [:]
        joinDialers = [:]
    }
}
