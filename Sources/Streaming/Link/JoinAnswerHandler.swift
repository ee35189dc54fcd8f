import LinkProtocol
import NIOCore

/// Reads one join request, has it answered, and ends the connection: the other side of `JoinRequestHandler`.
final class JoinAnswerHandler: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    /// How long an answer may take to be made and taken.
    static let answerTimeout = TimeAmount.seconds(30)

    /// Answers a request; it calls `reply` once, on the event loop.
    typealias Answer = (_ request: ByteBuffer, _ address: SocketAddress?, _ reply: @escaping (ByteBuffer) -> Void) -> Void

    private let answer: Answer
    /// The bytes are no request.
    private let garbled: (_ text: String, _ channel: any Channel) -> Void
    private var reader = LengthPrefixedMessage()
    private var timeout: Scheduled<Void>?
    private var isAsked = false

    init(answer: @escaping Answer, garbled: @escaping (_ text: String, _ channel: any Channel) -> Void) {
        self.answer = answer
        self.garbled = garbled
    }

    func handlerAdded(context: ChannelHandlerContext) { closeAfter(LinkListener.handshakeTimeout, context.channel) }

    func handlerRemoved(context: ChannelHandlerContext) { timeout?.cancel() }

    private func closeAfter(_ time: TimeAmount, _ channel: any Channel) {
        timeout?.cancel()
        timeout = channel.eventLoop.assumeIsolated().scheduleTask(in: time) { channel.close(promise: nil) }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        // One request is all that a joining edge has to say.
        guard !isAsked else { return context.close(promise: nil) }
        do {
            guard let request = try reader.append(unwrapInboundIn(data)) else { return }
            isAsked = true
            let channel = context.channel
            closeAfter(Self.answerTimeout, channel)
            answer(request, channel.remoteAddress) { reply in
                channel.writeAndFlush(LengthPrefixedMessage.encode(reply)).whenComplete { _ in channel.close(promise: nil) }
            }
        } catch {
            garbled("a join request that is none: \(error)", context.channel)
            context.close(promise: nil)
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
