import NIOCore

// A frame, version 1. All integers are big-endian.
//
//   0        1        2        3        4                 8                 12                        20
//   +--------+--------+--------+--------+-----------------+-----------------+-------------------------+-----------
//   | kind   | class  | flags  | stream | payload bytes   | plain bytes     | sequence or token       | payload
//   +--------+--------+--------+--------+-----------------+-----------------+-------------------------+-----------
//
// flags: bits 0-1 compression (0 none, 1 LZ4, 2 Zstandard, 3 Zstandard in a stream), bit 2 "more": the message goes on in the next
// sequence of the class. `payload bytes` is what crosses the line, `plain bytes` what comes out of decompression.
// stream: which of the connection's streams of compression (bits 0-1), how many frames it had before, modulo 32 (bits 2-6), and whether it
// begins anew with this frame (bit 7); else 0.

/// What a frame is for.
public enum FrameKind: UInt8, Sendable {
    case hello = 1
    case data = 2
    case acknowledgement = 3
    case ping = 4
    case pong = 5
    case goodbye = 6
}

/// How the payload of a frame is compressed.
public enum FrameCompression: UInt8, Sendable, CaseIterable {
    case none = 0
    case lz4 = 1
    case zstandard = 2
    /// What came before in the same stream of the connection is needed to open it.
    case zstandardStream = 3
}

/// One of the streams of compression of a connection, as a frame names it.
public struct FrameStream: Equatable, Sendable {
    /// From 0 to `LinkLimits.compressionStreams - 1`.
    public var number: Int
    /// How many frames the stream had before this one, modulo `countModulus`: a stream from which one is missing opens to other bytes than went in.
    public var count: Int
    /// The frame refers to none before it.
    public var isNew: Bool

    /// What `count` is counted by.
    public static let countModulus = 32

    public init(number: Int = 0, count: Int = 0, isNew: Bool = false) {
        self.number = number
        self.count = count
        self.isNew = isNew
    }

    var byte: UInt8 { UInt8(truncatingIfNeeded: number & 3 | (count % Self.countModulus) << 2) | (isNew ? 0x80 : 0) }

    init(byte: UInt8) {
        self.init(number: Int(byte & 3), count: Int(byte >> 2) % Self.countModulus, isNew: byte & 0x80 != 0)
    }
}

/// Why bytes from the other side are not a frame, or not one that may come now.
public struct LinkViolation: Error, Equatable, Sendable, CustomStringConvertible {
    /// What is wrong, for the log.
    public let description: String

    public init(_ description: String) { self.description = description }
}

/// The fixed part of a frame.
public struct FrameHeader: Equatable, Sendable {
    /// The encoded size.
    public static let byteCount = 20

    public var kind: FrameKind
    /// The class of a data frame; `demand` (0) in the others.
    public var trafficClass: TrafficClass
    public var compression: FrameCompression
    /// With `zstandardStream`: which; otherwise the default.
    public var stream: FrameStream
    /// The message goes on in the frame with the next sequence.
    public var hasMore: Bool
    /// The bytes that follow the header on the line.
    public var payloadBytes: Int
    /// The bytes of the payload after decompression.
    public var plainBytes: Int
    /// The sequence of a data frame in its class; the token of a ping and its pong; else 0.
    public var sequence: UInt64

    public init(
        kind: FrameKind, trafficClass: TrafficClass = .demand, compression: FrameCompression = .none,
        stream: FrameStream = FrameStream(), hasMore: Bool = false, payloadBytes: Int = 0, plainBytes: Int? = nil, sequence: UInt64 = 0
    ) {
        self.kind = kind
        self.trafficClass = trafficClass
        self.compression = compression
        self.stream = stream
        self.hasMore = hasMore
        self.payloadBytes = payloadBytes
        self.plainBytes = plainBytes ?? payloadBytes
        self.sequence = sequence
    }

    /// Appends the encoded header.
    public func encode(into buffer: inout ByteBuffer) {
        buffer.writeMultipleIntegers(
            kind.rawValue, trafficClass.rawValue, compression.rawValue | (hasMore ? 4 : 0), stream.byte,
            UInt32(truncatingIfNeeded: payloadBytes), UInt32(truncatingIfNeeded: plainBytes), sequence)
    }

