import Glibc
import LinkProtocol
import NIOCore
import NIOPosix
import Testing

@testable import Link

/// A dialler on a line that resets connections while they are set up.
@Suite(.timeLimit(.minutes(2))) struct DialingTests {
    /// Passes bytes on, and resets each connection at a random moment after the first word of the server, until it is calm.
    private final class ResettingProxy {
        private final class Forwarder: ChannelInboundHandler {
            typealias InboundIn = ByteBuffer

            private let target: any Channel
            private let whenRead: (any Channel) -> Void

            init(_ target: any Channel, whenRead: @escaping (any Channel) -> Void = { _ in }) {
                self.target = target
                self.whenRead = whenRead
            }

            func channelRead(context: ChannelHandlerContext, data: NIOAny) {
                target.writeAndFlush(unwrapInboundIn(data), promise: nil)
                whenRead(target)
            }
            func channelInactive(context: ChannelHandlerContext) { target.close(promise: nil) }
            func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
        }

        private var server: (any Channel)?
        private(set) var resets = 0
        private(set) var open = 0
        var isCalm = false

        func start(on eventLoop: any EventLoop, target: Int) -> EventLoopFuture<Int> {
            let bound = NIOLoopBound(self, eventLoop: eventLoop)
            return ServerBootstrap(group: eventLoop)
                .childChannelOption(.autoRead, value: false)
                .childChannelInitializer { inbound in
                    ClientBootstrap(group: eventLoop)
                        .channelInitializer { outbound in
                            outbound.eventLoop.makeCompletedFuture {
                                let forwarder = Forwarder(inbound) { bound.value.resetSoon($0) }
                                try outbound.pipeline.syncOperations.addHandler(forwarder)
                            }
                        }
                        .connect(host: "127.0.0.1", port: target)
                        .flatMap { outbound in
                            bound.value.count(inbound)
                            return inbound.eventLoop.makeCompletedFuture {
                                try inbound.pipeline.syncOperations.addHandler(Forwarder(outbound))
                            }
                        }
                        .flatMap { inbound.setOption(.autoRead, value: true) }
                }
                .bind(host: "127.0.0.1", port: 0)
                .map { channel in
                    bound.value.server = channel
                    return channel.localAddress?.port ?? 0
                }
        }

        private func count(_ channel: any Channel) {
            open += 1
            let bound = NIOLoopBound(self, eventLoop: channel.eventLoop)
            channel.closeFuture.whenComplete { _ in bound.value.open -= 1 }
        }

        private func resetSoon(_ channel: any Channel) {
            guard !isCalm else { return }
            let bound = NIOLoopBound((self, channel), eventLoop: channel.eventLoop)
            channel.eventLoop.scheduleTask(in: .microseconds(.random(in: 0...2_000))) {
                let (proxy, channel) = bound.value
                guard channel.isActive else { return }
                proxy.resets += 1
                _ = (channel as? any SocketOptionProvider)?.setSoLinger(linger(l_onoff: 1, l_linger: 0))
                channel.close(promise: nil)
            }
        }

        func stop() { server?.close(promise: nil) }
    }

    @Test func eachSlotHasOneConnectionHoweverManyAreReset() async throws {
        let lab = try await LinkLoopbackTests.Lab()
        // Another loop than the one that both ends are on: it resets while they are at work.
        let eventLoop = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let loop = eventLoop.next()
        let proxy = try await loop.submit { NIOLoopBound(ResettingProxy(), eventLoop: loop) }.get()
        let port = try await loop.flatSubmit { proxy.value.start(on: loop, target: lab.port) }.get()
        try await lab.run { pair in try pair.dial(port, connections: 4, firstPauseMilliseconds: 1) }
        for _ in 0..<6_000 {
            if try await loop.submit({ proxy.value.resets >= 200 }).get() { break }
            try await Task.sleep(for: .milliseconds(10))
        }
        let resets = try await loop.submit {
            proxy.value.isCalm = true
            return proxy.value.resets
        }.get()
        #expect(resets >= 200)
        #expect(
            try await lab.eventually { $0.endpoint.statistics.connections >= 4 && $0.serverLink?.statistics.connections ?? 0 >= 4 })
        // Longer than any pause: who else dials is there by now.
        try await Task.sleep(for: .milliseconds(200))
        #expect(try await lab.run { $0.endpoint.statistics.connections } == 4)
        #expect(try await lab.run { $0.serverLink?.statistics.connections } == 4)
        #expect(try await loop.submit { proxy.value.open }.get() == 4)
        try await loop.submit { proxy.value.stop() }.get()
        try await lab.stop()
        try await eventLoop.shutdownGracefully()
    }
}
