import APIModels
import ArgumentParser
import NIOCore

struct BracketCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bracket", abstract: "Points for which what writes is brought to rest.",
        discussion: """
            Begin a bracket, bring the writers to rest (fsfreeze, a database's backup mode), seal, let them go on:
              causeway bracket begin --volume mail && fsfreeze -f /srv/mail && causeway bracket seal --volume mail; fsfreeze -u /srv/mail
            A bracket that is not sealed in time ends by itself with a point that is only crash-consistent.
            """,
        subcommands: [Begin.self, Seal.self, End.self, Show.self], defaultSubcommand: Show.self)

    struct Subject: ParsableArguments {
        @Option(help: "The name of the volume.")
        var volume: String?

        @Option(help: "The name of the group.")
        var group: String?

        func validate() throws {
            if (volume == nil) == (group == nil) { throw ValidationError("Give --volume or --group.") }
        }

        var path: String {
            if let volume { return "/v1/volumes/\(APIClient.part(volume))/bracket" }
            return "/v1/groups/\(APIClient.part(group ?? ""))/bracket"
        }
    }

    struct Begin: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Begin a bracket.")

        @OptionGroup var subject: Subject

        @Option(help: "What the point is to be called.")
        var label: String?

        @Option(help: "After how many seconds it ends by itself. (default: 30)")
        var timeoutSeconds: Int?

        @OptionGroup var connection: ConnectionOptions

        func run() async throws {
            let request = BracketCreate(label: label, timeoutSeconds: timeoutSeconds)
            try BracketCommand.show(try await connection.client().post(subject.path, request), connection.output)
        }
    }

    struct Seal: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "The writers are at rest: seal.", discussion: "Fails with status 3 when the point is not application-consistent.")

        @OptionGroup var subject: Subject
        @OptionGroup var connection: ConnectionOptions

        func run() async throws {
            let bracket: Bracket = try await connection.client().post(subject.path + "/seal", nil as BracketCreate?)
            try BracketCommand.show(bracket, connection.output)
            if bracket.point == nil {
                throw CommandFailure(
                    "the bracket of \(bracket.name) has no point: \(bracket.message ?? bracket.state.rawValue)",
                    action: "Begin another one.")
            }
            if bracket.consistency != .application {
                throw CommandFailure(
                    "the bracket of \(bracket.name) was over before the point was sealed", action: "Begin another one.", status: .notInTime)
            }
        }
    }

    struct End: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "End a bracket without a point.")

        @OptionGroup var subject: Subject
        @OptionGroup var connection: ConnectionOptions

        func run() async throws {
            let client = try connection.client()
            try await client.delete(subject.path)
            try BracketCommand.show(try await client.get(subject.path), connection.output)
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Show the last bracket, and what came of it.")

        @OptionGroup var subject: Subject
        @OptionGroup var connection: ConnectionOptions

        func run() async throws { try BracketCommand.show(try await connection.client().get(subject.path), connection.output) }
    }

    static func show(_ bracket: Bracket, _ output: OutputFormat) throws {
        if output == .json { return try Terminal.json(bracket) }
        Terminal.print(
            Table.details([
                ("bracket of", bracket.name), ("state", bracket.state.rawValue), ("label", bracket.label.isEmpty ? nil : bracket.label),
                ("point", bracket.point.map(String.init)), ("consistency", bracket.consistency?.rawValue),
                ("ends by itself in", bracket.remainingSeconds.map { "\(Int($0)) s" }), ("message", bracket.message),
            ]))
    }
}
