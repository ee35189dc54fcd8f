import NIOCore
import NIOPosix

/// Takes the connections of one tunnel. Confined to one event loop.
final class TunnelListener {
    /// Where it listens, and who may come.
    let host: String
    let port: Int
    let allowed: [NetworkRule]
    private let eventLoop: any EventLoop
    private let accepted: (any Channel) -> Void
    private let refused: (SocketAddress?) -> Void
    private var channel: (any Channel)?
    private var isStopped = false

    /// - Parameters:
    ///   - accepted: takes a channel that reads nothing until it is asked to.
    ///   - refused: hears of clients that may not come.
    init(
        eventLoop: any EventLoop, host: String, port: Int, allowed: [NetworkRule], accepted: @escaping (any Channel) -> Void,
        refused: @escaping (SocketAddress?) -> Void
    ) {
        self.eventLoop = eventLoop
        self.host = host
        self.port = port
        self.allowed = allowed
        self.accepted = accepted
        self.refused = refused
    }

    /// Begins to listen, and tells where.
    func start() -> EventLoopFuture<SocketAddress> {
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        return ServerBootstrap(group: eventLoop)
            .serverChannelOption(.backlog, value: 128)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.autoRead, value: false)
            .childChannelOption(.allowRemoteHalfClosure, value: true)
            .childChannelOption(.maxMessagesPerRead, value: 1)
            .childChannelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: TunnelEnd.readBytes))
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try bound.value.take(channel) }
            }
            .bind(host: host, port: port)
            .flatMapThrowing { channel in
                guard let address = channel.localAddress else { throw ChannelError.unknownLocalAddress }
                if bound.value.isStopped {
                    channel.close(promise: nil)
                } else {
                    bound.value.channel = channel
                }
                return address
            }
    }

    /// Takes no more connections; those that are open go on.
    func stop() {
        isStopped = true
        channel?.close(promise: nil)
        channel = nil
    }

    private func take(_ channel: any Channel) throws {
        guard let address = channel.remoteAddress, allowed.contains(where: { $0.contains(address) }) else {
            refused(channel.remoteAddress)
            throw ChannelError.operationUnsupported
        }
        accepted(channel)
    }
}
