import ArgumentParser
import Foundation
import LoadGenerator

/// The command line of Causeway: it speaks to an edge through the HTTP API and through nothing else. What is done to the files of an
/// edge that is stopped is done by OfflineRecovery.
struct CausewayCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "causeway",
        abstract: "Run machines in a cloud while their disks stay at home.",
        discussion: """
            Most commands ask one edge. It is named by --api and --token-file (or --token), or by CAUSEWAY_API and CAUSEWAY_TOKEN; \
            without them it is the one at http://127.0.0.1:7480.

            Exit statuses: 0 done, 1 failed or refused, 2 the edge cannot be reached, 3 not finished in time, 64 wrong usage.
            """,
        version: "0.1.0",
        subcommands: [
            StatusCommand.self, EdgeCommand.self, LinkCommand.self, DiskCommand.self, VolumeCommand.self, GroupCommand.self,
            KeyCommand.self, BracketCommand.self, CacheCommand.self, TunnelCommand.self, PairCommand.self, JoinCommand.self,
            RecoverCommand.self,
            VerifyCommand.self,
            EventsCommand.self, MetricsCommand.self, LabCommand.self, RelayCommandLine.self, LineCommandLine.self,
        ])
}

@main
enum Main {
    static func main() async {
        // A reader that goes away (`causeway events | head`) ends us by an error of write, not in silence.
        signal(SIGPIPE, SIG_IGN)
        do {
            var command = try parse()
            if var asynchronous = command as? any AsyncParsableCommand {
                try await asynchronous.run()
            } else {
                try command.run()
            }
        } catch let failure as CommandFailure {
            Terminal.error("causeway: \(failure.message)")
            if let action = failure.action { Terminal.error("  \(action)") }
            exit(failure.status.rawValue)
        } catch {
            CausewayCommand.exit(withError: error)
        }
    }

    private static func parse() throws -> any ParsableCommand {
        do {
            return try CausewayCommand.parseAsRoot()
        } catch {
            let isWrong = CausewayCommand.exitCode(for: error) == .validationFailure
            guard isWrong, let negative = NegativeArgument(in: CommandLine.arguments.dropFirst()) else { throw error }
            throw CommandFailure("\(negative)", action: "See the command's --help.", status: .usage)
        }
    }
}
