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

    /// Runs them all, and says what failed, each with the command that replays it. `progress` hears of every seed that is done.
    public func run(progress: @escaping @Sendable () -> Void = {}) async -> [String] {
        await withTaskGroup(of: [String].self) { group in
            for worker in 0..<workers { group.addTask { run(worker: worker, progress: progress) } }
            return await group.reduce(into: []) { $0 += $1 }
        }
    }

    private func run(worker: UInt64, progress: @Sendable () -> Void) -> [String] {
        var failures: [String] = []
        var seed = firstSeed + worker
        while seed < firstSeed + count, failures.count < failuresMax {
            do {
                try World(seed: seed).run()
            } catch {
                failures.append("\(error)\n  replay: make replay SEED=\(seed)")
            }
            progress()
            seed += workers
        }
        return failures
    }
}
