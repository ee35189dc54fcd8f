import APIModels
import ArgumentParser
import EdgeConfiguration

struct CacheCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cache", abstract: "The cache of a cloud edge.", subcommands: [Show.self, Resize.self, Partition.self],
        defaultSubcommand: Show.self)

    private static let path = "/v1/cache"

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Show the cache: its size, what it holds, whether it works.")

        @OptionGroup var connection: ConnectionOptions

        func run() async throws {
            try CacheCommand.show(try await connection.client().get(CacheCommand.path), connection.output)
        }
    }

    struct Resize: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Give the cache another size, also while it serves, and for good.",
            discussion:
                "A larger one is in force at once. A smaller one is when what is behind its new end has left; blocks that were asked for stay. With --wait it returns then."
        )

        @Argument(help: "The size that it gets, like 20GiB; 0 for what the edge's configuration says.", transform: Quantities.size)
        var size: UInt64

        @Flag(help: "Wait until the size is in force.")
        var wait = false

        @Option(help: "How long to wait. (default: 1h)", transform: Quantities.duration)
        var timeout: Duration = .seconds(3_600)

        @OptionGroup var connection: ConnectionOptions

        func run() async throws {
            let client = try connection.client()
            var cache: EdgeCache = try await client.patch(CacheCommand.path, CacheChange(sizeBytes: size))
            if wait {
                let deadline = ContinuousClock.now + timeout
                var progress = ProgressLine("emptying", output: connection.output)
                while cache.sizeBytes != cache.wantedSizeBytes, ContinuousClock.now < deadline {
                    progress.update(remainingBytes: cache.bytesToEmpty)
                    try await Task.sleep(for: .milliseconds(200))
                    cache = try await client.get(CacheCommand.path)
                }
                progress.finish()
            }
            try CacheCommand.show(cache, connection.output)
            if wait, cache.sizeBytes != cache.wantedSizeBytes {
                throw CommandFailure(
                    "the cache still has \(Human.bytes(cache.bytesToEmpty)) to empty after \(TimeSpan.text(timeout))",
                    action: "It goes on by itself. See causeway cache show.", status: .notInTime)
            }
        }
    }

    struct Partition: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Make a partition of the cache, which only the volumes use that are given it; give it another size, or remove it.",
            discussion: "Volumes are given a partition by `causeway volume cache set`. One that is used can't be removed.")

        @Argument(help: "The name of the partition.")
        var name: String

        @Argument(help: "The size that it gets, like 20GiB; 0 to remove it.", transform: Quantities.size)
        var size: UInt64

        @OptionGroup var connection: ConnectionOptions

        func validate() throws {
            // One that an earlier version let through can be removed.
            if name == CachePartition.sharedName, size > 0 {
                throw ValidationError("“\(name)” is what the part outside of all partitions is called. Choose another name.")
            }
        }

        func run() async throws {
            let client = try connection.client()
            let path = "\(CacheCommand.path)/partitions/\(APIClient.part(name))"
            let cache: EdgeCache =
                size == 0 ? try await client.delete(path) : try await client.put(path, CachePartitionSize(sizeBytes: size))
            try CacheCommand.show(cache, connection.output)
        }
    }

    /// What is stored once for several places.
    private static func sharing(_ cache: EdgeCache) -> String? {
        if cache.sharedBlocks == 0 { return nil }
        // What is alone takes the same room both ways.
        let alone = cache.blocks - min(cache.sharedReferences, cache.blocks)
        let aloneBytes = cache.blocks == 0 ? 0 : alone * (cache.heldBytes / cache.blocks)
        let (held, stored) = (cache.heldBytes - min(aloneBytes, cache.heldBytes), cache.storedBytes - min(aloneBytes, cache.storedBytes))
        return "\(Human.bytes(held)) of that are equal blocks, stored once in \(Human.bytes(stored))"
    }

    static func show(_ cache: EdgeCache, _ output: OutputFormat) throws {
        if output == .json { return try Terminal.json(cache) }
        let resizing =
            cache.sizeBytes == cache.wantedSizeBytes
            ? nil : "to \(Human.bytes(cache.wantedSizeBytes)), \(Human.bytes(cache.bytesToEmpty)) to empty first"
        Terminal.print(
            Table.details([
                ("cache", cache.path), ("state", cache.state.rawValue), ("message", cache.message),
                ("size", "\(Human.bytes(cache.sizeBytes)), \(cache.isOwnSize ? "set here" : "as configured")"), ("resizing", resizing),
                ("holds", "\(Human.bytes(cache.heldBytes)) of volumes, in \(Human.bytes(cache.storedBytes)) of room"),
                ("shared", sharing(cache)),
                ("served", "\(cache.hits) hits, \(cache.misses) misses, \(cache.corrupt) damaged"),
                ("left", "\(cache.evicted) blocks; \(cache.moved) more were kept because they had been asked for"),
                ("index", Human.bytes(cache.indexBytes)),
                ("division", cache.isLoosened ? "the cache has too little room for it, and keeps only a part" : nil),
            ]))
        guard let partitions = cache.partitions, !partitions.isEmpty else { return }
        var table = Table([.init("partition"), .init("size", isNumber: true), .init("holds", isNumber: true)])
        for partition in partitions {
            table.add(partition.name, Human.bytes(partition.sizeBytes), Human.bytes(partition.heldBytes))
        }
        Terminal.print(table.text)
    }
}
