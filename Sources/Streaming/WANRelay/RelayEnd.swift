import NIOCore
import NIOPosix

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#elseif canImport(Darwin)
    import Darwin
#endif

/// One of the two sockets of a relayed connection. It reads only when the line has room, one read at a time.
final class RelayEnd: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    /// The way its bytes take.
    let way: RelayWay
    let connection: Int
    /// True while it stands in line for room in the queue.
    var isWaiting = false

    private unowned let line: RelayLine
    private var context: ChannelHandlerContext?
    private var isReading = false
    private var mayRead = false
    /// What arrived before the socket was connected.
    private var early: [RelayQueue.Content] = []

    init(line: RelayLine, way: RelayWay, connection: Int) {
        self.line = line
        self.way = way
        self.connection = connection
    }

    /// True when its socket was open and is closed.
    private(set) var isGone = false
    var isWritable: Bool { context?.channel.isWritable ?? true }

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        if context.channel.isActive { channelBecameActive() }
    }

    func handlerRemoved(context: ChannelHandlerContext) { self.context = nil }

    func channelActive(context: ChannelHandlerContext) { channelBecameActive() }

    private func channelBecameActive() {
        let contents = early
        early = []
        contents.forEach(deliver)
        flush()
        // On a line without delay the start may have come before the socket was active.
        line.readIfThereIsRoom(self)
    }

    /// Lets the socket be read from now on.
    func start() {
        mayRead = true
        line.readIfThereIsRoom(self)
    }

    /// Reads once, unless a read is under way or the socket may not be read yet.
    func read() {
        guard mayRead, !isReading, let context, context.channel.isActive else { return }
        isReading = true
        context.read()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        line.receive(.bytes(unwrapInboundIn(data)), from: self)
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        isReading = false
        line.readIfThereIsRoom(self)
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        if context.channel.isWritable { line.drained(self) }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .some(.inputClosed) = event as? ChannelEvent {
            mayRead = false
            line.receive(.endOfStream, from: self)
        }
        context.fireUserInboundEventTriggered(event)
    }

    func channelInactive(context: ChannelHandlerContext) { reportClosed() }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    private func reportClosed() {
        if isGone { return }
        isGone = true
        line.receive(.closed, from: self)
    }

    /// Hands over what came through the line; `flush` sends it.
    func deliver(_ content: RelayQueue.Content) {
        guard let context, context.channel.isActive else {
            // Bounded: the client is not read before a whole round trip, when this socket is connected or has failed.
            if !isGone { early.append(content) }
            return
        }
        switch content {
        case .bytes(let buffer):
            context.write(wrapOutboundOut(buffer), promise: nil)
        case .endOfStream: closeAfterWrites(context, mode: .output)
        case .closed: closeAfterWrites(context, mode: .all)
        }
    }

    /// Closing would drop what is not written yet, so it follows the last write.
    private func closeAfterWrites(_ context: ChannelHandlerContext, mode: CloseMode) {
        let written = context.eventLoop.makePromise(of: Void.self)
        let channel = context.channel
        written.futureResult.whenComplete { _ in channel.close(mode: mode, promise: nil) }
        context.writeAndFlush(wrapOutboundOut(ByteBuffer()), promise: written)
    }

    func flush() { context?.flush() }

    /// Closes with a reset, as a line that was cut and given up.
    func reset() {
        isGone = true
        guard let channel = context?.channel else { return }
        RelayEnd.reset(channel)
    }

    /// Closes `channel` with a reset instead of an orderly end.
    static func reset(_ channel: any Channel) {
        guard let options = channel as? any SocketOptionProvider else {
            channel.close(promise: nil)
            return
        }
        options.setSoLinger(linger(l_onoff: 1, l_linger: 0)).whenComplete { _ in channel.close(promise: nil) }
    }
}
