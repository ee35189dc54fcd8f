import APIModels
import Foundation
import Testing

extension EndToEndFaults {
    @Suite(.serialized)
    struct Crashes {
        /// `make soak` sets more.
        static let rounds = Int(ProcessInfo.processInfo.environment["CAUSEWAY_KILLS"] ?? "") ?? 4

        @Test("SIGKILL of either daemon in turn under verified writes: nothing acknowledged is lost, and home equals the volume")
        func kills() async throws {
            try await Lab.with(disks: [("data", 64 << 20)], options: ["--recovery-point-objective", "500ms"]) { lab in
                let state = lab.directory.appendingPathComponent("load.state").path
                let load = try Command.start(
                    "causeway-load",
                    [
                        "run", lab.url("data"), "--mix", "30/70", "--block-size", "4KiB", "--queue-depth", "8", "--flush-every", "50",
                        "--fua", "5", "--rate-iops", "1500", "--runtime", "\(Self.rounds * 3)s", "--verify", state, "--reconnect", "60s",
                        "--target-keeps-writes",
                        "--json",
                    ])
                for round in 0..<Self.rounds {
                    try await Task.sleep(for: .milliseconds(1_000))
                    #expect(load.isRunning, "the load generator ended early")
                    let side: Lab.Side = round.isMultiple(of: 2) ? .cloud : .onprem
                    try await lab.kill(side)
                    try await lab.restart(side)
                }
                let result = try await load.wait(seconds: Double(Self.rounds * 10 + 60))
                #expect(result.isSuccess, "\(result)")
                try await lab.untilServing("data")
                try await lab.seal("data")
                let volume = try await Command.run("causeway-load", ["verify", lab.url("data"), state, "--exact"], seconds: 120)
                #expect(volume.isSuccess, "\(volume)")
                let home = try await Command.run("causeway-load", ["verify", lab.disk("data"), state, "--exact"], seconds: 120)
                #expect(home.isSuccess, "\(home)")
                let compared = try await Command.run(
                    "qemu-img", ["compare", "-U", "-f", "raw", "-F", "raw", lab.url("data"), lab.disk("data")], seconds: 240)
                #expect(compared.isSuccess, "\(compared)")
            }
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
