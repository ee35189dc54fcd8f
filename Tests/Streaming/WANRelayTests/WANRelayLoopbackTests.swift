import Logging
import NIOCore
import NIOPosix
import Testing

@testable import WANRelay

/// The relay between real sockets: that bytes stay whole, and that cuts and restorations do what they say.
@Suite(.timeLimit(.minutes(1)))
struct WANRelayLoopbackTests {
    /// Sends everything back; ends its side when the client ended its own.
    private final class Echo: ChannelInboundHandler, Sendable {
        typealias InboundIn = ByteBuffer
        typealias OutboundOut = ByteBuffer

        func channelRead(context: ChannelHandlerContext, data: NIOAny) { context.write(data, promise: nil) }
        func channelReadComplete(context: ChannelHandlerContext) { context.flush() }
        func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
            guard case .some(.inputClosed) = event as? ChannelEvent else { return }
            let channel = context.channel
            channel.writeAndFlush(ByteBuffer()).whenComplete { _ in channel.close(mode: .output, promise: nil) }
        }
    }

    private struct Pair {
        var relay: WANRelay
        var server: any Channel
        var group: MultiThreadedEventLoopGroup

        func stop() async throws {
            try await relay.stop()
            try await server.close()
        }

        func connect() async throws -> NIOAsyncChannel<ByteBuffer, ByteBuffer> {
            try await ClientBootstrap(group: group)
                .channelOption(.allowRemoteHalfClosure, value: true)
                .connect(host: "127.0.0.1", port: relay.listenAddress.port) { channel in
                    channel.eventLoop.makeCompletedFuture {
                        try NIOAsyncChannel(
                            wrappingChannelSynchronously: channel, configuration: .init(isOutboundHalfClosureEnabled: true))
                    }
                }
        }
    }

    private func withPair(_ conditions: RelayConditions, _ body: (Pair) async throws -> Void) async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 2)
        let server = try await ServerBootstrap(group: group)
            .childChannelOption(.allowRemoteHalfClosure, value: true)
            .childChannelInitializer { $0.pipeline.addHandler(Echo()) }
            .bind(host: "127.0.0.1", port: 0).get()
        let relay = try await WANRelay.start(
            listen: .init(host: "127.0.0.1", port: 0), server: .init(host: "localhost", port: server.localAddress?.port ?? 0),
            conditions: conditions,
            control: (
                .init(host: "127.0.0.1", port: 0), .init(duration: { _ in .milliseconds(1) }, bytesPerSecond: { _ in nil })
            ),
            group: group, logger: Logger(label: "relay"))
        let pair = Pair(relay: relay, server: server, group: group)
        do {
            try await body(pair)
        } catch {
            try await pair.stop()
            try await group.shutdownGracefully()
            throw error
        }
        try await pair.stop()
        try await group.shutdownGracefully()
    }

    /// Bytes that differ from position to position and from connection to connection.
    private func pattern(_ count: Int, seed: UInt64) -> [UInt8] {
        var state = seed &* 0x9E37_79B9_7F4A_7C15 | 1
        return (0..<count).map { _ in
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return UInt8(truncatingIfNeeded: state >> 56)
        }
    }

    private func echo(_ pair: Pair, _ sent: [UInt8]) async throws -> [UInt8] {
        let client = try await pair.connect()
        return try await client.executeThenClose { inbound, outbound in
            async let sending: Void = {
                for start in stride(from: 0, to: sent.count, by: 50_000) {
                    try await outbound.write(ByteBuffer(bytes: sent[start..<min(start + 50_000, sent.count)]))
                }
                outbound.finish()
            }()
            var received: [UInt8] = []
            for try await buffer in inbound { received += buffer.readableBytesView }
            try await sending
            return received
        }
    }

    @Test(arguments: [
        RelayConditions(), RelayConditions(roundTrip: .milliseconds(4)),
        RelayConditions(roundTrip: .milliseconds(2), bytesPerSecond: 20_000_000),
    ])
    func bytesArriveWholeOnSeveralConnections(conditions: RelayConditions) async throws {
        try await withPair(conditions) { pair in
            try await withThrowingTaskGroup(of: Bool.self) { group in
                for seed in 1...3 as ClosedRange<UInt64> {
                    group.addTask {
                        let sent = pattern(700_000, seed: seed)
                        return try await echo(pair, sent) == sent
                    }
                }
                for try await same in group { #expect(same) }
            }
            let statistics = try await pair.relay.statistics()
            #expect(statistics.toServer.deliveredBytes == 2_100_000)
            #expect(statistics.toClient.deliveredBytes == 2_100_000)
            #expect(statistics.acceptedConnections == 3)
            #expect(statistics.toServer.inTransitBytes == 0)
        }
    }

    @Test func aClientThatSendsAndClosesAtOnceLosesNothing() async throws {
        try await withPair(RelayConditions()) { pair in
            for seed in 1...20 as ClosedRange<UInt64> {
                let sent = pattern(Int(seed) * 10, seed: seed)
                let received = try await echo(pair, sent)
                #expect(received == sent)
            }
        }
    }

    @Test func aCutResetsAndARestorationServesAgain() async throws {
        try await withPair(RelayConditions(roundTrip: .milliseconds(2))) { pair in
            let client = try await pair.connect()
            let outcome: Result<Int, any Error>
            do {
                outcome = .success(
                    try await client.executeThenClose { inbound, outbound in
                        try await outbound.write(ByteBuffer(string: "hello"))
                        var iterator = inbound.makeAsyncIterator()
                        #expect(try await iterator.next() == ByteBuffer(string: "hello"))
                        try await pair.relay.setLineState(.cut)
                        return try await iterator.next()?.readableBytes ?? 0
                    })
            } catch { outcome = .failure(error) }
            if case .success(let count) = outcome { #expect(count == 0) }
            // While it is cut, a connection ends before it carried anything.
            let echoed = try? await echo(pair, [1, 2, 3])
            #expect(echoed == nil || echoed == [])
            #expect(try await pair.relay.statistics().lineState == .cut)
            try await pair.relay.setLineState(.up)
            #expect(try await echo(pair, [1, 2, 3]) == [1, 2, 3])
        }
    }

    @Test func aBlackholeIsSilentAndARestorationDeliversWhatItHeld() async throws {
        try await withPair(RelayConditions()) { pair in
            let client = try await pair.connect()
            try await client.executeThenClose { inbound, outbound in
                var iterator = inbound.makeAsyncIterator()
                try await outbound.write(ByteBuffer(string: "one"))
                #expect(try await iterator.next() == ByteBuffer(string: "one"))
                try await pair.relay.setLineState(.blackhole)
                try await outbound.write(ByteBuffer(string: "two"))
                let before = try await pair.relay.statistics()
                #expect(before.toClient.deliveredBytes == 3 && before.openConnections == 1)
                try await pair.relay.setLineState(.up)
                #expect(try await iterator.next() == ByteBuffer(string: "two"))
            }
        }
    }

    @Test func theControlPortAnswersEachLine() async throws {
        try await withPair(RelayConditions()) { pair in
            let control = try await ClientBootstrap(group: pair.group)
                .connect(host: "127.0.0.1", port: pair.relay.controlAddress?.port ?? 0) { channel in
                    channel.eventLoop.makeCompletedFuture {
                        try NIOAsyncChannel<ByteBuffer, ByteBuffer>(wrappingChannelSynchronously: channel)
                    }
                }
            try await control.executeThenClose { inbound, outbound in
                var answers = ""
                var iterator = inbound.makeAsyncIterator()
                try await outbound.write(ByteBuffer(string: "set rtt=1ms\nnonsense\ncut\nstats\n"))
                while answers.split(separator: "\n").count < 4 || !answers.hasSuffix("\n") {
                    guard let buffer = try await iterator.next() else { break }
                    answers += String(buffer: buffer)
                }
                let lines = answers.split(separator: "\n")
                #expect(lines.count == 4)
                #expect(lines.first == "ok" && lines.dropFirst().first?.hasPrefix("error: ") == true)
                #expect(
                    lines.last?.hasPrefix("{\"line\":\"cut\",\"roundTripNanoseconds\":1000000,\"bytesPerSecond\":null,") == true)
            }
        }
    }
}
