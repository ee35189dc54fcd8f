import NIOCore

extension ByteBuffer {
    /// True when every readable byte is zero.
    public var isAllZeroes: Bool {
        withUnsafeReadableBytes { bytes in
            var offset = 0
            while offset + 8 <= bytes.count {
                if bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self) != 0 { return false }
                offset += 8
            }
            return bytes[offset...].allSatisfy { $0 == 0 }
        }
    }
}
