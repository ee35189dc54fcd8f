import NIOCore

/// What a block is known by between edges: the SHA-256 of its bytes (FIPS 180-4). Blocks of one digest are taken for equal.
public struct BlockDigest: Hashable, Sendable {
    /// The encoded size.
    public static let byteCount = 32

    /// The 32 bytes as four numbers, big-endian.
    public let words: (UInt64, UInt64, UInt64, UInt64)

    public init(_ words: (UInt64, UInt64, UInt64, UInt64)) { self.words = words }

    public static func == (left: BlockDigest, right: BlockDigest) -> Bool { left.words == right.words }

    public func hash(into hasher: inout Hasher) { hasher.combine(words.0) }

    /// Appends the encoded digest.
    public func encode(into buffer: inout ByteBuffer) { buffer.writeMultipleIntegers(words.0, words.1, words.2, words.3) }

    /// Reads an encoded digest; nil when there are too few bytes.
    public init?(from buffer: inout ByteBuffer) {
        guard let words = buffer.readMultipleIntegers(as: (UInt64, UInt64, UInt64, UInt64).self) else { return nil }
        self.init(words)
    }
}
