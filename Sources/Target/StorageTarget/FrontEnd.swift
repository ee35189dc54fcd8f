import NIOCore
import NIOPosix

/// A connection of a front end, as its server ends it.
package protocol FrontEndConnection: AnyObject {
    /// Takes no more requests, lets those in flight finish, and closes; then completes.
    func retire(completion: @escaping () -> Void)
    /// Closes without waiting for anything.
    func closeNow()
}

/// What the front ends of an edge have in common: sockets that listen, and connections that end in good order.
package enum FrontEnd {
    /// Connections that wait to be accepted.
    private static let backlog: CInt = 256

    /// Listens on an address, such as 127.0.0.1 or ::, and port; port 0 takes a free one.
    /// - Parameters:
    ///   - outboundByteCount: how much a connection holds that its peer does not take, before its channel is not writable.
    ///   - accept: gets the channel of each connection, on `eventLoop`.
    /// - Returns: what `keep` makes of the listening channel, which it gets on `eventLoop`.
    package static func listen<Kept: Sendable>(
        host: String, port: Int, on eventLoop: any EventLoop, outboundByteCount: Int,
        accept: @escaping (any Channel) throws -> Void, keep: @escaping (any Channel) throws -> Kept
    ) -> EventLoopFuture<Kept> {
        let boundAccept = NIOLoopBound(accept, eventLoop: eventLoop)
        let boundKeep = NIOLoopBound(keep, eventLoop: eventLoop)
        return ServerBootstrap(group: eventLoop)
            .serverChannelOption(.backlog, value: backlog)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelOption(.socketOption(.so_keepalive), value: 1)
            .childChannelOption(.writeBufferWaterMark, value: .init(low: outboundByteCount / 2, high: outboundByteCount))
            .childChannelOption(
                .recvAllocator, value: AdaptiveRecvByteBufferAllocator(minimum: 2048, initial: 16_384, maximum: 131_072)
            )
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try boundAccept.value(channel) }
            }
            .bind(host: host, port: port)
            .flatMapThrowing { channel in
                do {
                    return try boundKeep.value(channel)
                } catch {
                    channel.close(promise: nil)
                    throw error
                }
            }
    }

    /// How long the last answers of a connection may take to leave.
    private static let closingTime = TimeAmount.seconds(5)
    /// How long the peer has then to close first.
    private static let lingerTime = TimeAmount.milliseconds(200)

    /// Closes a channel when what was written has left it. The last answer must not be lost to a reset because of bytes that nobody
    /// read, so the peer closes first, or time does; and a peer that takes nothing keeps neither socket nor memory.
    package static func closeAfterAnswers(_ channel: any Channel) {
        let end = channel.eventLoop.scheduleTask(in: closingTime) { channel.close(promise: nil) }
        channel.close(mode: .output).whenComplete { _ in
            end.cancel()
            channel.eventLoop.scheduleTask(in: lingerTime) { channel.close(promise: nil) }
        }
    }

    /// Ends connections in the orderly way, and by force those that take longer than `time`.
    package static func retire(
        _ ending: [some FrontEndConnection], within time: TimeAmount, on eventLoop: any EventLoop, completion: @escaping () -> Void
    ) {
        guard !ending.isEmpty else { return completion() }
        let latch = Countdown(ending.count, completion: completion)
        for connection in ending { connection.retire { latch.arrive() } }
        let close: () -> Void = { for connection in ending { connection.closeNow() } }
        let bound = NIOLoopBound(close, eventLoop: eventLoop)
        eventLoop.scheduleTask(in: time) { bound.value() }
    }
}
