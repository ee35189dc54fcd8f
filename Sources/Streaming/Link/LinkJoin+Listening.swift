import LinkProtocol
import NIOCore
import NIOPosix
import NIOSSL
import NIOTLS

// The exchange of an edge that has no certificate yet and waits for the other side to dial: that one cannot be reached from here.
//
//   this edge                                       home
//   listens, with a certificate of its own making
//   <-- TLS: home proves itself by its certificate; what this edge shows proves nothing
//   1st connection: takes the authority's certificate out of home's chain, and ends it
//   2nd: verifies home in full against that authority, and its role
//   request -->
//   <-- answer
//
// Home's trust is in the secret of the request, this edge's in the fingerprint of the token: both are as when this edge dials.

extension LinkJoin {
    /// Waits until the edge that made the token has dialled, sends it one request, and gives its answer.
    /// - Parameters:
    ///   - own: a certificate and its key, of any authority: nobody looks at it.
    ///   - expectedAuthorityFingerprint: SHA-256 of the authority's certificate in DER, from the pairing token.
    ///   - patience: how long to wait for all that.
    /// - Throws: `timedOut` when nobody came who is the right one; the last error of those who tried otherwise.
    public static func exchangeWhenDialled(
        host: String, port: Int, own: LinkCredentials, expectedAuthorityFingerprint: [UInt8], request: ByteBuffer, patience: TimeAmount,
        group: any EventLoopGroup = MultiThreadedEventLoopGroup.singleton, authorize: @escaping Authorization,
        listening: @escaping @Sendable (SocketAddress) -> Void = { _ in }
    ) async throws(LinkJoinError) -> ByteBuffer {
        guard request.readableBytes <= LengthPrefixedMessage.maximumBytes else { throw .requestTooLong }
        let eventLoop = group.next()
        do {
            let answer = eventLoop.makePromise(of: ByteBuffer.self)
            let waiting = try await eventLoop.submit {
                let waiting = try JoinWaiting(
                    eventLoop: eventLoop, own: own, fingerprint: expectedAuthorityFingerprint, request: request, answer: answer,
                    authorize: authorize)
                return NIOLoopBound(waiting, eventLoop: eventLoop)
            }.get()
            let channel: any Channel
            do {
                channel = try await eventLoop.flatSubmit { waiting.value.listen(host: host, port: port) }.get()
            } catch {
                answer.fail(error)
                throw LinkJoinError.failed("cannot listen at \(host):\(port): \(NetworkFailure(error))")
            }
            if let address = channel.localAddress { listening(address) }
            let deadline = eventLoop.scheduleTask(in: patience) { waiting.value.giveUp() }
            let result: Result<ByteBuffer, any Error>
            do { result = .success(try await answer.futureResult.get()) } catch { result = .failure(error) }
            deadline.cancel()
            // The port is free again before the caller goes on: the link will listen there.
            try? await channel.close()
            return try result.get()
        } catch let error as LinkJoinError {
            throw error
        } catch {
            throw .failed("\(error)")
        }
    }
}

/// What waits for the edge that made a token. Confined to one event loop.
private final class JoinWaiting {
    private let eventLoop: any EventLoop
    private let own: LinkCredentials
    private let fingerprint: [UInt8]
    private let request: ByteBuffer
    private let answer: EventLoopPromise<ByteBuffer>
    private let authorize: LinkJoin.Authorization
    /// Known once somebody has shown it, who need not be trusted for that.
    private var authority: NIOSSLCertificate?
    private let unverifying: NIOSSLContext
    private var connectionCount = 0
    /// Why the last one that came was not the right one.
    private var lastError: LinkJoinError?

    init(
        eventLoop: any EventLoop, own: LinkCredentials, fingerprint: [UInt8], request: ByteBuffer, answer: EventLoopPromise<ByteBuffer>,
        authorize: @escaping LinkJoin.Authorization
    ) throws {
        self.eventLoop = eventLoop
        self.own = own
        self.fingerprint = fingerprint
        self.request = request
        self.answer = answer
        self.authorize = authorize
        unverifying = try own.joinContext(trusting: [])
    }

    func listen(host: String, port: Int) -> EventLoopFuture<any Channel> {
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        return ServerBootstrap(group: eventLoop)
            .serverChannelOption(.backlog, value: 16)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try bound.value.accept(channel) }
            }
            .bind(host: host, port: port)
    }

    /// The time is over.
    func giveUp() { answer.fail(lastError ?? .timedOut) }

    private func accept(_ channel: any Channel) throws {
        // Whoever is too many is closed: the right one comes again.
        guard connectionCount < LinkListener.maximumUnauthenticated else { throw ChannelError.operationUnsupported }
        connectionCount += 1
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        channel.closeFuture.whenComplete { _ in bound.value.connectionCount -= 1 }
        guard let authority else {
            channel.eventLoop.scheduleTask(in: LinkListener.handshakeTimeout) { channel.close(promise: nil) }
            return try addAuthorityFinder(to: channel)
        }
        // Its own promise: of several that try, those that fail must not end the wait.
        let own = channel.eventLoop.makePromise(of: ByteBuffer.self)
        channel.closeFuture.whenComplete { _ in own.fail(LinkJoinError.noAnswer) }
        own.futureResult.whenComplete { bound.value.ended($0) }
        let context = try self.own.joinContext(trusting: [authority])
        let asking = JoinRequestHandler(request, own, authorize: authorize)
        try channel.pipeline.syncOperations.addHandlers(NIOSSLServerHandler(context: context), asking, FailureHandler(own))
        let timers = channel.eventLoop.assumeIsolated()
        timers.scheduleTask(in: LinkListener.handshakeTimeout) { if !asking.hasAsked { channel.close(promise: nil) } }
        timers.scheduleTask(in: LinkJoin.timeout) { channel.close(promise: nil) }
    }

    private func ended(_ result: Result<ByteBuffer, any Error>) {
        switch result {
        case .success(let reply): answer.succeed(reply)
        case .failure(let error): lastError = error as? LinkJoinError ?? .failed("\(error)")
        }
    }

    /// Nothing is said on this connection: it ends in its handshake.
    private func addAuthorityFinder(to channel: any Channel) throws {
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        let fingerprint = fingerprint
        let verify: NIOSSLCustomVerificationCallback = { chain, verdict in
            let waiting = bound.value
            if let found = LinkJoin.authority(in: chain, fingerprint: fingerprint) {
                waiting.authority = found
            } else {
                waiting.lastError = .otherAuthority
            }
            verdict.succeed(.failed)
        }
        try channel.pipeline.syncOperations.addHandlers(
            NIOSSLServerHandler(context: unverifying, customVerificationCallback: verify), ClosingHandler())
    }
}

/// Closes a channel at its first error, which is of no interest.
private final class ClosingHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}

extension LinkCredentials {
    /// TLS for the side that listens for the answer to its join request: whoever dials has to show a certificate.
    fileprivate func joinContext(trusting authorities: [NIOSSLCertificate]) throws -> NIOSSLContext {
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: try NIOSSLCertificate.fromPEMBytes(Array(certificateChainPEM.utf8)).map { .certificate($0) },
            privateKey: .privateKey(try NIOSSLPrivateKey(bytes: Array(privateKeyPEM.utf8), format: .pem)))
        configuration.minimumTLSVersion = .tlsv13
        configuration.trustRoots = .certificates(authorities)
        configuration.certificateVerification = .noHostnameVerification
        configuration.applicationProtocols = [LinkApplicationProtocol.join]
        return try NIOSSLContext(configuration: configuration)
    }
}
