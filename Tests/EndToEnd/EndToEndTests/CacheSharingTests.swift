import APIModels
import Foundation
import Testing

extension EndToEnd {
    /// Equal blocks of several volumes, through both daemons.
    @Suite(.serialized)
    struct CacheSharing {
        private static let mebibytes = 8
        private static let blocks = UInt64(mebibytes << 8)

        private func cache(_ lab: Lab) async throws -> EdgeCache {
            let result = try await lab.causeway(.cloud, "cache", "show", "--output", "json")
            guard result.isSuccess else { throw CommandFailure(description: result.description) }
            return try APICoding.decoder().decode(EdgeCache.self, from: Data(result.output.utf8))
        }

        private func compare(_ lab: Lab, _ volume: String, _ image: String) async throws {
            try await Command.check("qemu-img", ["compare", "-f", "raw", "-F", "raw", lab.url(volume), image], seconds: 120)
        }

        @Test("two volumes with the same content take the room of one; SIGKILL keeps that, and one goes without harm to the other")
        func sharing() async throws {
            let directory = try Lab.makeDirectory()
            defer { try? FileManager.default.removeItem(at: directory) }
            let image = try Lab.makeNoise(in: directory, mebibytes: Self.mebibytes)
            let size = Self.mebibytes << 20
            try await Lab.with(
                disks: [("first", size), ("second", size)], options: ["--cache-size", "128MiB", "--recovery-point-objective", "300ms"]
            ) { lab in
                for volume in ["first", "second"] {
                    try await Command.check("qemu-img", ["convert", "-n", "-f", "raw", "-O", "raw", image, lab.url(volume)], seconds: 120)
                    try await lab.seal(volume)
                }
                try await Lab.untilTrue(seconds: 30, "the second volume to share the blocks of the first") {
                    let cache = try await cache(lab)
                    return cache.sharedBlocks == Self.blocks && cache.sharedReferences == 2 * Self.blocks
                }
                for volume in ["first", "second"] { try await compare(lab, volume, image) }

                // A clean stop saves what is in memory; after that, SIGKILL takes nothing.
                try await lab.kill(.cloud, by: SIGTERM)
                try await lab.restart(.cloud)
                for volume in ["first", "second"] { try await lab.untilServing(volume) }
                try await lab.kill(.cloud)
                try await lab.restart(.cloud)
                for volume in ["first", "second"] { try await lab.untilServing(volume) }
                let after = try await cache(lab)
                #expect(after.sharedBlocks == Self.blocks && after.sharedReferences == 2 * Self.blocks, "\(after)")
                for volume in ["first", "second"] { try await compare(lab, volume, image) }
                let served = try await cache(lab)
                #expect(served.hits >= 2 * Self.blocks && served.corrupt == 0, "\(served)")

                let shredded = try await lab.causeway(.onprem, "volume", "shred", "first", "--force")
                #expect(shredded.isSuccess, "\(shredded)")
                try await Lab.untilTrue(seconds: 30, "the references of the volume that went to go") {
                    try await cache(lab).sharedReferences == Self.blocks
                }
                try await compare(lab, "second", image)
                #expect(try await cache(lab).misses == served.misses)
            }
        }
    }
}
