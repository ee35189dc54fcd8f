import Blocks
import Checksums
import NIOCore

// A point file. All integers are big-endian; docs/reference/point-journal-format.md has the fields.
//
//      header 64 │ (attributes, CRC-32C 4) │ piece header 32 │ data │ piece header 32 │ data │ ... │ commit record 32
//
// An undo file has the same form. It holds what the disk had where its point has written, and its header says until when.
//
// The commit record is the last thing that is written. Its checksum covers the header too, and its
// digest every piece, so a file is complete exactly when it ends in a commit record that agrees with
// all that comes before it; no order of writes within the file is relied on.

/// The encoding of a point file.
enum PointFormat {
    static let magic: UInt64 = 0x4357_504f_494e_5431  // "CWPOINT1"
    static let version: UInt16 = 1
    /// The version of a file whose point carries attributes, which stand behind the header.
    static let attributesVersion: UInt16 = 2
    /// The version of an undo file: behind the header stand the time, and the attributes of the point that was left.
    static let undoVersion: UInt16 = 3
    static let headerBytes = 64
    static let pieceHeaderBytes = 32
    static let commitBytes = 32
    static let pieceTag: UInt32 = 0x5049_4543  // "PIEC"
    static let commitTag: UInt32 = 0x434d_4954  // "CMIT"

    private static let prefix = "point-"
    private static let keptPrefix = "held-"
    private static let undoPrefix = "undo-"
    private static let suffix = ".journal"
    private static let unfinishedSuffix = ".new"

    /// The name of a point's file.
    static func fileName(_ point: PointNumber) -> String { prefix + digits(point) + suffix }

    /// What the file of a point is called that was held when its attachment ended: nobody applies it any more.
    static func keptFileName(_ point: PointNumber, of volume: VolumeIdentifier) -> String {
        keptPrefix + "\(volume)-" + digits(point) + suffix
    }

    /// True when a file of that name was kept so.
    static func isKeptFile(_ name: String) -> Bool { name.hasPrefix(keptPrefix) && name.hasSuffix(suffix) }

    /// The name of the file with what the disk had before it had this point.
    static func undoFileName(_ point: PointNumber) -> String { undoPrefix + digits(point) + suffix }

    /// What it is called until all of it is durable.
    static func unfinishedUndoFileName(_ point: PointNumber) -> String { undoPrefix + digits(point) + unfinishedSuffix }

    /// The point whose undo file has that name.
    static func point(ofUndoFile name: String) -> PointNumber? { point(name, undoPrefix, suffix) }

    /// True for an undo file that a crash has left half written.
    static func isUnfinishedUndoFile(_ name: String) -> Bool { point(name, undoPrefix, unfinishedSuffix) != nil }

    private static func digits(_ point: PointNumber) -> String {
        let digits = String(point, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }

    /// The point whose file has that name.
    static func point(ofFile name: String) -> PointNumber? { point(name, prefix, suffix) }

    /// The point in a name; only the one spelling counts.
    private static func point(_ name: String, _ prefix: String, _ suffix: String) -> PointNumber? {
        guard name.hasPrefix(prefix), name.hasSuffix(suffix), name.utf8.count == prefix.utf8.count + 16 + suffix.utf8.count,
            let point = PointNumber(name.dropFirst(prefix.count).prefix(16), radix: 16), prefix + digits(point) + suffix == name
        else { return nil }
        return point
    }
}

/// What a point file says about itself.
struct PointHeader: Equatable {
    let volume: VolumeIdentifier
    let generation: LeaseGeneration
    let point: PointNumber
    /// The size of the disk when the point was received.
    let sectorCount: UInt64
    /// What the point carries besides its bytes; nil for nothing. In an undo file what the point before it has carried.
    var attributes: PointAttributes?
    /// Of an undo file: until when the disk had what is in it, in milliseconds since 1970. Nil for a point.
    var leftAtMilliseconds: UInt64?

    private var version: UInt16 {
        if leftAtMilliseconds != nil { return PointFormat.undoVersion }
        return attributes == nil ? PointFormat.version : PointFormat.attributesVersion
    }

