/// SplitMix64: the only source of chance, so that a seed tells all inputs of a run.
public struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    public init(seed: UInt64) { state = seed }

    public mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is positive.
    mutating func below(_ bound: Int) -> Int { Int(next() % UInt64(bound)) }
}

/// Changes inputs.
struct Mutator {
    var random: SeededGenerator
    let dictionary: [[UInt8]]
    let inputBytesMax: Int

    /// Numbers at which parsers go wrong.
    private static let numbers: [UInt64] = [
        0, 1, 2, 7, 8, 15, 16, 47, 48, 127, 128, 255, 256, 511, 512, 513, 4095, 4096, 32_767, 32_768, 65_535, 65_536, 0xFF_FFFF,
        0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 0x1_0000_0000, UInt64(Int64.max), 1 << 63, UInt64.max - 1, UInt64.max,
    ]

    /// A changed copy of `input`; pieces of `partner` may come into it.
    mutating func mutate(_ input: [UInt8], partner: [UInt8]) -> [UInt8] {
        var bytes = input
        // Mostly few changes: what is nearly right gets furthest.
        let changes = 1 << random.below(4)
        for _ in 0..<changes { change(&bytes, partner) }
        if bytes.count > inputBytesMax { bytes.removeLast(bytes.count - inputBytesMax) }
        return bytes
    }

    private mutating func change(_ bytes: inout [UInt8], _ partner: [UInt8]) {
        guard !bytes.isEmpty else { return bytes = partner }
        let position = random.below(bytes.count)
        switch random.below(12) {
        case 0: bytes[position] ^= 1 << UInt8(random.below(8))
        case 1: bytes[position] = UInt8(truncatingIfNeeded: random.next())
        case 2: bytes[position] = bytes[position] &+ UInt8(truncatingIfNeeded: random.below(9) - 4)
        case 3, 4: overwrite(&bytes, position, number())
        case 5: bytes.removeSubrange(position..<min(bytes.count, position + 1 + random.below(32)))
        case 6:
            let piece = Array(bytes[position..<min(bytes.count, position + 1 + random.below(64))])
            bytes.insert(contentsOf: piece, at: random.below(bytes.count + 1))
        case 7: bytes.insert(contentsOf: (0...random.below(16)).map { _ in UInt8(truncatingIfNeeded: random.next()) }, at: position)
        case 8 where !partner.isEmpty:
            let from = random.below(partner.count)
            let piece = partner[from..<min(partner.count, from + 1 + random.below(128))]
            bytes.insert(contentsOf: piece, at: position)
        case 9 where !partner.isEmpty:
            // The head of one and the tail of the other.
            bytes.replaceSubrange(position..., with: partner[random.below(partner.count)...])
        case 10 where !dictionary.isEmpty:
            let word = dictionary[random.below(dictionary.count)]
            if random.below(2) == 0 { bytes.insert(contentsOf: word, at: position) } else { overwrite(&bytes, position, word) }
        default: bytes.removeLast(min(bytes.count - 1, random.below(64)))
        }
    }

    private mutating func overwrite(_ bytes: inout [UInt8], _ position: Int, _ piece: [UInt8]) {
        let end = min(bytes.count, position + piece.count)
        bytes.replaceSubrange(position..<end, with: piece.prefix(end - position))
    }

    /// A number of 1 to 8 bytes, in one order or the other.
    private mutating func number() -> [UInt8] {
        let value = Self.numbers[random.below(Self.numbers.count)]
        let width = 1 << random.below(4)
        let little = (0..<width).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * $0)) }
        return random.below(4) == 0 ? little : little.reversed()
    }
}
