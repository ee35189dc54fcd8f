/// Runs worlds for a range of seeds.
public struct SeedRun: Sendable {
    /// The first seed, and how many.
    public var firstSeed: UInt64
    public var count: UInt64
    /// Worlds at once.
    public var workers: UInt64
    /// A worker stops at this many failures.
    public var failuresMax = 5

    public init(firstSeed: UInt64, count: UInt64, workers: UInt64 = 2) {
        self.firstSeed = firstSeed
        self.count = count
        self.workers = max(1, workers)
    }

    /// What a run has brought: what failed, each with the command that replays it, and how often what is rare has happened.
    public struct Outcome: Sendable {
        public fileprivate(set) var failures: [String] = []
        public fileprivate(set) var tally = WorldTally()
        /// Tells runs apart in which any world took another course: of the same seeds it is the same, in whatever order they ran.
        public fileprivate(set) var digest: UInt64 = 0
    }

    /// Runs them all. `progress` hears of every seed that is done.
    public func run(progress: @escaping @Sendable () -> Void = {}) async -> Outcome {
        await withTaskGroup(of: Outcome.self) { group in
            for worker in 0..<workers { group.addTask { run(worker: worker, progress: progress) } }
            return await group.reduce(into: Outcome()) {
                $0.failures += $1.failures
                $0.tally += $1.tally
                $0.digest &+= $1.digest
            }
        }
    }

    private func run(worker: UInt64, progress: @Sendable () -> Void) -> Outcome {
        var outcome = Outcome()
        var seed = firstSeed + worker
        while seed < firstSeed + count, outcome.failures.count < failuresMax {
            do {
                let world = try World(seed: seed)
                defer {
                    outcome.tally += world.tally
                    outcome.digest &+= world.digest
                    world.end()
                }
                try world.run()
            } catch {
                outcome.failures.append("\(error)\n  replay: make replay SEED=\(seed)")
            }
            progress()
            seed += workers
        }
        return outcome
    }
}
