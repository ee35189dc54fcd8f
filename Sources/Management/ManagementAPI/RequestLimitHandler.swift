import HummingbirdCore
import NIOCore
import NIOHTTPTypes

/// Closes a connection whose request takes too long to arrive, or goes on after its limit. The server reads a refused body to its end
/// to keep the connection in step; this bounds how long a peer can make it do so.
final class RequestLimitHandler: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPRequestPart
    typealias InboundOut = HTTPRequestPart

    private let timeLimit: TimeAmount
    private let byteLimit: Int
    private var bytes = 0
    private var deadline: Scheduled<Void>?

    init(timeLimit: TimeAmount, byteLimit: Int) {
        self.timeLimit = timeLimit
        self.byteLimit = byteLimit
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head:
            bytes = 0
            deadline?.cancel()
            let channel = context.channel
            deadline = context.eventLoop.scheduleTask(in: timeLimit) { channel.close(promise: nil) }
        case .body(let part):
            bytes += part.readableBytes
            if bytes > byteLimit { return context.close(promise: nil) }
        case .end:
            deadline?.cancel()
            deadline = nil
        }
        context.fireChannelRead(data)
    }

    func channelInactive(context: ChannelHandlerContext) {
        deadline?.cancel()
        context.fireChannelInactive()
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        deadline?.cancel()
    }
}
