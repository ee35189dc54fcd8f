import LinkProtocol
import NIOCore
import NIOPosix
import Testing

@testable import Tunnels

/// Two ends with real sockets on both sides, and between them a link that takes a limited number of bytes a turn.
@Suite(.timeLimit(.minutes(2))) struct TunnelEndTests {
    /// Made and used on the event loop.
    final class Pair {
        /// One direction of a link.
        final class Way {
            var queue: [(LinkMessage, TrafficClass)] = []
            var queuedBytes = 0
            var wasFull = false
            var hasPassed = 0
        }

        static let queuedBytesMax = 64 << 10
        let eventLoop: any EventLoop
        let budget = WindowBudget(byteCountMax: 4 << 20)
        let home: TunnelEnd
        let cloud: TunnelEnd
        let toHome = Way()
        let toCloud = Way()
        var isUp = true
        var problems: [String] = []

        init(_ eventLoop: any EventLoop) {
            self.eventLoop = eventLoop
            home = TunnelEnd(role: .acceptor, eventLoop: eventLoop, budget: budget)
            cloud = TunnelEnd(role: .initiator, eventLoop: eventLoop, budget: WindowBudget(byteCountMax: 4 << 20))
            wire(cloud, toHome, home)
            wire(home, toCloud, cloud)
        }

        private func wire(_ sender: TunnelEnd, _ way: Way, _ receiver: TunnelEnd) {
            sender.isAvailable = { [unowned self] in isUp }
            sender.onProblem = { [unowned self] in problems.append("\($0): \($1)") }
            sender.send = { [unowned self] message, trafficClass in
                guard way.queuedBytes < Self.queuedBytesMax else {
                    way.wasFull = true
                    return false
                }
                if way.queue.isEmpty { schedule(way, sender, receiver) }
                way.queue.append((message, trafficClass))
                way.queuedBytes += message.encodedBytes
                return true
            }
        }

        private func schedule(_ way: Way, _ sender: TunnelEnd, _ receiver: TunnelEnd) {
            let bound = NIOLoopBound((self, way, sender, receiver), eventLoop: eventLoop)
            eventLoop.execute {
                let (pair, way, sender, receiver) = bound.value
                let batch = way.queue
                way.queue = []
                way.queuedBytes = 0
                way.hasPassed += batch.count
                guard pair.isUp else { return }
                for (message, _) in batch { receiver.receive(message) }
                if way.wasFull {
                    way.wasFull = false
                    for trafficClass in [TrafficClass.control, .migration] { sender.linkWritable(trafficClass) }
                }
            }
        }
    }

    /// A pair, with a service at home behind the tunnel `service`.
    struct Lab {
        let eventLoop: any EventLoop
        let pair: NIOLoopBound<Pair>
        let service: any Channel
        let port: Int

        init(
            precedence: TunnelSettings.Precedence = .interactive, allowed: String = "127.0.0.1", servicePort: Int? = nil,
            service: @escaping @Sendable () -> any ChannelHandler
        ) async throws {
            let eventLoop = MultiThreadedEventLoopGroup.singleton.next()
            self.eventLoop = eventLoop
            self.service = try await ServerBootstrap(group: eventLoop)
                .childChannelOption(.allowRemoteHalfClosure, value: true)
                .childChannelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(service()) }
                }
                .bind(host: "127.0.0.1", port: 0).get()
            let servicePort = try servicePort ?? #require(self.service.localAddress?.port)
            let rule = try #require(NetworkRule(allowed))
            let pair = try await eventLoop.submit {
                let pair = Pair(eventLoop)
                pair.home.set([.init(name: "service", precedence: precedence, part: .connects(host: "127.0.0.1", port: servicePort))])
                pair.cloud.set([
                    .init(name: "service", precedence: precedence, part: .listens(host: "127.0.0.1", port: 0, allowed: [rule]))
                ])
                return NIOLoopBound(pair, eventLoop: eventLoop)
            }.get()
            self.pair = pair
            var port: Int?
            for _ in 0..<1_000 where port == nil {
                port = try await eventLoop.submit { pair.value.cloud.report(of: "service")?.address?.port }.get()
                if port == nil { try await Task.sleep(for: .milliseconds(5)) }
            }
            self.port = try #require(port)
        }

        func run<Value: Sendable>(_ body: @escaping @Sendable (Pair) throws -> Value) async throws -> Value {
            let pair = pair
            return try await eventLoop.submit { try body(pair.value) }.get()
        }

        func eventually(_ condition: @escaping @Sendable (Pair) -> Bool) async throws -> Bool {
            for _ in 0..<2_000 {
                if try await run(condition) { return true }
                try await Task.sleep(for: .milliseconds(10))
            }
            return false
        }

        /// Connects to the listening end, says all of `bytes` and that no more follow, and gives what came back.
        ///
        /// A reset is told once, to whoever asks the kernel first: the write is awaited, so that none goes unseen.
        func exchange(_ bytes: ByteBuffer) async throws -> ByteBuffer {
            let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton.next())
                .channelOption(.allowRemoteHalfClosure, value: true)
                .connect(host: "127.0.0.1", port: port) { channel in
                    channel.eventLoop.makeCompletedFuture {
                        try NIOAsyncChannel<ByteBuffer, ByteBuffer>(
                            wrappingChannelSynchronously: channel, configuration: .init(isOutboundHalfClosureEnabled: true))
                    }
                }
            return try await channel.executeThenClose { inbound, outbound in
                async let reply = inbound.reduce(into: ByteBuffer()) { $0.writeImmutableBuffer($1) }
                try await channel.channel.writeAndFlush(bytes).get()
                outbound.finish()
                return try await reply
            }
        }

        func stop() async throws {
            try await run { pair in
                pair.cloud.stop()
                pair.home.stop()
                #expect(pair.cloud.streams.isEmpty && pair.home.streams.isEmpty)
                #expect(pair.budget.byteCount == 0)
            }
            try await service.close()
        }
    }

    /// Gives back what it gets, and ends when the other side has.
    final class Echo: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        func channelRead(context: ChannelHandlerContext, data: NIOAny) { context.writeAndFlush(data, promise: nil) }
        func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
            if case .inputClosed? = event as? ChannelEvent { context.close(mode: .output, promise: nil) }
        }
    }

    /// Says more than anybody asked for, and never ends.
    final class Chatterbox: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        private static let megabyte = ByteBuffer(repeating: 7, count: 1 << 20)
        func channelActive(context: ChannelHandlerContext) {
            for _ in 0..<64 { context.write(NIOAny(Self.megabyte), promise: nil) }
            context.flush()
        }
    }

    /// Closes with a reset at the first byte.
    final class Rude: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let channel = context.channel
            (channel as? any SocketOptionProvider)?.setSoLinger(linger(l_onoff: 1, l_linger: 0)).whenComplete { _ in
                channel.close(promise: nil)
            }
        }
    }

    private func noise(_ byteCount: Int, seed: UInt64) -> ByteBuffer {
        var state = seed
        var buffer = ByteBuffer()
        buffer.reserveCapacity(byteCount)
        for _ in 0..<byteCount / 8 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            buffer.writeInteger(state)
        }
        return buffer
    }

    @Test(arguments: TunnelSettings.Precedence.allCases)
    func whatIsSaidArrivesAndComesBack(precedence: TunnelSettings.Precedence) async throws {
        let lab = try await Lab(precedence: precedence) { Echo() }
        let replies = try await withThrowingTaskGroup(of: Bool.self) { group in
            for seed in 1...6 as ClosedRange<UInt64> {
                group.addTask {
                    let bytes = noise(Int(seed) << 18, seed: seed)
                    return try await lab.exchange(bytes) == bytes
                }
            }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        #expect(replies == [Bool](repeating: true, count: 6))
        #expect(try await lab.exchange(ByteBuffer()).readableBytes == 0, "an end without a byte")
        #expect(try await lab.eventually { $0.cloud.streams.isEmpty && $0.home.streams.isEmpty && $0.budget.byteCount == 0 })
        let report = try #require(try await lab.run { $0.cloud.report(of: "service")?.statistics })
        #expect(report.sentBytes == 21 << 18 && report.receivedBytes == 21 << 18)
        #expect(report.connections == 0 && report.connectionsTotal == 7 && report.refusedTotal == 0)
        try await lab.stop()
    }

    /// A client that reads nothing holds back its own connection, in bounds, and nobody else's.
    @Test func aSlowClientHoldsBackItself() async throws {
        let lab = try await Lab { Chatterbox() }
        let silent = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton.next())
            .channelOption(.autoRead, value: false)
            .connect(host: "127.0.0.1", port: lab.port).get()
        #expect(try await lab.eventually { ($0.cloud.report(of: "service")?.statistics.receivedBytes ?? 0) > 0 })
        var last = -1
        while true {
            let now = try await lab.run { $0.toCloud.hasPassed }
            if now == last { break }
            last = now
            try await Task.sleep(for: .milliseconds(300))
        }
        // The sockets' own buffers and a window: the service has 64 MiB to say.
        let received = try await lab.run { $0.cloud.report(of: "service")?.statistics.receivedBytes ?? 0 }
        #expect(received < 24 << 20)
        let second = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton.next())
            .connect(host: "127.0.0.1", port: lab.port).get()
        #expect(try await lab.eventually { ($0.cloud.report(of: "service")?.statistics.receivedBytes ?? 0) > received + (32 << 20) })
        try await second.close()
        try await silent.close()
        #expect(try await lab.eventually { $0.cloud.streams.isEmpty && $0.home.streams.isEmpty })
        try await lab.stop()
    }

    @Test func aResetIsAResetAtTheOtherEnd() async throws {
        let lab = try await Lab { Rude() }
        await #expect(throws: (any Error).self) { try await lab.exchange(ByteBuffer(string: "hello")) }
        #expect(try await lab.eventually { $0.cloud.streams.isEmpty && $0.home.streams.isEmpty })
        try await lab.stop()
    }

    @Test func whoMayNotComeAndWhatIsNotThere() async throws {
        let strangers = try await Lab(allowed: "10.0.0.0/8") { Echo() }
        // Closed before anything is said: whether that is an end or a reset is the kernel's matter.
        let nothing = try? await strangers.exchange(ByteBuffer(string: "hello"))
        #expect((nothing?.readableBytes ?? 0) == 0)
        #expect(try await strangers.run { $0.cloud.report(of: "service")?.statistics.refusedTotal } == 1)
        try await strangers.stop()

        let nobody = try await Lab(servicePort: 1) { Echo() }
        await #expect(throws: (any Error).self) { try await nobody.exchange(ByteBuffer(string: "hello")) }
        #expect(try await nobody.eventually { $0.problems.contains { $0.contains("127.0.0.1:1") } })
        #expect(try await nobody.run { $0.cloud.report(of: "service")?.problem } == "the other edge can't reach the service")
        // A tunnel that only this end knows.
        try await nobody.run { $0.home.set([]) }
        await #expect(throws: (any Error).self) { try await nobody.exchange(ByteBuffer(string: "hello")) }
        #expect(try await nobody.run { $0.cloud.report(of: "service")?.problem } == "the other edge knows no such tunnel")
        try await nobody.run { $0.isUp = false }
        await #expect(throws: (any Error).self) { try await nobody.exchange(ByteBuffer(string: "hello")) }
        try await nobody.stop()
    }

    @Test func connectionsEndWithTheirTunnelAndWithTheSession() async throws {
        let lab = try await Lab { Chatterbox() }
        for ending in 0..<2 {
            let reply = Task { try await lab.exchange(ByteBuffer(string: "hello")) }
            #expect(try await lab.eventually { $0.cloud.streams.count == 1 && $0.home.streams.count == 1 })
            try await lab.run { pair in
                if ending == 0 {
                    pair.cloud.sessionLost()
                    pair.home.sessionLost()
                } else {
                    pair.home.set([])
                }
            }
            await #expect(throws: (any Error).self) { try await reply.value }
            #expect(try await lab.eventually { $0.cloud.streams.isEmpty && $0.home.streams.isEmpty })
        }
        try await lab.stop()
    }

    /// A peer that is away for long takes nothing with it: its connections end here, what they hold is given back, and it is told when it returns.
    @Test func connectionsEndWhenThePeerIsGone() async throws {
        let lab = try await Lab { Echo() }
        let service = try await lab.exchange(ByteBuffer(string: "first"))
        #expect(service == ByteBuffer(string: "first"))
        let client = try await ClientBootstrap(group: lab.eventLoop).connect(host: "127.0.0.1", port: lab.port).get()
        #expect(try await lab.eventually { $0.home.streams.values.contains { $0.channel != nil } && $0.cloud.streams.count == 1 })
        try await lab.run { pair in
            #expect(pair.budget.byteCount > 0)
            pair.isUp = false
            pair.home.peerIsGone()
            #expect(pair.home.streams.isEmpty && pair.budget.byteCount == 0)
        }
        try await client.close()
        try await lab.run { pair in
            pair.isUp = true
            pair.home.linkWritable(.control)
        }
        #expect(try await lab.exchange(ByteBuffer(string: "again")) == ByteBuffer(string: "again"))
        try await lab.stop()
    }

    /// A peer that keeps no rule loses the connection, and what is said of connections that are not there is of no consequence.
    @Test func nonsenseEndsTheConnectionItIsAbout() async throws {
        let lab = try await Lab { Echo() }
        try await lab.run { pair in
            for stream in [1, 2, 999] as [UInt64] {
                pair.home.receive(.tunnelData(stream: stream, isShort: false, data: ByteBuffer(string: "?")))
                pair.home.receive(.tunnelCredit(stream: stream, byteCount: .max))
                pair.home.receive(.tunnelFinish(stream: stream))
                pair.home.receive(.tunnelReset(stream: stream, reason: .busy))
                pair.home.receive(.tunnelOpened(stream: stream, window: 1))
            }
            // A number of home's own.
            pair.home.receive(.tunnelOpen(stream: 2, window: 1, name: "service"))
            #expect(pair.home.streams.isEmpty)
            // More than its window; and a second opening under one number.
            pair.home.receive(.tunnelOpen(stream: 1_001, window: 1, name: "service"))
            pair.home.receive(.tunnelOpen(stream: 1_001, window: 1, name: "service"))
            #expect(pair.home.streams.count == 1)
        }
        #expect(try await lab.eventually { $0.home.streams[1_001]?.channel != nil })
        try await lab.run { pair in
            let tooMuch = ByteBuffer(repeating: 0, count: TunnelStream.firstWindowBytes + 1)
            pair.home.receive(.tunnelData(stream: 1_001, isShort: false, data: tooMuch))
            #expect(pair.home.streams.isEmpty)
            // More connections than there may be.
            for number in 0...TunnelEnd.connectionsMax as ClosedRange<Int> {
                pair.home.receive(.tunnelOpen(stream: UInt64(2_001 + 2 * number), window: 1, name: "service"))
            }
            #expect(pair.home.streams.count <= TunnelEnd.connectsOfTunnelMax && pair.home.streams.count > 8)
            // They leave room for those of other tunnels.
            let other = TunnelSettings(name: "other", precedence: .interactive, part: .connects(host: "127.0.0.1", port: 9))
            pair.home.set(pair.home.tunnels.values.map(\.settings) + [other])
            pair.home.receive(.tunnelOpen(stream: 5_001, window: 1, name: "other"))
            #expect(pair.home.streams[5_001] != nil)
        }
        let bytes = ByteBuffer(string: "still here")
        try await lab.run { $0.home.sessionLost() }
        // Connects that nobody waits for any more have their places until they end.
        #expect(try await lab.eventually { $0.home.connecting == 0 })
        #expect(try await lab.exchange(bytes) == bytes)
        try await lab.stop()
    }
}
