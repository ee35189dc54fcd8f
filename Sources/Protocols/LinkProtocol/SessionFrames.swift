import NIOCore

// The payloads of the frames that are not data.
//
//   hello            "CWLK" u32, newest version u16, oldest version u16, session u64, incarnation u64, positions
//   acknowledgement  delay in microseconds u32, positions
//   positions        count u8, then for each class: class u8, next sequence u64, credit u64, words u8, words x u64
//   goodbye          reason u16, text (UTF-8)
//   ping, pong       empty; the token stands in the header

/// The versions of the protocol.
public enum LinkVersion {
    /// The newest version that this code speaks.
    public static let newest: UInt16 = 6
    /// The version that brought questions about allocation; an older edge does not know the message.
    public static let allocation: UInt16 = 2
    /// The version that brought what points carry besides their bytes; an older edge does not know the message.
    public static let pointAttributes: UInt16 = 3
    /// The version that brought references to blocks that the other edge has; an older edge does not know the messages.
    public static let references: UInt16 = 4
    /// The version that brought TCP connections through tunnels; an older edge does not know the messages.
    public static let tunnels: UInt16 = 5
    /// The version that brought frames whose compression goes on from those before; an older edge takes them for damaged.
    public static let compressionStreams: UInt16 = 6
    /// The oldest version that this code speaks.
    public static let oldest: UInt16 = 1
    /// What a hello begins with: "CWLK".
    public static let magic: UInt32 = 0x4357_4C4B
}

/// How far one end has received a class.
struct ClassPosition: Equatable, Sendable {
    var trafficClass: TrafficClass
    /// Every sequence below this one has arrived.
    var next: UInt64
    /// How many bytes the other side may have sent in this class since the session began.
    var credit: UInt64
    /// Bit i of word w says that sequence `next + 64w + i` has arrived.
    var arrived: [UInt64]

    /// Nothing has arrived.
    var isAtStart: Bool { next == 0 && arrived.allSatisfy { $0 == 0 } }

    /// The length of what `encode` writes.
    static func encodedBytes(_ positions: [ClassPosition]) -> Int {
        positions.reduce(1) { $0 + 18 + 8 * $1.arrived.count }
    }

    static func encode(_ positions: [ClassPosition], into buffer: inout ByteBuffer) {
        buffer.writeInteger(UInt8(truncatingIfNeeded: positions.count))
        for position in positions {
            buffer.writeMultipleIntegers(
                position.trafficClass.rawValue, position.next, position.credit, UInt8(truncatingIfNeeded: position.arrived.count))
            for word in position.arrived { buffer.writeInteger(word) }
        }
    }

    static func decode(from buffer: inout ByteBuffer) throws(LinkViolation) -> [ClassPosition] {
        guard let count = buffer.readInteger(as: UInt8.self), Int(count) <= TrafficClass.allCases.count else {
            throw LinkViolation("positions without a sensible count")
        }
        var positions: [ClassPosition] = []
        for _ in 0..<count {
            guard let (classByte, next, credit, words) = buffer.readMultipleIntegers(as: (UInt8, UInt64, UInt64, UInt8).self),
                let trafficClass = TrafficClass(rawValue: classByte), Int(words) <= LinkLimits.windowFrames / 64,
                buffer.readableBytes >= Int(words) * 8
            else { throw LinkViolation("damaged positions") }
            if positions.contains(where: { $0.trafficClass == trafficClass }) {
                throw LinkViolation("positions that name a class twice")
            }
            let arrived = (0..<words).compactMap { _ in buffer.readInteger(as: UInt64.self) }
            positions.append(ClassPosition(trafficClass: trafficClass, next: next, credit: credit, arrived: arrived))
        }
        return positions
    }
}

struct HelloBody: Equatable, Sendable {
    var newestVersion = LinkVersion.newest
    var oldestVersion = LinkVersion.oldest
    /// The session that the sender is in; 0 when in none.
    var session: UInt64
    /// Random, drawn anew when the sender starts and when it gives a session up.
    var incarnation: UInt64
    var positions: [ClassPosition]

    func frame() -> Frame {
        var buffer = ByteBuffer()
        buffer.writeMultipleIntegers(LinkVersion.magic, newestVersion, oldestVersion, session, incarnation)
        ClassPosition.encode(positions, into: &buffer)
        return Frame(header: FrameHeader(kind: .hello, payloadBytes: buffer.readableBytes), payload: buffer)
    }

