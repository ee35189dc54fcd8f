import LinkProtocol
import Logging
import NIOCore
import NIOPosix
import NIOSSL
import NIOTLS

/// What decides for a listener. All calls are made on its event loop.
public protocol LinkListenerDelegate: AnyObject {
    /// Says who a verified certificate belongs to; nil when it is revoked, or none of an edge that may come.
    func linkListener(_ listener: LinkListener, authorize certificate: PeerCertificate) -> PeerIdentity?
    /// What a peer is told that may come no more; nil to close without a word, as strangers are. The certificate is verified.
    func linkListener(_ listener: LinkListener, farewellTo certificate: PeerCertificate) -> String?
    /// A peer connects for the first time, or again after it was dropped: set the delegate of its end here.
    func linkListener(_ listener: LinkListener, created link: LinkEndpoint, for peer: PeerIdentity)
    /// An edge without a certificate asks to join; call `reply` once, on the event loop.
    func linkListener(
        _ listener: LinkListener, join request: ByteBuffer, from address: SocketAddress?, reply: @escaping (ByteBuffer) -> Void)
}

extension LinkListenerDelegate {
    public func linkListener(_ listener: LinkListener, farewellTo certificate: PeerCertificate) -> String? { nil }
}

/// Accepts links on one port, and at home join requests too. Confined to one event loop.
///
/// Who listens has nothing to do with who names the session: the cloud edge is the initiator of a session also when home dials.
public final class LinkListener {
    /// Connections that have not proved who they are yet. More are closed at once.
    public static let maximumUnauthenticated = 256
    /// And of one address: a single stranger leaves room to others (one with several addresses may not), and eight edges behind one address may come
    /// at once with eight connections each.
    static let maximumUnauthenticatedOfAddress = 64
    /// How long a connection may take for TLS, and then for a join request.
    static let handshakeTimeout = TimeAmount.seconds(10)

    /// The loop on which the listener and its links live.
    public let eventLoop: any EventLoop
    public weak var delegate: (any LinkListenerDelegate)?
    /// The peers that have connected since the start, with their ends.
    public private(set) var links: [PeerIdentity: LinkEndpoint] = [:]

    private let role: LinkRole
    private let context: NIOSSLContext
    private let logger: Logger
    private let times: LinkTimes
    private let congestionControl: CongestionControl
    private var strangersLog = RateLimitedLog()
    private var unauthenticated = 0
    private var serverChannel: (any Channel)?
    private var isStopped = false
    private var joining: [ObjectIdentifier: any Channel] = [:]

    /// Prepares listening. Call `start` on the event loop.
    /// - Parameters:
    ///   - role: which end of its links this is. Only an acceptor, which is home, answers edges that ask to join.
    ///   - congestionControl: what decides how fast the connections of its links may send.
    public init(
        role: LinkRole = .acceptor, eventLoop: any EventLoop, credentials: LinkCredentials, logger: Logger,
        congestionControl: CongestionControl = .automatic, times: LinkTimes = LinkTimes()
    ) throws {
        self.role = role
        self.eventLoop = eventLoop
        self.context = try credentials.serverContext(answersJoins: role == .acceptor)
        self.logger = logger
        self.times = times
        self.congestionControl = congestionControl
    }

