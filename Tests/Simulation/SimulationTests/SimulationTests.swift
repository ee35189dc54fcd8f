import SimulatedWorlds
import Testing

/// A few worlds, as a part of the unit tests. `make test` runs thousands more by the optimised simulator, which
/// must also find each planted bug; `make soak` any number.
@Suite struct SimulationTests {
    @Test("no seed loses, mixes or resurrects a write")
    func worlds() {
        for failure in SeedRun(firstSeed: 1, count: 2).run().failures { Issue.record("\(failure)") }
    }

    @Test("the same seed makes the same world")
    func determinism() throws {
        let first = try World(seed: 11)
        let second = try World(seed: 11)
        try first.run()
        try second.run()
        #expect(first.scheduler.steps == second.scheduler.steps)
        #expect(first.tally.crashes == second.tally.crashes)
    }
}
