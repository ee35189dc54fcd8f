import LinkProtocol
import Logging
import NIOCore
import NIOPosix
import NIOSSL
import NIOTLS

/// Keeps connections up to the other edge, and gives them to an endpoint. Confined to the endpoint's event loop.
public final class LinkDialer {
    /// How long a TCP connection and then TLS may take.
    static let connectTimeout = TimeAmount.seconds(10)
    /// The pause before a connection is tried again, with jitter, and how many times as long it becomes by doubling: five seconds.
    static let firstPauseMilliseconds: Int64 = 200
    static let pausesRatio: Int64 = 25
    /// A connection that lasted so long makes the next pause short again.
    static let provenAfter = TimeAmount.seconds(5)

    private let endpoint: LinkEndpoint
    private let host: String
    private let port: Int
    private let context: NIOSSLContext
    private let authorize: (PeerCertificate) -> PeerIdentity?
    private let logger: Logger
    private let connectionCount: Int
    private let firstPauseMilliseconds: Int64
    private var pauses: [Int64]
    /// What is connected, or is being secured, by slot. Only this may end a slot's try, once: a channel can end in the writing of
    /// TLS's last word, and say after that that TLS is up.
    private var channels: [(any Channel)?]
    private var isStopped = false

    private var failure: String?

    /// Why there is no connection, in words for the operator; nil while there is one.
    public var lastError: String? { endpoint.isConnected ? nil : failure }

    /// Prepares dialling. Call `start` on the endpoint's event loop.
    /// - Parameter authorize: says who a certificate of the authority belongs to; nil when it is not the edge that is dialled.
    public convenience init(
        endpoint: LinkEndpoint, host: String, port: Int, credentials: LinkCredentials, connections: Int = 2, logger: Logger,
        authorize: @escaping (PeerCertificate) -> PeerIdentity?
    ) throws {
        try self.init(
            endpoint: endpoint, host: host, port: port, credentials: credentials, connections: connections,
            firstPauseMilliseconds: Self.firstPauseMilliseconds, logger: logger, authorize: authorize)
    }

    init(
        endpoint: LinkEndpoint, host: String, port: Int, credentials: LinkCredentials, connections: Int, firstPauseMilliseconds: Int64,
        logger: Logger, authorize: @escaping (PeerCertificate) -> PeerIdentity?
    ) throws {
        self.endpoint = endpoint
        self.host = host
        self.port = port
        self.context = try credentials.clientContext()
        self.authorize = authorize
        self.logger = logger
        // Half of what the other edge takes: connections that are lost may still be there for it when new ones come.
        self.connectionCount = min(max(1, connections), LinkLimits.connections / 2)
        self.firstPauseMilliseconds = firstPauseMilliseconds
        self.pauses = [Int64](repeating: firstPauseMilliseconds, count: connectionCount)
        self.channels = [(any Channel)?](repeating: nil, count: connectionCount)
    }

    /// Begins to dial, and goes on until `stop`.
    public func start() {
        endpoint.eventLoop.preconditionInEventLoop()
        for slot in 0..<connectionCount { dial(slot) }
    }

    /// Stops dialling and closes what is set up, or being set up. `endpoint.close` comes before, which says goodbye on its connections.
    public func stop() {
        isStopped = true
        for channel in channels { channel?.close(promise: nil) }
    }

