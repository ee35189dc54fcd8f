import APIModels
import ArgumentParser

struct VolumeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "volume", abstract: "Disks as they are served to machines at a cloud edge.",
        subcommands: [
            List.self, Show.self, Create.self, Set.self, Region.self, Cache.self, Limit.self, Attach.self, Detach.self, Seal.self,
            Point.self,
            Credentials.self,
            RecoveryKey.self, Shred.self, Delete.self,
        ], defaultSubcommand: List.self)

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List the volumes.")

        @OptionGroup var connection: ConnectionOptions

        func run() async throws {
            let volumes: [Volume] = try await connection.client().list("/v1/volumes")
            if connection.output == .json { return try Terminal.json(volumes) }
            Terminal.print(VolumeCommand.table(volumes))
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Show one volume: its points, what is unsent, its cache.")

        @Argument(help: "The name of the volume.")
        var name: String

        @OptionGroup var connection: ConnectionOptions

        func run() async throws {
            try VolumeCommand.show(try await connection.client().volume(name), connection.output)
        }
    }

    struct Attach: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Serve a volume at a cloud edge.")

        @Argument(help: "The name of the volume.")
        var name: String

        @Option(help: "The identifier or name of the cloud edge. (default: the only one that is paired)")
        var edge: String?

        @OptionGroup var connection: ConnectionOptions

        func run() async throws {
            let volume: Volume = try await connection.client().post(
                "/v1/volumes/\(APIClient.part(name))/attach", AttachRequest(edge: edge))
            try VolumeCommand.show(volume, connection.output)
        }
    }

    struct Delete: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Delete a detached volume; its disk stays as it is.")

        @Argument(help: "The name of the volume.")
        var name: String

        @OptionGroup var connection: ConnectionOptions

        func run() async throws {
            try await connection.client().delete("/v1/volumes/\(APIClient.part(name))")
            if connection.output == .json { return try Terminal.json(["deleted": name]) }
            Terminal.print("deleted volume \(name)")
        }
    }

    struct Credentials: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show how a machine logs in to a volume. The answer holds secrets.")

        @Argument(help: "The name of the volume.")
        var name: String

        @OptionGroup var connection: ConnectionOptions

        func run() async throws {
            let credentials = try await connection.client().credentials(name)
            if connection.output == .json { return try Terminal.json(credentials) }
            Terminal.print(
                Table.details([
                    ("user", credentials.user), ("secret", credentials.secret), ("mutual user", credentials.mutualUser),
                    ("mutual secret", credentials.mutualSecret), ("url", credentials.url),
                ]))
        }
    }

    // MARK: Output

    static func table(_ volumes: [Volume]) -> String {
        var table = Table([
            .init("volume"), .init("state"), .init("size", isNumber: true), .init("disk"), .init("unsent", isNumber: true),
            .init("age", isNumber: true), .init("point", isNumber: true), .init("at home", isNumber: true),
            .init("cached", isNumber: true),
        ])
        for volume in volumes {
            table.add(
                volume.name, volume.state.rawValue, Human.bytes(volume.sizeBytes), volume.disk,
                volume.unsent.map { Human.bytes($0.bytes) } ?? "?",
                volume.unsent?.oldestSeconds.map(Human.seconds), String(volume.points.lastSealed), String(volume.points.applied),
                volume.cache.map { Human.bytes($0.bytes) })
        }
        return table.text
    }

    static func show(_ volume: Volume, _ output: OutputFormat) throws {
        if output == .json { return try Terminal.json(volume) }
        let unsent = volume.unsent
        let age = unsent?.oldestSeconds.map { ", the oldest write \(Human.seconds($0)) old" } ?? ""
        Terminal.print(
            Table.details([
                ("volume", volume.name), ("identifier", volume.identifier), ("state", volume.state.rawValue),
                ("message", volume.message),
                ("disk", volume.disk), ("edge", volume.edge),
                ("size", "\(Human.bytes(volume.sizeBytes)) (\(volume.sizeBytes) bytes)"),
                ("medium", volume.removable == true ? "removable" : "fixed"),
                ("access", volume.readOnly.map { $0 ? "read-only" : "read and write" }),
                ("target", volume.target.map { "\($0.iqn), logical unit \($0.logicalUnit)" }),
                ("portals", volume.target?.portals.joined(separator: ", ")), ("url", volume.url),
                ("nbd url", volume.nbdURL),
                ("generation", String(volume.generation)),
                (
                    "points",
                    "sealed \(volume.points.lastSealed), received \(volume.points.received), applied \(volume.points.applied)\(mark(volume))"
                ),
                (
                    "unsent",
                    unsent.map { "\(Human.bytes($0.bytes)) in \($0.points) sealed points and the open one\(age)" }
                        ?? "not known: the cloud edge can't be asked"
                ),
                ("write log", writeLog(volume)),
                (
                    "cache",
                    volume.cache.map { "\(Human.bytes($0.bytes)), \($0.hits) hits, \($0.misses) misses, \($0.corrupt) damaged" }
                ),
                ("cloud-only", volume.cloudOnlyBytes.map { "\(Human.bytes($0)) that only the cloud edge has" }),
                (
                    "policy",
                    "a point each \(Human.seconds(volume.policy.recoveryPointObjectiveSeconds)) or \(Human.bytes(volume.policy.sealBytes))"
                ),
                ("kept points", volume.keeping.map { "\($0.points) past points, in at most \(Human.bytes($0.bytes))" }),
                ("limits", limits(volume)), ("throttled", throttled(volume)),
                (
                    "served",
                    "\(volume.io.reads) reads (\(Human.bytes(volume.io.readBytes))), "
                        + "\(volume.io.writes) writes (\(Human.bytes(volume.io.writtenBytes)))"
                ),
            ]))
    }

    /// What the applied point says of itself: ` (application-consistent, “nightly”)`.
    private static func mark(_ volume: Volume) -> String {
        guard let consistency = volume.points.appliedConsistency else { return "" }
        return " (\(consistency.rawValue)-consistent\(volume.points.appliedLabel.map { ", “\($0)”" } ?? ""))"
    }

    /// How full the write log is: `48.0 MiB of 64.0 MiB (75 %), full in about 12 s`.
    private static func writeLog(_ volume: Volume) -> String? {
        guard let log = volume.writeLog else { return nil }
        var text = "\(Human.bytes(log.usedBytes)) of \(Human.bytes(log.sizeBytes)) (\(Int(log.usedPercent)) %)"
        if log.isOwnSize { text += ", a size of its own" }
        if let seconds = log.fullInSeconds { text += ", full in about \(Human.seconds(seconds))" }
        if log.waitedWrites > 0 {
            text += "; \(log.waitedWrites) writes waited, for \(Human.seconds(log.waitSeconds / Double(log.waitedWrites))) each on average"
        }
        return text
    }

    /// The limits in words: `500 operations/s (2000 at once), 50.0 MiB/s`.
    private static func limits(_ volume: Volume) -> String {
        guard let limits = volume.limits else { return "none" }
        var parts: [String] = []
        if let rate = limits.operationsPerSecond {
            parts.append("\(rate) operations/s" + (limits.burstOperations.map { " (\($0) at once)" } ?? ""))
        }
        if let rate = limits.bytesPerSecond {
            parts.append("\(Human.bytes(rate))/s" + (limits.burstBytes.map { " (\(Human.bytes($0)) at once)" } ?? ""))
        }
        return parts.joined(separator: ", ")
    }

    /// What the limits have done; nothing where they have done nothing.
    private static func throttled(_ volume: Volume) -> String? {
        guard let throttle = volume.throttle, throttle.operations > 0 else { return nil }
        let mean = throttle.waitSeconds / Double(throttle.operations)
        return "\(throttle.operations) operations, for \(Human.seconds(mean)) each on average; \(throttle.refused) were to be repeated, "
            + "\(throttle.waiting) wait now"
    }
}
