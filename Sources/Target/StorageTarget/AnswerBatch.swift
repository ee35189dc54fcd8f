import NIOCore

/// The answers of one connection, from when they are made until they have left.
///
/// Answers that are made during one turn of the event loop leave together: they are put one behind the other into `buffer`, but for
/// long data, which goes to the channel as it is, between two batches. What a batch's data holds of the connection's memory is given
/// back when the socket has taken it. Lives on the event loop of its channel.
package final class AnswerBatch {
    /// Data of at least this many bytes goes out as a buffer of its own instead of being copied.
    package static let gatherByteCount = 16_384
    /// A batch that has grown to this is handed to the channel.
    package static let byteCountMax = 262_144

    private let channel: any Channel
    private let buffers: BatchBuffers
    private let share: BudgetShare
    /// What the channel has not been given yet; without memory of its own while that is nothing. `begin` comes before what is put here.
    package var buffer = ByteBuffer()
    /// Bytes of `share` that what was answered since the last flush holds.
    private var held = HeldBytes()
    private var isFlushScheduled = false
    /// TLS is between here and the socket: it lets go of a batch before that has left.
    package var isEncrypted = false

    /// - Parameter share: the connection's part of the memory for answers.
    package init(channel: any Channel, buffers: BatchBuffers, share: BudgetShare) {
        self.channel = channel
        self.buffers = buffers
        self.share = share
    }

    /// True when the batch has grown so long that it should not wait for the end of the turn.
    package var isLong: Bool { buffer.readableBytes >= Self.byteCountMax }

    /// Sees to it that the batch has memory.
    package func begin() {
        if buffer.capacity == 0 { buffer = buffers.take(from: channel.allocator) }
    }

    /// Sees to it that there is memory for the header of data that follows. Before long data that is all the batch has to hold.
    package func begin(headerByteCount: Int, dataByteCount: Int) {
        if dataByteCount < Self.gatherByteCount { return begin() }
        if buffer.capacity == 0 { buffer = channel.allocator.buffer(capacity: headerByteCount) }
    }

    /// Appends data: short data by copying it.
    package func append(_ data: ByteBuffer) {
        if data.readableBytes >= Self.gatherByteCount { return appendAsItIs(data) }
        begin()
        buffer.writeImmutableBuffer(data)
    }

    /// Appends data without copying it.
    package func appendAsItIs(_ data: ByteBuffer) {
        handOver()
        channel.pipeline.syncOperations.write(NIOAny(data), promise: nil)
    }

    /// What was appended last holds so many bytes of the connection's share until it has left.
    package func holds(_ byteCount: Int) { held.add(byteCount) }

    /// Gives the batch to the channel, which sends it at the next flush.
    package func handOver() {
        guard buffer.readableBytes > 0 else { return }
        channel.pipeline.syncOperations.write(NIOAny(buffer), promise: nil)
        buffer = ByteBuffer()
    }

    /// Sends what there is.
    package func flush() {
        isFlushScheduled = false
        guard channel.isActive else { return }
        guard buffer.readableBytes > 0 else {
            channel.pipeline.syncOperations.flush()
            return releaseWhenSent()
        }
        // The channel calls back while it sends, when it can be written to again. What is added then is a batch of its own.
        var batch = buffer
        buffer = ByteBuffer()
        channel.pipeline.syncOperations.write(NIOAny(batch), promise: nil)
        channel.pipeline.syncOperations.flush()
        // Nearly always the socket has taken all of it by now, and neither a promise nor new memory is needed.
        guard batch.clearIfSent() else { return releaseWhenSent() }
        buffers.give(batch)
        if isEncrypted { releaseWhenSent() } else { release() }
    }

    /// Flushes at the end of this turn of the event loop, so that completions that come together leave together.
    package func scheduleFlush() {
        guard !isFlushScheduled else { return }
        isFlushScheduled = true
        let flush: () -> Void = { [self] in self.flush() }
        let bound = NIOLoopBound(flush, eventLoop: channel.eventLoop)
        channel.eventLoop.execute { bound.value() }
    }

    /// Gives the memory of answers back now: they have left, or never will.
    package func release() {
        if let bytes = takeHeld() { share.release(bytes) }
    }

    /// Gives the memory of answers back when all that was written before has left.
    private func releaseWhenSent() {
        guard let bytes = takeHeld() else { return }
        let promise = channel.eventLoop.makePromise(of: Void.self)
        promise.futureResult.assumeIsolated().whenComplete { [share] _ in share.release(bytes) }
        channel.pipeline.syncOperations.writeAndFlush(NIOAny(ByteBuffer()), promise: promise)
    }

    private func takeHeld() -> HeldBytes? {
        guard held.byteCount > 0 else { return nil }
        defer { held = HeldBytes() }
        return held
    }
}
