import NIOCore

/// Memory for batches of answers, which the connections of a server share.
///
/// A connection has a buffer only while it has something to say, so that many idle ones cost nothing; and a buffer that has
/// left is used again while it is still in the processor's cache. At most `countMax` are kept; the others are freed.
package final class BatchBuffers {
    static let countMax = 8
    /// What a new buffer has room for; it grows with its batch.
    static let initialByteCount = 16_384
    /// A buffer that has grown beyond this is not kept.
    static let keptByteCountMax = 1 << 20

    private var spare: [ByteBuffer] = []

    package init() {}

    /// An empty buffer.
    func take(from allocator: ByteBufferAllocator) -> ByteBuffer {
        spare.popLast() ?? allocator.buffer(capacity: Self.initialByteCount)
    }

    /// Keeps a buffer that nobody else holds.
    func give(_ buffer: ByteBuffer) {
        if spare.count < Self.countMax, buffer.capacity <= Self.keptByteCountMax { spare.append(buffer) }
    }
}

extension ByteBuffer {
    /// Empties a buffer that was written to a channel before.
    /// - Returns: true when the channel has let go of it, which it does when the bytes have left; then the memory is the same
    ///   as before. Else the channel keeps the old memory, and the buffer has new one.
    mutating func clearIfSent() -> Bool {
        let before = withVeryUnsafeBytes { $0.baseAddress }
        clear()
        return withVeryUnsafeBytes { $0.baseAddress } == before
    }
}
