/// Where a core gets randomness: the system's generator in the daemon, a seeded one in the simulator.
public struct RandomSource: RandomNumberGenerator {
    private let generate: () -> UInt64

    /// A source over any generator of 64 random bits.
    public init(_ generate: @escaping () -> UInt64) {
        self.generate = generate
    }

    /// The operating system's generator, fit for keys and salts.
    public static var system: RandomSource {
        RandomSource { UInt64.random(in: .min ... .max) }
    }

    public mutating func next() -> UInt64 { generate() }

    /// Random bytes, `count` of them.
    public mutating func bytes(_ count: Int) -> [UInt8] {
        (0..<count).map { _ in UInt8(truncatingIfNeeded: next()) }
    }
}
