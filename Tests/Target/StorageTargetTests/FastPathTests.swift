import NIOCore
import NIOEmbedded
import Testing

@testable import StorageTarget

@Suite struct FastPathTests {
    @Test func aBufferIsUsedAgainOnlyWhenTheChannelHasLetGoOfIt() throws {
        let channel = EmbeddedChannel()
        var buffer = channel.allocator.buffer(capacity: 4096)
        buffer.writeString("first")
        channel.writeAndFlush(buffer, promise: nil)
        let wasSentAtOnce = buffer.clearIfSent()
        #expect(!wasSentAtOnce, "the embedded channel still has it")
        buffer.writeString("second")
        #expect(try channel.readOutbound(as: ByteBuffer.self) == ByteBuffer(string: "first"))
        channel.writeAndFlush(buffer, promise: nil)
        #expect(try channel.readOutbound(as: ByteBuffer.self) == ByteBuffer(string: "second"))
        let wasSent = buffer.clearIfSent()
        #expect(wasSent)
        #expect(buffer.readableBytes == 0)
        _ = try channel.finish()
    }

    @Test func buffersAreKeptUpToTheirLimits() {
        let buffers = BatchBuffers()
        let allocator = ByteBufferAllocator()
        buffers.give(allocator.buffer(capacity: 2 * BatchBuffers.keptByteCountMax))
        let fresh = buffers.take(from: allocator)
        #expect(fresh.capacity == BatchBuffers.initialByteCount)
        for _ in 0..<2 * BatchBuffers.countMax { buffers.give(allocator.buffer(capacity: 65_536)) }
        let capacities = (0...BatchBuffers.countMax).map { _ in buffers.take(from: allocator).capacity }
        #expect(capacities == Array(repeating: 65_536, count: BatchBuffers.countMax) + [BatchBuffers.initialByteCount])
    }
}
