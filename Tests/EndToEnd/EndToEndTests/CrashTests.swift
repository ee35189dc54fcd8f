import APIModels
import Foundation
import Glibc
import Testing

extension EndToEndFaults {
    @Suite(.serialized)
    struct Crashes {
        /// `make soak` sets more.
        static let rounds = Int(ProcessInfo.processInfo.environment["CAUSEWAY_KILLS"] ?? "") ?? 4

        @Test(
            "SIGKILL of either daemon at random under verified writes to several volumes, by iSCSI and NBD: nothing acknowledged is lost, and the disks at home equal sealed points"
        )
        func kills() async throws {
            let loaded = ["first": "50", "second": "7"]
            let disks = [("first", 64 << 20), ("second", 32 << 20), ("block", 16 << 20), ("bridged", 8 << 20)]
            let options = ["--recovery-point-objective", "500ms", "--nbd", "--rtt", "2ms", "--rate", "1gbit"]
            try await Lab.with(disks: disks, options: options) { lab in
                // Long enough on a slow machine: they are told to end.
                let seconds = Self.rounds * 60
                let bridge = try await Bridge(to: lab.url("bridged"), in: lab.directory)
                defer { bridge.end() }
                var ledgers = [PointLedger(lab, "block"), PointLedger(lab, "bridged")]
                for ledger in ledgers {
                    let set = try await lab.causeway(.onprem, "volume", "set", ledger.volume, "--recovery-point-objective", "1h")
                    #expect(set.isSuccess, "\(set)")
                }
                var loads = [
                    try ledgers[0].start(lab.nbd("block"), seconds: seconds), try ledgers[1].start(bridge.url, seconds: seconds, seed: 2),
                ]
                for (name, flushes) in loaded { loads.append(try load(lab, name, seconds: seconds, flushes: flushes)) }
                for round in 0..<Self.rounds {
                    try await Task.sleep(for: .milliseconds(.random(in: 200...1_800)))
                    for load in loads where !load.isRunning { Issue.record("a load ended early: \(try await load.wait(seconds: 1))") }
                    // Either of them at random, and in few rounds each once.
                    if round < 2 ? round == 0 : Bool.random() {
                        try await lab.kill(.cloud)
                        try await lab.restart(.cloud)
                        // Mostly it is struck again while it recovers; but a log grows while its volume is not served, and takes longer each time.
                        if round % 8 >= 6 { for (name, _) in disks { try await lab.untilServing(name) } }
                    } else {
                        for ledger in ledgers { try await ledger.untilReceived() }
                        try await lab.kill(.onprem)
                        try await lab.relay("cut")
                        try await lab.restart(.onprem)
                        for index in ledgers.indices { try await ledgers[index].matchHome() }
                        try await lab.relay("restore")
                    }
                }
                for load in loads { load.signal(SIGTERM) }
                for load in loads {
                    let result = try await load.wait(seconds: 120)
                    #expect(result.isSuccess, "\(result)")
                }
                for name in loaded.keys { try await verify(lab, name) }
                for ledger in ledgers {
                    try await lab.seal(ledger.volume)
                    try await ledger.matchLast(lab.disk(ledger.volume))
                    try await compare(lab, ledger.volume)
                }
            }
        }

        /// A volume over iSCSI for who speaks NBD: QEMU's initiator, which comes back by itself.
        private final class Bridge {
            let url: String
            private let running: RunningCommand

            init(to target: String, in directory: URL) async throws {
                let socket = directory.appendingPathComponent("bridge.sock").path
                url = "nbd+unix:///?socket=\(socket)"
                running = try Command.start("qemu-nbd", ["-f", "raw", "-k", socket, "--persistent", "--shared=4", target])
                try await Lab.untilTrue(seconds: 30, "qemu-nbd to listen") { FileManager.default.fileExists(atPath: socket) }
            }

            func end() { running.signal(SIGKILL) }
        }

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
            // While daemons are killed all the time points hardly get home.
            try await lab.untilCaughtUp(name)
            try await lab.seal(name)
            for place in [lab.url(name), lab.disk(name)] {
                let result = try await Command.run("causeway-load", ["verify", place, ledger(lab, name), "--exact"], seconds: 120)
                #expect(result.isSuccess, "\(result)")
            }
            try await compare(lab, name)
        }

        private func compare(_ lab: Lab, _ name: String) async throws {
            let compared = try await Command.run(
                "qemu-img", ["compare", "-U", "-f", "raw", "-F", "raw", lab.url(name), lab.disk(name)], seconds: 240)
            #expect(compared.isSuccess, "\(compared)")
        }

        /// `make soak-cuts` sets more.
        static let cuts = Int(ProcessInfo.processInfo.environment["CAUSEWAY_CUTS"] ?? "") ?? 3

        @Test(
            "a line that is cut, goes silent and resets connections at any moment of mixed load: nothing lost, doubled or stuck, and memory stays"
        )
        func cuts() async throws {
            let loaded = ["first": "50", "second": "7", "third": "1000"]
            let disks = loaded.keys.sorted().map { ($0, 48 << 20) }
            try await Lab.with(
                disks: disks,
                options: ["--recovery-point-objective", "300ms", "--rtt", "10ms", "--rate", "200mbit", "--cache-size", "64MiB"]
            ) { lab in
                let seconds = Self.cuts * 60
                let loads = try loaded.map { try load(lab, $0.key, seconds: seconds, flushes: $0.value) }
                var resident: [Int] = []
                for cut in 0..<Self.cuts {
                    try await Task.sleep(for: .milliseconds(.random(in: 100...1_500)))
                    for load in loads where !load.isRunning { Issue.record("a load ended early: \(try await load.wait(seconds: 1))") }
                    if cut % 3 == 0 {
                        try await lab.relay("reset")
                        continue
                    }
                    try await lab.relay(cut % 3 == 1 ? "cut" : "cut blackhole")
                    try await Task.sleep(for: .milliseconds(.random(in: 50...2_500)))
                    try await lab.relay("restore")
                    resident.append(lab.residentKiB(.cloud) + lab.residentKiB(.onprem))
                }
                for load in loads { load.signal(SIGTERM) }
                for load in loads {
                    let result = try await load.wait(seconds: 120)
                    #expect(result.isSuccess, "\(result)")
                }
                for name in loaded.keys { try await verify(lab, name) }
                // As many as before all that, and none that is dead.
                try await Lab.untilTrue(seconds: 60, "eight connections") {
                    for side in [Lab.Side.cloud, .onprem] where try await lab.links(side).first?.connections != 8 { return false }
                    return true
                }
                // What the buffers of both take is theirs after the first cuts.
                let early = resident.prefix(max(1, resident.count / 2)).max() ?? 0
                let late = resident.suffix(max(1, resident.count / 2)).max() ?? 0
                #expect(late < early + 64 << 10, "KiB after each cut: \(resident)")
                print(
                    "cuts of the line: \(Self.cuts), memory of both edges \(early >> 10) MiB in the first half, \(late >> 10) MiB in the second"
                )
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
