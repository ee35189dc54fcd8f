import Blocks
import NIOCore

/// What a point carries, in the descriptors of its seal: records of sixteen bytes, the first two of which are the length.
enum LogAttributes {
    /// The most records that attributes take.
    static let recordsMax = (2 + PointAttributes.encodedBytesMax + 15) / 16

    /// They are not as they were written, though their tag fits: another version wrote them.
    struct Damage: Error {}

    /// The records, as the two numbers that stand in place of sector and count.
    static func records(of attributes: PointAttributes) -> [(high: UInt64, low: UInt64)] {
        var encoded = ByteBuffer()
        attributes.encode(into: &encoded)
        var buffer = ByteBuffer()
        buffer.writeInteger(UInt16(clamping: encoded.readableBytes))
        buffer.writeBuffer(&encoded)
        buffer.writeRepeatingByte(0, count: (16 - buffer.readableBytes % 16) % 16)
        var records: [(high: UInt64, low: UInt64)] = []
        while let (high, low) = buffer.readMultipleIntegers(as: (UInt64, UInt64).self) { records.append((high, low)) }
        return records
    }

    /// What a batch with a seal says of its point; nil when it says nothing.
    static func attributes(in records: [LogRecord]) throws(Damage) -> PointAttributes? {
        var buffer = ByteBuffer()
        for record in records where record.kind == .attributes { buffer.writeMultipleIntegers(record.start, record.count) }
        if buffer.readableBytes == 0 { return nil }
        guard let length = buffer.readInteger(as: UInt16.self), var encoded = buffer.readSlice(length: Int(length)),
            let attributes = PointAttributes(from: &encoded), encoded.readableBytes == 0
        else { throw Damage() }
        return attributes
    }
}
