import Checksums
import NIOCore

/// The digest that ends a point on the link and in the journal: CRC-32C over each piece's first
/// sector and count (8 bytes each, big-endian), its kind (1 byte: 0 data, 1 zeroes) and its data,
/// in the order in which the pieces travel.
public struct PointDigest: Sendable {
    private var crc = CRC32C()
    /// How many pieces were added.
    public private(set) var pieceCount: UInt64 = 0

    public init() {}

    /// The digest of the pieces added so far.
    public var value: UInt32 { crc.value }

    /// Adds a piece that carries bytes.
    public mutating func add(_ range: SectorRange, data: ByteBuffer) {
        addHeader(range, kind: 0)
        crc.update(data)
    }

    /// Adds a piece that makes sectors read as zeroes.
    public mutating func addZeroes(_ range: SectorRange) {
        addHeader(range, kind: 1)
    }

    private mutating func addHeader(_ range: SectorRange, kind: UInt8) {
        crc.update(bigEndian: range.start)
        crc.update(bigEndian: range.count)
        crc.update(bigEndian: kind)
        pieceCount &+= 1
    }
}
