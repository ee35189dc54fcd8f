#if PLANTED_BUGS
    import Blocks

    /// The proof that the simulator finds bugs: each that is planted must make one of the first worlds fail.
    public struct PlantedBugHunt: Sendable {
        /// The last seed that is tried; the rarest bug shows in one world of some thousand. `make test` runs these seeds without a bug.
        public static let lastSeed: UInt64 = 7000

        /// The bug that all worlds of the hunt have.
        public let bug: PlantedBug

        public init(_ bug: PlantedBug) { self.bug = bug }

        /// Hunts for all bugs, some at the same time, and says of each what came of it.
        /// - Returns: how many were not found.
        public static func runAll(workers: Int, report: @escaping @Sendable (String) -> Void) async -> Int {
            await withTaskGroup(of: Bool.self) { group in
                var waiting = PlantedBug.allCases[...]
                var missed = 0
                func startNext() {
                    guard let bug = waiting.popFirst() else { return }
                    group.addTask {
                        guard let found = PlantedBugHunt(bug).run() else {
                            report("planted bug \(bug.rawValue): NOT found by seeds 1 to \(lastSeed)")
                            return false
                        }
                        report("planted bug \(bug.rawValue): found by \(found.failure)")
                        return true
                    }
                }
                for _ in 0..<max(1, workers) { startNext() }
                while let isFound = await group.next() {
                    if !isFound { missed += 1 }
                    startNext()
                }
                return missed
            }
        }

        /// The first seed that finds the bug, and how it shows; nil when none does.
        public func run() -> (seed: UInt64, failure: String)? {
            PlantedBug.$current.withValue(bug) {
                for seed in 1...Self.lastSeed {
                    do {
                        let world = try World(seed: seed)
                        defer { world.end() }
                        try world.run()
                    } catch {
                        return (seed, "\(error)")
                    }
                }
                return nil
            }
        }
    }
#endif
