/// A command descriptor block (CDB) as it came: at most 16 bytes, kept in place so that a command costs no allocation.
///
/// iSCSI always carries 16 bytes (RFC 7143, 11.3.5); shorter blocks are filled with zeroes. Longer ones belong to commands
/// that a disk does not need (variable length CDBs), and their first byte says so.
public struct CommandDescriptorBlock: Hashable, Sendable {
    /// The most bytes that are kept.
    public static let maximumByteCount = 16

    private let value: UInt128

    /// The first 16 bytes of `bytes`, with zeroes behind them when there are fewer.
    public init(_ bytes: some Sequence<UInt8>) {
        var value: UInt128 = 0
        var count = 0
        for byte in bytes {
            if count == Self.maximumByteCount { break }
            value = value << 8 | UInt128(byte)
            count += 1
        }
        // A shift by all 128 bits gives zero in Swift, so an empty block is a block of zeroes.
        self.value = value << UInt128(8 * (Self.maximumByteCount - count))
    }

    /// The block as two big-endian halves.
    public init(high: UInt64, low: UInt64) {
        value = UInt128(high) << 64 | UInt128(low)
    }

    /// The first byte, which says what the command is.
    public var operationCode: UInt8 { UInt8(truncatingIfNeeded: value >> 120) }

    /// The byte at `index`, or zero where there is none.
    public subscript(_ index: Int) -> UInt8 {
        UInt8(truncatingIfNeeded: field(at: index, byteCount: 1))
    }

    /// `byteCount` bytes from `index` on, as a big-endian number.
    func field(at index: Int, byteCount: Int) -> UInt64 {
        guard index >= 0, byteCount > 0, byteCount <= 8, index + byteCount <= Self.maximumByteCount else { return 0 }
        let shifted = value >> UInt128(8 * (Self.maximumByteCount - index - byteCount))
        let mask: UInt64 = byteCount == 8 ? .max : (1 << UInt64(8 * byteCount)) - 1
        return UInt64(truncatingIfNeeded: shifted) & mask
    }

    func uint16(at index: Int) -> UInt16 { UInt16(truncatingIfNeeded: field(at: index, byteCount: 2)) }
    func uint32(at index: Int) -> UInt32 { UInt32(truncatingIfNeeded: field(at: index, byteCount: 4)) }
    func uint64(at index: Int) -> UInt64 { field(at: index, byteCount: 8) }

    /// True when `bit` (0 is the lowest) of the byte at `index` is set.
    func bit(_ bit: UInt8, at index: Int) -> Bool { self[index] & (1 << (bit & 7)) != 0 }

    /// The length that the group of the operation code gives (SPC-4, 4.2.5.1); nil for vendor and variable length groups.
    public var byteCount: Int? {
        switch operationCode >> 5 {
        case 0: 6
        case 1, 2: 10
        case 4: 16
        case 5: 12
        default: nil
        }
    }

    /// All 16 bytes.
    public var bytes: [UInt8] { (0..<Self.maximumByteCount).map { self[$0] } }
}
