import APIModels
import Foundation
import Testing

extension EndToEnd {
    /// Partitions, shares and pins of the cache, as an operator sees them.
    @Suite(.serialized)
    struct CacheShares {
        private func json<Answer: Decodable>(_ lab: Lab, _ arguments: [String]) async throws -> Answer {
            let result = try await Command.run(
                "causeway", arguments + ["--output", "json"],
                environment: ["CAUSEWAY_API": lab.description.cloud.api, "CAUSEWAY_TOKEN": lab.description.cloud.token], seconds: 60)
            guard result.isSuccess else { throw CommandFailure(description: result.description) }
            return try APICoding.decoder().decode(Answer.self, from: Data(result.output.utf8))
        }

        private func write(_ lab: Lab, _ volume: String, _ range: String) async throws {
            try await Command.check("qemu-io", ["-f", "raw", "-c", "write -P 7 \(range)", "-c", "flush", lab.url(volume)], seconds: 60)
            try await lab.seal(volume)
        }

        @Test("what is pinned stays, a partition takes no more than it has, and both outlive a restart and the end of a volume's need")
        func shares() async throws {
            try await Lab.with(
                disks: [("data", 128 << 20), ("scratch", 128 << 20)],
                options: ["--cache-size", "128MiB", "--recovery-point-objective", "300ms"]
            ) { lab in
                let pinned: CacheShare = try await json(lab, ["volume", "cache", "pin", "data", "--start", "0", "--size", "4MiB"])
                #expect(pinned.pinnedBytes == 4 << 20 && pinned.pins == [.init(startBytes: 0, sizeBytes: 4 << 20)])
                let divided: EdgeCache = try await json(lab, ["cache", "partition", "lab", "48MiB"])
                #expect(divided.partitions.map(\.name) == ["lab"] && !divided.isLoosened)
                let moved: CacheShare = try await json(lab, ["volume", "cache", "set", "scratch", "--partition", "lab"])
                #expect(moved.partition == "lab")

                try await write(lab, "data", "0 4M")
                try await write(lab, "scratch", "0 100M")
                try await write(lab, "data", "8M 110M")
                let share = try await check(lab)
                #expect(share.pinnedHeldBytes == 4 << 20, "\(share)")

                // A clean stop saves what is in memory.
                try await lab.kill(.cloud, by: SIGTERM)
                try await lab.restart(.cloud)
                try await lab.untilServing("data")
                try await lab.untilServing("scratch")
                #expect(try await check(lab).pinnedHeldBytes == 4 << 20)
                try await write(lab, "data", "8M 110M")
                #expect(try await check(lab).pinnedHeldBytes == 4 << 20)
                try await refusals(lab)

                let cleared: CacheShare = try await json(lab, ["volume", "cache", "unpin", "data", "--start", "0", "--size", "128MiB"])
                #expect(cleared.pins.isEmpty)
                let _: CacheShare = try await json(lab, ["volume", "cache", "set", "scratch", "--partition", ""])
                let undivided: EdgeCache = try await json(lab, ["cache", "partition", "lab", "0"])
                #expect(undivided.partitions.isEmpty)
            }
        }

        /// The share of the volume with the pins; the partition must be in its bounds.
        private func check(_ lab: Lab) async throws -> CacheShare {
            let cache: EdgeCache = try await json(lab, ["cache", "show"])
            let partition = try #require(cache.partitions.first)
            #expect(partition.sizeBytes == 48 << 20)
            #expect((1 << 20...48 << 20).contains(partition.heldBytes ?? 0), "\(cache)")
            return try await json(lab, ["volume", "cache", "show", "data"])
        }

        /// What can't be leaves all as it is, and says in words what is wrong.
        private func refusals(_ lab: Lab) async throws {
            for (arguments, reason) in [
                (["cache", "partition", "lab", "0"], "still uses it"), (["cache", "partition", "other", "1GiB"], "the cache has room for"),
                (["cache", "partition", "other", "1KiB"], "needs at least"), (["cache", "resize", "32MiB"], "could not be divided"),
                (["volume", "cache", "set", "data", "--guaranteed", "1GiB"], "it can keep"),
                (["volume", "cache", "set", "data", "--partition", "nobody"], "there is no partition"),
                (["volume", "cache", "pin", "data", "--start", "127MiB", "--size", "2MiB"], "must lie on the volume"),
                (["volume", "cache", "show", "nobody"], "There is no volume"),
            ] {
                let result = try await Command.run(
                    "causeway", arguments,
                    environment: ["CAUSEWAY_API": lab.description.cloud.api, "CAUSEWAY_TOKEN": lab.description.cloud.token], seconds: 60)
                #expect(result.status == 1 && result.errors.contains(reason), "\(arguments): \(result)")
            }
            let onPrem = try await lab.causeway(.onprem, "volume", "cache", "show", "data")
            #expect(onPrem.status == 1 && onPrem.errors.contains("cloud edge"), "\(onPrem)")
        }
    }
}
