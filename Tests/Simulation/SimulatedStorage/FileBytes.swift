#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

// A world moves megabytes between its files, and a run has a million worlds: what follows takes whole ranges, where the collections'
// own ways go byte by byte.

extension [UInt8] {
    private static let zeroes = [UInt8](repeating: 0, count: 64 << 10)

    /// Puts `bytes` at `offset`. An array that ends before grows, with zeroes up to there.
    mutating func put(_ bytes: UnsafeRawBufferPointer, at offset: Int) {
        if offset > count { appendZeroes(offset - count) }
        let inside = Swift.min(bytes.count, count - offset)
        withUnsafeMutableBytes { $0[offset..<offset + inside].copyBytes(from: bytes.prefix(inside)) }
        if inside < bytes.count {
            append(contentsOf: UnsafeRawBufferPointer(rebasing: bytes.dropFirst(inside)).bindMemory(to: UInt8.self))
        }
    }

    /// Ends at `size`: what is behind is gone, and what was not there is zeroes.
    mutating func resize(to size: Int) {
        if count > size { removeLast(count - size) } else { appendZeroes(size - count) }
    }

    private mutating func appendZeroes(_ count: Int) {
        var left = count
        while left > 0 {
            append(contentsOf: Self.zeroes.prefix(left))
            left -= Self.zeroes.count
        }
    }

    /// True when `count` bytes from `offset` on are those of `other` from `otherOffset` on.
    func holds(_ count: Int, at offset: Int, as other: UnsafeRawBufferPointer, at otherOffset: Int) -> Bool {
        withUnsafeBytes { bytes in
            let own = UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + count])
            let others = UnsafeRawBufferPointer(rebasing: other[otherOffset..<otherOffset + count])
            guard let first = own.baseAddress, let second = others.baseAddress else { return true }
            return memcmp(first, second, count) == 0
        }
    }
}

extension UnsafeRawBufferPointer {
    /// The place of the last byte that is not zero.
    var lastNonzeroIndex: Int? {
        var end = count
        while end >= 8, loadUnaligned(fromByteOffset: end - 8, as: UInt64.self) == 0 { end -= 8 }
        while end > 0 {
            if self[end - 1] != 0 { return end - 1 }
            end -= 1
        }
        return nil
    }
}
