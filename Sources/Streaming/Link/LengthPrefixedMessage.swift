import LinkProtocol
import NIOCore

/// One message with its length before it (4 bytes, big-endian), and nothing behind it.
struct LengthPrefixedMessage {
    /// The longest message. One that announces more is refused before anything is kept of it.
    static let maximumBytes = 64 * 1024

    private var pending = ByteBuffer()

    static func encode(_ message: ByteBuffer) -> ByteBuffer {
        var buffer = ByteBuffer()
        buffer.reserveCapacity(4 + message.readableBytes)
        buffer.writeInteger(UInt32(truncatingIfNeeded: message.readableBytes))
        buffer.writeImmutableBuffer(message)
        return buffer
    }

    /// Takes bytes, and gives the message once it is whole.
    mutating func append(_ bytes: ByteBuffer) throws(LinkViolation) -> ByteBuffer? {
        pending.writeImmutableBuffer(bytes)
        guard let length = pending.getInteger(at: pending.readerIndex, as: UInt32.self) else { return nil }
        guard length <= UInt32(Self.maximumBytes) else { throw LinkViolation("\(length) bytes are too many") }
        guard pending.readableBytes >= 4 + Int(length) else { return nil }
        guard pending.readableBytes == 4 + Int(length) else { throw LinkViolation("bytes behind the message") }
        return pending.getSlice(at: pending.readerIndex + 4, length: Int(length))
    }
}
