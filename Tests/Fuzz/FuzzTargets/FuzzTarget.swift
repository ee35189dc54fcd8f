/// A promise that a parser broke for some input.
public struct FuzzFinding: Error, CustomStringConvertible {
    /// What was found.
    public let description: String

    public init(_ description: String) { self.description = description }
}

/// One parser under test. Each input is run on a state of its own, so that a failure comes again by its input alone.
public protocol FuzzTarget: AnyObject {
    /// The name of the parser, and of its folder in the corpus.
    static var name: String { get }
    /// Longer inputs are not made.
    static var inputBytesMax: Int { get }
    /// How many times slower an input is than one of a wire parser, about: a run has so many fewer inputs of it.
    static var cost: Int { get }
    /// Words of the format that single changes do not find.
    static var dictionary: [[UInt8]] { get }

    init()

    /// Good inputs, made by our own encoders; they are checked in, and found again from there.
    static func seeds() throws -> [[UInt8]]

    /// Runs the parser. A trap, a hang and memory that grows are found from outside; what else must hold is thrown.
    /// - Returns: what the parser made of the input, as a number: an input with a new one is worth changing further.
    func run(_ input: [UInt8]) throws -> UInt64

    /// Makes lengths, digests and sequences right again, so that a changed input gets behind the first check.
    func repair(_ input: inout [UInt8])
}

extension FuzzTarget {
    public static var inputBytesMax: Int { 4096 }
    public static var cost: Int { 1 }
    public static var dictionary: [[UInt8]] { [] }
    public func repair(_ input: inout [UInt8]) {}
}

/// Every parser that is fuzzed.
public enum FuzzTargets {
    public static var all: [any FuzzTarget.Type] {
        [
            PDUTarget.self, TextTarget.self, LoginTarget.self, SessionTarget.self, CommandTarget.self, ParameterListTarget.self,
            NBDTarget.self,
            LinkFrameTarget.self, LinkMessageTarget.self, CompressionTarget.self, CompressionStreamTarget.self, WriteLogTarget.self,
            SecureCacheTarget.self,
            PointJournalTarget.self, CloudOnlyDiskTarget.self, KeyTarget.self,
        ]
    }
}

/// What a parser made of an input, as one number (FNV-1a): the same in every run.
public struct Fingerprint {
    public private(set) var value: UInt64 = 0xcbf2_9ce4_8422_2325

    public init() {}

    public mutating func add(_ number: UInt64) {
        var rest = number
        for _ in 0..<8 {
            value = (value ^ (rest & 0xff)) &* 0x0000_0100_0000_01b3
            rest >>= 8
        }
    }

    public mutating func add(_ number: some BinaryInteger) { add(UInt64(truncatingIfNeeded: number)) }

    public mutating func add(_ text: String) {
        for byte in text.utf8 { value = (value ^ UInt64(byte)) &* 0x0000_0100_0000_01b3 }
    }
}

/// Reads an input as a program: numbers and bytes, and zeroes behind the end.
struct ByteReader {
    private let bytes: [UInt8]
    private(set) var position = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    var isAtEnd: Bool { position >= bytes.count }

    mutating func byte() -> UInt8 {
        guard position < bytes.count else { return 0 }
        defer { position += 1 }
        return bytes[position]
    }

    /// A number of 16 bits, big-endian.
    mutating func number() -> Int { Int(byte()) << 8 | Int(byte()) }

    /// The next bytes; fewer at the end.
    mutating func bytes(_ count: Int) -> [UInt8] {
        let end = min(bytes.count, position + max(0, count))
        defer { position = end }
        return Array(bytes[position..<end])
    }

    mutating func rest() -> [UInt8] { bytes(bytes.count - position) }
}
