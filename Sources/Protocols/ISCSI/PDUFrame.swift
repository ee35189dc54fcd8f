import Checksums
import NIOCore

// A PDU on the wire, RFC 7143 section 11.1:
//
//   | basic header, 48 | AHS, 4*n | header digest, 4? | data, padded to 4 | data digest, 4? |
//
// A digest is there when it was negotiated; a data digest only when there is data. The decoder
// takes bytes as they come and gives whole frames, whose parts are slices of what arrived.

/// Which digests a connection uses.
public struct Digests: Equatable, Sendable {
    /// CRC-32C over the basic and additional header segments.
    public var header: Bool
    /// CRC-32C over the data segment and its padding.
    public var data: Bool

    public init(header: Bool = false, data: Bool = false) {
        self.header = header
        self.data = data
    }
}

/// Why bytes are no PDU. Each of these ends the connection: the place of the next PDU is not known, or not trusted.
public enum PDUError: Error, Equatable, Sendable {
    /// The header announces more data than was agreed.
    case dataSegmentTooLong(byteCount: Int, limit: Int)
    /// The additional header segments are longer than any PDU of the protocol has.
    case additionalHeaderTooLong(byteCount: Int)
    /// The header digest does not match.
    case headerDigest
    /// An opcode that this side never receives.
    case opcode(UInt8)
    /// A field has a value that makes no sense.
    case malformed(String)
}

extension PDUError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .dataSegmentTooLong(let byteCount, let limit):
            "a PDU announces \(byteCount) bytes of data, and at most \(limit) were agreed"
        case .additionalHeaderTooLong(let byteCount): "a PDU announces \(byteCount) bytes of additional headers, more than any has"
        case .headerDigest: "a header digest does not match"
        case .opcode(let opcode): "0x\(String(opcode, radix: 16)) is no opcode that is received here"
        case .malformed(let reason): reason
        }
    }
}

/// One PDU, cut out of the stream but not interpreted.
public struct PDUFrame: Equatable, Sendable {
    /// The basic header segment.
    public var header: BasicHeader
    /// The additional header segments, a multiple of four bytes.
    public var additional: ByteBuffer
    /// The data segment without padding.
    public var data: ByteBuffer
    /// True when a data digest was there and did not match; `data` is then not to be used.
    public var isDataDigestWrong: Bool

    public init(header: BasicHeader, additional: ByteBuffer = ByteBuffer(), data: ByteBuffer = ByteBuffer()) {
        self.header = header
        self.additional = additional
        self.data = data
        self.isDataDigestWrong = false
    }

    /// True for a PDU with data of a write.
    public var isDataOut: Bool { header.opcode == InitiatorOpcode.dataOut.rawValue }
}

/// Cuts a stream of bytes into frames.
public struct PDUDecoder {
    /// Additional header segments of at most this many bytes are taken: an extended CDB of 260 bytes
    /// and a bidirectional length, rounded up. No PDU needs more.
    public static let maximumAdditionalByteCount = 288

    /// The digests in use. They may change between two calls of `next`.
    public var digests = Digests()
    /// A longer DataSegmentLength is refused.
    public var maximumDataByteCount: Int
    /// What came last, as far as it was not cut into frames.
    private var received = ByteBuffer()
    /// A PDU whose rest is still to come. Only such a PDU is copied: the others are slices of what arrived.
    private var partial = ByteBuffer()

    public init(maximumDataByteCount: Int) {
        self.maximumDataByteCount = maximumDataByteCount
    }

    /// Bytes that wait for the rest of their PDU, or for `next`.
    public var bufferedByteCount: Int { partial.readableBytes + received.readableBytes }

    /// Adds what came from the connection. When nothing waits for `next`, the buffer is taken as it is.
    public mutating func append(_ bytes: ByteBuffer) {
        if received.readableBytes == 0 {
            received = bytes
        } else {
            var joined = ByteBufferAllocator().buffer(capacity: received.readableBytes + bytes.readableBytes)
            joined.writeImmutableBuffer(received)
            joined.writeImmutableBuffer(bytes)
            received = joined
        }
    }

