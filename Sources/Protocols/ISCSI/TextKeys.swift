import NIOCore

// Text, RFC 7143 section 6.1: `key=value` pairs, each ended by a NUL. A pair, or the list, may go on
// in the next PDU when the C bit is set.

/// Why a text is no list of pairs.
public enum TextError: Error, Equatable, Sendable {
    /// More text than `TextAccumulator.maximumByteCount`, or more pairs than `TextKeys.maximumCount`.
    case tooLong
    /// A pair without "=", a key that is none, bytes that are no UTF-8.
    case malformed
}

/// One `key=value`.
public struct TextPair: Equatable, Sendable {
    public var key: String
    public var value: String

    public init(_ key: String, _ value: String) {
        self.key = key
        self.value = value
    }
}

/// Parsing and writing of pairs.
public enum TextKeys {
    /// More pairs than this in one text are refused; the standard has some thirty keys.
    public static let maximumCount = 256
    /// Section 6.1: a key has at most 63 bytes.
    public static let maximumKeyByteCount = 63
    /// Section 6.1: a value has at most 255 bytes unless its key says otherwise (binary CHAP values do: 1024 bytes, in hexadecimal).
    public static let maximumValueByteCount = 8192

    /// The pairs of a whole text.
    public static func parse(_ text: ByteBuffer) throws(TextError) -> [TextPair] {
        var pairs: [TextPair] = []
        for piece in text.readableBytesView.split(separator: 0, omittingEmptySubsequences: true) {
            guard pairs.count < maximumCount else { throw .tooLong }
            guard let equals = piece.firstIndex(of: UInt8(ascii: "=")), equals > piece.startIndex else { throw .malformed }
            let key = piece[piece.startIndex..<equals]
            let value = piece[piece.index(after: equals)...]
            guard key.count <= maximumKeyByteCount, value.count <= maximumValueByteCount, key.allSatisfy(isKeyByte),
                let keyText = String(validating: key, as: UTF8.self), let valueText = String(validating: value, as: UTF8.self)
            else { throw .malformed }
            pairs.append(TextPair(keyText, valueText))
        }
        return pairs
    }

    /// Appends pairs, each with its NUL.
    public static func write(_ pairs: [TextPair], into buffer: inout ByteBuffer) {
        for pair in pairs {
            buffer.writeString(pair.key)
            buffer.writeInteger(UInt8(ascii: "="))
            buffer.writeString(pair.value)
            buffer.writeInteger(UInt8(0))
        }
    }

    private static func isKeyByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"):
            true
        case UInt8(ascii: "."), UInt8(ascii: "-"), UInt8(ascii: "+"), UInt8(ascii: "@"), UInt8(ascii: "_"), UInt8(ascii: "#"),
            UInt8(ascii: "!"):
            true
        default: false
        }
    }
}

/// Joins the pieces of a text that the C bit spread over several PDUs.
public struct TextAccumulator {
    /// A longer text is refused.
    public static let maximumByteCount = 65_536

    private var text = ByteBuffer()

    public init() {}

    /// True while the rest of a text is awaited.
    public var isWaiting: Bool { text.readableBytes > 0 }

    /// Adds a piece.
    /// - Returns: all pairs when this piece was the last, nil when the text goes on.
    public mutating func add(_ piece: ByteBuffer, continues: Bool) throws(TextError) -> [TextPair]? {
        guard text.readableBytes + piece.readableBytes <= Self.maximumByteCount else { throw .tooLong }
        text.writeImmutableBuffer(piece)
        if continues { return nil }
        defer { text.clear() }
        return try TextKeys.parse(text)
    }
}

/// Cuts a text that is to be sent into pieces that fit the receiver's MaxRecvDataSegmentLength.
public struct TextSender {
    private var text = ByteBuffer()

    public init() {}

    /// True while pieces are left.
    public var isWaiting: Bool { text.readableBytes > 0 }

    /// Starts a text; what was left of an earlier one is dropped.
    public mutating func start(_ pairs: [TextPair]) {
        text.clear()
        TextKeys.write(pairs, into: &text)
    }

    /// The next piece, and whether more follow.
    public mutating func next(limit: Int) -> (piece: ByteBuffer, continues: Bool) {
        let piece = text.readSlice(length: min(max(limit, 1), text.readableBytes)) ?? ByteBuffer()
        return (piece, text.readableBytes > 0)
    }
}
