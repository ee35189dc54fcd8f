import NIOCore

extension ByteBuffer {
    /// The offset of the first byte in which the readable bytes differ from those of `other`, which repeats itself when
    /// `repeating`; nil when they are the same.
    func firstDifference(from other: ByteBuffer, repeating: Bool) -> Int? {
        withUnsafeReadableBytes { mine in
            other.withUnsafeReadableBytes { theirs in
                if theirs.isEmpty || (!repeating && theirs.count < mine.count) { return theirs.isEmpty && mine.isEmpty ? nil : 0 }
                var their = 0
                for index in 0..<mine.count {
                    if mine[index] != theirs[their] { return index }
                    their += 1
                    if their == theirs.count { their = 0 }
                }
                return nil
            }
        }
    }

    /// Sets every bit that is set in `other`, which is as long.
    mutating func formUnion(_ other: ByteBuffer) {
        withUnsafeMutableReadableBytes { mine in
            other.withUnsafeReadableBytes { theirs in
                for index in 0..<min(mine.count, theirs.count) { mine[index] |= theirs[index] }
            }
        }
    }

    /// True when `byteCount` bytes from `offset` behind the reader index on are all zero.
    package func isZero(at offset: Int, byteCount: Int) -> Bool {
        withUnsafeReadableBytes { bytes in
            guard offset >= 0, byteCount >= 0, offset <= bytes.count, byteCount <= bytes.count - offset else { return false }
            var index = offset
            let end = offset + byteCount
            while index + 8 <= end {
                if bytes.loadUnaligned(fromByteOffset: index, as: UInt64.self) != 0 { return false }
                index += 8
            }
            while index < end {
                if bytes[index] != 0 { return false }
                index += 1
            }
            return true
        }
    }
}