    static func decode(_ payload: ByteBuffer) throws(LinkViolation) -> HelloBody {
        var buffer = payload
        guard
            let (magic, newest, oldest, session, incarnation) = buffer.readMultipleIntegers(
                as: (UInt32, UInt16, UInt16, UInt64, UInt64).self), magic == LinkVersion.magic
        else { throw LinkViolation("not a Causeway link") }
        guard newest >= LinkVersion.oldest, oldest <= LinkVersion.newest else {
            throw LinkViolation(
                "the other edge speaks versions \(oldest) to \(newest) of the link protocol, this one \(LinkVersion.oldest) to \(LinkVersion.newest)"
            )
        }
        let positions = try ClassPosition.decode(from: &buffer)
        guard buffer.readableBytes == 0 else { throw LinkViolation("bytes behind a hello") }
        return HelloBody(
            newestVersion: newest, oldestVersion: oldest, session: session, incarnation: incarnation, positions: positions)
    }
}

struct AcknowledgementBody: Equatable, Sendable {
    /// How long the newest frame that is acknowledged here had waited for it.
    var delayMicroseconds: UInt32
    var positions: [ClassPosition]

    func frame() -> Frame {
        var buffer = ByteBuffer()
        buffer.reserveCapacity(4 + ClassPosition.encodedBytes(positions))
        buffer.writeInteger(delayMicroseconds)
        ClassPosition.encode(positions, into: &buffer)
        return Frame(header: FrameHeader(kind: .acknowledgement, payloadBytes: buffer.readableBytes), payload: buffer)
    }

    static func decode(_ payload: ByteBuffer) throws(LinkViolation) -> AcknowledgementBody {
        var buffer = payload
        guard let delay = buffer.readInteger(as: UInt32.self) else { throw LinkViolation("damaged acknowledgement") }
        let positions = try ClassPosition.decode(from: &buffer)
        guard buffer.readableBytes == 0 else { throw LinkViolation("bytes behind an acknowledgement") }
        return AcknowledgementBody(delayMicroseconds: delay, positions: positions)
    }
}

/// Why a connection of a link ends.
public enum LinkCloseReason: Equatable, Sendable, CustomStringConvertible {
    /// The link is closed on purpose.
    case closed(String)
    /// The other side broke the protocol.
    case violation(String)
    /// Nothing arrived for too long.
    case silent
    /// The session that this connection belonged to has ended.
    case sessionEnded
    /// There are as many connections as there may be.
    case tooManyConnections
    /// The other side said goodbye.
    case goodbye(String)

    /// The number in a goodbye frame.
    var code: UInt16 {
        switch self {
        case .closed: 1
        case .violation: 2
        case .silent: 3
        case .sessionEnded: 4
        case .tooManyConnections: 5
        case .goodbye: 6
        }
    }

    public var description: String {
        switch self {
        case .closed(let text): text
        case .violation(let text): "protocol violation: \(text)"
        case .silent: "nothing was heard from the other side"
        case .sessionEnded: "the session has ended"
        case .tooManyConnections: "too many connections"
        case .goodbye(let text): "the other side said goodbye: \(text)"
        }
    }

    /// The frame that tells the other side why this connection ends. Best effort: nothing waits for it.
    public var goodbyeFrame: Frame {
        var buffer = ByteBuffer()
        buffer.writeInteger(code)
        buffer.writeBytes(description.utf8.prefix(LinkLimits.goodbyeTextBytes))
        return Frame(header: FrameHeader(kind: .goodbye, payloadBytes: buffer.readableBytes), payload: buffer)
    }

    /// Reads a goodbye; what is not text is made readable.
    static func decodeGoodbye(_ payload: ByteBuffer) throws(LinkViolation) -> LinkCloseReason {
        var buffer = payload
        guard buffer.readInteger(as: UInt16.self) != nil, buffer.readableBytes <= LinkLimits.goodbyeTextBytes else {
            throw LinkViolation("damaged goodbye")
        }
        let text = String(decoding: buffer.readableBytesView, as: UTF8.self)
        return .goodbye(String(String.UnicodeScalarView(text.unicodeScalars.map { $0.value < 32 || $0.value == 127 ? "?" : $0 })))
    }
}
