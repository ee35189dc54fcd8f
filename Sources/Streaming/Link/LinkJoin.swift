import Crypto
import LinkProtocol
import NIOCore
import NIOPosix
import NIOSSL
import NIOTLS

/// Why a join exchange came to nothing.
public enum LinkJoinError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The other side does not prove itself by the authority that the token names.
    case otherAuthority
    /// The other side has a certificate of that authority, but is not the edge that made the token.
    case otherEdge
    /// The request is longer than may be sent.
    case requestTooLong
    /// The other side closed the connection before its answer was complete.
    case noAnswer
    /// The other side took too long.
    case timedOut
    /// Network or TLS failed; the text says how.
    case failed(String)

    public var description: String {
        switch self {
        case .otherAuthority:
            "the other side is not the edge that the token was made by: its certificates come from another authority"
        case .otherEdge: "the other side is an edge that the token's maker knows, but not the one that made the token"
        case .requestTooLong: "the request is longer than \(LengthPrefixedMessage.maximumBytes) bytes"
        case .noAnswer: "the other side closed the connection without an answer"
        case .timedOut: "the other side took too long"
        case .failed(let text): text
        }
    }
}

/// The exchange of an edge that has no certificate yet, whichever side dials: see also LinkJoin+Listening.swift.
public enum LinkJoin {
    /// How long the whole of a connection may take.
    static let timeout = TimeAmount.seconds(45)

    /// Says whether a certificate of the authority is that of the edge that answers joins: its role is looked at, for every edge that
    /// was paired has a certificate of the authority.
    public typealias Authorization = @Sendable (PeerCertificate) -> Bool

    /// Sends one request to the listening edge, and gives its answer.
    ///
    /// The first connection only fetches the authority's certificate and compares its SHA-256 with the expected one; nothing
    /// is said on it. The second is verified in full against that certificate, so whoever sits between cannot answer it.
    /// - Parameter expectedAuthorityFingerprint: SHA-256 of the authority's certificate in DER, from the pairing token.
    public static func exchange(
        host: String, port: Int, expectedAuthorityFingerprint: [UInt8], request: ByteBuffer,
        group: any EventLoopGroup = MultiThreadedEventLoopGroup.singleton, authorize: @escaping Authorization
    ) async throws(LinkJoinError) -> ByteBuffer {
        guard request.readableBytes <= LengthPrefixedMessage.maximumBytes else { throw .requestTooLong }
        do {
            let authority = try await fetchAuthority(
                host: host, port: port, fingerprint: expectedAuthorityFingerprint, group: group)
            return try await ask(
                host: host, port: port, authority: authority, request: request, group: group, authorize: authorize)
        } catch let error as LinkJoinError {
            throw error
        } catch {
            throw .failed("\(error)")
        }
    }

    private static func fetchAuthority(
        host: String, port: Int, fingerprint: [UInt8], group: any EventLoopGroup
    ) async throws -> NIOSSLCertificate {
        let eventLoop = group.next()
        let found = eventLoop.makePromise(of: NIOSSLCertificate.self)
        let context = try NIOSSLContext(configuration: configuration(verification: .noHostnameVerification, roots: []))
        let channel = try await connect(host: host, port: port, on: eventLoop, failing: found) {
            let verify: NIOSSLCustomVerificationCallback = { chain, verdict in
                if let match = Self.authority(in: chain, fingerprint: fingerprint) {
                    found.succeed(match)
                } else {
                    found.fail(LinkJoinError.otherAuthority)
                }
                // Nothing is said on this connection, so it ends here either way.
                verdict.succeed(.failed)
            }
            return try NIOSSLClientHandler(context: context, serverHostname: nil, customVerificationCallback: verify)
        }
        defer { channel.close(promise: nil) }
        return try await found.futureResult.get()
    }

    /// The certificate of a chain that has this SHA-256.
    static func authority(in chain: [NIOSSLCertificate], fingerprint: [UInt8]) -> NIOSSLCertificate? {
        chain.first { certificate in
            guard let der = try? certificate.toDERBytes() else { return false }
            return Array(SHA256.hash(data: der)) == fingerprint
        }
    }

