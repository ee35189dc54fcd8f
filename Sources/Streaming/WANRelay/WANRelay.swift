import Logging
import NIOCore
import NIOPosix

/// A host and a port.
public struct RelayAddress: Hashable, Sendable, CustomStringConvertible {
    public var host: String
    public var port: Int

    public init(host: String, port: Int) {
        self.host = host
        self.port = port
    }

    /// `host:port`, with brackets around an IPv6 address.
    public var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}

/// A running relay: a line with a delay, a rate and a router's queue between those who connect to it and one server.
public final class WANRelay: Sendable {
    /// The connections that are relayed at one time; further ones are reset.
    public static let connectionLimit = 1024
    /// What the kernel may keep of a connection before the relay reads it. A large buffer would be a
    /// second queue that nobody sees.
    public static let socketReceiveBytes = 64 * 1024
    /// TCP_MAXSEG. The segments of the loopback device are as large as our receive buffer; TCP handles such a
    /// window by waiting, for its timers, whenever it is partly full.
    static let maximumSegment = NIOBSDSocket.Option(rawValue: 2)
    /// The most that is taken from a socket at once.
    public static let readBytes = 16 * 1024

    private let eventLoop: any EventLoop
    private let line: NIOLoopBound<RelayLine>
    private let listeners: [any Channel]
    /// Where clients connect, with the port that the system gave.
    public let listenAddress: RelayAddress
    /// Where the line is controlled; nil when it is not.
    public let controlAddress: RelayAddress?

    private init(eventLoop: any EventLoop, line: NIOLoopBound<RelayLine>, listener: any Channel, control: (any Channel)?) {
        self.eventLoop = eventLoop
        self.line = line
        listeners = [listener] + (control.map { [$0] } ?? [])
        listenAddress = RelayAddress(listener.localAddress)
        controlAddress = control.map { RelayAddress($0.localAddress) }
    }

    /// Starts a relay on one loop of `group`.
    /// - Parameters:
    ///   - listen: where clients connect; port 0 lets the system choose.
    ///   - server: where every connection is led.
    ///   - control: where to listen for the control protocol, and how to read its values; nil for no control port.
    public static func start(
        listen: RelayAddress, server: RelayAddress, conditions: RelayConditions,
        control: (address: RelayAddress, values: RelayControlValues)? = nil, group: any EventLoopGroup, logger: Logger
    ) async throws -> WANRelay {
        let eventLoop = group.next()
        let line = try await eventLoop.submit {
            NIOLoopBound(
                RelayLine(eventLoop: eventLoop, server: server, conditions: conditions, logger: logger), eventLoop: eventLoop)
        }.get()
        let listener = try await bind(listen, on: eventLoop) { channel in
            channel.eventLoop.makeCompletedFuture { try line.value.accept(channel) }
        }
        guard let control else { return WANRelay(eventLoop: eventLoop, line: line, listener: listener, control: nil) }
        do {
            let controlListener = try await ControlPort.bind(control.address, on: eventLoop) {
                line.value.answer($0, values: control.values)
            }
            return WANRelay(eventLoop: eventLoop, line: line, listener: listener, control: controlListener)
        } catch {
            try? await listener.close()
            throw error
        }
    }

    private static func bind(
        _ address: RelayAddress, on eventLoop: any EventLoop, accept: @escaping @Sendable (any Channel) -> EventLoopFuture<Void>
    ) async throws -> any Channel {
        try await ServerBootstrap(group: eventLoop)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            // Accepted sockets inherit it, and only so does it bound the window that the handshake offers.
            .serverChannelOption(.socketOption(.so_rcvbuf), value: SocketOptionValue(socketReceiveBytes))
            .serverChannelOption(.tcpOption(maximumSegment), value: SocketOptionValue(RelayConditions.segmentBytesMinimum))
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelOption(.autoRead, value: false)
            .childChannelOption(.maxMessagesPerRead, value: 1)
            .childChannelOption(.allowRemoteHalfClosure, value: true)
            .childChannelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: readBytes))
            .childChannelInitializer(accept)
            .bind(host: address.host, port: address.port).get()
    }

    /// What passed until now.
    public func statistics() async throws -> RelayStatistics {
        try await eventLoop.submit { [line] in line.value.statistics }.get()
    }

    /// Cuts the line (`.cut` or `.blackhole`), or restores it (`.up`).
    public func setLineState(_ state: RelayLineState) async throws {
        try await eventLoop.submit { [line] in line.value.setState(state) }.get()
    }

    /// Resets every connection; new ones are taken.
    public func resetConnections() async throws {
        try await eventLoop.submit { [line] in line.value.resetConnections() }.get()
    }

    /// Changes the line for the bytes that come from now on.
    public func setConditions(_ conditions: RelayConditions) async throws {
        try await eventLoop.submit { [line] in line.value.setConditions(conditions) }.get()
    }

    /// Stops listening and resets every connection.
    public func stop() async throws {
        for listener in listeners { try? await listener.close() }
        try await resetConnections()
    }
}

extension RelayAddress {
    fileprivate init(_ address: SocketAddress?) {
        self.init(host: address?.ipAddress ?? "", port: address?.port ?? 0)
    }
}

extension ClientBootstrap {
    /// The socket options of a relayed connection, on the side of the server.
    func relaySocketOptions() -> ClientBootstrap {
        channelOption(.socketOption(.so_rcvbuf), value: SocketOptionValue(WANRelay.socketReceiveBytes))
            .channelOption(.tcpOption(WANRelay.maximumSegment), value: SocketOptionValue(RelayConditions.segmentBytesMinimum))
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelOption(.autoRead, value: false)
            .channelOption(.maxMessagesPerRead, value: 1)
            .channelOption(.allowRemoteHalfClosure, value: true)
            .channelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: WANRelay.readBytes))
    }
}