    /// The next whole frame, or nil when more bytes are needed.
    public mutating func next() throws(PDUError) -> PDUFrame? {
        if partial.readableBytes > 0 {
            guard try completePartial() else { return nil }
            var whole = ByteBuffer()
            swap(&whole, &partial)
            return frame(from: &whole)
        }
        if let byteCount = try wireByteCount(of: received), received.readableBytes >= byteCount { return frame(from: &received) }
        if received.readableBytes > 0 { _ = try completePartial() }
        // Whoever received the bytes may use their memory again.
        received = ByteBuffer()
        return nil
    }

    /// Moves what the partial PDU lacks from what was received; true when it is whole.
    private mutating func completePartial() throws(PDUError) -> Bool {
        take(BasicHeader.byteCount)
        // The length of the header is known from its beginning, and the length of the whole from its digest on.
        guard let header = BasicHeader(peeking: partial) else { return false }
        try checkLengths(header)
        take(headerByteCount(header))
        guard let byteCount = try wireByteCount(of: partial) else { return false }
        take(byteCount)
        return partial.readableBytes >= byteCount
    }

    /// Moves bytes until the partial PDU has `byteCount` of them, or none are left.
    private mutating func take(_ byteCount: Int) {
        let lacking = byteCount - partial.readableBytes
        guard lacking > 0, received.readableBytes > 0 else { return }
        // One allocation for the whole PDU instead of one for each doubling.
        partial.reserveCapacity(minimumWritableBytes: lacking)
        if let piece = received.readSlice(length: min(lacking, received.readableBytes)) { partial.writeImmutableBuffer(piece) }
    }

    /// The length on the wire of the PDU that starts at the buffer's reader index; nil when its header is not whole.
    private func wireByteCount(of buffer: ByteBuffer) throws(PDUError) -> Int? {
        guard let header = BasicHeader(peeking: buffer) else { return nil }
        try checkLengths(header)
        guard buffer.readableBytes >= headerByteCount(header) else { return nil }
        if digests.header { try checkHeaderDigest(buffer, headerByteCount(header) - 4) }
        var total = headerByteCount(header)
        if header.dataByteCount > 0 { total += Self.padded(header.dataByteCount) + (digests.data ? 4 : 0) }
        return total
    }

    private func checkLengths(_ header: BasicHeader) throws(PDUError) {
        guard header.additionalByteCount <= Self.maximumAdditionalByteCount else {
            throw .additionalHeaderTooLong(byteCount: header.additionalByteCount)
        }
        guard header.dataByteCount <= maximumDataByteCount else {
            throw .dataSegmentTooLong(byteCount: header.dataByteCount, limit: maximumDataByteCount)
        }
    }

    /// The bytes in front of the data: headers and their digest.
    private func headerByteCount(_ header: BasicHeader) -> Int {
        BasicHeader.byteCount + header.additionalByteCount + (digests.header ? 4 : 0)
    }

    /// Cuts a PDU, which is whole, from the front of a buffer.
    private func frame(from buffer: inout ByteBuffer) -> PDUFrame? {
        guard let header = BasicHeader(peeking: buffer) else { return nil }
        var frame = PDUFrame(header: header)
        buffer.moveReaderIndex(forwardBy: BasicHeader.byteCount)
        if header.additionalByteCount > 0 {
            frame.additional = buffer.readSlice(length: header.additionalByteCount) ?? ByteBuffer()
        }
        if digests.header { buffer.moveReaderIndex(forwardBy: 4) }
        if header.dataByteCount > 0 {
            let padded = Self.padded(header.dataByteCount)
            let start = buffer.readerIndex
            frame.data = buffer.getSlice(at: start, length: header.dataByteCount) ?? ByteBuffer()
            if digests.data {
                let computed = Self.crc(buffer, at: start, byteCount: padded)
                frame.isDataDigestWrong = buffer.getInteger(at: start + padded, endianness: .little) != computed
                buffer.moveReaderIndex(forwardBy: padded + 4)
            } else {
                buffer.moveReaderIndex(forwardBy: padded)
            }
        }
        return frame
    }

    private func checkHeaderDigest(_ buffer: ByteBuffer, _ byteCount: Int) throws(PDUError) {
        let computed = Self.crc(buffer, at: buffer.readerIndex, byteCount: byteCount)
        let sent: UInt32? = buffer.getInteger(at: buffer.readerIndex + byteCount, endianness: .little)
        if sent != computed { throw .headerDigest }
    }

    static func padded(_ byteCount: Int) -> Int { (byteCount + 3) & ~3 }

