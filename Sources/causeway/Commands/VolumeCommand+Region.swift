import APIModels
import ArgumentParser
import EdgeConfiguration

/// A range of a volume, or all of it.
struct RangeOptions: ParsableArguments {
    @Option(help: "Where the range begins on the disk, like 2GiB.", transform: Quantities.size)
    var start: UInt64?

    @Option(help: "How long it is, like 512MiB.", transform: Quantities.size)
    var size: UInt64?

    func validate() throws {
        if (start == nil) != (size == nil) { throw ValidationError("Give --start and --size, or neither for the whole volume.") }
    }
}

extension RegionChange.Policy: ExpressibleByArgument {}
extension RegionChange.Writes: ExpressibleByArgument {}

extension VolumeCommand {
    struct Region: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Which writes of a volume go home, and which stay at the cloud edge.",
            subcommands: [List.self, Set.self, Remove.self, Settle.self], defaultSubcommand: List.self)

        struct List: AsyncParsableCommand {
            static let configuration = CommandConfiguration(abstract: "List the regions of a volume.")

            @Argument(help: "The name of the volume.")
            var name: String

            @OptionGroup var connection: ConnectionOptions

            func run() async throws {
                try Region.show(try await connection.client().regions(name), connection.output)
            }
        }

        struct Set: AsyncParsableCommand {
            static let configuration = CommandConfiguration(
                abstract: "Give a range of a volume, or all that is in no region, a write policy, also while it is served.")

            @Argument(help: "The name of the volume.")
            var name: String

            @OptionGroup var range: RangeOptions

            @Option(help: "Where writes to it go: onprem or cloud-only.")
            var policy: RegionChange.Policy

            @Option(help: "What becomes of cloud-only writes that are there: image, discard or keep. (default: image for onprem)")
            var writes: RegionChange.Writes?

            @OptionGroup var connection: ConnectionOptions

            func run() async throws {
                let change = RegionChange(startBytes: range.start, sizeBytes: range.size, policy: policy, writes: writes)
                try Region.show(try await connection.client().changeRegions(name, change), connection.output)
            }
        }

        struct Remove: AsyncParsableCommand {
            static let configuration = CommandConfiguration(
                abstract: "Take a range out of all regions: the volume's own policy holds there.")

            @Argument(help: "The name of the volume.")
            var name: String

            @OptionGroup var range: RangeOptions

            @Option(
                help:
                    "What becomes of cloud-only writes that are there: image, discard or keep. (default: image; keep where the volume's own policy is cloud-only)"
            )
            var writes: RegionChange.Writes?

            @OptionGroup var connection: ConnectionOptions

            func validate() throws {
                if range.start == nil { throw ValidationError("Give --start and --size.") }
            }

            func run() async throws {
                let change = RegionChange(startBytes: range.start, sizeBytes: range.size, policy: .default, writes: writes)
                try Region.show(try await connection.client().changeRegions(name, change), connection.output)
            }
        }

        struct Settle: AsyncParsableCommand {
            static let configuration = CommandConfiguration(
                abstract: "Say what becomes of cloud-only writes: of a range, or of the whole volume, as when its machine returns home.",
                discussion: "The write policy stays as it is: what is written to a cloud-only region afterwards is cloud-only again.")

            @Argument(help: "The name of the volume.")
            var name: String

            @OptionGroup var range: RangeOptions

            @Option(help: "image brings them home, discard forgets them, keep leaves them where they are.")
            var writes: RegionChange.Writes

            @OptionGroup var connection: ConnectionOptions

            func run() async throws {
                let change = RegionChange(startBytes: range.start, sizeBytes: range.size, writes: writes)
                try Region.show(try await connection.client().changeRegions(name, change), connection.output)
            }
        }

        static func show(_ regions: VolumeRegions, _ output: OutputFormat) throws {
            if output == .json { return try Terminal.json(regions) }
            var table = Table([
                .init("start", isNumber: true), .init("size", isNumber: true), .init("policy"), .init("origin"),
                .init("cloud-only", isNumber: true),
            ])
            for region in regions.regions {
                table.add(
                    Human.bytes(region.startBytes), Human.bytes(region.sizeBytes), region.policy.rawValue, region.origin.rawValue,
                    Human.bytes(region.cloudOnlyBytes))
            }
            if !regions.regions.isEmpty { Terminal.print(table.text) }
            Terminal.print(
                Table.details([
                    ("elsewhere", regions.defaultPolicy.rawValue), ("cloud-only writes", Human.bytes(regions.cloudOnlyBytes)),
                    ("on their way home", regions.imaging ? "yes" : "no"),
                ]))
        }
    }
}
