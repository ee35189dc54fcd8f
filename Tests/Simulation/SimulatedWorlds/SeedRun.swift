/// Runs worlds for a range of seeds, one after the other.
public struct SeedRun: Sendable {
    /// The first seed, and how many.
    public var firstSeed: UInt64
    public var count: UInt64
    /// The run ends at this many failures.
    public var failuresMax = 5

    public init(firstSeed: UInt64, count: UInt64) {
        self.firstSeed = firstSeed
        self.count = count
    }

    /// What a run has brought: what failed, each with the command that replays it, and how often what is rare has happened.
    public struct Outcome: Sendable, Codable {
        public var failures: [String] = []
        public fileprivate(set) var tally = WorldTally()
        /// Tells runs apart in which any world took another course: of the same seeds it is the same, in whatever order they ran.
        public fileprivate(set) var digest: UInt64 = 0

        public init() {}

        /// That of both runs.
        public static func += (left: inout Outcome, right: Outcome) {
            left.failures += right.failures
            left.tally += right.tally
            left.digest &+= right.digest
        }

        /// Notes that a seed failed, and how it is replayed.
        public mutating func addFailure(_ text: String, seed: UInt64) {
            failures.append("\(text)\n  replay: make replay SEED=\(seed)")
        }
    }

    /// Runs them all. `starting` hears of every seed before its world is made.
    public func run(starting: (_ seed: UInt64) -> Void = { _ in }) -> Outcome {
        var outcome = Outcome()
        var seed = firstSeed
        while seed &- firstSeed < count, outcome.failures.count < failuresMax {
            starting(seed)
            do {
                let world = try World(seed: seed)
                defer {
                    outcome.digest &+= world.digest
                    world.end()
                    outcome.tally += world.tally
                }
                try world.run()
            } catch {
                outcome.addFailure("\(error)", seed: seed)
            }
            seed &+= 1
        }
        return outcome
    }
}
