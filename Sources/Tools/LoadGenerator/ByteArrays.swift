import CPlatform

extension Array where Element == UInt8 {
    /// Appends an integer in network byte order.
    mutating func appendBigEndian<Integer: FixedWidthInteger>(_ value: Integer) {
        Swift.withUnsafeBytes(of: value.bigEndian) { append(contentsOf: $0) }
    }

    /// Appends the CRC-32C of the bytes from `start` on.
    mutating func appendChecksum(from start: Int) {
        let checksum = self[start...].withUnsafeBytes { causeway_crc32c(0, $0.baseAddress, $0.count) }
        appendBigEndian(checksum)
    }
}

extension ArraySlice where Element == UInt8 {
    /// An integer in network byte order, `offset` bytes from the start; nil outside of the slice.
    func bigEndian<Integer: FixedWidthInteger>(at offset: Int) -> Integer? {
        guard offset >= 0, offset + MemoryLayout<Integer>.size <= count else { return nil }
        return withUnsafeBytes { Integer(bigEndian: $0.loadUnaligned(fromByteOffset: offset, as: Integer.self)) }
    }

    /// True when the last four bytes are the CRC-32C of those before them.
    func hasChecksum() -> Bool {
        guard count >= 4, let stored: UInt32 = bigEndian(at: count - 4) else { return false }
        return withUnsafeBytes { causeway_crc32c(0, $0.baseAddress, $0.count - 4) } == stored
    }
}
