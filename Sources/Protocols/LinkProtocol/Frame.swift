import NIOCore

// A frame, version 1. All integers are big-endian.
//
//   0        1        2        3        4                 8                 12                        20
//   +--------+--------+--------+--------+-----------------+-----------------+-------------------------+-----------
//   | kind   | class  | flags  | 0      | payload bytes   | plain bytes     | sequence or token       | payload
//   +--------+--------+--------+--------+-----------------+-----------------+-------------------------+-----------
//
// flags: bits 0-1 compression (0 none, 1 LZ4, 2 Zstandard), bit 2 "more": the message goes on in the next
// sequence of the class. `payload bytes` is what crosses the line, `plain bytes` what comes out of decompression.

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
    /// The message goes on in the frame with the next sequence.
    public var hasMore: Bool
    /// The bytes that follow the header on the line.
    public var payloadBytes: Int
    /// The bytes of the payload after decompression.
    public var plainBytes: Int
    /// The sequence of a data frame in its class; the token of a ping and its pong; else 0.
    public var sequence: UInt64

    public init(
        kind: FrameKind, trafficClass: TrafficClass = .demand, compression: FrameCompression = .none, hasMore: Bool = false,
        payloadBytes: Int = 0, plainBytes: Int? = nil, sequence: UInt64 = 0
    ) {
        self.kind = kind
        self.trafficClass = trafficClass
        self.compression = compression
        self.hasMore = hasMore
        self.payloadBytes = payloadBytes
        self.plainBytes = plainBytes ?? payloadBytes
        self.sequence = sequence
    }

    /// Appends the encoded header.
    public func encode(into buffer: inout ByteBuffer) {
        buffer.writeMultipleIntegers(
            kind.rawValue, trafficClass.rawValue, compression.rawValue | (hasMore ? 4 : 0), UInt8(0),
            UInt32(truncatingIfNeeded: payloadBytes), UInt32(truncatingIfNeeded: plainBytes), sequence)
    }

    /// Reads a header.
    /// - Returns: nil when the bytes do not suffice yet.
    public static func decode(from buffer: inout ByteBuffer) throws(LinkViolation) -> FrameHeader? {
        guard buffer.readableBytes >= byteCount,
            let (kindByte, classByte, flags, reserved, payload, plain, sequence) = buffer.readMultipleIntegers(
                as: (UInt8, UInt8, UInt8, UInt8, UInt32, UInt32, UInt64).self)
        else { return nil }
        guard let kind = FrameKind(rawValue: kindByte) else { throw LinkViolation("unknown kind of frame \(kindByte)") }
        guard let trafficClass = TrafficClass(rawValue: classByte) else { throw LinkViolation("unknown class \(classByte)") }
        guard let compression = FrameCompression(rawValue: flags & 3), flags & ~7 == 0, reserved == 0 else {
            throw LinkViolation("unknown flags")
        }
        guard payload <= UInt32(LinkLimits.framePayloadBytes), plain <= UInt32(LinkLimits.framePayloadBytes) else {
            throw LinkViolation("frame of \(max(payload, plain)) bytes")
        }
        guard compression == .none ? payload == plain : (kind == .data && payload < plain) else {
            throw LinkViolation("lengths that do not fit the compression")
        }
        guard kind == .data || (trafficClass == .demand && flags == 0) else {
            throw LinkViolation("class or flags on a frame without data")
        }
        return FrameHeader(
            kind: kind, trafficClass: trafficClass, compression: compression, hasMore: flags & 4 != 0, payloadBytes: Int(payload),
            plainBytes: Int(plain), sequence: sequence)
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
