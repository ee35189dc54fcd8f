import APIModels
import ArgumentParser
import EdgeConfiguration

extension VolumeCommand {
    struct Cache: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "What a volume may have of the cloud edge's cache, and what of it stays there.",
            subcommands: [Show.self, Set.self, Pin.self, Unpin.self], defaultSubcommand: Show.self)

        struct Show: AsyncParsableCommand {
            static let configuration = CommandConfiguration(abstract: "Show what a volume may have of the cache, and has.")

            @Argument(help: "The name of the volume.")
            var name: String

            @OptionGroup var connection: ConnectionOptions

            func run() async throws { try Cache.show(try await connection.client().cacheShare(name), connection.output) }
        }

        struct Set: AsyncParsableCommand {
            static let configuration = CommandConfiguration(
                abstract: "Change what a volume may have of the cache, also while it serves. What is left out stays.")

            @Argument(help: "The name of the volume.")
            var name: String

            @Option(help: "The partition that it is to use; an empty one for the shared part of the cache.")
            var partition: String?

            @Option(help: "So much no other volume takes from it, like 2GiB; 0 for nothing.", transform: Quantities.size)
            var guaranteed: UInt64?

            @Option(help: "More it never has, like 10GiB; 0 for as much as there is.", transform: Quantities.size)
            var most: UInt64?

            @OptionGroup var connection: ConnectionOptions

            func validate() throws {
                if partition == nil, guaranteed == nil, most == nil {
                    throw ValidationError("Give --partition, --guaranteed or --most.")
                }
            }

            func run() async throws {
                let change = CacheShareChange(partition: partition, guaranteedBytes: guaranteed, mostBytes: most)
                try Cache.show(try await connection.client().changeCacheShare(name, change), connection.output)
            }
        }

        struct Pin: AsyncParsableCommand {
            static let configuration = CommandConfiguration(
                abstract: "Have a range of a volume stay in the cache once it is there.",
                discussion: "Nothing is fetched for it. What is pinned counts with a third more against what the cache can promise.")

            @Argument(help: "The name of the volume.")
            var name: String

            @OptionGroup var range: PinOptions
            @OptionGroup var connection: ConnectionOptions

            func run() async throws {
                let change = CacheShareChange(pin: [range.pin])
                try Cache.show(try await connection.client().changeCacheShare(name, change), connection.output)
            }
        }

        struct Unpin: AsyncParsableCommand {
            static let configuration = CommandConfiguration(abstract: "Let a range of a volume leave the cache as any other.")

            @Argument(help: "The name of the volume.")
            var name: String

            @OptionGroup var range: PinOptions
            @OptionGroup var connection: ConnectionOptions

            func run() async throws {
                let change = CacheShareChange(unpin: [range.pin])
                try Cache.show(try await connection.client().changeCacheShare(name, change), connection.output)
            }
        }

        static func show(_ share: CacheShare, _ output: OutputFormat) throws {
            if output == .json { return try Terminal.json(share) }
            Terminal.print(
                Table.details([
                    ("volume", share.volume), ("partition", share.partition ?? CachePartition.sharedName),
                    ("guaranteed", Human.bytes(share.guaranteedBytes)),
                    ("at most", share.mostBytes.map { Human.bytes($0) } ?? "all there is"),
                    ("holds", Human.bytes(share.heldBytes)),
                    ("pinned", "\(Human.bytes(share.pinnedBytes)), \(Human.bytes(share.pinnedHeldBytes)) of it here"),
                ]))
            if share.pins.isEmpty { return }
            var table = Table([.init("pinned from", isNumber: true), .init("size", isNumber: true)])
            for pin in share.pins { table.add(ByteSize.text(pin.startBytes), ByteSize.text(pin.sizeBytes)) }
            Terminal.print(table.text)
        }
    }
}

/// A range of a volume.
struct PinOptions: ParsableArguments {
    @Option(help: "Where the range begins on the disk, like 2GiB.", transform: Quantities.size)
    var start: UInt64

    @Option(help: "How long it is, like 512MiB.", transform: Quantities.size)
    var size: UInt64

    var pin: CacheShare.Pin { CacheShare.Pin(startBytes: start, sizeBytes: size) }
}
