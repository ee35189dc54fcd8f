import APIModels
import Foundation
import Hummingbird
import Logging
import NIOCore
import NIOPosix
import ServiceLifecycle
import Testing

@testable import ManagementAPI

@Suite(.timeLimit(.minutes(2))) struct ServerTests {
    private static let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

    /// Runs a server on a port of the system's choice.
    private func withServer(
        _ controller: FakeController = FakeController(), idleTimeout: TimeAmount = .seconds(60),
        requestTimeout: TimeAmount = .seconds(30),
        _ body: (Int, ServiceGroup) async throws -> Void
    ) async throws {
        var options = ManagementServer.Options(host: "127.0.0.1", port: 0, version: "0.1.0")
        options.idleTimeout = idleTimeout
        options.requestTimeout = requestTimeout
        let (ports, found) = AsyncStream.makeStream(of: Int.self)
        let server = ManagementServer(
            options: options, controller: controller, tokens: BearerTokens([TestAPI.token]), logger: Self.quiet
        ) { host, port in
            #expect(host == "127.0.0.1")
            found.yield(port)
        }
        let group = ServiceGroup(configuration: .init(services: [server], logger: Self.quiet))
        let running = Task { try await group.run() }
        guard let port = await ports.first(where: { _ in true }) else { return }
        do {
            try await body(port, group)
        } catch {
            await group.triggerGracefulShutdown()
            try? await running.value
            throw error
        }
        await group.triggerGracefulShutdown()
        try await running.value
    }

    /// A connection that sends text and reads what comes.
    private func withConnection(_ port: Int, _ body: (Connection) async throws -> Void) async throws {
        let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton).connect(
            host: "127.0.0.1", port: port
        ) { channel in
            channel.eventLoop.makeCompletedFuture {
                try NIOAsyncChannel<ByteBuffer, ByteBuffer>(wrappingChannelSynchronously: channel)
            }
        }
        try await channel.executeThenClose { inbound, outbound in
            try await body(Connection(inbound: inbound.makeAsyncIterator(), outbound: outbound))
        }
    }

    final class Connection {
        var inbound: NIOAsyncChannelInboundStream<ByteBuffer>.AsyncIterator
        let outbound: NIOAsyncChannelOutboundWriter<ByteBuffer>
        var text = ""

        init(inbound: NIOAsyncChannelInboundStream<ByteBuffer>.AsyncIterator, outbound: NIOAsyncChannelOutboundWriter<ByteBuffer>) {
            self.inbound = inbound
            self.outbound = outbound
        }

        func send(_ text: String) async throws {
            try await outbound.write(ByteBuffer(string: text))
        }

        /// Reads until the text holds a piece; false when the connection ends first.
        func read(until piece: String) async throws -> Bool {
            while !text.contains(piece) {
                guard let buffer = try await inbound.next() else { return false }
                text += String(buffer: buffer)
            }
            return true
        }

        /// Reads until the connection ends, in either way.
        func readToEnd() async {
            while let buffer = try? await inbound.next() { text += String(buffer: buffer) }
        }
    }

    static let head = "Host: x\r\nAuthorization: Bearer \(TestAPI.token)\r\n"

    @Test func servesAndStops() async throws {
        try await withServer { port, _ in
            try await withConnection(port) { connection in
                try await connection.send("GET /v1/edge HTTP/1.1\r\n\(Self.head)\r\n")
                #expect(try await connection.read(until: "\"name\":\"harbour\""))
                #expect(connection.text.hasPrefix("HTTP/1.1 200 OK\r\n"))
                try await connection.send("GET /none HTTP/1.1\r\n\(Self.head)\r\n")
                #expect(try await connection.read(until: "path_not_found"))
            }
        }
    }

    @Test func streamsEventsUntilTheServerStops() async throws {
        let controller = FakeController()
        for index in 0..<3 { controller.events.append(kind: "k", message: "\(index)") }
        try await withServer(controller) { port, group in
            try await withConnection(port) { connection in
                try await connection.send(
                    "GET /v1/events HTTP/1.1\r\n\(Self.head)Accept: text/event-stream\r\nLast-Event-ID: 101\r\n\r\n")
                #expect(try await connection.read(until: "id: 103\n"))
                #expect(connection.text.lowercased().contains("content-type: text/event-stream"))
                #expect(!connection.text.contains("id: 101\n"))
                controller.events.append(kind: "new", message: "now")
                #expect(try await connection.read(until: "id: 104\n"))
                await group.triggerGracefulShutdown()
                await connection.readToEnd()
                #expect(connection.text.hasSuffix("0\r\n\r\n"))
            }
        }
    }

    @Test func garbageIsRefusedAndTheServerLives() async throws {
        try await withServer { port, _ in
            for garbage in [
                "\u{16}\u{3}\u{1}garbage\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n",
                "POST /v1/disks HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            ] {
                try await withConnection(port) { connection in
                    try await connection.send(garbage)
                    await connection.readToEnd()
                }
            }
            try await withConnection(port) { connection in
                try await connection.send("GET /v1/edge HTTP/1.1\r\nX: \(String(repeating: "x", count: 40_000))\r\n\r\n")
                await connection.readToEnd()
                #expect(!connection.text.contains("200 OK"))
            }
            try await withConnection(port) { connection in
                try await connection.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                #expect(try await connection.read(until: "\"healthy\":true"))
            }
        }
    }

    @Test func slowAndEndlessRequestsAreCut() async throws {
        try await withServer(requestTimeout: .milliseconds(100)) { port, _ in
            try await withConnection(port) { connection in
                try await connection.send(
                    "POST /v1/disks HTTP/1.1\r\n\(Self.head)Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
                await connection.readToEnd()
                #expect(!connection.text.contains("201"))
            }
        }
        try await withServer { port, _ in
            try await withConnection(port) { connection in
                try await connection.send("POST /v1/disks HTTP/1.1\r\n\(Self.head)Transfer-Encoding: chunked\r\n\r\n")
                let chunk = "10000\r\n\(String(repeating: "x", count: 0x10000))\r\n"
                // The body never ends: the server answers at 1 MiB and closes at 2 MiB, so that a write fails before the 100th chunk.
                await #expect(throws: (any Error).self) {
                    for _ in 0..<10_000 { try await connection.send(chunk) }
                }
            }
        }
    }

    @Test func idleConnectionsAreClosed() async throws {
        try await withServer(idleTimeout: .milliseconds(100)) { port, _ in
            try await withConnection(port) { connection in
                await connection.readToEnd()
                #expect(connection.text.isEmpty)
            }
        }
    }

    @Test func anAddressInUseIsNamed() async throws {
        try await withServer { port, _ in
            let options = ManagementServer.Options(host: "127.0.0.1", port: port, version: "1")
            let second = ManagementServer(
                options: options, controller: FakeController(), tokens: BearerTokens([]), logger: Self.quiet)
            await #expect { try await second.run() } throws: { error in
                "\(error)".hasPrefix("the management API cannot listen on 127.0.0.1:\(port)") && "\(error)".contains("api.listen")
            }
        }
    }
}