    /// Reads a header.
    /// - Returns: nil when the bytes do not suffice yet.
    public static func decode(from buffer: inout ByteBuffer) throws(LinkViolation) -> FrameHeader? {
        guard buffer.readableBytes >= byteCount,
            let (kindByte, classByte, flags, streamByte, payload, plain, sequence) = buffer.readMultipleIntegers(
                as: (UInt8, UInt8, UInt8, UInt8, UInt32, UInt32, UInt64).self)
        else { return nil }
        guard let kind = FrameKind(rawValue: kindByte) else { throw LinkViolation("unknown kind of frame \(kindByte)") }
        guard let trafficClass = TrafficClass(rawValue: classByte) else { throw LinkViolation("unknown class \(classByte)") }
        guard let compression = FrameCompression(rawValue: flags & 3), flags & ~7 == 0, streamByte == 0 || compression == .zstandardStream
        else { throw LinkViolation("unknown flags") }
        try check(compression, kind, payload: Int(payload), plain: Int(plain))
        guard kind == .data || (trafficClass == .demand && flags == 0) else {
            throw LinkViolation("class or flags on a frame without data")
        }
        return FrameHeader(
            kind: kind, trafficClass: trafficClass, compression: compression, stream: FrameStream(byte: streamByte),
            hasMore: flags & 4 != 0,
            payloadBytes: Int(payload), plainBytes: Int(plain), sequence: sequence)
    }

    private static func check(_ compression: FrameCompression, _ kind: FrameKind, payload: Int, plain: Int) throws(LinkViolation) {
        // What does not shrink goes through a stream all the same, for those behind it.
        let overhead = compression == .zstandardStream ? LinkLimits.compressionOverheadBytes : 0
        guard plain <= LinkLimits.framePayloadBytes, payload <= LinkLimits.framePayloadBytes + overhead else {
            throw LinkViolation("frame of \(max(payload, plain)) bytes")
        }
        let fits =
            switch compression {
            case .none: payload == plain
            case .lz4, .zstandard: kind == .data && payload < plain
            case .zstandardStream: kind == .data && payload > 0 && plain > 0 && payload <= plain + overhead
            }
        guard fits else { throw LinkViolation("lengths that do not fit the compression") }
    }
}

/// A frame in memory: the payload is as the header says, compressed or not.
public struct Frame: Equatable, Sendable {
    public var header: FrameHeader
    public var payload: ByteBuffer

    public init(header: FrameHeader, payload: ByteBuffer = ByteBuffer()) {
        self.header = header
        self.payload = payload
    }

    /// The frame as it crosses a connection.
    public func encoded() -> ByteBuffer {
        var buffer = ByteBuffer()
        buffer.reserveCapacity(FrameHeader.byteCount + payload.readableBytes)
        header.encode(into: &buffer)
        buffer.writeImmutableBuffer(payload)
        return buffer
    }
}

/// Cuts a stream of bytes into frames.
public struct FrameDecoder {
    private var pending = ByteBuffer()
    private var header: FrameHeader?

    public init() {}

    /// Bytes that were given and are not yet part of a frame that was taken. Never more than one frame once
    /// `next` returned nil.
    public var pendingBytes: Int { pending.readableBytes }

    /// Takes bytes from the connection.
    public mutating func append(_ bytes: ByteBuffer) {
        if pending.readableBytes == 0 {
            pending = bytes
        } else {
            pending.writeImmutableBuffer(bytes)
        }
    }

    /// The next whole frame, or nil when more bytes are needed. After a violation the stream is worth nothing.
    public mutating func next() throws(LinkViolation) -> Frame? {
        if header == nil { header = try FrameHeader.decode(from: &pending) }
        guard let known = header, let payload = pending.readSlice(length: known.payloadBytes) else {
            compact()
            return nil
        }
        header = nil
        return Frame(header: known, payload: payload)
    }

    /// A frame's first part is copied out of the connection's read buffer, so that a slow frame does not hold all of it.
    private mutating func compact() {
        if pending.readableBytes == 0 {
            pending = ByteBuffer()
        } else if pending.readerIndex > LinkLimits.framePayloadBytes {
            pending.discardReadBytes()
        }
    }
}
