import ArgumentParser
import Blocks
import CPlatform
import Foundation
import SimulatedWorlds

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

    @Option(help: "Worlds at once, each in a process of its own; with one they run in this one. As many as there are cores by default.")
    var workers = ProcessInfo.processInfo.activeProcessorCount

    @Flag(help: .hidden)
    var share = false

    /// Hash tables must iterate alike in every process, or a seed would not replay.
    private func demandDeterministicHashing() {
        if ProcessInfo.processInfo.environment["SWIFT_DETERMINISTIC_HASHING"] != nil { return }
        setenv("SWIFT_DETERMINISTIC_HASHING", "1", 1)
        var arguments = CommandLine.arguments.map { strdup($0) } + [nil]
        execv("/proc/self/exe", &arguments)
    }

    /// What every run begins with.
    private func begin() {
        demandDeterministicHashing()
        // Each world takes what the one before gave back.
        causeway_keep_freed_memory()
    }

    #if PLANTED_BUGS
        @Option(help: "Plants a bug in all worlds, by its name.")
        var planted: PlantedBug?

        @Flag(help: "Plants each bug in turn, and looks for the first seed that finds it.")
        var hunt = false

        /// What the processes of this run must be told.
        private var arguments: [String] { planted.map { ["--planted", $0.rawValue] } ?? [] }

        func run() async throws {
            begin()
            if hunt { return try await huntAll() }
            try PlantedBug.$current.withValue(planted) { try runSeeds() }
        }

        private func huntAll() async throws {
            let start = ContinuousClock.now
            let missed = await PlantedBugHunt.runAll(workers: workers) { print($0) }
            print(
                "planted bugs: \(PlantedBug.allCases.count - missed) of \(PlantedBug.allCases.count) found, \((ContinuousClock.now - start).components.seconds) s"
            )
            if missed > 0 { throw ExitCode.failure }
        }
    #else
        private var arguments: [String] { [] }

        func run() async throws {
            begin()
            try runSeeds()
        }
    #endif

    private func runSeeds() throws {
        if share { return try runShare() }
        let start = ContinuousClock.now
        let (endSeed, isTooMany) = firstSeed.addingReportingOverflow(seeds)
        if isTooMany || seeds == 0 { throw ValidationError("there are no such seeds") }
        var result = SimulatorProcesses.Result(nextSeed: endSeed)
        if workers > 1, seeds > 1 {
            var processes = SimulatorProcesses(seeds: firstSeed..<endSeed, processesMax: workers, arguments: arguments)
            result = try processes.run()
        } else {
            result.outcome = SeedRun(firstSeed: firstSeed, count: seeds).run()
        }
        try report(result, endSeed: endSeed, time: ContinuousClock.now - start)
    }

    /// A share of a longer run: says which seed begins, then what came of all.
    private func runShare() throws {
        let outcome = SeedRun(firstSeed: firstSeed, count: seeds).run { seed in
            let line = "\(seed)\n"
            _ = line.utf8.withContiguousStorageIfAvailable { write(1, $0.baseAddress, $0.count) }
        }
        FileHandle.standardOutput.write(try JSONEncoder().encode(outcome))
    }

    private func report(_ result: SimulatorProcesses.Result, endSeed: UInt64, time: Duration) throws {
        let outcome = result.outcome
        for failure in outcome.failures { print(failure) }
        let seconds = time.components.seconds
        let digest = String(outcome.digest, radix: 16)
        print(
            "simulation: seeds \(firstSeed) to \(result.nextSeed - 1), \(outcome.failures.count) failed, \(seconds) s, course \(digest)")
        if result.nextSeed < endSeed { print("simulation: ended at a failure; it goes on from --first-seed \(result.nextSeed)") }
        let tally = outcome.tally
        print(
            "simulation: \(tally.crashes) crashes, \(tally.fencings) edges fenced, \(tally.refusedCopies) old copies of a disk refused, "
                + "\(tally.cuts) cuts of groups looked at, \(tally.resizes) sizes and \(tally.divisions) divisions of caches, "
                + "\(tally.rotations) other keys and \(tally.logResizes) other sizes of logs, \(tally.shreddings) volumes shredded, \(tally.stalls) disks without room tried again, "
                + "\(tally.forgotten) volumes that they forgot, \(tally.standIns) caches that came back")
        print(
            "simulation: blocks that were named instead of sent: \(tally.namedInReads) in reads, \(tally.namedInReadsInVain) of them in vain; "
                + "\(tally.namedInPoints) in points, \(tally.namedInPointsInVain) of them in vain; \(tally.foundInReadCache) blocks of disks found "
                + "in memory, \(tally.evictedFromReadCache) left it")
        if !outcome.failures.isEmpty { throw ExitCode.failure }
    }
}

#if PLANTED_BUGS
    extension PlantedBug: ExpressibleByArgument {}
#endif
