import LinkProtocol
import Logging
import NIOCore
import NIOPosix
import Testing

@testable import Link

/// Links and joins of which home dials: the cloud edge listens, and is the initiator of the session all the same.
@Suite(.timeLimit(.minutes(2))) struct HomeDialsTests {
    typealias Recorder = LinkLoopbackTests.Recorder

    /// Home with its dialler, the cloud edge with its listener. Made, used and stopped on the event loop.
    final class Pair {
        let gatekeeper = LinkLoopbackTests.Gatekeeper()
        let listener: LinkListener
        let home: LinkEndpoint
        let homeRecorder = Recorder()
        let cloudRecorder = Recorder()
        let cloud: LinkEndpoint
        var dialer: LinkDialer?
        var sent = 0

        init(_ eventLoop: any EventLoop) throws {
            let logger = LinkLoopbackTests.logger
            listener = try LinkListener(role: .initiator, eventLoop: eventLoop, credentials: TestCertificates.cloud, logger: logger)
            gatekeeper.allowed = [TestCertificates.onpremSerial: "onprem"]
            gatekeeper.recorders[PeerIdentity("onprem")] = cloudRecorder
            listener.delegate = gatekeeper
            cloud = listener.link(of: PeerIdentity("onprem"))
            home = LinkEndpoint(role: .acceptor, eventLoop: eventLoop, logger: logger)
            home.delegate = homeRecorder
        }

        func dial(_ port: Int, _ credentials: LinkCredentials = TestCertificates.onprem) throws {
            dialer = try LinkDialer(
                endpoint: home, host: "127.0.0.1", port: port, credentials: credentials, logger: LinkLoopbackTests.logger
            ) { $0.serialNumber == TestCertificates.cloudSerial ? PeerIdentity("cloud") : nil }
            dialer?.start()
        }
    }

    struct Lab {
        let eventLoop: any EventLoop
        let pair: NIOLoopBound<Pair>
        let port: Int

        init() async throws {
            let eventLoop = MultiThreadedEventLoopGroup.singleton.next()
            self.eventLoop = eventLoop
            let pair = try await eventLoop.submit { NIOLoopBound(try Pair(eventLoop), eventLoop: eventLoop) }.get()
            self.pair = pair
            let address = try await eventLoop.flatSubmit { pair.value.listener.start(host: "127.0.0.1", port: 0) }.get()
            port = try #require(address.port)
        }

        func run<Value: Sendable>(_ body: @escaping @Sendable (Pair) throws -> Value) async throws -> Value {
            let pair = pair
            return try await eventLoop.submit { try body(pair.value) }.get()
        }

        /// Looks until the condition holds; false after half a minute.
        func eventually(_ condition: @escaping @Sendable (Pair) -> Bool) async throws -> Bool {
            for _ in 0..<3000 {
                if try await run(condition) { return true }
                try await Task.sleep(for: .milliseconds(10))
            }
            return false
        }

        func stop() async throws {
            try await run { pair in
                pair.dialer?.stop()
                pair.home.close(reason: "test ends")
                pair.listener.stop(reason: "test ends")
            }
        }
    }

    @Test func aSessionGoesOnOverCutsWhenHomeDials() async throws {
        let lab = try await Lab()
        let proxy = try await CuttableProxy(target: lab.port)
        try await lab.run { try $0.dial(proxy.port) }
        for round in 1...3 {
            #expect(try await lab.eventually { $0.home.isConnected && $0.cloud.isConnected })
            let sent = try await lab.eventually { pair in
                while pair.sent < round * 40,
                    pair.cloud.send(LinkLoopbackTests.notice(pair.sent, 12_000), class: .writeBehind),
                    pair.home.send(LinkLoopbackTests.notice(pair.sent, 1_000), class: .control)
                {
                    pair.sent += 1
                }
                return pair.sent == round * 40
            }
            #expect(sent)
            try await proxy.cutAll()
            #expect(try await lab.eventually { $0.home.statistics.connectionsLost >= UInt64(round) })
        }
        #expect(try await lab.eventually { $0.homeRecorder.received.count >= 120 && $0.cloudRecorder.received.count >= 120 })
        #expect(try await lab.run { $0.homeRecorder.received } == (0..<120).map { LinkLoopbackTests.notice($0, 12_000) })
        #expect(try await lab.run { $0.cloudRecorder.received } == (0..<120).map { LinkLoopbackTests.notice($0, 1_000) })
        #expect(try await lab.run { [$0.homeRecorder.sessions, $0.cloudRecorder.sessions] } == [1, 1])
        try await proxy.close()
        try await lab.stop()
    }

    @Test(arguments: ["other", "foreign"]) func anotherThanHomeIsTurnedAway(_ who: String) async throws {
        let lab = try await Lab()
        try await lab.run { try $0.dial(lab.port, who == "other" ? TestCertificates.other : TestCertificates.foreign) }
        #expect(try await lab.eventually { $0.dialer?.lastError != nil })
        #expect(try await lab.run { !$0.home.isConnected && !$0.cloud.isConnected })
        try await lab.run {
            $0.dialer?.stop()
            try $0.dial(lab.port)
        }
        #expect(try await lab.eventually { $0.cloud.isConnected })
        try await lab.stop()
    }

    // MARK: Joining

    private let isOnPrem: LinkJoin.Authorization = { $0.serialNumber == TestCertificates.onpremSerial }

    /// Waits for a join, and has `dialing` done once the port is known.
    private func join(
        fingerprint: [UInt8] = TestCertificates.authorityFingerprint, patience: TimeAmount = .seconds(20),
        dialing: @escaping @Sendable (SocketAddress) -> Void
    ) async throws(LinkJoinError) -> String {
        let answer = try await LinkJoin.exchangeWhenDialled(
            host: "127.0.0.1", port: 0, own: TestCertificates.foreign, expectedAuthorityFingerprint: fingerprint,
            request: ByteBuffer(string: "edge"), patience: patience, authorize: isOnPrem, listening: dialing)
        return String(buffer: answer)
    }

    /// Dials a waiting edge from `eventLoop`, with some credentials, and answers what it asks.
    private func dialer(
        _ address: SocketAddress, _ credentials: LinkCredentials, on eventLoop: any EventLoop
    ) throws -> JoinDialer {
        try JoinDialer(
            eventLoop: eventLoop, host: "127.0.0.1", port: address.port ?? 0, until: .now() + .seconds(30), credentials: credentials,
            logger: LinkLoopbackTests.logger
        ) { request, _, reply in reply(ByteBuffer(string: "welcome " + String(buffer: request))) }
    }

    /// Home's certificates with the authority behind them, as home shows them.
    private static let home = withAuthority(TestCertificates.onprem)

    private static func withAuthority(_ credentials: LinkCredentials) -> LinkCredentials {
        LinkCredentials(
            certificateChainPEM: credentials.certificateChainPEM + "\n" + TestCertificates.authority,
            privateKeyPEM: credentials.privateKeyPEM, authorityPEM: credentials.authorityPEM)
    }

    /// Dials a waiting edge with several credentials at once, until half a minute is over.
    @Sendable private func dial(_ address: SocketAddress, _ credentials: [LinkCredentials]) {
        let eventLoop = MultiThreadedEventLoopGroup.singleton.next()
        eventLoop.execute {
            let dialers = credentials.compactMap { try? dialer(address, $0, on: eventLoop) }
            for dialer in dialers { dialer.start() }
            let bound = NIOLoopBound(dialers, eventLoop: eventLoop)
            eventLoop.scheduleTask(in: .seconds(30)) { bound.value.forEach { $0.stop() } }
        }
    }

    @Test func anEdgeJoinsThatIsDialled() async throws {
        // Strangers come at the same time.
        let impostors = [Self.withAuthority(TestCertificates.cloud), TestCertificates.foreign]
        let answer = try await join { dial($0, impostors + [Self.home]) }
        #expect(answer == "welcome edge")
    }

    @Test func aJoinIsAnsweredByTheMakerOfTheTokenOnly() async throws {
        await #expect(throws: LinkJoinError.otherEdge) {
            try await join(patience: .seconds(6)) { dial($0, [Self.withAuthority(TestCertificates.cloud)]) }
        }
        await #expect(throws: LinkJoinError.otherAuthority) {
            try await join(fingerprint: [UInt8](repeating: 7, count: 32), patience: .seconds(3)) { dial($0, [Self.home]) }
        }
    }

    @Test func whoeverWaitsInVainIsTold() async throws {
        await #expect(throws: LinkJoinError.timedOut) { try await join(patience: .milliseconds(200)) { _ in } }
        await #expect(throws: LinkJoinError.requestTooLong) {
            try await LinkJoin.exchangeWhenDialled(
                host: "127.0.0.1", port: 0, own: TestCertificates.foreign, expectedAuthorityFingerprint: [],
                request: ByteBuffer(repeating: 0, count: 70_000), patience: .seconds(1), authorize: isOnPrem)
        }
    }
}
