import Blocks
import NIOCore
import SCSI
import StorageTarget
import Testing

@testable import NBD
@testable import NetworkBlockServer

@Suite struct ConnectionTests {
    @Test func disconnectWaitsForWhatIsInFlight() async throws {
        let fixture = try await ServerFixture()
        let client = try await TestClient.transmitting(fixture)
        try await fixture.run { $0.disk.isHolding = true }
        try await client.send(NBDRequest(command: .flush, handle: 1))
        try await client.send(NBDRequest(command: .disconnect, handle: 2))
        try await fixture.until { $0.disk.pendingCount == 1 }
        try await fixture.run { $0.disk.answerAll() }
        #expect(try await client.reply()?.handle == 1)
        #expect(try await client.isClosed())
        try await fixture.until { $0.server.connectionCount == 0 }
        try await fixture.stop()
    }

    @Test func aRemovedExportEndsItsConnectionsAfterTheirRequests() async throws {
        let fixture = try await ServerFixture()
        let client = try await TestClient.transmitting(fixture)
        try await fixture.run { $0.disk.isHolding = true }
        try await client.send(NBDRequest(command: .write, handle: 1, byteCount: 512), ByteBuffer(repeating: 1, count: 512))
        try await fixture.until { $0.disk.pendingCount == 1 }
        let removed = fixture.loop.makePromise(of: Void.self)
        try await fixture.run { $0.server.removeExport("disk") { removed.succeed() } }
        #expect(try await fixture.run { $0.server.connectionCount } == 1)
        try await fixture.run { $0.disk.answerAll() }
        try await removed.futureResult.get()
        #expect(try await client.reply()?.handle == 1)
        #expect(try await client.isClosed())
        // A new client does not find it.
        let other = try await TestClient(fixture)
        try await other.greet()
        try await other.send(option: .go, TestClient.information("disk"))
        #expect(try await other.optionReply()?.type == .unknownExport)
        try await fixture.stop()
    }

    @Test func aClientThatGoesAwayLeavesNothing() async throws {
        let fixture = try await ServerFixture { $0.retryPause = .milliseconds(1) }
        let client = try await TestClient.transmitting(fixture)
        try await fixture.run { parts in
            parts.disk.isResident = false
            parts.disk.error = .unreachable("the link is down")
        }
        // Requests that are tried again and again, and half of a payload.
        for handle in 0..<10 { try await client.send(NBDRequest(command: .read, handle: UInt64(handle), byteCount: 1 << 19)) }
        try await client.send(NBDRequest(command: .write, handle: 99, byteCount: 1 << 20), ByteBuffer(repeating: 1, count: 1000))
        try await fixture.until { $0.server.writes.heldByteCount == 65_536 }
        client.close()
        try await fixture.until { $0.server.connectionCount == 0 }
        try await fixture.stop()
    }

    @Test func writesWaitForMemoryAndReadsToo() async throws {
        let fixture = try await ServerFixture { limits in
            limits.writeByteCount = 1 << 18
            limits.readByteCount = 1 << 18
        }
        let clients = [try await TestClient.transmitting(fixture), try await TestClient.transmitting(fixture, structured: false)]
        try await fixture.run { parts in
            parts.disk.isHolding = true
            parts.disk.isResident = false
        }
        let data = ByteBuffer(repeating: 5, count: 3 << 18)
        for client in clients {
            try await client.send(NBDRequest(command: .read, handle: 1, byteCount: 3 << 18))
            Task { [client = UncheckedClient(client)] in
                try await client.value.send(NBDRequest(command: .write, handle: 2, offset: 1 << 20, byteCount: 3 << 18), data)
            }
        }
        try await fixture.until { $0.server.writes.heldByteCount == 1 << 18 }
        #expect(try await fixture.run { $0.server.reads.heldByteCount } <= 3 << 18)
        try await fixture.run { $0.disk.answerAll() }
        for client in clients {
            var handles: Set<UInt64> = []
            for _ in 0..<2 {
                // Only one of the two has data, and the order is open: in simple replies the write's is the short one.
                let reply = try #require(await client.reply(readByteCount: handles.contains(2) ? 3 << 18 : 0))
                #expect(reply.error == 0)
                handles.insert(reply.handle)
                if reply.handle == 1, reply.data.readableBytes == 0 { _ = try await client.receive(3 << 18) }
            }
            #expect(handles == [1, 2])
        }
        try await fixture.stop()
    }

