#if PLANTED_BUGS
    import Blocks

    /// The proof that the simulator finds bugs: each that is planted must make one of the first worlds fail.
    public struct PlantedBugHunt: Sendable {
        /// The last seed that is tried. The rarest bug shows in one world of twenty-five, and hash tables iterate differently in each
        /// process of the tests. The optimised simulator runs these seeds and many more without a bug in each `make test`.
        public static let lastSeed: UInt64 = 300

        /// The bug that all worlds of the hunt have.
        public let bug: PlantedBug

        public init(_ bug: PlantedBug) { self.bug = bug }

        /// The first seed that finds the bug, and how it shows; nil when none does.
        public func run() -> (seed: UInt64, failure: String)? {
            PlantedBug.$current.withValue(bug) {
                for seed in 1...Self.lastSeed {
                    do {
                        try World(seed: seed).run()
                    } catch {
                        return (seed, "\(error)")
                    }
                }
                return nil
            }
        }
    }
#endif
