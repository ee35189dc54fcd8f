import APIModels
import Foundation
import Testing

extension EndToEndShortage {
    /// Partitions, shares and pins of the cache, as an operator sees them.
    @Suite(.serialized)
    struct CacheShares {
        private func causeway(_ lab: Lab, _ arguments: [String]) async throws -> CommandResult {
            try await Command.run(
                "causeway", arguments,
                environment: ["CAUSEWAY_API": lab.description.cloud.api, "CAUSEWAY_TOKEN": lab.description.cloud.token], seconds: 60)
        }

        private func json<Answer: Decodable>(_ lab: Lab, _ arguments: [String]) async throws -> Answer {
            let result = try await causeway(lab, arguments + ["--output", "json"])
            guard result.isSuccess else { throw CommandFailure(description: result.description) }
            return try APICoding.decoder().decode(Answer.self, from: Data(result.output.utf8))
        }

        /// Writes blocks of which none is equal to another.
        private func write(_ lab: Lab, _ volume: String, startMebibytes start: Int, mebibytes: Int) async throws {
            let noise = try Lab.makeNoise(in: lab.directory, mebibytes: mebibytes)
            let command = "write -s \(noise) \(start)M \(mebibytes)M"
            try await Command.check("qemu-io", ["-f", "raw", "-c", command, "-c", "flush", lab.url(volume)], seconds: 60)
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
                #expect(divided.partitions?.map(\.name) == ["lab"] && !divided.isLoosened)
                let moved: CacheShare = try await json(lab, ["volume", "cache", "set", "scratch", "--partition", "lab"])
                #expect(moved.partition == "lab")

                try await write(lab, "data", startMebibytes: 0, mebibytes: 4)
                try await write(lab, "scratch", startMebibytes: 0, mebibytes: 100)
                try await write(lab, "data", startMebibytes: 8, mebibytes: 110)
                let share = try await check(lab)
                #expect(share.pinnedHeldBytes == 4 << 20, "\(share)")

                // A clean stop saves what is in memory.
                try await lab.kill(.cloud, by: SIGTERM)
                try await lab.restart(.cloud)
                try await lab.untilServing("data")
                try await lab.untilServing("scratch")
                #expect(try await check(lab).pinnedHeldBytes == 4 << 20)
                try await write(lab, "data", startMebibytes: 8, mebibytes: 110)
                #expect(try await check(lab).pinnedHeldBytes == 4 << 20)
                try await refusals(lab)

                try await numbers(lab)

                let cleared: CacheShare = try await json(lab, ["volume", "cache", "unpin", "data", "--start", "0", "--size", "128MiB"])
                #expect(cleared.pins.isEmpty)
                let _: CacheShare = try await json(lab, ["volume", "cache", "set", "scratch", "--partition", ""])
                let undivided: EdgeCache = try await json(lab, ["cache", "partition", "lab", "0"])
                #expect(undivided.partitions == [])
            }
        }

        @Test("SIGKILL while shares change: what was answered is in force, and never half of a change")
        func kills() async throws {
            try await Lab.with(disks: [("data", 64 << 20)], options: ["--cache-size", "128MiB"]) { lab in
                var kept: UInt64 = 0
                for round in 1...4 {
                    // At some time among the changes.
                    let pid = lab.edge(.cloud).pid
                    let killing = try Command.start("sh", ["-c", "sleep 0.\(2 * round); kill -9 \(pid)"])
                    var (answered, asked) = (kept, kept)
                    for step in 1...40 {
                        asked = UInt64(round * 64 + step) << 12
                        let change = ["volume", "cache", "set", "data", "--guaranteed", "\(asked)", "--most", "\((20 << 20) + asked)"]
                        guard try await causeway(lab, change).isSuccess else { break }
                        answered = asked
                    }
                    _ = try await killing.wait(seconds: 20)
                    try await lab.kill(.cloud)
                    try await lab.restart(.cloud)
                    try await lab.untilServing("data")
                    let share: CacheShare = try await json(lab, ["volume", "cache", "show", "data"])
                    #expect([answered, asked].contains(share.guaranteedBytes), "\(share) after \(answered)")
                    kept = share.guaranteedBytes
                    #expect(share.mostBytes == nil || share.mostBytes == (20 << 20) + share.guaranteedBytes, "\(share)")
                }
                // Changes at the same time are kept in the order in which they are in force.
                let (api, token) = (lab.description.cloud.api, lab.description.cloud.token)
                try await withThrowingTaskGroup { group in
                    for megabytes in 13...18 {
                        group.addTask {
                            try await Command.check(
                                "causeway", ["volume", "cache", "set", "data", "--guaranteed", "0", "--most", "\(megabytes)MiB"],
                                environment: ["CAUSEWAY_API": api, "CAUSEWAY_TOKEN": token], seconds: 60)
                        }
                    }
                    try await group.waitForAll()
                }
                let last: CacheShare = try await json(lab, ["volume", "cache", "show", "data"])
                try await lab.kill(.cloud)
                try await lab.restart(.cloud)
                try await lab.untilServing("data")
                #expect(try await json(lab, ["volume", "cache", "show", "data"]) == last && last.mostBytes != nil)
            }
        }

