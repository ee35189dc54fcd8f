import NIOCore

// The basic header segment, RFC 7143 section 11.2.1, as six big-endian words of eight bytes:
//
//   word 0 | .I opcode | flags | byte 2 | byte 3 | AHS words | data segment length (3 bytes) |
//   word 1 | LUN, or what the opcode says                                                  |
//   word 2 | initiator task tag              | target transfer tag, expected length, ...   |
//   word 3 | CmdSN or StatSN                 | ExpStatSN or ExpCmdSN                       |
//   word 4 | MaxCmdSN, ...                   | DataSN, R2TSN, ...                          |
//   word 5 | buffer offset, ...              | residual count, desired length, ...         |

/// The 48 bytes that start every PDU.
public struct BasicHeader: Equatable, Sendable {
    /// The length of a basic header segment.
    public static let byteCount = 48
    /// The tag that names no task.
    public static let reservedTag: UInt32 = 0xFFFF_FFFF

    /// Bytes 0 to 7.
    public var word0: UInt64 = 0
    /// Bytes 8 to 15: the LUN in most PDUs.
    public var word1: UInt64 = 0
    /// Bytes 16 to 23.
    public var word2: UInt64 = 0
    /// Bytes 24 to 31.
    public var word3: UInt64 = 0
    /// Bytes 32 to 39.
    public var word4: UInt64 = 0
    /// Bytes 40 to 47.
    public var word5: UInt64 = 0

    /// A header with nothing but an opcode and flags.
    public init(opcode: UInt8, isImmediate: Bool = false, flags: UInt8 = 0, byte2: UInt8 = 0, byte3: UInt8 = 0) {
        let first = UInt64(opcode & 0x3F) | (isImmediate ? 0x40 : 0)
        word0 = first << 56 | UInt64(flags) << 48 | UInt64(byte2) << 40 | UInt64(byte3) << 32
    }

    /// The header that starts at the buffer's reader index; nil when fewer than 48 bytes are there.
    @inlinable
    public init?(peeking buffer: ByteBuffer) {
        var copy = buffer
        guard
            let words = copy.readMultipleIntegers(
                as: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64).self)
        else { return nil }
        (word0, word1, word2, word3, word4, word5) = words
    }

    /// The six bits of the opcode.
    public var opcode: UInt8 { UInt8(truncatingIfNeeded: word0 >> 56) & 0x3F }
    /// The I bit: outside of the order of CmdSN.
    public var isImmediate: Bool { word0 & (1 << 62) != 0 }
    /// Byte 1.
    public var flags: UInt8 { UInt8(truncatingIfNeeded: word0 >> 48) }
    /// Byte 2.
    public var byte2: UInt8 { UInt8(truncatingIfNeeded: word0 >> 40) }
    /// Byte 3.
    public var byte3: UInt8 { UInt8(truncatingIfNeeded: word0 >> 32) }
    /// The bytes of additional header segments.
    public var additionalByteCount: Int { Int(UInt8(truncatingIfNeeded: word0 >> 24)) * 4 }
    /// DataSegmentLength, without padding.
    public var dataByteCount: Int { Int(word0 & 0xFF_FFFF) }

    /// The same header with these lengths; `additional` counts words of four bytes.
    func withLengths(additionalWords: UInt8, dataByteCount: Int) -> BasicHeader {
        var copy = self
        copy.word0 = word0 & 0xFFFF_FFFF_0000_0000 | UInt64(additionalWords) << 24 | UInt64(dataByteCount & 0xFF_FFFF)
        return copy
    }

    // The halves of the words, by the offset of their first byte.
    var at16: UInt32 {
        get { Self.high(word2) }
        set { Self.setHigh(&word2, newValue) }
    }
    var at20: UInt32 {
        get { Self.low(word2) }
        set { Self.setLow(&word2, newValue) }
    }
    var at24: UInt32 {
        get { Self.high(word3) }
        set { Self.setHigh(&word3, newValue) }
    }
    var at28: UInt32 {
        get { Self.low(word3) }
        set { Self.setLow(&word3, newValue) }
    }
    var at32: UInt32 {
        get { Self.high(word4) }
        set { Self.setHigh(&word4, newValue) }
    }
    var at36: UInt32 {
        get { Self.low(word4) }
        set { Self.setLow(&word4, newValue) }
    }
    var at40: UInt32 {
        get { Self.high(word5) }
        set { Self.setHigh(&word5, newValue) }
    }
    var at44: UInt32 {
        get { Self.low(word5) }
        set { Self.setLow(&word5, newValue) }
    }

    private static func high(_ word: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: word >> 32) }
    private static func low(_ word: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: word) }
    private static func setHigh(_ word: inout UInt64, _ value: UInt32) { word = word & 0xFFFF_FFFF | UInt64(value) << 32 }
    private static func setLow(_ word: inout UInt64, _ value: UInt32) { word = word & ~0xFFFF_FFFF | UInt64(value) }
}

extension ByteBuffer {
    /// Appends a basic header segment.
    mutating func writeBasicHeader(_ header: BasicHeader) {
        writeMultipleIntegers(header.word0, header.word1, header.word2, header.word3, header.word4, header.word5)
    }

    /// Overwrites 48 bytes that were reserved at `index`.
    mutating func setBasicHeader(_ header: BasicHeader, at index: Int) {
        setInteger(header.word0, at: index)
        setInteger(header.word1, at: index + 8)
        setInteger(header.word2, at: index + 16)
        setInteger(header.word3, at: index + 24)
        setInteger(header.word4, at: index + 32)
        setInteger(header.word5, at: index + 40)
    }
}

/// Serial number arithmetic for StatSN, CmdSN and their kin (RFC 1982, 32 bits).
public enum SerialNumber {
    /// True when `left` comes before `right`.
    public static func isBefore(_ left: UInt32, _ right: UInt32) -> Bool {
        Int32(bitPattern: left &- right) < 0
    }
}
