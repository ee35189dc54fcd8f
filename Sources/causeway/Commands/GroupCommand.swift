import APIModels
import ArgumentParser
import EdgeConfiguration
import NIOCore

struct GroupCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "group", abstract: "Volumes of one machine that have their points together.",
        subcommands: [List.self, Show.self, Create.self, Set.self, Seal.self, Detach.self, Delete.self], defaultSubcommand: List.self)

    /// The policy, of which what is left out is the server's to choose, or stays.
    struct PolicyOptions: ParsableArguments {
        @Option(help: "A point is sealed when its oldest write to any of the volumes is this old.", transform: Quantities.duration)
        var recoveryPointObjective: Duration?

        @Option(help: "A point is sealed when it holds this much of all volumes.", transform: Quantities.size)
        var sealSize: UInt64?

        /// The policy, with what is left out taken from `base`; nil when nothing is asked.
        func policy(over base: Volume.Policy) -> Volume.Policy? {
            if recoveryPointObjective == nil, sealSize == nil { return nil }
            return .init(
                recoveryPointObjectiveSeconds: recoveryPointObjective.map { $0 / .seconds(1) }
                    ?? base.recoveryPointObjectiveSeconds, sealBytes: sealSize ?? base.sealBytes)
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List the groups.")

        @OptionGroup var connection: ConnectionOptions

        func run() async throws {
            let groups: [VolumeGroup] = try await connection.client().list("/v1/groups")
            if connection.output == .json { return try Terminal.json(groups) }
            var table = Table([.init("group"), .init("volumes"), .init("point", isNumber: true), .init("at home")])
            for group in groups {
                table.add(
                    group.name, group.members.map(\.volume).joined(separator: ", "), String(group.point),
                    group.applied ? "all of it" : "not yet")
            }
            Terminal.print(table.text)
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Show one group: which points of its volumes belong together.")

        @Argument(help: "The name of the group.")
        var name: String

        @OptionGroup var connection: ConnectionOptions

        func run() async throws {
            try GroupCommand.show(try await connection.client().get("/v1/groups/\(APIClient.part(name))"), connection.output)
        }
    }

    struct Create: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Make a group of volumes, also while they are served.")

        @Argument(help: "The name of the group.")
        var name: String

        @Argument(help: "The names of its volumes.")
        var volumes: [String] = []

        @OptionGroup var options: PolicyOptions
        @OptionGroup var connection: ConnectionOptions

        func run() async throws {
            let request = GroupCreate(name: name, volumes: volumes, policy: options.policy(over: .init()))
            try GroupCommand.show(try await connection.client().post("/v1/groups", request), connection.output)
        }
    }

    struct Set: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Change a group, also while its volumes are served.", discussion: "What is left out stays as it is.")

        @Argument(help: "The name of the group.")
        var name: String

        @Option(parsing: .upToNextOption, help: "All its volumes from now on.")
        var volumes: [String] = []

        @OptionGroup var options: PolicyOptions
        @OptionGroup var connection: ConnectionOptions

        func run() async throws {
            let client = try connection.client()
            let path = "/v1/groups/\(APIClient.part(name))"
            let group: VolumeGroup = try await client.get(path)
            let change = GroupChange(volumes: volumes.isEmpty ? nil : volumes, policy: options.policy(over: group.policy))
            try GroupCommand.show(try await client.patch(path, change), connection.output)
        }
    }

    struct Seal: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Close a point of all volumes of a group at one instant.",
            discussion: "With --wait it returns when all disks are at the point at home, and fails with status 3 when that takes too long.")

        @Argument(help: "The name of the group.")
        var name: String

        @Flag(help: "Wait until the point is applied at home.")
        var wait = false

        @Option(help: "How long to wait. (default: 10m)", transform: Quantities.duration)
        var timeout: Duration = .seconds(600)

        @OptionGroup var connection: ConnectionOptions

        func run() async throws {
            let seconds = max(1, min(3_600, timeout.components.seconds))
            let result: GroupSealResult = try await connection.client().post(
                "/v1/groups/\(APIClient.part(name))/seal", nil as GroupChange?,
                query: ["wait": wait ? "applied" : "sealed", "timeoutSeconds": String(seconds)], timeout: .seconds(seconds + 10))
            if connection.output == .json {
                try Terminal.json(result)
            } else {
                let members = result.members.map { "\($0.volume) \($0.point)" }.joined(separator: ", ")
                Terminal.print("\(result.group): point \(result.point) is \(result.state.rawValue) (\(members))")
            }
            if wait && result.state != .applied {
                throw CommandFailure(
                    "point \(result.point) of \(name) is \(result.state.rawValue), not applied at home after \(TimeSpan.text(timeout))",
                    action: "It goes on by itself. See causeway link list, and causeway group show \(name).", status: .notInTime)
            }
        }
    }

    struct Detach: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Stop serving all volumes of a group, once their writes are at home.",
            discussion: """
                With --force it does not wait for a cloud edge that is gone: the disks go to the last point that they have in common. \
                What home has received beyond it is on no disk; it is kept in the journals' directories.
                """)

        @Argument(help: "The name of the group.")
        var name: String

        @Flag(help: "Detach now, and give up what all disks do not have in common.")
        var force = false

        @Option(help: "How long to wait. (default: 1h)", transform: Quantities.duration)
        var timeout: Duration = .seconds(3600)

        @OptionGroup var connection: ConnectionOptions

        func run() async throws {
            let result: GroupDetachResult = try await connection.client().post(
                "/v1/groups/\(APIClient.part(name))/detach", DetachRequest(force: force), timeout: timeout.timeAmount)
            if connection.output == .json { return try Terminal.json(result) }
            for volume in result.volumes { VolumeCommand.Detach.show(volume) }
        }
    }

    struct Delete: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Delete a group; its volumes stay.")

        @Argument(help: "The name of the group.")
        var name: String

        @OptionGroup var connection: ConnectionOptions

        func run() async throws {
            try await connection.client().delete("/v1/groups/\(APIClient.part(name))")
            if connection.output == .json { return try Terminal.json(["deleted": name]) }
            Terminal.print("deleted group \(name)")
        }
    }

    private static func microseconds(_ seconds: Double) -> String { "\(Int(seconds * 1e6)) µs" }

    static func show(_ group: VolumeGroup, _ output: OutputFormat) throws {
        if output == .json { return try Terminal.json(group) }
        let members = group.members.map { member in
            (
                member.volume as String,
                "\(member.point.map { "point \($0)" } ?? "no part in it"), received \(member.received), applied \(member.applied)"
                    as String?
            )
        }
        Terminal.print(
            Table.details(
                [
                    ("group", group.name), ("identifier", group.identifier),
                    ("point", "\(group.point), \(group.applied ? "on all disks at home" : "not on all disks at home yet")"),
                    (
                        "policy",
                        "a point each \(Human.seconds(group.policy.recoveryPointObjectiveSeconds)) or \(Human.bytes(group.policy.sealBytes))"
                    ),
                    (
                        "cut",
                        group.cut.map {
                            "\($0.count) made, the last took \(microseconds($0.lastSeconds)), the longest \(microseconds($0.longestSeconds))"
                        }
                    ),
                ] + members))
    }
}