        @Test("partitions that are made and removed at the same time are all made, and all removed")
        func partitionsAtOnce() async throws {
            try await Lab.with(disks: [("data", 16 << 20)], options: ["--cache-size", "128MiB"]) { lab in
                let (api, token) = (lab.description.cloud.api, lab.description.cloud.token)
                for size in ["12MiB", "0"] {
                    try await withThrowingTaskGroup { group in
                        for number in 1...4 {
                            group.addTask {
                                try await Command.check(
                                    "causeway", ["cache", "partition", "part-\(number)", size],
                                    environment: ["CAUSEWAY_API": api, "CAUSEWAY_TOKEN": token], seconds: 60)
                            }
                        }
                        try await group.waitForAll()
                    }
                    let names = size == "0" ? [] : (1...4).map { "part-\($0)" }
                    let cache: EdgeCache = try await json(lab, ["cache", "show"])
                    #expect(cache.partitions?.map(\.name) == names, "\(cache)")
                    try await lab.kill(.cloud)
                    try await lab.restart(.cloud)
                    try await lab.untilServing("data")
                    let again: EdgeCache = try await json(lab, ["cache", "show"])
                    #expect(again.partitions?.map(\.name) == names, "\(again)")
                }
            }
        }

        /// A state directory that takes no changes: the one is refused, and the share of a volume that leaves goes nevertheless.
        @Test(
            "what can't be kept is refused and changes nothing; a detached volume's share goes for good",
            .enabled(FullDisks.withoutFileSystem, LabFileSystem.isPossible)
        )
        func unkept() async throws {
            try await Lab.with(disks: [("data", 64 << 20), ("other", 64 << 20)], options: ["--cache-size", "128MiB"], stateMebibytes: 640) {
                lab in
                let before: CacheShare = try await json(lab, ["volume", "cache", "pin", "data", "--start", "0", "--size", "4MiB"])
                let _: CacheShare = try await json(lab, ["volume", "cache", "set", "other", "--guaranteed", "8MiB"])
                try await lab.fileSystem(.makeImmutable)
                let refused = try await causeway(lab, ["volume", "cache", "set", "data", "--guaranteed", "20MiB"])
                #expect(refused.status == 1 && refused.errors.contains("mend its file system"), "\(refused)")
                #expect(try await json(lab, ["volume", "cache", "show", "data"]) == before)

                // Nobody keeps that the first is gone before the daemon ends, and the second goes while it is away.
                let detached = try await lab.causeway(.onprem, "volume", "detach", "data", "--force")
                #expect(detached.isSuccess, "\(detached)")
                try await Lab.untilTrue(seconds: 30, "its end at the cloud edge") {
                    try await !causeway(lab, ["volume", "show", "data"]).isSuccess
                }
                try await lab.kill(.cloud)
                try await lab.fileSystem(.makeMutable)
                let mountPoint = try #require(lab.fileSystem).mountPoint
                let kept = { try Data(contentsOf: URL(fileURLWithPath: "/proc/\(lab.edge(.onprem).pid)/root\(mountPoint)/cache-division")) }
                let withShares = try kept()
                try await lab.causeway(.onprem, "volume", "detach", "other", "--force")
                try await lab.restart(.cloud)
                for volume in ["data", "other"] {
                    let attached = try await lab.causeway(.onprem, "volume", "attach", volume)
                    #expect(attached.isSuccess, "\(attached)")
                    try await lab.untilServing(volume)
                    let share: CacheShare = try await json(lab, ["volume", "cache", "show", volume])
                    #expect(share == CacheShare(volume: volume), "\(share)")
                }
                // Nobody can read it; each time that it is kept it has another salt.
                try await Lab.untilTrue(seconds: 30, "another division in the file") { try kept() != withShares }
            }
        }