    func encoded() -> ByteBuffer {
        var buffer = ByteBuffer()
        buffer.reserveCapacity(PointFormat.headerBytes)
        buffer.writeInteger(PointFormat.magic)
        buffer.writeInteger(version)
        buffer.writeInteger(UInt16(clamping: attributes?.encodedBytes ?? 0))
        buffer.writeRepeatingByte(0, count: 4)
        buffer.writeInteger(volume.high)
        buffer.writeInteger(volume.low)
        buffer.writeInteger(generation)
        buffer.writeInteger(point)
        buffer.writeInteger(sectorCount)
        buffer.writeRepeatingByte(0, count: 4)
        buffer.writeInteger(CRC32C.checksum(of: buffer))
        if attributes == nil, leftAtMilliseconds == nil { return buffer }
        var encoded = ByteBuffer()
        if let leftAtMilliseconds { encoded.writeInteger(leftAtMilliseconds) }
        attributes?.encode(into: &encoded)
        let checksum = CRC32C.checksum(of: encoded)
        buffer.writeBuffer(&encoded)
        buffer.writeInteger(checksum)
        return buffer
    }

    init(
        volume: VolumeIdentifier, generation: LeaseGeneration, point: PointNumber, sectorCount: UInt64, attributes: PointAttributes? = nil,
        leftAtMilliseconds: UInt64? = nil
    ) {
        self.volume = volume
        self.generation = generation
        self.point = point
        self.sectorCount = sectorCount
        self.attributes = attributes
        self.leftAtMilliseconds = leftAtMilliseconds
    }

    /// No header is longer, in bytes.
    static let byteCountMax = PointFormat.headerBytes + 8 + PointAttributes.encodedBytesMax + 4

    /// How long the header is whose first `PointFormat.headerBytes` these are, attributes and all; nil when they are none.
    static func byteCount(_ bytes: ByteBuffer) -> Int? {
        guard let version = bytes.getInteger(at: bytes.readerIndex + 8, as: UInt16.self),
            let attributeBytes = bytes.getInteger(at: bytes.readerIndex + 10, as: UInt16.self).map(Int.init)
        else { return nil }
        switch version {
        case PointFormat.version: return PointFormat.headerBytes
        case PointFormat.attributesVersion where attributeBytes <= PointAttributes.encodedBytesMax:
            return PointFormat.headerBytes + attributeBytes + 4
        case PointFormat.undoVersion where attributeBytes <= PointAttributes.encodedBytesMax:
            return PointFormat.headerBytes + 8 + attributeBytes + 4
        default: return nil
        }
    }

    /// Nil when the bytes are not a whole header of a known version.
    init?(_ bytes: ByteBuffer) {
        var buffer = bytes
        guard let byteCount = Self.byteCount(bytes),
            let covered = buffer.getSlice(at: buffer.readerIndex, length: PointFormat.headerBytes - 4),
            buffer.readInteger(as: UInt64.self) == PointFormat.magic, buffer.readSlice(length: 8) != nil,
            let high = buffer.readInteger(as: UInt64.self),
            let low = buffer.readInteger(as: UInt64.self), let generation = buffer.readInteger(as: UInt64.self),
            let point = buffer.readInteger(as: UInt64.self), let sectorCount = buffer.readInteger(as: UInt64.self),
            buffer.readSlice(length: 4) != nil, buffer.readInteger(as: UInt32.self) == CRC32C.checksum(of: covered)
        else { return nil }
        self.init(volume: VolumeIdentifier(high: high, low: low), generation: generation, point: point, sectorCount: sectorCount)
        if byteCount == PointFormat.headerBytes { return }
        guard var encoded = buffer.readSlice(length: byteCount - PointFormat.headerBytes - 4),
            buffer.readInteger(as: UInt32.self) == CRC32C.checksum(of: encoded)
        else { return nil }
        if bytes.getInteger(at: bytes.readerIndex + 8, as: UInt16.self) == PointFormat.undoVersion {
            leftAtMilliseconds = encoded.readInteger()
            if encoded.readableBytes == 0 { return }
        }
        guard let attributes = PointAttributes(from: &encoded), encoded.readableBytes == 0 else { return nil }
        self.attributes = attributes
    }
}

/// One piece of a point, as the memory knows it.
struct PointPiece: Equatable {
    let range: SectorRange
    /// Where its data stands in the point file; nil when the sectors become zeroes.
    let dataOffset: UInt64?
    /// CRC-32C of the data; 0 without data.
    let checksum: UInt32

