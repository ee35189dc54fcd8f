import NIOCore
import NIOPosix

/// A port on which an emulator is controlled: a line in, a line in answer.
public enum ControlPort {
    /// A longer line ends the connection.
    public static let lineBytesMaximum = 256

    /// Listens; `answer` is called on `eventLoop`.
    public static func bind(
        _ address: RelayAddress, on eventLoop: any EventLoop, answer: @escaping @Sendable (String) -> String
    ) async throws -> any Channel {
        try await ServerBootstrap(group: eventLoop)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(ControlConnection(answer: answer))
                }
            }
            .bind(host: address.host, port: address.port).get()
    }
}

/// One connection to it.
private final class ControlConnection: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let answer: @Sendable (String) -> String
    private var pending = ByteBuffer()

    init(answer: @escaping @Sendable (String) -> String) {
        self.answer = answer
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var buffer = unwrapInboundIn(data)
        pending.writeBuffer(&buffer)
        while let end = pending.readableBytesView.firstIndex(of: UInt8(ascii: "\n")) {
            let text = pending.readString(length: end - pending.readerIndex) ?? ""
            pending.moveReaderIndex(forwardBy: 1)
            context.writeAndFlush(wrapOutboundOut(ByteBuffer(string: answer(text) + "\n")), promise: nil)
        }
        pending.discardReadBytes()
        if pending.readableBytes > ControlPort.lineBytesMaximum { context.close(promise: nil) }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
