import ArgumentParser
import Blocks
import Foundation
import SimulatedWorlds
import Synchronization

/// Runs the simulator over a range of seeds; each failing seed prints the command that replays it.
@main
struct Simulator: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "causeway-simulator",
        abstract: "Runs both edges' cores in simulated worlds with crashes, cuts and torn writes, and checks the invariants.")

    @Option(help: "How many seeds.")
    var seeds: UInt64 = 2_000

    @Option(help: "The first seed.")
    var firstSeed: UInt64 = 1

    @Option(help: "Worlds at once.")
    var workers: UInt64 = 2

    /// Hash tables must iterate alike in every process, or a seed would not replay.
    private func demandDeterministicHashing() {
        if ProcessInfo.processInfo.environment["SWIFT_DETERMINISTIC_HASHING"] != nil { return }
        setenv("SWIFT_DETERMINISTIC_HASHING", "1", 1)
        var arguments = CommandLine.arguments.map { strdup($0) } + [nil]
        execv("/proc/self/exe", &arguments)
    }

    #if PLANTED_BUGS
        @Option(help: "Plants a bug in all worlds, by its name.")
        var planted: PlantedBug?

        @Flag(help: "Plants each bug in turn, and looks for the first seed that finds it.")
        var hunt = false

        func run() async throws {
            demandDeterministicHashing()
            if hunt { return try await huntAll() }
            try await PlantedBug.$current.withValue(planted) { try await runSeeds() }
        }

        private func huntAll() async throws {
            let start = ContinuousClock.now
            let missed = await PlantedBugHunt.runAll(workers: Int(clamping: workers)) { print($0) }
            print(
                "planted bugs: \(PlantedBug.allCases.count - missed) of \(PlantedBug.allCases.count) found, \((ContinuousClock.now - start).components.seconds) s"
            )
            if missed > 0 { throw ExitCode.failure }
        }
    #else
        func run() async throws {
            demandDeterministicHashing()
            try await runSeeds()
        }
    #endif

    private func runSeeds() async throws {
        let start = ContinuousClock.now
        let done = Atomic<UInt64>(0)
        let step = max(1, seeds / 10)
        let outcome = await SeedRun(firstSeed: firstSeed, count: seeds, workers: workers).run { [seeds] in
            let count = done.add(1, ordering: .relaxed).newValue
            if count.isMultiple(of: step), seeds > 1 { print("simulation: \(count) of \(seeds) seeds") }
        }
        for failure in outcome.failures { print(failure) }
        let seconds = (ContinuousClock.now - start).components.seconds
        let digest = String(outcome.digest, radix: 16)
        print(
            "simulation: seeds \(firstSeed) to \(firstSeed + seeds - 1), \(outcome.failures.count) failed, \(seconds) s, course \(digest)")
        let tally = outcome.tally
        print(
            "simulation: \(tally.crashes) crashes, \(tally.fencings) edges fenced, \(tally.refusedCopies) old copies of a disk refused, "
                + "\(tally.cuts) cuts of groups looked at, \(tally.resizes) sizes and \(tally.divisions) divisions of caches, "
                + "\(tally.forgotten) volumes that they forgot, \(tally.standIns) caches that came back")
        if !outcome.failures.isEmpty { throw ExitCode.failure }
    }
}

#if PLANTED_BUGS
    extension PlantedBug: ExpressibleByArgument {}
#endif
