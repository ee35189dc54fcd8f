import ArgumentParser
import Foundation
import FuzzTargets

/// Hostile inputs for every parser of outside bytes.
@main
struct Fuzz: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "causeway-fuzz", abstract: "Runs hostile inputs through the parsers; the seed decides all of them.")

    @Option(help: "Inputs for each parser; those that read whole files get a fraction.")
    var inputs = 200_000

    @Option(help: "What decides the inputs.")
    var seed: UInt64 = 1

    @Option(help: "Only these parsers.")
    var parser: [String] = []

    @Option(help: "Where the corpora are.")
    var corpus = "Tests/Fuzz/Corpus"

    @Option(help: "Seconds that one input may take.")
    var secondsPerInput: UInt32 = 20

    @Option(help: "Run the input in this file, and nothing else, through the one parser that is named.")
    var replay: String?

    @Flag(help: "Write the seeds into the corpora.")
    var writeSeeds = false

    @Flag(help: "Let libFuzzer drive the one parser that is named (a build with -sanitize=fuzzer and COVERAGE_GUIDED).")
    var guided = false

    @Argument(parsing: .postTerminator, help: "Arguments of libFuzzer.")
    var fuzzerArguments: [String] = []

    func run() throws {
        let chosen = try targets()
        if writeSeeds { return try Corpus(path: corpus).writeSeeds() }
        if guided { return try runGuidedFuzzer(chosen) }
        FuzzWatch.start(secondsPerInput: secondsPerInput)
        if let replay {
            guard chosen.count == 1, let target = chosen.first else { throw ValidationError("--replay needs one --parser") }
            try FuzzRun.replay(target, [UInt8](try Data(contentsOf: URL(fileURLWithPath: replay))))
            return print("\(target.name): nothing is wrong with \(replay)")
        }
        for target in chosen {
            do {
                show(try FuzzRun(inputs: inputs, seed: seed, corpus: Corpus(path: corpus)).run(target))
            } catch let failure as FuzzFailure {
                let file = "fuzz-failure-\(failure.parser)"
                try Data(failure.input).write(to: URL(fileURLWithPath: file))
                print("\(failure)\nkept as ./\(file)")
                throw ExitCode(1)
            }
        }
    }

    private func targets() throws -> [any FuzzTarget.Type] {
        if parser.isEmpty { return FuzzTargets.all }
        return try parser.map { name in
            guard let target = FuzzTargets.all.first(where: { $0.name == name }) else {
                throw ValidationError("there is no parser \(name); there are \(FuzzTargets.all.map { $0.name }.joined(separator: ", "))")
            }
            return target
        }
    }

    private func show(_ report: FuzzReport) {
        let columns = [
            report.parser.padding(toLength: 14, withPad: " ", startingAt: 0), "\(report.inputs) inputs",
            String(format: "%.1f s", report.seconds), String(format: "%.0f/s", Double(report.inputs) / max(report.seconds, 0.001)),
            "\(report.outcomes) outcomes", String(format: "%+.1f MiB", Double(report.growthBytes) / 1_048_576),
            String(format: "peak %.0f MiB", Double(report.peakBytes) / 1_048_576),
        ]
        print(columns.joined(separator: "  "))
        fflush(nil)
    }

    private func runGuidedFuzzer(_ chosen: [any FuzzTarget.Type]) throws {
        #if COVERAGE_GUIDED
            guard chosen.count == 1, let target = chosen.first else { throw ValidationError("--guided needs one --parser") }
            throw ExitCode(runGuided(target, arguments: fuzzerArguments))
        #else
            throw ValidationError("this build is not coverage-guided: use `make fuzz-guided`")
        #endif
    }
}
