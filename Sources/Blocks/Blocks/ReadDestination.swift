import NIOCore

/// The memory that one read is put together in, which several threads may fill at once, each its own part.
///
/// Sendable although it hands out its memory: the address and the size never change, because nobody changes the buffer before
/// `take`; each part is written by one thread only, which `fill`'s callers owe; and `take` is called when all of them have
/// ended, which their completions on the loop show. The memory is not cleared: who takes it owes that every byte was filled.
public final class ReadDestination: @unchecked Sendable {
    public let byteCount: Int
    private var buffer: ByteBuffer
    private let base: UnsafeMutableRawPointer?

    /// Memory for `byteCount` bytes.
    public init(byteCount: Int) {
        self.byteCount = byteCount
        buffer = ByteBufferAllocator().buffer(capacity: byteCount)
        base = buffer.withUnsafeMutableWritableBytes { $0.baseAddress }
    }

    /// Lends the bytes from `offset` on to whoever fills them.
    /// - Returns: nil, without a call, when the part is not inside.
    public func fill<Result>(at offset: Int, byteCount count: Int, _ body: (UnsafeMutableRawBufferPointer) -> Result) -> Result? {
        guard let base, offset >= 0, count >= 0, offset <= byteCount, count <= byteCount - offset else { return nil }
        return body(UnsafeMutableRawBufferPointer(start: base + offset, count: count))
    }

    /// Copies the readable bytes of `source` to `offset`; false when they have no room there.
    public func copy(_ source: ByteBuffer, to offset: Int) -> Bool {
        source.withUnsafeReadableBytes { bytes in
            fill(at: offset, byteCount: bytes.count) { destination -> Bool in
                destination.copyMemory(from: bytes)
                return true
            } ?? false
        }
    }

    /// Fills a part with zeroes; false when it is not inside.
    public func clear(at offset: Int, byteCount count: Int) -> Bool {
        fill(at: offset, byteCount: count) { destination -> Bool in
            destination.initializeMemory(as: UInt8.self, repeating: 0)
            return true
        } ?? false
    }

    /// The whole, once everyone has filled his part.
    public func take() -> ByteBuffer {
        buffer.moveWriterIndex(to: byteCount)
        return buffer
    }
}
