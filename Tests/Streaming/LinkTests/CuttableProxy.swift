import NIOCore
import NIOPosix

/// Passes bytes between a port and a target, until its connections are cut.
struct CuttableProxy {
    private final class State {
        var channels: [any Channel] = []
    }

    private final class Forwarder: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer

        private let target: any Channel

        init(_ target: any Channel) { self.target = target }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            target.writeAndFlush(unwrapInboundIn(data), promise: nil)
        }
        func channelInactive(context: ChannelHandlerContext) { target.close(promise: nil) }
        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
    }

    private let eventLoop: any EventLoop
    private let state: NIOLoopBound<State>
    private let server: any Channel
    let port: Int

    init(target: Int) async throws {
        let eventLoop = MultiThreadedEventLoopGroup.singleton.next()
        let state = try await eventLoop.submit { NIOLoopBound(State(), eventLoop: eventLoop) }.get()
        self.eventLoop = eventLoop
        self.state = state
        server = try await ServerBootstrap(group: eventLoop)
            .childChannelOption(.autoRead, value: false)
            .childChannelInitializer { inbound in
                ClientBootstrap(group: eventLoop)
                    .channelInitializer { outbound in
                        outbound.eventLoop.makeCompletedFuture {
                            try outbound.pipeline.syncOperations.addHandler(Forwarder(inbound))
                        }
                    }
                    .connect(host: "127.0.0.1", port: target)
                    .flatMap { outbound in
                        inbound.eventLoop.makeCompletedFuture {
                            state.value.channels += [inbound, outbound]
                            try inbound.pipeline.syncOperations.addHandler(Forwarder(outbound))
                        }
                    }
                    .flatMap { inbound.setOption(.autoRead, value: true) }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        port = server.localAddress?.port ?? 0
    }

    /// Closes every connection without a word.
    func cutAll() async throws {
        let state = state
        try await eventLoop.submit {
            for channel in state.value.channels { channel.close(promise: nil) }
            state.value.channels = []
        }.get()
    }

    func close() async throws {
        try await cutAll()
        try await server.close()
    }
}
