import ArgumentParser
import EdgeConfiguration
import Foundation

struct LabCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "lab", abstract: "A pair of edges on this machine, to try things with.",
        discussion: """
            The lab leaves addresses, tokens and volumes in DIR/lab.json. Either daemon may be killed and started again with \
            causewayd --config DIR/onprem.yaml or DIR/cloud.yaml.
            """,
        subcommands: [Up.self, Down.self, Status.self, Env.self])

    /// A disk on the command line: `NAME=PATH`.
    struct DiskArgument: Sendable {
        var name: String
        var path: String

        @Sendable static func parse(_ text: String) throws -> DiskArgument {
            let parts = text.split(separator: "=", maxSplits: 1).map(String.init)
            guard parts.count == 2 else { throw ValidationError("write it like NAME=PATH") }
            if let problem = NameRule.problem(parts[0]) { throw ValidationError(problem.description) }
            return DiskArgument(name: parts[0], path: absolutePath(parts[1]))
        }
    }

    /// The WAN emulators.
    enum WANKind: String, ExpressibleByArgument, CaseIterable, Sendable {
        case relay
        case packets
    }

    struct Up: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Start a pair of edges, joined, with each disk served as a volume.",
            discussion: """
                In the foreground it stays until Ctrl-C and then takes the lab down. A directory that held a lab before \
                goes on with its edges and volumes.
                """)

        @Option(help: "Where the lab keeps everything.", completion: .directory)
        var directory: String

        @Option(
            name: .customLong("disk"), help: "A raw file or block device to serve, as NAME=PATH; may be repeated.",
            completion: .file(), transform: DiskArgument.parse)
        var disks: [DiskArgument] = []

        @Option(help: "Put a WAN of this round trip between the edges, like 40ms.", transform: Quantities.duration)
        var rtt: Duration?

        @Option(help: "Put a WAN of this rate between the edges, like 100mbit.", transform: Quantities.bytesPerSecond)
        var rate: UInt64?

        @Option(
            help:
                "How the WAN works: relay passes TCP connections on; packets carries IP packets, with loss and a queue that drops (needs root)."
        )
        var wan: WANKind = .relay

        @OptionGroup(title: "With --wan packets") var line: LineCommandLine.Conditions

        @Flag(help: "The on-prem edge dials the cloud edge, not the other way round.")
        var homeDials = false

        @Option(help: "How many connections the link has.")
        var linkConnections = Configuration.defaultConnections

        @Flag(help: "Serve the volumes over NBD too, in plain on loopback.")
        var nbd = false

        @Flag(help: "Return when everything is served, and leave the lab up.")
        var detach = false

        @Option(help: "The size of the cloud edge's cache. (default: 1GiB)", transform: Quantities.size)
        var cacheSize: UInt64 = 1 << 30

        @Option(help: "The size of its write log. (default: 1GiB)", transform: Quantities.size)
        var logSize: UInt64 = 1 << 30

        @Option(help: "How many portals the target has, for multipath.")
        var portals = 1

        @Option(help: "How often a point is sealed while there are writes. (default: 5s)", transform: Quantities.duration)
        var recoveryPointObjective: Duration = .seconds(5)

        @Option(help: "How much the daemons log.")
        var logLevel: Configuration.LogLevel = .info

        @Option(help: "How long to wait for each step. (default: 60s)", transform: Quantities.duration)
        var timeout: Duration = .seconds(60)

        @OptionGroup var outputOptions: OutputOptions

        func validate() throws {
            let names = disks.map(\.name)
            if let name = names.first(where: { name in names.filter { $0 == name }.count > 1 }) {
                throw ValidationError("Two disks are called “\(name)”.")
            }
            if !Configuration.connectionsRange.contains(linkConnections) { throw ValidationError("--link-connections is 1 to 16.") }
            if !(1...16).contains(portals) { throw ValidationError("--portals is 1 to 16.") }
            if directory.isEmpty { throw ValidationError("--directory is empty.") }
            if line.isAny && wan != .packets {
                throw ValidationError("--jitter, --queue, --loss and --reorder need --wan packets.")
            }
        }

        func run() async throws {
            // From here on a Ctrl-C takes down what was started, also when it comes half way.
            let stop = SignalStream([SIGINT, SIGTERM])
            let lab = LabDirectory(directory)
            let builder = try LabBuilder(lab: lab, options: self)
            let record = try await builder.up(interruptedBy: stop)
            if outputOptions.output == .json { try Terminal.json(record) } else { LabReport.up(record, directory: lab) }
            if detach { return }
            if outputOptions.output == .table { Terminal.print("\nPress Ctrl-C to take the lab down.") }
            guard await waitForEnd(lab, stop) == .interrupted else { return }
            let outcome = try await LabTeardown(lab: lab, record: record, timeout: timeout, force: false).run()
            LabReport.down(outcome, to: .table)
        }

        private enum End { case interrupted, tornDown }

        /// Until a signal comes, or somebody else has taken the lab down.
        private func waitForEnd(_ lab: LabDirectory, _ stop: SignalStream) async -> End {
            await withTaskGroup(of: End.self) { group in
                group.addTask {
                    await stop.next()
                    return .interrupted
                }
                group.addTask {
                    while !Task.isCancelled && FileManager.default.fileExists(atPath: lab.record) {
                        try? await Task.sleep(for: .seconds(1))
                    }
                    return Task.isCancelled ? .interrupted : .tornDown
                }
                defer { group.cancelAll() }
                return await group.next() ?? .interrupted
            }
        }
    }

    struct Down: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Seal, wait until everything is at home, and stop the lab.",
            discussion: """
                What is not at home when the time is over stays in the cloud edge's write log, is said, and goes home when the lab \
                is up again. With --force it neither seals nor waits, and kills what does not stop.
                """)

        @Option(help: "Where the lab keeps everything.", completion: .directory)
        var directory: String

        @Option(help: "How long to wait until everything is at home. (default: 60s)", transform: Quantities.duration)
        var timeout: Duration = .seconds(60)

        @Flag(help: "Do not wait for writes to come home, and kill daemons that do not stop.")
        var force = false

        @OptionGroup var outputOptions: OutputOptions

        func run() async throws {
            let lab = LabDirectory(directory)
            let record = try lab.recordOfLabThatIsUp()
            let outcome = try await LabTeardown(lab: lab, record: record, timeout: timeout, force: force).run()
            LabReport.down(outcome, to: outputOptions.output)
        }
    }

    struct Status: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show whether the lab's processes run and what its volumes do; status 1 when one does not run.")

        @Option(help: "Where the lab keeps everything.", completion: .directory)
        var directory: String

        @OptionGroup var outputOptions: OutputOptions

        func run() async throws {
            let lab = LabDirectory(directory)
            let record = try lab.recordOfLabThatIsUp()
            try await LabReport.status(record, to: outputOptions.output)
        }
    }
}

extension Configuration.LogLevel: ExpressibleByArgument {}
