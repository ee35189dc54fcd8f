import CPlatform
import NIOCore

/// CRC-32C (Castagnoli), as iSCSI (RFC 7143 section 13.1) and our on-disk formats use it.
public struct CRC32C: Sendable {
    /// The checksum of what was added so far.
    public private(set) var value: UInt32 = 0

    public init() {}

    /// Adds bytes.
    public mutating func update(_ bytes: UnsafeRawBufferPointer) {
        value = causeway_crc32c(value, bytes.baseAddress, bytes.count)
    }

    /// Adds the readable bytes of a buffer.
    public mutating func update(_ buffer: ByteBuffer) {
        buffer.withUnsafeReadableBytes { update($0) }
    }

    /// Adds an integer in network byte order.
    public mutating func update<Integer: FixedWidthInteger>(bigEndian integer: Integer) {
        withUnsafeBytes(of: integer.bigEndian) { update($0) }
    }

    /// The checksum of the readable bytes of a buffer.
    public static func checksum(of buffer: ByteBuffer) -> UInt32 {
        var crc = CRC32C()
        crc.update(buffer)
        return crc.value
    }
}