    /// Binds, and tells the address, whose port the system chose if `port` is 0.
    public func start(host: String, port: Int) -> EventLoopFuture<SocketAddress> {
        eventLoop.preconditionInEventLoop()
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        return ServerBootstrap(group: eventLoop)
            .serverChannelOption(.backlog, value: 128)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .serverChannelInitializer { channel in
                // Whoever is accepted begins with what the listening socket has.
                channel.eventLoop.makeCompletedFuture {
                    if let name = bound.value.congestionControl.beginning { _ = LinkChannel.setCongestionControl(name, of: channel) }
                }
            }
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try bound.value.accept(channel) }
            }
            .bind(host: host, port: port)
            .flatMapThrowing { channel in
                guard let address = channel.localAddress else { throw ChannelError.unknownLocalAddress }
                bound.value.serverChannel = channel
                if bound.value.isStopped { channel.close(promise: nil) }
                return address
            }
    }

    /// Stops listening, and closes every link.
    public func stop(reason: String) {
        isStopped = true
        serverChannel?.close(promise: nil)
        serverChannel = nil
        for channel in joining.values { channel.close(promise: nil) }
        for link in links.values { link.close(reason: reason) }
        links = [:]
    }

    /// Closes a peer's link, and forgets it; when the peer may come again, it gets a new one.
    public func drop(_ peer: PeerIdentity, reason: String) {
        links.removeValue(forKey: peer)?.close(reason: reason)
    }

    private func accept(_ channel: any Channel) throws {
        let address = channel.remoteAddress?.ipAddress
        guard unauthenticated < Self.maximumUnauthenticated,
            joining.values.count(where: { $0.remoteAddress?.ipAddress == address }) < Self.maximumUnauthenticatedOfAddress
        else {
            stranger("too many connections that have not proved who they are", channel)
            throw ChannelError.operationUnsupported
        }
        try LinkChannel.configure(channel)
        try channel.pipeline.syncOperations.addHandlers(NIOSSLServerHandler(context: context), AcceptedHandler(self))
    }

    fileprivate func stranger(_ text: String, _ channel: any Channel) {
        strangersLog.notice(text, peer: channel.remoteAddress, logger: logger, now: .now())
    }

    fileprivate func handshakeFailed(_ channel: any Channel, _ error: any Error) {
        logger.debug("a TLS handshake failed", metadata: ["peer": "\(channel.remoteAddress?.description ?? "")", "error": "\(error)"])
    }

    fileprivate func began(_ channel: any Channel) {
        unauthenticated += 1
        joining[ObjectIdentifier(channel)] = channel
    }

    fileprivate func ended(_ channel: any Channel) {
        unauthenticated -= 1
        joining[ObjectIdentifier(channel)] = nil
    }

    /// TLS is up: finds out who this is, and gives the handler that goes on with the channel.
    fileprivate func ready(_ channel: any Channel, negotiated: String?) -> (any ChannelHandler & RemovableChannelHandler)? {
        // It can have ended in the writing of TLS's last word.
        guard channel.isActive else { return nil }
        switch negotiated {
        case LinkApplicationProtocol.join where role == .acceptor: return joinHandler(channel)
        case LinkApplicationProtocol.link: break
        default:
            stranger("a connection without a known protocol", channel)
            return nil
        }
        guard let certificate = PeerCertificate(try? channel.pipeline.syncOperations.nioSSL_peerCertificate()) else {
            stranger("a link without a certificate", channel)
            return nil
        }
        guard let peer = delegate?.linkListener(self, authorize: certificate) else {
            stranger("a link with a certificate that is not authorised", channel)
            if let reason = delegate?.linkListener(self, farewellTo: certificate) {
                channel.writeAndFlush(LinkCloseReason.closed(reason).goodbyeFrame.encoded(), promise: nil)
            }
            return nil
        }
        return link(of: peer).attach(channel) { _ in }
    }

    /// The end of the link with a peer; made, and told to the delegate, when there is none yet. Connections that this side has dialled
    /// belong to it as well as those that were accepted.
    public func link(of peer: PeerIdentity) -> LinkEndpoint {
        eventLoop.preconditionInEventLoop()
        if let link = links[peer] { return link }
        let link = LinkEndpoint(
            role: role, eventLoop: eventLoop, logger: logger, congestionControl: congestionControl, times: times)
        links[peer] = link
        delegate?.linkListener(self, created: link, for: peer)
        return link
    }

    /// The channel, which counts among those that have not proved who they are, does so until it ends.
    private func joinHandler(_ channel: any Channel) -> JoinAnswerHandler {
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        channel.closeFuture.whenComplete { _ in bound.value.ended(channel) }
        return JoinAnswerHandler { request, address, reply in
            let listener = bound.value
            listener.delegate?.linkListener(listener, join: request, from: address, reply: reply)
        } garbled: { text, channel in
            bound.value.stranger(text, channel)
        }
    }
}

/// A channel that was accepted, until its TLS is up.
private final class AcceptedHandler: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer

    private let listener: LinkListener
    private var timeout: Scheduled<Void>?
    private var isCounted = false

    init(_ listener: LinkListener) { self.listener = listener }

    func handlerAdded(context: ChannelHandlerContext) {
        let channel = context.channel
        isCounted = true
        listener.began(channel)
        timeout = context.eventLoop.assumeIsolated().scheduleTask(in: LinkListener.handshakeTimeout) {
            channel.close(promise: nil)
        }
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        timeout?.cancel()
        if isCounted { listener.ended(context.channel) }
        isCounted = false
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        guard case .handshakeCompleted(let negotiated)? = event as? TLSUserEvent else {
            context.fireUserInboundEventTriggered(event)
            return
        }
        guard let next = listener.ready(context.channel, negotiated: negotiated) else {
            context.close(promise: nil)
            return
        }
        if next is JoinAnswerHandler { isCounted = false }
        do {
            try context.pipeline.syncOperations.addHandler(next, position: .after(self))
            context.pipeline.syncOperations.removeHandler(self, promise: nil)
        } catch {
            context.close(promise: nil)
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // The first connection of a join ends so: it only looks at the certificate.
        if error is NIOSSLError {
            listener.handshakeFailed(context.channel, error)
        } else {
            listener.stranger("a connection failed before it was known: \(error)", context.channel)
        }
        context.close(promise: nil)
    }
}