    private static func ask(
        host: String, port: Int, authority: NIOSSLCertificate, request: ByteBuffer, group: any EventLoopGroup,
        authorize: @escaping Authorization
    ) async throws -> ByteBuffer {
        let eventLoop = group.next()
        let answer = eventLoop.makePromise(of: ByteBuffer.self)
        let context = try NIOSSLContext(configuration: configuration(verification: .noHostnameVerification, roots: [authority]))
        let channel = try await connect(host: host, port: port, on: eventLoop, failing: answer) {
            try NIOSSLClientHandler(context: context, serverHostname: nil)
        } then: {
            JoinRequestHandler(request, answer, authorize: authorize)
        }
        defer { channel.close(promise: nil) }
        return try await answer.futureResult.get()
    }

    private static func configuration(verification: CertificateVerification, roots: [NIOSSLCertificate]) -> TLSConfiguration {
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.minimumTLSVersion = .tlsv13
        configuration.certificateVerification = verification
        configuration.trustRoots = .certificates(roots)
        configuration.applicationProtocols = [LinkApplicationProtocol.join]
        return configuration
    }

    /// Connects, and sees to it that the promise is fulfilled whatever happens to the channel.
    private static func connect<Value>(
        host: String, port: Int, on eventLoop: any EventLoop, failing promise: EventLoopPromise<Value>,
        tls: @escaping @Sendable () throws -> NIOSSLClientHandler,
        then handler: (@Sendable () -> any ChannelHandler)? = nil
    ) async throws -> any Channel {
        do {
            return try await ClientBootstrap(group: eventLoop)
                .connectTimeout(.seconds(10))
                .channelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture {
                        try channel.pipeline.syncOperations.addHandler(tls())
                        if let handler { try channel.pipeline.syncOperations.addHandler(handler()) }
                        try channel.pipeline.syncOperations.addHandler(FailureHandler(promise))
                    }
                }
                .connect(host: host, port: port)
                .map { channel in
                    // A name may stand for several addresses: of the channels that are made for them only this one counts.
                    channel.closeFuture.whenComplete { _ in promise.fail(LinkJoinError.noAnswer) }
                    channel.eventLoop.scheduleTask(in: timeout) {
                        promise.fail(LinkJoinError.timedOut)
                        channel.close(promise: nil)
                    }
                    return channel
                }
                .get()
        } catch {
            promise.fail(error)
            throw LinkJoinError.failed("cannot connect to \(host):\(port): \(NetworkFailure(error))")
        }
    }
}

/// Hands the first error of a channel to a promise.
final class FailureHandler<Value>: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    private let promise: EventLoopPromise<Value>

    init(_ promise: EventLoopPromise<Value>) { self.promise = promise }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        promise.fail(error as? LinkJoinError ?? LinkJoinError.failed("\(error)"))
        context.close(promise: nil)
    }
}

/// Sends the request once TLS is up and the other side is who it should be, and waits for the answer.
final class JoinRequestHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let request: ByteBuffer
    private let answer: EventLoopPromise<ByteBuffer>
    private let authorize: LinkJoin.Authorization
    private var reader = LengthPrefixedMessage()
    /// The other side is who it should be, and has been asked.
    private(set) var hasAsked = false

    init(_ request: ByteBuffer, _ answer: EventLoopPromise<ByteBuffer>, authorize: @escaping LinkJoin.Authorization) {
        self.request = request
        self.answer = answer
        self.authorize = authorize
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .handshakeCompleted? = event as? TLSUserEvent {
            let certificate = PeerCertificate(try? context.channel.pipeline.syncOperations.nioSSL_peerCertificate())
            guard let certificate, authorize(certificate) else { return context.fireErrorCaught(LinkJoinError.otherEdge) }
            hasAsked = true
            context.writeAndFlush(wrapOutboundOut(LengthPrefixedMessage.encode(request)), promise: nil)
        }
        context.fireUserInboundEventTriggered(event)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        // Bytes may come before it is known that TLS is up, and so before anybody has looked at the certificate.
        guard hasAsked else { return context.fireErrorCaught(LinkJoinError.failed("the other side answers before it was asked")) }
        do {
            if let reply = try reader.append(unwrapInboundIn(data)) { answer.succeed(reply) }
        } catch {
            answer.fail(LinkJoinError.failed("the answer is none: \(error)"))
            context.close(promise: nil)
        }
    }
}
