import Foundation
import SimulatedWorlds

// A long run is cut into shares of seeds, and each share is run by a process of its own. So all cores work and no world shares
// anything with another one; what cores of dead processes still hold when a world ends goes with the process; and a world that
// traps ends its own share only: the process has written to its output which seed it began last.

/// A share of the seeds, and the process that runs it.
private struct Share {
    let firstSeed: UInt64
    let count: UInt64
    /// What the process writes: a line for each seed that it begins, then its outcome.
    let output: UnsafeMutablePointer<FILE>
}

/// Runs a range of seeds in several processes, until all are done or one has failed.
struct SimulatorProcesses {
    /// How many seeds a process runs at most: starting it costs as much as two of them.
    static let shareSeedsMax: UInt64 = 500
    /// How often a run says how far it is.
    static let reportInterval: Duration = .seconds(60)

    let seeds: Range<UInt64>
    let processesMax: Int
    private let shareSeeds: UInt64
    /// What the processes are told besides their seeds.
    let arguments: [String]

    /// What came of it; `nextSeed` is the first that nobody has begun.
    struct Result {
        var outcome = SeedRun.Outcome()
        var nextSeed: UInt64
    }

    private var running: [pid_t: Share] = [:]
    private var result: Result
    private let start = ContinuousClock.now
    private var lastReport = ContinuousClock.now

    init(seeds: Range<UInt64>, processesMax: Int, arguments: [String]) {
        self.seeds = seeds
        self.processesMax = max(1, processesMax)
        // All have something to do to the end.
        shareSeeds = min(Self.shareSeedsMax, (seeds.upperBound - seeds.lowerBound) / UInt64(4 * self.processesMax) + 1)
        self.arguments = arguments
        result = Result(nextSeed: seeds.lowerBound)
    }

    /// Runs them all; after a failure what has been begun is brought to its end.
    mutating func run() throws -> Result {
        while true {
            while running.count < processesMax, result.nextSeed < seeds.upperBound, result.outcome.failures.isEmpty { try startShare() }
            if running.isEmpty { return result }
            var status: Int32 = 0
            let process = waitpid(-1, &status, 0)
            if process < 0, errno == EINTR { continue }
            guard process > 0 else { throw SimulatorFailure("waitpid: \(String(cString: strerror(errno)))") }
            guard let share = running.removeValue(forKey: process) else { continue }
            finish(share, status: status)
            reportIfDue()
        }
    }

    private mutating func startShare() throws {
        guard let output = tmpfile() else { throw SimulatorFailure("a temporary file: \(String(cString: strerror(errno)))") }
        let share = Share(
            firstSeed: result.nextSeed, count: min(shareSeeds, seeds.upperBound - result.nextSeed), output: output)
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, fileno(output), 1)
        let command =
            ["causeway-simulator", "--share", "--first-seed", "\(share.firstSeed)", "--seeds", "\(share.count)"] + arguments
        var words = command.map { strdup($0) } + [nil]
        defer { for word in words { free(word) } }
        var process: pid_t = 0
        let code = posix_spawn(&process, "/proc/self/exe", &actions, nil, &words, environ)
        guard code == 0 else { throw SimulatorFailure("a process can't be started: \(String(cString: strerror(code)))") }
        running[process] = share
        result.nextSeed += share.count
    }

    private mutating func finish(_ share: Share, status: Int32) {
        defer { fclose(share.output) }
        rewind(share.output)
        let output = FileHandle(fileDescriptor: fileno(share.output), closeOnDealloc: false).readDataToEndOfFile()
        let lines = String(decoding: output, as: UTF8.self).split(separator: "\n")
        if status == 0, let last = lines.last, let outcome = try? JSONDecoder().decode(SeedRun.Outcome.self, from: Data(last.utf8)) {
            return result.outcome += outcome
        }
        // The status of a process that a signal ended is the signal's number.
        let end = status & 0x7f == 0 ? "ended with status \(status >> 8)" : "was ended by signal \(status & 0x7f)"
        let seed = lines.last.flatMap { UInt64($0) } ?? share.firstSeed
        result.outcome.addFailure("seed \(seed): its process \(end)", seed: seed)
    }

    private mutating func reportIfDue() {
        let now = ContinuousClock.now
        guard now - lastReport >= Self.reportInterval else { return }
        lastReport = now
        let allDone = running.values.map(\.firstSeed).min() ?? result.nextSeed
        let done = result.nextSeed - seeds.lowerBound - running.values.reduce(0) { $0 + $1.count }
        let total = seeds.upperBound - seeds.lowerBound
        let seconds = Double((now - start).components.seconds)
        let minutesLeft = Int(seconds / Double(max(1, done)) * Double(total - done) / 60)
        print(
            "simulation: \(done) of \(total) seeds in \(Int(seconds)) s, \(result.outcome.failures.count) failed, "
                + "\(minutesLeft) min left; all before seed \(allDone) are done")
        fflush(nil)
    }
}

/// Why a run can't go on.
struct SimulatorFailure: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}