    @Test func requestsAreTakenAsFarAsThereIsRoom() async throws {
        let fixture = try await ServerFixture { $0.requests = 8 }
        let client = try await TestClient.transmitting(fixture)
        try await fixture.run { $0.disk.isHolding = true }
        for handle in 0..<20 { try await client.send(NBDRequest(command: .flush, handle: UInt64(handle))) }
        try await fixture.until { $0.disk.pendingCount == 8 }
        try await fixture.run { $0.disk.answerAll() }
        // A request that is taken while others are answered may be answered before them.
        var handles: Set<UInt64> = []
        for _ in 0..<20 { handles.insert(try #require(await client.reply()?.handle)) }
        #expect(handles == Set(0..<20))
        try await fixture.stop()
    }

    @Test func garbageEndsAConnection() async throws {
        let fixture = try await ServerFixture()
        let first = try await TestClient(fixture)
        _ = try await first.receive(18)
        try await first.send(ByteBuffer(string: "GET / HTTP/1.1\r\n\r\n"))
        #expect(try await first.isClosed())
        let second = try await TestClient.transmitting(fixture)
        try await second.send(ByteBuffer(string: "GET / HTTP/1.1\r\n\r\n................"))
        #expect(try await second.isClosed())
        try await fixture.until { $0.server.connectionCount == 0 }
        try await fixture.stop()
    }

    @Test func slowHandshakesEnd() async throws {
        let fixture = try await ServerFixture { $0.handshakeTime = .milliseconds(1) }
        let client = try await TestClient(fixture)
        _ = try await client.receive(18)
        #expect(try await client.isClosed())
        try await fixture.stop()
    }

    @Test func tooManyConnectionsEnd() async throws {
        let fixture = try await ServerFixture { $0.connections = 1 }
        let first = try await TestClient(fixture)
        try await first.greet()
        let second = try await TestClient(fixture)
        #expect(try await second.isClosed())
        try await first.send(option: .list)
        #expect(try await first.optionReply() != nil, "the one that was there first goes on")
        try await fixture.stop()
    }

    @Test func exportsAreForThoseWhoMayUseThem() async throws {
        let fixture = try await ServerFixture(allowed: ["iqn.2026-11.test:someone"])
        let client = try await TestClient(fixture)
        try await client.greet()
        try await client.send(option: .list)
        #expect(try await client.optionReply()?.type == .acknowledged)
        for name in ["disk", ""] {
            try await client.send(option: .go, TestClient.information(name))
            #expect(try await client.optionReply()?.type == .unknownExport)
        }
        try await fixture.stop()
    }

    @Test func whoComesInHow() throws {
        let here = NetworkBlockClient(address: try SocketAddress(ipAddress: "127.0.0.9", port: 1))
        let there = NetworkBlockClient(address: try SocketAddress(ipAddress: "192.0.2.1", port: 1))
        let mapped = NetworkBlockClient(address: try SocketAddress(ipAddress: "::ffff:127.0.0.1", port: 1))
        #expect(NetworkBlockSecurity().mode(for: here) == .plain)
        #expect(NetworkBlockSecurity().mode(for: mapped) == .plain)
        #expect(NetworkBlockSecurity().mode(for: there) == nil)
        #expect(NetworkBlockSecurity().mode(for: NetworkBlockClient(address: nil)) == nil)
        #expect(NetworkBlockSecurity(allowsPlain: true).mode(for: there) == .plain)
    }
}

/// Lets a client be used by a task that the test does not run beside.
private struct UncheckedClient: @unchecked Sendable {
    // The task only sends, on the channel, which is thread-safe; the test only receives.
    let value: TestClient
    init(_ value: TestClient) { self.value = value }
}
