import APIModels
import Hummingbird
import HummingbirdCore
import Logging
import NIOCore
import NIOPosix
import ServiceLifecycle

/// The HTTP server of the management API. Run it as a service: a graceful shutdown ends event streams and waits for the requests
/// that run; cancellation ends them.
public struct ManagementServer: Service {
    /// Where and how it listens.
    public struct Options: Sendable {
        /// A name or address, without brackets.
        public var host: String
        /// Zero lets the system choose.
        public var port: Int
        /// Serve `/metrics` without a token.
        public var openMetrics = false
        /// The version in the OpenAPI document.
        public var version: String
        /// Connections at a time; more wait in the listener's queue.
        public var mostConnections = 256
        /// How long a connection may rest between requests.
        public var idleTimeout: TimeAmount = .seconds(60)
        /// How long a request may take to arrive.
        public var requestTimeout: TimeAmount = .seconds(30)

        public init(host: String, port: Int, version: String, openMetrics: Bool = false) {
            self.host = host
            self.port = port
            self.version = version
            self.openMetrics = openMetrics
        }
    }

    /// The address cannot be listened on.
    public struct ListenError: Error, CustomStringConvertible {
        public var description: String
    }

    private let application: Application<APIResponder>
    private let options: Options

    /// - Parameter onListening: is told the address once, when connections are accepted.
    public init(
        options: Options, controller: any EdgeController, tokens: BearerTokens, logger: Logger,
        eventLoopGroup: any EventLoopGroup = MultiThreadedEventLoopGroup.singleton,
        onListening: @escaping @Sendable (_ host: String, _ port: Int) async -> Void = { _, _ in }
    ) {
        self.options = options
        application = Self.application(
            options: options, controller: controller, tokens: tokens, logger: logger, eventLoopGroup: eventLoopGroup,
            onListening: onListening)
    }

    /// Serves until the service is shut down or the task is cancelled.
    public func run() async throws {
        do {
            try await application.run()
        } catch let error as any BindFailure {
            throw ListenError(
                description:
                    "the management API cannot listen on \(options.host):\(options.port): \(error); check api.listen, and that no other process uses it"
            )
        }
    }

    static func application(
        options: Options, controller: any EdgeController, tokens: BearerTokens, logger: Logger,
        eventLoopGroup: any EventLoopGroup = MultiThreadedEventLoopGroup.singleton,
        onListening: @escaping @Sendable (_ host: String, _ port: Int) async -> Void = { _, _ in }
    ) -> Application<APIResponder> {
        let responder = APIResponder(
            controller: controller, tokens: tokens, routes: RouteTable.all(openMetrics: options.openMetrics),
            version: options.version)
        let (requestTimeout, byteLimit) = (options.requestTimeout, APIResponder.largestBody * 2)
        var quiet = logger
        // Hummingbird's own lines at info say what onListening says.
        quiet.logLevel = max(logger.logLevel, .notice)
        return Application(
            responder: responder,
            server: .http1(
                configuration: .init(
                    additionalChannelHandlers: [RequestLimitHandler(timeLimit: requestTimeout, byteLimit: byteLimit)],
                    idleTimeout: options.idleTimeout,
                    httpDecoderConfiguration: .init(
                        maxHeaderFieldSize: 16 << 10, maxHeaderListSize: 32 << 10, maxHeaderFieldCount: 100))),
            configuration: .init(
                address: .hostname(options.host, port: options.port),
                availableConnectionsDelegate: MaximumAvailableConnections(options.mostConnections)),
            onServerRunning: { channel in
                guard let address = channel.localAddress else { return }
                await onListening(address.ipAddress ?? options.host, address.port ?? options.port)
            },
            eventLoopGroupProvider: .shared(eventLoopGroup), logger: quiet)
    }
}

/// The errors with which a bind fails.
private protocol BindFailure: Error {}
extension IOError: BindFailure {}
extension SocketAddressError: BindFailure {}
extension NIOConnectionError: BindFailure {}
