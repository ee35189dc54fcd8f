import Link
import LinkProtocol
import Logging
import NIOCore

/// How the link home comes about: this edge dials, or listens until home dials. Confined to one event loop.
final class WayHome {
    private enum Way {
        case dialling(LinkDialer)
        case listening(LinkListener, Gate)
    }

    /// This edge's end of the link.
    let link: LinkEndpoint
    private let way: Way

    /// Dials.
    init(_ dialer: LinkDialer, endpoint: LinkEndpoint) {
        way = .dialling(dialer)
        link = endpoint
    }

    /// Listens for the on-prem edge `home`, and for nobody else.
    init(
        listeningFor home: PeerIdentity, eventLoop: any EventLoop, credentials: LinkCredentials, congestionControl: CongestionControl,
        logger: Logger, authorize: @escaping (PeerCertificate) -> PeerIdentity?
    ) throws {
        let listener = try LinkListener(
            role: .initiator, eventLoop: eventLoop, credentials: credentials, logger: logger, congestionControl: congestionControl)
        let gate = Gate(authorize)
        listener.delegate = gate
        way = .listening(listener, gate)
        link = listener.link(of: home)
    }

    /// Begins to dial; or listens at an address, and tells where.
    func start(listeningAt address: (host: String, port: Int)?) -> EventLoopFuture<SocketAddress?> {
        switch way {
        case .dialling(let dialer):
            dialer.start()
            return link.eventLoop.makeSucceededFuture(nil)
        case .listening(let listener, _):
            guard let address else { return link.eventLoop.makeSucceededFuture(nil) }
            return listener.start(host: address.host, port: address.port).map { $0 }
        }
    }

    /// Why there is no connection, in words for the operator; nil while there is one.
    var lastError: String? {
        switch way {
        case .dialling(let dialer): dialer.lastError
        case .listening:
            link.isConnected
                ? nil : "the on-prem edge has not dialled this one: it must know the address (causeway edge change there)"
        }
    }

    /// Sets up no connection any more.
    func stop(reason: String) {
        switch way {
        case .dialling(let dialer): dialer.stop()
        case .listening(let listener, _): listener.stop(reason: reason)
        }
    }
}

/// Lets home in. Nobody joins at a cloud edge.
private final class Gate: LinkListenerDelegate {
    private let authorize: (PeerCertificate) -> PeerIdentity?

    init(_ authorize: @escaping (PeerCertificate) -> PeerIdentity?) { self.authorize = authorize }

    func linkListener(_ listener: LinkListener, authorize certificate: PeerCertificate) -> PeerIdentity? { authorize(certificate) }

    /// It is made before anybody comes, and has its delegate from then on.
    func linkListener(_ listener: LinkListener, created link: LinkEndpoint, for peer: PeerIdentity) {}

    func linkListener(
        _ listener: LinkListener, join request: ByteBuffer, from address: SocketAddress?, reply: @escaping (ByteBuffer) -> Void
    ) { reply(ByteBuffer()) }
}
