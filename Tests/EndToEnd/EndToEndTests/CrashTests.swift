import APIModels
import Foundation
import Testing

extension EndToEndFaults {
    @Suite(.serialized)
    struct Crashes {
        /// `make soak` sets more.
        static let rounds = Int(ProcessInfo.processInfo.environment["CAUSEWAY_KILLS"] ?? "") ?? 4

        @Test("SIGKILL of either daemon in turn under verified writes to several volumes, by iSCSI and NBD: nothing acknowledged is lost")
        func kills() async throws {
            let disks = [("first", 64 << 20), ("second", 32 << 20), ("block", 16 << 20)]
            try await Lab.with(disks: disks, options: ["--recovery-point-objective", "500ms", "--nbd"]) { lab in
                let seconds = Self.rounds * 3
                let loads = [
                    try load(lab, "first", seconds: seconds, flushes: "50"), try load(lab, "second", seconds: seconds, flushes: "7"),
                    try Command.start(Self.blockLedger, ["run", lab.nbd("block"), ledger(lab, "block"), "--seconds", "\(seconds)"]),
                ]
                for round in 0..<Self.rounds {
                    try await Task.sleep(for: .milliseconds(1_000))
                    for load in loads { #expect(load.isRunning, "a load ended early") }
                    let side: Lab.Side = round.isMultiple(of: 2) ? .cloud : .onprem
                    try await lab.kill(side)
                    try await lab.restart(side)
                }
                for load in loads {
                    let result = try await load.wait(seconds: Double(Self.rounds * 10 + 60))
                    #expect(result.isSuccess, "\(result)")
                }
                for (name, _) in disks { try await verify(lab, name) }
            }
        }

        /// Writes by NBD that are remembered as the load generator remembers its own.
        private static let blockLedger = URL(fileURLWithPath: #filePath)
            .deletingLastPathComponent().deletingLastPathComponent().appendingPathComponent("nbd-ledger").path

        private func ledger(_ lab: Lab, _ name: String) -> String { lab.directory.appendingPathComponent("\(name).state").path }

        private func load(_ lab: Lab, _ name: String, seconds: Int, flushes: String) throws -> RunningCommand {
            try Command.start(
                "causeway-load",
                [
                    "run", lab.url(name), "--mix", "30/70", "--block-size", "4KiB", "--queue-depth", "8", "--flush-every", flushes,
                    "--fua", "5", "--rate-iops", "1000", "--runtime", "\(seconds)s", "--verify", ledger(lab, name), "--reconnect", "60s",
                    "--target-keeps-writes", "--json",
                ])
        }

        /// The volume and the disk at home hold what was acknowledged, and the same.
        private func verify(_ lab: Lab, _ name: String) async throws {
            try await lab.untilServing(name)
            try await lab.seal(name)
            for place in [name == "block" ? lab.nbd(name) : lab.url(name), lab.disk(name)] {
                let result =
                    name == "block"
                    ? try await Command.run(Self.blockLedger, ["verify", place, ledger(lab, name)], seconds: 120)
                    : try await Command.run("causeway-load", ["verify", place, ledger(lab, name), "--exact"], seconds: 120)
                #expect(result.isSuccess, "\(result)")
            }
            let compared = try await Command.run(
                "qemu-img", ["compare", "-U", "-f", "raw", "-F", "raw", lab.url(name), lab.disk(name)], seconds: 240)
            #expect(compared.isSuccess, "\(compared)")
        }

        @Test("a cut link: cached reads and writes go on, the backlog is shown, and it follows by itself")
        func cut() async throws {
            try await Lab.with(disks: [("data", 32 << 20)], options: ["--rtt", "10ms", "--rate", "200mbit"]) { lab in
                let url = lab.url("data")
                try await Command.check("qemu-io", ["-f", "raw", "-c", "write -P 1 0 4M", "-c", "flush", url])
                try await lab.seal("data")
                try await lab.relay("cut")
                try await Lab.untilTrue(seconds: 30, "the cut to be noticed") { try await lab.status("data").state == .linkDown }
                let offline = try await Command.check(
                    "qemu-io",
                    ["-f", "raw", "-c", "read -P 1 0 4M", "-c", "write -P 2 8M 4M", "-c", "flush", "-c", "read -P 2 8M 4M", url],
                    seconds: 30)
                #expect(!offline.contains("failed"), "\(offline)")
                let backlog = try #require(await lab.status("data").unsent)
                #expect(backlog.bytes >= 4 << 20)
                #expect((backlog.oldestSeconds ?? 0) >= 0)
                try await lab.relay("restore")
                try await lab.seal("data")
                #expect(try await lab.status("data").unsent?.bytes == 0)
                let compared = try await Command.run(
                    "qemu-img", ["compare", "-U", "-f", "raw", "-F", "raw", url, lab.disk("data")], seconds: 240)
                #expect(compared.isSuccess, "\(compared)")
                try await resizeCache(lab)
                try await loseCache(lab)
            }
        }

        private func cache(_ lab: Lab, _ arguments: String...) async throws -> EdgeCache {
            let result = try await Command.run(
                "causeway", ["cache"] + arguments + ["--output", "json"],
                environment: ["CAUSEWAY_API": lab.description.cloud.api, "CAUSEWAY_TOKEN": lab.description.cloud.token], seconds: 60)
            guard result.isSuccess else { throw CommandFailure(description: result.description) }
            return try APICoding.decoder().decode(EdgeCache.self, from: Data(result.output.utf8))
        }

        /// The cache gets other sizes while it serves, keeps what it holds where it can, and refuses a size that has no room.
        private func resizeCache(_ lab: Lab) async throws {
            let held = try await cache(lab, "show").blocks
            let smaller = try await cache(lab, "resize", "64MiB", "--wait")
            #expect(smaller.wantedSizeBytes == smaller.sizeBytes && smaller.sizeBytes <= 64 << 20 && smaller.sizeBytes > 56 << 20)
            #expect(smaller.state == .running && smaller.isOwnSize && smaller.blocks > 0 && smaller.blocks <= held, "\(smaller)")
            for refused in ["4TiB", "1MiB", "16MiB"] {
                #expect(try await !lab.causeway(.cloud, "cache", "resize", refused).isSuccess, "\(refused)")
            }
            #expect(try await cache(lab, "show").wantedSizeBytes == smaller.sizeBytes)
            #expect(try await cache(lab, "resize", "128MiB").sizeBytes > 120 << 20)
        }

        /// The cache holds something else one day: the edge serves without it, leaves that alone, says so, and takes the cache when it is
        /// one again.
        private func loseCache(_ lab: Lab) async throws {
            let size = try await cache(lab, "show").sizeBytes
            let path = URL(fileURLWithPath: lab.description.cloud.state).appendingPathComponent("cache")
            try await lab.kill(.cloud)
            let foreign = Data(repeating: 0x53, count: 1 << 20)
            try foreign.write(to: path)
            try await lab.restart(.cloud)
            try await lab.untilServing("data")
            let reads = ["-f", "raw", "-c", "read -P 1 0 4M", "-c", "read -P 2 8M 4M", lab.url("data")]
            #expect(try await !Command.check("qemu-io", reads, seconds: 60).contains("failed"))
            let lost = try await cache(lab, "show")
            #expect(lost.state == .unusable && lost.message?.contains("holds something else") == true && lost.hits == 0, "\(lost)")
            #expect(try await lab.causeway(.cloud, "status").output.contains("cache"))
            #expect(try Data(contentsOf: path) == foreign)
            try Data().write(to: path)
            try await Lab.untilTrue(seconds: 30, "the cache to be taken") { try await cache(lab, "show").state == .running }
            for _ in 0..<2 { #expect(try await !Command.check("qemu-io", reads, seconds: 60).contains("failed")) }
            let found = try await cache(lab, "show")
            // One that is made anew has segments that suit its size.
            #expect(
                found.sizeBytes >= size && found.sizeBytes <= 128 << 20 && found.isOwnSize && found.blocks > 0 && found.hits > 0, "\(found)"
            )
            #expect(try await lab.causeway(.cloud, "events", "--output", "json").output.contains("cache.recovered"))
        }
    }
}