    /// CRC-32C of a part of a buffer. On the wire its least significant byte comes first (RFC 7143 section 13.1).
    static func crc(_ buffer: ByteBuffer, at index: Int, byteCount: Int) -> UInt32 {
        var crc = CRC32C()
        if let slice = buffer.getSlice(at: index, length: byteCount) { crc.update(slice) }
        return crc.value
    }
}

/// Writes frames.
public struct PDUEncoder: Sendable {
    /// The digests in use.
    public var digests = Digests()

    public init(digests: Digests = Digests()) {
        self.digests = digests
    }

    /// The bytes in front of the data of a PDU without additional headers.
    public var headerByteCount: Int { BasicHeader.byteCount + (digests.header ? 4 : 0) }

    /// Appends a whole PDU.
    public func write(_ frame: PDUFrame, into buffer: inout ByteBuffer) {
        let start = buffer.writerIndex
        writeHeader(frame.header, additional: frame.additional, dataByteCount: frame.data.readableBytes, into: &buffer)
        let dataStart = buffer.writerIndex
        if frame.data.readableBytes > 0 {
            buffer.writeImmutableBuffer(frame.data)
            finishData(from: dataStart, in: &buffer)
        }
        assert(buffer.writerIndex >= start + BasicHeader.byteCount)
    }

    /// Appends headers and their digest; the data follows by other ways, then `finishData` or `trailer`.
    public func writeHeader(
        _ header: BasicHeader, additional: ByteBuffer = ByteBuffer(), dataByteCount: Int, into buffer: inout ByteBuffer
    ) {
        let start = buffer.writerIndex
        let words = UInt8(clamping: (additional.readableBytes + 3) / 4)
        buffer.writeBasicHeader(header.withLengths(additionalWords: words, dataByteCount: dataByteCount))
        if additional.readableBytes > 0 {
            buffer.writeImmutableBuffer(additional)
            buffer.writeRepeatingByte(0, count: Int(words) * 4 - additional.readableBytes)
        }
        if digests.header {
            let crc = PDUDecoder.crc(buffer, at: start, byteCount: buffer.writerIndex - start)
            buffer.writeInteger(crc, endianness: .little)
        }
    }

    /// Leaves room for a header whose fields are known only after the data was appended behind it.
    /// - Returns: the place to give to `finish`.
    public func reserveHeader(in buffer: inout ByteBuffer) -> Int {
        let start = buffer.writerIndex
        buffer.writeRepeatingByte(0, count: headerByteCount)
        return start
    }

    /// Fills in a reserved header, then pads and digests the data that was appended behind it.
    public func finish(_ header: BasicHeader, reservedAt start: Int, in buffer: inout ByteBuffer) {
        let dataStart = start + headerByteCount
        let dataByteCount = buffer.writerIndex - dataStart
        buffer.setBasicHeader(header.withLengths(additionalWords: 0, dataByteCount: dataByteCount), at: start)
        if digests.header {
            let crc = PDUDecoder.crc(buffer, at: start, byteCount: BasicHeader.byteCount)
            buffer.setInteger(crc, at: start + BasicHeader.byteCount, endianness: .little)
        }
        if dataByteCount > 0 { finishData(from: dataStart, in: &buffer) }
    }

    /// Pads and digests data that was appended from `dataStart` on.
    public func finishData(from dataStart: Int, in buffer: inout ByteBuffer) {
        let byteCount = buffer.writerIndex - dataStart
        buffer.writeRepeatingByte(0, count: PDUDecoder.padded(byteCount) - byteCount)
        if digests.data {
            let crc = PDUDecoder.crc(buffer, at: dataStart, byteCount: PDUDecoder.padded(byteCount))
            buffer.writeInteger(crc, endianness: .little)
        }
    }

    /// True when something follows `data`: padding, or a digest.
    public func hasTrailer(for data: ByteBuffer) -> Bool { digests.data || data.readableBytes & 3 != 0 }

    /// Appends what follows `data` when the data itself goes out as a buffer of its own.
    public func writeTrailer(for data: ByteBuffer, into buffer: inout ByteBuffer) {
        let padding = PDUDecoder.padded(data.readableBytes) - data.readableBytes
        buffer.writeRepeatingByte(0, count: padding)
        if digests.data {
            var crc = CRC32C()
            crc.update(data)
            for _ in 0..<padding { crc.update(bigEndian: UInt8(0)) }
            buffer.writeInteger(crc.value, endianness: .little)
        }
    }
}
