import Blocks
import LinkProtocol
import Logging
import NIOCore
import NIOPosix
import NIOSSL
import NIOTLS
import Synchronization
import Testing

@testable import Link

/// Two ends over real TLS connections on loopback. Everything of a link lives on the one event loop, and the tests look at it there.
@Suite(.timeLimit(.minutes(2))) struct LinkLoopbackTests {
    static let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

    /// Records what a link says; used on the event loop only.
    final class Recorder: LinkDelegate {
        var sessions = 0
        var received: [LinkMessage] = []
        var answer: ((LinkEndpoint, LinkMessage) -> Void)?
        var whenWritable: ((LinkEndpoint) -> Void)?

        func linkSessionStarted(_ link: LinkEndpoint) { sessions += 1 }
        func linkConnectivityChanged(_ link: LinkEndpoint) {}
        func link(_ link: LinkEndpoint, received message: LinkMessage, class trafficClass: TrafficClass) {
            received.append(message)
            answer?(link, message)
        }
        func link(_ link: LinkEndpoint, writable trafficClass: TrafficClass) { whenWritable?(link) }
    }

    /// Decides for the listener; used on the event loop only.
    final class Gatekeeper: LinkListenerDelegate {
        var allowed: [[UInt8]: String] = [TestCertificates.cloudSerial: "cloud"]
        var recorders: [PeerIdentity: Recorder] = [:]

        func linkListener(_ listener: LinkListener, authorize certificate: PeerCertificate) -> PeerIdentity? {
            allowed[certificate.serialNumber].map { PeerIdentity($0) }
        }
        func linkListener(_ listener: LinkListener, created link: LinkEndpoint, for peer: PeerIdentity) {
            let recorder = recorders[peer] ?? Recorder()
            recorders[peer] = recorder
            link.delegate = recorder
        }
        func linkListener(
            _ listener: LinkListener, join request: ByteBuffer, from address: SocketAddress?,
            reply: @escaping (ByteBuffer) -> Void
        ) {
            reply(ByteBuffer(string: "welcome " + String(buffer: request)))
        }
    }

    /// A listener and a dialler on one event loop. Made, used and stopped there.
    final class Pair {
        let gatekeeper = Gatekeeper()
        let listener: LinkListener
        let endpoint: LinkEndpoint
        let recorder = Recorder()
        var dialer: LinkDialer?
        /// How many messages a test has sent.
        var sent = 0

        init(_ eventLoop: any EventLoop, listening: CongestionControl, dialling: CongestionControl) throws {
            listener = try LinkListener(
                eventLoop: eventLoop, credentials: TestCertificates.onprem, logger: logger, congestionControl: listening)
            endpoint = LinkEndpoint(role: .initiator, eventLoop: eventLoop, logger: logger, congestionControl: dialling)
            listener.delegate = gatekeeper
            endpoint.delegate = recorder
        }

        func dial(
            _ port: Int, _ credentials: LinkCredentials = TestCertificates.cloud, server: [UInt8] = TestCertificates.onpremSerial,
            connections: Int = 2, firstPauseMilliseconds: Int64 = LinkDialer.firstPauseMilliseconds
        ) throws {
            dialer = try LinkDialer(
                endpoint: endpoint, host: "127.0.0.1", port: port, credentials: credentials, connections: connections,
                firstPauseMilliseconds: firstPauseMilliseconds, logger: logger
            ) { $0.serialNumber == server ? PeerIdentity("onprem") : nil }
            dialer?.start()
        }

        var serverLink: LinkEndpoint? { listener.links[PeerIdentity("cloud")] }
        var serverRecorder: Recorder? { gatekeeper.recorders[PeerIdentity("cloud")] }

        func stop() {
            dialer?.stop()
            endpoint.close(reason: "test ends")
            listener.stop(reason: "test ends")
        }
    }

    /// A pair with a listening port, and ways to look at it from a test.
    struct Lab {
        let eventLoop: any EventLoop
        let pair: NIOLoopBound<Pair>
        let port: Int

        init(
            on eventLoop: any EventLoop = MultiThreadedEventLoopGroup.singleton.next(), listening: CongestionControl = .named("reno"),
            dialling: CongestionControl = .system
        ) async throws {
            self.eventLoop = eventLoop
            let pair = try await eventLoop.submit {
                NIOLoopBound(try Pair(eventLoop, listening: listening, dialling: dialling), eventLoop: eventLoop)
            }.get()
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

        func stop() async throws { try await run { $0.stop() } }
    }

    static func notice(_ number: Int, _ byteCount: Int = 100) -> LinkMessage {
        .notice(method: "\(number)", body: ByteBuffer(repeating: UInt8(truncatingIfNeeded: number), count: byteCount))
    }

    @Test func messagesCrossBothWaysAndAreCompressed() async throws {
        let lab = try await Lab()
        try await lab.run { try $0.dial(lab.port) }
        #expect(
            try await lab.eventually { $0.endpoint.statistics.connections == 2 && $0.serverLink?.statistics.connections == 2 })
        let sent = try await lab.run { pair in
            (0..<50).allSatisfy { pair.endpoint.send(Self.notice($0, 10_000), class: .control) }
                && pair.serverLink?.send(Self.notice(7), class: .demand) == true
        }
        #expect(sent)
        #expect(try await lab.eventually { $0.serverRecorder?.received == (0..<50).map { Self.notice($0, 10_000) } })
        #expect(try await lab.eventually { $0.recorder.received == [Self.notice(7)] })
        let control = try await lab.run { $0.endpoint.statistics[.control] }
        #expect(control.wireBytesSent < control.plainBytesSent / 2)
        #expect(try await lab.run { $0.serverLink?.statistics[.control].wireBytesReceived } == control.wireBytesSent)
        #expect(try await lab.run { $0.endpoint.statistics.roundTripMilliseconds } != nil)
        // Each end has its own.
        #expect(try await lab.run { $0.serverLink?.congestionControls } == ["reno"])
        #expect(try await lab.run { $0.endpoint.congestionControls.count } == 1)
        try await lab.stop()
    }

    @Test func whatShrinksToLittleTakesItsTurnsOfTheLoop() async throws {
        let turns = LoopTurns()
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1, metricsDelegate: turns)
        let lab = try await Lab(on: group.next())
        try await lab.run { try $0.dial(lab.port) }
        #expect(try await lab.eventually { $0.endpoint.isConnected && $0.serverLink?.isConnected == true })
        let count = 400
        let began = try await lab.run { pair in
            pair.endpoint.loopTurns = turns
            pair.recorder.whenWritable = { link in
                while pair.sent < count, link.send(Self.notice(pair.sent, LinkLimits.pieceBytes), class: .writeBehind) { pair.sent += 1 }
            }
            pair.recorder.whenWritable?(pair.endpoint)
            return turns.current
        }
        #expect(try await lab.eventually { $0.serverRecorder?.received.count == count })
        let (ended, order) = try await lab.run {
            (turns.current, $0.serverRecorder?.received == (0..<count).map { Self.notice($0, LinkLimits.pieceBytes) })
        }
        #expect(order)
        #expect(Int(ended - began) * (LinkEndpoint.bytesInTurnMax + LinkLimits.framePayloadBytes) >= count * LinkLimits.pieceBytes)
        try await lab.stop()
        try await group.shutdownGracefully()
    }

    @Test func aLinkOfFourHasRenoBesideTheSystems() async throws {
        let lab = try await Lab(listening: .automatic, dialling: .automatic)
        try await lab.run { try $0.dial(lab.port, connections: 4) }
        #expect(try await lab.eventually { $0.endpoint.statistics.connections == 4 && $0.serverLink?.statistics.connections == 4 })
        let system = try #require(CongestionControl.systemName)
        let expected = Set([system, "reno"]).sorted()
        #expect(try await lab.run { $0.endpoint.congestionControls } == expected)
        #expect(try await lab.run { $0.serverLink?.congestionControls } == expected)
        try await lab.stop()
    }

    @Test func aSessionGoesOnOverAReconnect() async throws {
        let lab = try await Lab()
        // A proxy between the two, whose connections can be cut.
        let proxy = try await CuttableProxy(target: lab.port)
        try await lab.run { try $0.dial(proxy.port) }
        #expect(try await lab.eventually { $0.endpoint.isConnected })
        for round in 1...5 {
            #expect(try await lab.eventually { $0.endpoint.isConnected })
            let accepted = try await lab.eventually { pair in
                while pair.sent < round * 40, pair.endpoint.send(Self.notice(pair.sent, 12_000), class: .writeBehind) {
                    pair.sent += 1
                }
                return pair.sent == round * 40
            }
            #expect(accepted)
            try await proxy.cutAll()
            #expect(try await lab.eventually { $0.endpoint.statistics.connectionsLost >= UInt64(round) })
        }
        #expect(try await lab.eventually { ($0.serverRecorder?.received.count ?? 0) >= 200 })
        #expect(try await lab.run { $0.serverRecorder?.received } == (0..<200).map { Self.notice($0, 12_000) })
        #expect(try await lab.run { [$0.recorder.sessions, $0.serverRecorder?.sessions ?? 0] } == [1, 1])
        #expect(try await lab.run { $0.endpoint.statistics.connectionsLost } >= 5)
        try await proxy.close()
        try await lab.stop()
    }

    @Test func aPeerThatIsDroppedStartsAnew() async throws {
        let lab = try await Lab()
        try await lab.run { try $0.dial(lab.port) }
        #expect(try await lab.eventually { $0.endpoint.isConnected && $0.serverLink?.isConnected == true })
        try await lab.run { $0.listener.drop(PeerIdentity("cloud"), reason: "dropped by a test") }
        #expect(try await lab.eventually { $0.recorder.sessions == 2 && $0.endpoint.isConnected })
        try await lab.stop()
    }

    @Test func aRevokedCertificateIsTurnedAway() async throws {
        let lab = try await Lab()
        try await lab.run { pair in
            pair.gatekeeper.allowed = [:]
            try pair.dial(lab.port)
        }
        #expect(try await lab.eventually { $0.dialer?.lastError != nil })
        #expect(try await lab.run { $0.serverLink == nil && !$0.endpoint.isConnected })
        try await lab.run { $0.gatekeeper.allowed = [TestCertificates.cloudSerial: "cloud"] }
        #expect(try await lab.eventually { $0.endpoint.isConnected && $0.dialer?.lastError == nil })
        try await lab.stop()
    }

    @Test func aForeignCertificateAndAWrongServerAreTurnedAway() async throws {
        let lab = try await Lab()
        try await lab.run { pair in
            pair.gatekeeper.allowed = [[20]: "foreign", TestCertificates.cloudSerial: "cloud"]
            try pair.dial(lab.port, TestCertificates.foreign)
        }
        #expect(try await lab.eventually { $0.dialer?.lastError != nil })
        #expect(try await lab.run { $0.listener.links.isEmpty })
        try await lab.run { pair in
            pair.dialer?.stop()
            try pair.dial(lab.port, server: [99])
        }
        #expect(try await lab.eventually { $0.dialer?.lastError?.contains("not the edge that it should be") == true })
        #expect(try await lab.run { !$0.endpoint.isConnected })
        try await lab.stop()
    }

    private let isOnPrem: LinkJoin.Authorization = { $0.serialNumber == TestCertificates.onpremSerial }

    @Test func joiningNeedsTheRightAuthorityAndNoCertificate() async throws {
        let lab = try await Lab()
        let answer = try await LinkJoin.exchange(
            host: "127.0.0.1", port: lab.port, expectedAuthorityFingerprint: TestCertificates.authorityFingerprint,
            request: ByteBuffer(string: "edge"), authorize: isOnPrem)
        #expect(String(buffer: answer) == "welcome edge")
        // A name that may stand for several addresses, at one of which the listener is.
        let byName = try await LinkJoin.exchange(
            host: "localhost", port: lab.port, expectedAuthorityFingerprint: TestCertificates.authorityFingerprint,
            request: ByteBuffer(string: "edge"), authorize: isOnPrem)
        #expect(String(buffer: byName) == "welcome edge")
        await #expect(throws: LinkJoinError.otherAuthority) {
            try await LinkJoin.exchange(
                host: "127.0.0.1", port: lab.port, expectedAuthorityFingerprint: [UInt8](repeating: 0, count: 32),
                request: ByteBuffer(string: "edge"), authorize: isOnPrem)
        }
        // An edge that was paired before has a certificate of the authority too.
        await #expect(throws: LinkJoinError.otherEdge) {
            try await LinkJoin.exchange(
                host: "127.0.0.1", port: lab.port, expectedAuthorityFingerprint: TestCertificates.authorityFingerprint,
                request: ByteBuffer(string: "edge")
            ) { $0.serialNumber == TestCertificates.cloudSerial }
        }
        await #expect(throws: LinkJoinError.requestTooLong) {
            try await LinkJoin.exchange(
                host: "127.0.0.1", port: lab.port, expectedAuthorityFingerprint: TestCertificates.authorityFingerprint,
                request: ByteBuffer(repeating: 0, count: 70_000), authorize: isOnPrem)
        }
        try await lab.stop()
    }

    @Test func garbageOnThePortLeavesTheListenerUp() async throws {
        let lab = try await Lab()
        for seed in 0..<20 {
            let channel = try await ClientBootstrap(group: lab.eventLoop).connect(host: "127.0.0.1", port: lab.port).get()
            try? await channel.writeAndFlush(ByteBuffer(bytes: (0..<500).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ seed) }))
            try await channel.closeFuture.get()
        }
        try await lab.run { try $0.dial(lab.port) }
        #expect(try await lab.eventually { $0.endpoint.isConnected })
        try await lab.stop()
    }

    @Test("connections that say nothing, all from one address, leave room to those from others")
    func strangersOfOneAddress() async throws {
        let lab = try await Lab()
        func connect(from address: String) async throws -> any Channel {
            try await ClientBootstrap(group: lab.eventLoop).bind(to: try SocketAddress(ipAddress: address, port: 0))
                .connect(host: "127.0.0.1", port: lab.port).get()
        }
        var silent: [any Channel] = []
        for _ in 0..<LinkListener.maximumUnauthenticatedOfAddress { silent.append(try await connect(from: "127.0.0.2")) }
        try await connect(from: "127.0.0.2").closeFuture.get()
        try await lab.run { try $0.dial(lab.port) }
        #expect(try await lab.eventually { $0.endpoint.isConnected })
        for channel in silent { #expect(channel.isActive) }
        for channel in silent { try await channel.close() }
        try await lab.stop()
    }

    @Test("strangers that finish TLS to join, and say nothing then, count for their address too")
    func joinersOfOneAddress() async throws {
        let lab = try await Lab()
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.certificateVerification = .none
        configuration.applicationProtocols = [LinkApplicationProtocol.join]
        let context = try NIOSSLContext(configuration: configuration)
        func join() async throws -> any Channel {
            let isUp = lab.eventLoop.makePromise(of: Void.self)
            let channel = try await ClientBootstrap(group: lab.eventLoop)
                .channelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture {
                        try channel.pipeline.syncOperations.addHandlers(
                            NIOSSLClientHandler(context: context, serverHostname: nil), HandshakeWaiter(isUp))
                    }
                }
                .bind(to: try SocketAddress(ipAddress: "127.0.0.2", port: 0)).connect(host: "127.0.0.1", port: lab.port).get()
            try await isUp.futureResult.get()
            return channel
        }
        var silent: [any Channel] = []
        for _ in 0..<LinkListener.maximumUnauthenticatedOfAddress { silent.append(try await join()) }
        await #expect(throws: (any Error).self) { _ = try await join() }
        try await lab.run { try $0.dial(lab.port) }
        #expect(try await lab.eventually { $0.endpoint.isConnected })
        for channel in silent { try? await channel.close() }
        try await lab.stop()
    }

    @Test func aLongAnswerAndShortOnesShareALoopback() async throws {
        let lab = try await Lab()
        try await lab.run { try $0.dial(lab.port) }
        #expect(try await lab.eventually { $0.endpoint.isConnected && $0.serverLink?.isConnected == true })
        try await lab.run { pair in
            let piece = ByteBuffer(bytes: (0..<LinkLimits.pieceBytes).map { UInt8(truncatingIfNeeded: $0 &* $0 >> 3) })
            var sent = 0
            func fill(_ link: LinkEndpoint) {
                while sent < 2000, link.send(.readData(read: 1, offset: UInt32(sent), data: piece), class: .demand, bulk: true) {
                    sent += 1
                }
            }
            pair.serverRecorder?.whenWritable = { fill($0) }
            pair.serverRecorder?.answer = { link, message in
                if case .readRequest(let read, _, _) = message {
                    _ = link.send(.readFailed(read: read, status: .busy), class: .demand)
                }
            }
            if let link = pair.serverLink { fill(link) }
            for read in 100..<200 as Range<UInt64> {
                _ = pair.endpoint.send(
                    .readRequest(read: read, volume: VolumeIdentifier(high: 0, low: 0), range: SectorRange(block: 0)),
                    class: .demand)
            }
        }
        #expect(try await lab.eventually { $0.recorder.received.count == 2100 })
        let offsets = try await lab.run { pair in
            pair.recorder.received.compactMap { if case .readData(_, let offset, _) = $0 { offset } else { nil } }
        }
        #expect(Set(offsets).count == 2000)
        try await lab.stop()
    }
}

/// Tells when TLS is up, or that it will not be.
private final class HandshakeWaiter: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    private let isUp: EventLoopPromise<Void>

    init(_ isUp: EventLoopPromise<Void>) { self.isUp = isUp }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .handshakeCompleted? = event as? TLSUserEvent { isUp.succeed() }
        context.fireUserInboundEventTriggered(event)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        isUp.fail(error)
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        isUp.fail(ChannelError.eof)
        context.fireChannelInactive()
    }
}
