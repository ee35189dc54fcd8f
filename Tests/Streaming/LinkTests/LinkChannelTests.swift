import NIOCore
import NIOPosix
import Testing

@testable import Link

@Suite(.timeLimit(.minutes(1)))
struct LinkChannelTests {
    @Test func theKernelTellsWhatAConnectionHasSent() async throws {
        let group = MultiThreadedEventLoopGroup.singleton
        let server = try await ServerBootstrap(group: group).bind(host: "127.0.0.1", port: 0).get()
        let client = try await ClientBootstrap(group: group).connect(to: try #require(server.localAddress)).get()
        func counts() async throws -> TCPSentBytes? { try await client.eventLoop.submit { LinkChannel.sentBytes(of: client) }.get() }
        #expect(try await counts() == TCPSentBytes())
        try await client.writeAndFlush(ByteBuffer(repeating: 1, count: 12_345))
        #expect(try await counts() == TCPSentBytes(all: 12_345, again: 0))
        try await client.close()
        try await server.close()
    }

    @Test func countsThatDisagreeForAMomentAreNoHugeOnes() {
        var new = TCPSentBytes()
        new.add(TCPSentBytes(all: 100, again: 1_500), since: TCPSentBytes(all: 100, again: 52))
        #expect(new == TCPSentBytes(all: 0, again: 1_448) && new.first == 0)
        new.add(TCPSentBytes(all: 90, again: 50), since: TCPSentBytes(all: 100, again: 52))
        #expect(new == TCPSentBytes(all: 0, again: 1_448))
        new.add(TCPSentBytes(all: 5_000, again: 0), since: TCPSentBytes())
        #expect(new.first == 5_000 - 1_448)
    }

    /// TCP_NODELAY has the number that SO_DEBUG has on another level, which only a privileged process may set.
    @Test func aFrameDoesNotWaitForAnAcknowledgement() async throws {
        let group = MultiThreadedEventLoopGroup.singleton
        let server = try await ServerBootstrap(group: group).bind(host: "127.0.0.1", port: 0).get()
        let client = try await ClientBootstrap(group: group)
            .channelInitializer { channel in channel.eventLoop.makeCompletedFuture { try LinkChannel.configure(channel) } }
            .connect(to: try #require(server.localAddress)).get()
        #expect(try await client.getOption(.tcpOption(.tcp_nodelay)).get() != 0)
        #expect(try await client.getOption(.socketOption(NIOBSDSocket.Option(rawValue: 1))).get() == 0)
        try await client.close()
        try await server.close()
    }
}
