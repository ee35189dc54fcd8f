import NIOCore

/// The parameter list of SANITIZE with OVERWRITE (SBC-3): how often which pattern is written.
public struct OverwriteParameters: Hashable, Sendable {
    /// OVERWRITE COUNT: 1 to 31 passes.
    public var passCount: Int
    /// INVERT: each pass writes the inverse of the one before.
    public var inverts: Bool
    /// The bytes that are repeated through each logical block, from its start; 1 byte to a whole block.
    public var pattern: ByteBuffer

    private static let headerByteCount = 4

    /// The longest list that there is: a pattern of one logical block.
    public static func longestByteCount(blockBytes: Int) -> Int { headerByteCount + blockBytes }

    /// Reads a list that was announced as `statedByteCount` bytes.
    public static func parse(_ list: ByteBuffer, statedByteCount: Int, blockBytes: Int) throws(SenseData) -> Self {
        guard list.readableBytes == statedByteCount, let flags: UInt8 = list.getInteger(at: list.readerIndex),
            let patternByteCount: UInt16 = list.getInteger(at: list.readerIndex + 2)
        else { throw .parameterListLength }
        // TEST is for the maker of a disk.
        if flags & 0x60 != 0 { throw .invalidFieldInParameterList(byte: 0, bit: 6) }
        let passCount = Int(flags & 0x1F)
        if passCount == 0 { throw .invalidFieldInParameterList(byte: 0, bit: 4) }
        guard patternByteCount > 0, Int(patternByteCount) <= blockBytes else { throw .invalidFieldInParameterList(byte: 2) }
        guard let pattern = list.getSlice(at: list.readerIndex + headerByteCount, length: Int(patternByteCount)) else {
            throw .parameterListLength
        }
        return Self(passCount: passCount, inverts: flags & 0x80 != 0, pattern: pattern)
    }

    /// A logical block as pass `index`, from 0 on, writes it.
    public func block(pass index: Int, byteCount: Int) -> ByteBuffer {
        var block = ByteBuffer()
        block.reserveCapacity(byteCount)
        let mask: UInt8 = inverts && index % 2 == 1 ? 0xFF : 0
        while block.readableBytes < byteCount, pattern.readableBytes > 0 {
            for byte in pattern.readableBytesView.prefix(byteCount - block.readableBytes) { block.writeInteger(byte ^ mask) }
        }
        return block
    }
}

/// The parameter list of FORMAT UNIT, of which only the header is taken (SBC-3, 5.3.2).
public enum FormatParameterList {
    static func byteCount(isLong: Bool) -> Int { isLong ? 8 : 4 }

    /// IMMED of the list. Nothing else may be asked for: no defect list, no initialization pattern.
    public static func isImmediate(_ list: ByteBuffer, isLong: Bool) throws(SenseData) -> Bool {
        guard list.readableBytes == byteCount(isLong: isLong) else { throw .parameterListLength }
        let bytes = list.readableBytesView
        let base = bytes.startIndex
        if bytes[base] & 0x07 != 0 { throw .invalidFieldInParameterList(byte: 0, bit: 2) }
        // IMMED alone, or with FOV and the bits that say what is true of a disk without defects: DPRY, DCRT, STPF.
        if bytes[base + 1] & 0x08 != 0 { throw .invalidFieldInParameterList(byte: 1, bit: 3) }
        for index in 2..<bytes.count where bytes[base + index] != 0 { throw .invalidFieldInParameterList(byte: index) }
        return bytes[base + 1] & 0x02 != 0
    }
}
