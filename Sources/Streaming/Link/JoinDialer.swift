import Logging
import NIOCore
import NIOPosix
import NIOSSL
import NIOTLS

/// Dials an edge that was invited and cannot dial itself, again and again, and answers its request to join. Confined to one event loop.
///
/// Whoever answers there is believed nothing: what it asks for is granted by the secret in its request. It sees that this edge has a
/// certificate of the authority that its token names.
public final class JoinDialer {
    /// How long a TCP connection may take.
    static let connectTimeout = TimeAmount.seconds(10)
    /// The pause before the next try; the other edge needs two to begin with, and somebody waits for it.
    static let pauseMilliseconds: ClosedRange<Int64> = 500...1_500

    private let eventLoop: any EventLoop
    private let host: String
    private let port: Int
    private let until: NIODeadline
    private let context: NIOSSLContext
    private let logger: Logger
    private let answer: JoinAnswerHandler.Answer
    private var isStopped = false
    /// What was told last, so that it is told once.
    private var told: String?

    /// Prepares dialling. Call `start` on the event loop.
    /// - Parameters:
    ///   - until: it ends by itself then.
    ///   - answer: answers a request; it calls its completion once, on the event loop.
    public init(
        eventLoop: any EventLoop, host: String, port: Int, until: NIODeadline, credentials: LinkCredentials, logger: Logger,
        answer: @escaping (_ request: ByteBuffer, _ address: SocketAddress?, _ reply: @escaping (ByteBuffer) -> Void) -> Void
    ) throws {
        self.eventLoop = eventLoop
        self.host = host
        self.port = port
        self.until = until
        self.context = try credentials.joinDialContext()
        self.logger = logger
        self.answer = answer
    }

    /// Begins to dial, and goes on until `stop`, or until its time is over.
    public func start() {
        eventLoop.preconditionInEventLoop()
        dial()
    }

    /// Dials no more. An answer that is on its way still arrives.
    public func stop() { isStopped = true }

    private func dial() {
        guard !isStopped, NIODeadline.now() < until else { return }
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        let context = context
        ClientBootstrap(group: eventLoop)
            .connectTimeout(Self.connectTimeout)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let handler = JoinAnswerHandler(answer: bound.value.answer) { text, _ in bound.value.tell(text) }
                    try channel.pipeline.syncOperations.addHandlers(
                        NIOSSLClientHandler(context: context, serverHostname: nil), handler)
                }
            }
            .connect(host: host, port: port)
            .whenComplete { result in
                switch result {
                case .success(let channel): channel.closeFuture.whenComplete { _ in bound.value.pause() }
                case .failure(let error):
                    bound.value.tell("cannot connect to \(bound.value.host):\(bound.value.port): \(NetworkFailure(error))")
                    bound.value.pause()
                }
            }
    }

    private func pause() {
        guard !isStopped else { return }
        let pause = TimeAmount.milliseconds(Int64.random(in: Self.pauseMilliseconds))
        eventLoop.assumeIsolated().scheduleTask(in: pause) { [weak self] in self?.dial() }
    }

    private func tell(_ text: String) {
        if told == text { return }
        told = text
        logger.notice("an edge that was invited has not joined yet", metadata: ["reason": "\(text)"])
    }
}

extension LinkCredentials {
    /// TLS for the side that dials an edge without a certificate, and believes it nothing.
    fileprivate func joinDialContext() throws -> NIOSSLContext {
        var configuration = try clientConfiguration()
        configuration.certificateVerification = .none
        configuration.applicationProtocols = [LinkApplicationProtocol.join]
        return try NIOSSLContext(configuration: configuration)
    }
}