    /// The bytes of data in the file.
    var dataBytes: Int { dataOffset == nil ? 0 : range.byteCount }

    func writeHeader(to buffer: inout ByteBuffer) {
        let start = buffer.writerIndex
        buffer.writeInteger(PointFormat.pieceTag)
        buffer.writeInteger(UInt8(dataOffset == nil ? 1 : 0))
        buffer.writeRepeatingByte(0, count: 3)
        buffer.writeInteger(range.start)
        buffer.writeInteger(range.count)
        buffer.writeInteger(checksum)
        var crc = CRC32C()
        buffer.withUnsafeReadableBytes { bytes in
            let first = start - buffer.readerIndex
            crc.update(UnsafeRawBufferPointer(rebasing: bytes[first..<first + PointFormat.pieceHeaderBytes - 4]))
        }
        buffer.writeInteger(crc.value)
    }

    /// Reads a piece header that stands at `offset` of the file; nil when it is none.
    init?(header bytes: ByteBuffer, at offset: UInt64) {
        var buffer = bytes
        guard let covered = buffer.getSlice(at: buffer.readerIndex, length: PointFormat.pieceHeaderBytes - 4),
            buffer.readInteger(as: UInt32.self) == PointFormat.pieceTag, let kind = buffer.readInteger(as: UInt8.self), kind <= 1,
            buffer.readSlice(length: 3) != nil, let start = buffer.readInteger(as: UInt64.self),
            let count = buffer.readInteger(as: UInt64.self), let checksum = buffer.readInteger(as: UInt32.self),
            buffer.readInteger(as: UInt32.self) == CRC32C.checksum(of: covered),
            let range = SectorRange(start: start, count: count), !range.isEmpty
        else { return nil }
        self.init(
            range: range, dataOffset: kind == 0 ? offset &+ UInt64(PointFormat.pieceHeaderBytes) : nil,
            checksum: checksum)
    }

    init(range: SectorRange, dataOffset: UInt64?, checksum: UInt32) {
        self.range = range
        self.dataOffset = dataOffset
        self.checksum = checksum
    }
}

/// The record that makes a point file complete.
struct PointCommit: Equatable {
    let pieces: UInt64
    let digest: UInt32
    /// Where the record stands in the file.
    let offset: UInt64

    init(pieces: UInt64, digest: UInt32, offset: UInt64) {
        self.pieces = pieces
        self.digest = digest
        self.offset = offset
    }

    func encoded(after header: PointHeader) -> ByteBuffer {
        var buffer = ByteBuffer()
        buffer.reserveCapacity(PointFormat.commitBytes)
        buffer.writeInteger(PointFormat.commitTag)
        buffer.writeInteger(digest)
        buffer.writeInteger(pieces)
        buffer.writeInteger(offset)
        buffer.writeRepeatingByte(0, count: 4)
        buffer.writeInteger(Self.checksum(header, buffer))
        return buffer
    }

    /// Nil when the bytes are not a commit record that belongs to `header`.
    init?(_ bytes: ByteBuffer, after header: PointHeader) {
        var buffer = bytes
        guard let covered = buffer.getSlice(at: buffer.readerIndex, length: PointFormat.commitBytes - 4),
            buffer.readInteger(as: UInt32.self) == PointFormat.commitTag, let digest = buffer.readInteger(as: UInt32.self),
            let pieces = buffer.readInteger(as: UInt64.self), let offset = buffer.readInteger(as: UInt64.self),
            buffer.readSlice(length: 4) != nil, buffer.readInteger(as: UInt32.self) == Self.checksum(header, covered)
        else { return nil }
        self.init(pieces: pieces, digest: digest, offset: offset)
    }

    private static func checksum(_ header: PointHeader, _ record: ByteBuffer) -> UInt32 {
        var crc = CRC32C()
        crc.update(header.encoded())
        crc.update(record)
        return crc.value
    }
}