    private func dial(_ slot: Int) {
        guard !isStopped else { return }
        let bound = NIOLoopBound(self, eventLoop: endpoint.eventLoop)
        let context = context
        ClientBootstrap(group: endpoint.eventLoop)
            .connectTimeout(Self.connectTimeout)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try LinkChannel.configure(channel)
                    // Before it connects: what the kernel begins to pace it paces for good.
                    if let name = bound.value.endpoint.beginningCongestionControl {
                        _ = LinkChannel.setCongestionControl(name, of: channel)
                    }
                    try channel.pipeline.syncOperations.addHandlers(
                        NIOSSLClientHandler(context: context, serverHostname: nil),
                        DialedHandler(bound.value, slot))
                }
            }
            .connect(host: host, port: port)
            .whenComplete { result in
                let dialer = bound.value
                switch result {
                case .success(let channel):
                    dialer.channels[slot] = channel
                    if dialer.isStopped {
                        channel.close(promise: nil)
                    } else if !channel.isActive {
                        dialer.ended(slot, channel, "the other side closed the connection")
                    }
                case .failure(let error): dialer.failed(slot, "cannot connect to \(dialer.host):\(dialer.port): \(NetworkFailure(error))")
                }
            }
    }

    /// A channel has ended, before or after its connection was handed over.
    fileprivate func ended(_ slot: Int, _ channel: any Channel, _ text: String) {
        guard channels[slot] === channel else { return }
        channels[slot] = nil
        failed(slot, text)
    }

    /// A try came to nothing, or a connection has ended: the slot is dialled again.
    private func failed(_ slot: Int, _ text: String) {
        if failure != text { logger.warning("link is not connected", metadata: ["reason": "\(text)"]) }
        failure = text
        guard !isStopped else { return }
        let pause = pauses[slot]
        pauses[slot] = min(pause * 2, firstPauseMilliseconds * Self.pausesRatio)
        let jittered = Int64.random(in: pause / 2...pause)
        endpoint.eventLoop.assumeIsolated().scheduleTask(in: .milliseconds(jittered)) { [weak self] in self?.dial(slot) }
    }

    /// Why a connection is not taken whose TLS is up; without a text when there is nothing to tell.
    fileprivate struct Refusal: Error { let text: String? }

    /// TLS is up: checks who answered, and hands the channel over.
    fileprivate func ready(_ slot: Int, _ channel: any Channel, negotiated: String?) throws(Refusal)
        -> any ChannelHandler & RemovableChannelHandler
    {
        guard !isStopped, channels[slot] === channel else { throw Refusal(text: nil) }
        guard negotiated == LinkApplicationProtocol.link else { throw Refusal(text: "the other side does not speak the link protocol") }
        guard let certificate = PeerCertificate(try? channel.pipeline.syncOperations.nioSSL_peerCertificate()),
            authorize(certificate) != nil
        else {
            throw Refusal(text: "\(host):\(port) has a certificate of our authority, but is not the edge that it should be")
        }
        let since = NIODeadline.now()
        return endpoint.attach(channel) { [weak self] reason in
            guard let self else { return }
            if NIODeadline.now() - since >= Self.provenAfter {
                self.pauses[slot] = self.firstPauseMilliseconds
                // What was wrong before is over; should it come again, it is told again.
                self.failure = nil
            }
            self.ended(slot, channel, reason ?? "the connection to \(self.host):\(self.port) was lost")
        }
    }

}

/// Waits for the end of the TLS handshake of a dialled channel.
private final class DialedHandler: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer

    private let dialer: LinkDialer
    private let slot: Int
    private var isDone = false
    private var failure: String?
    private var timeout: Scheduled<Void>?

    init(_ dialer: LinkDialer, _ slot: Int) {
        self.dialer = dialer
        self.slot = slot
    }

    func handlerAdded(context: ChannelHandlerContext) {
        let channel = context.channel
        timeout = context.eventLoop.assumeIsolated().scheduleTask(in: LinkDialer.connectTimeout) { [weak self] in
            self?.failure = "the TLS handshake took too long"
            channel.close(promise: nil)
        }
    }

    func handlerRemoved(context: ChannelHandlerContext) { timeout?.cancel() }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        guard case .handshakeCompleted(let negotiated)? = event as? TLSUserEvent else {
            context.fireUserInboundEventTriggered(event)
            return
        }
        let next: any ChannelHandler & RemovableChannelHandler
        do throws(LinkDialer.Refusal) {
            next = try dialer.ready(slot, context.channel, negotiated: negotiated)
        } catch {
            failure = error.text
            context.close(promise: nil)
            return
        }
        isDone = true
        do {
            try context.pipeline.syncOperations.addHandler(next, position: .after(self))
            context.pipeline.syncOperations.removeHandler(self, promise: nil)
        } catch {
            context.close(promise: nil)
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        failure = "\(error)"
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        if !isDone { dialer.ended(slot, context.channel, failure ?? "the other side closed the connection during the TLS handshake") }
        isDone = true
        context.fireChannelInactive()
    }
}
