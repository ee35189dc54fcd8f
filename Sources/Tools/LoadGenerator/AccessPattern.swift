/// How the positions of I/Os follow each other.
public enum AccessPattern: Equatable, Sendable, CustomStringConvertible {
    /// Each block equally likely.
    case random
    /// One after the other, and again from the start.
    case sequential
    /// Some blocks much hotter than others, the hot ones spread over the range.
    case zipf(theta: Double)

    /// `random`, `sequential`, `zipf` (theta 0.99) or `zipf:THETA`.
    public init?(_ text: String) {
        switch text {
        case "random": self = .random
        case "sequential": self = .sequential
        case "zipf": self = .zipf(theta: 0.99)
        default:
            guard text.hasPrefix("zipf:"), let theta = Double(text.dropFirst(5)), theta > 0, theta <= 10 else { return nil }
            self = .zipf(theta: theta)
        }
    }

    public var description: String {
        switch self {
        case .random: "random"
        case .sequential: "sequential"
        case .zipf(let theta): "zipf:\(theta)"
        }
    }
}

/// Draws block numbers 0 ..< count in a pattern.
public struct PositionGenerator: Sendable {
    public let count: UInt64
    private let pattern: AccessPattern
    private let zipf: ZipfGenerator?
    /// Coprime to `count`: rank × stride modulo count visits every block once.
    private let stride: UInt64
    private var random: SeededGenerator
    private var following: UInt64 = 0

    /// - Returns: nil when there is nothing to draw from.
    public init?(pattern: AccessPattern, count: UInt64, seed: UInt64) {
        guard count > 0, count < 1 << 55 else { return nil }
        self.pattern = pattern
        self.count = count
        random = SeededGenerator(seed: seed)
        if case .zipf(let theta) = pattern {
            guard let generator = ZipfGenerator(count: count, theta: theta) else { return nil }
            zipf = generator
        } else {
            zipf = nil
        }
        var stride = UInt64(Double(count) * 0.618_033_988_75) | 1
        while Self.greatestCommonDivisor(stride, count) != 1 { stride += 2 }
        self.stride = stride
    }

    /// The next block number.
    public mutating func next() -> UInt64 {
        switch pattern {
        case .random:
            return random.below(count)
        case .sequential:
            let position = following
            following = position + 1 == count ? 0 : position + 1
            return position
        case .zipf:
            guard let zipf else { return 0 }
            let rank = zipf.next(&random) - 1
            return count.dividingFullWidth(rank.multipliedFullWidth(by: stride % count)).remainder
        }
    }

    private static func greatestCommonDivisor(_ a: UInt64, _ b: UInt64) -> UInt64 {
        var (a, b) = (a, b)
        while b != 0 { (a, b) = (b, a % b) }
        return a
    }
}