        /// The share of the volume with the pins; the partition must be in its bounds.
        private func check(_ lab: Lab) async throws -> CacheShare {
            let cache: EdgeCache = try await json(lab, ["cache", "show"])
            let partition = try #require(cache.partitions?.first)
            #expect(partition.sizeBytes == 48 << 20)
            #expect((1 << 20...48 << 20).contains(partition.heldBytes), "\(cache)")
            return try await json(lab, ["volume", "cache", "show", "data"])
        }

        /// Partitions are in the metrics, and what was read stays counted when its volume is gone.
        private func numbers(_ lab: Lab) async throws {
            // Twice as much as the partition has.
            try await Command.check("qemu-io", ["-r", "-f", "raw", "-c", "read 0 100M", lab.url("scratch")], seconds: 60)
            let before: EdgeCache = try await json(lab, ["cache", "show"])
            #expect(before.misses >= 8_192 && before.heldBytes >= before.storedBytes && before.storedBytes > 0, "\(before)")
            let metrics = try await causeway(lab, ["metrics"]).output
            let sample = #"causeway_cache_partition_missed_blocks_total{partition="lab"} "#
            let line = try #require(metrics.split(separator: "\n").first { $0.hasPrefix(sample) }, "\(metrics)")
            #expect(Int(line.dropFirst(sample.count)) ?? 0 >= 8_192, "\(line)")
            for name in ["held_bytes", "hit_blocks_total"] {
                for partition in ["lab", "shared"] {
                    #expect(metrics.contains(#"causeway_cache_partition_\#(name){partition="\#(partition)"} "#), "\(name)")
                }
            }
            #expect(metrics.contains("causeway_cache_loosened 0") && metrics.contains(#"partition_size_bytes{partition="lab"} 50331648"#))
            let detached = try await lab.causeway(.onprem, "volume", "detach", "scratch")
            #expect(detached.isSuccess, "\(detached)")
            try await Lab.untilTrue(seconds: 30, "its end at the cloud edge") {
                try await !causeway(lab, ["volume", "show", "scratch"]).isSuccess
            }
            let after: EdgeCache = try await json(lab, ["cache", "show"])
            #expect(after.misses >= before.misses && after.hits >= before.hits, "\(after)")
            try await lab.causeway(.onprem, "volume", "attach", "scratch")
            try await lab.untilServing("scratch")
        }

        /// What can't be leaves all as it is, and says in words what is wrong.
        private func refusals(_ lab: Lab) async throws {
            for (arguments, reason) in [
                (["cache", "partition", "lab", "0"], "still used by “scratch”"),
                (["cache", "partition", "other", "1GiB"], "the cache has room for"),
                (["cache", "partition", "other", "0"], "no partition “other”"),
                (["cache", "partition", "other", "1KiB"], "must have at least 12MiB"),
                (["cache", "resize", "32MiB"], "could not stay divided"),
                (["volume", "cache", "set", "data", "--guaranteed", "1GiB"], "it can keep"),
                (["volume", "cache", "set", "data", "--partition", "nobody"], "there is no partition"),
                (["volume", "cache", "set", "data", "--partition", "shared"], "choose that one by an empty name"),
                (["volume", "cache", "pin", "data", "--start", "127MiB", "--size", "2MiB"], "must lie on the volume"),
                (["volume", "cache", "show", "nobody"], "There is no volume"),
            ] {
                let result = try await causeway(lab, arguments)
                #expect(result.status == 1 && result.errors.contains(reason), "\(arguments): \(result)")
            }
            let onPrem = try await lab.causeway(.onprem, "volume", "cache", "show", "data")
            #expect(onPrem.status == 1 && onPrem.errors.contains("cloud edge"), "\(onPrem)")
        }
    }
}
