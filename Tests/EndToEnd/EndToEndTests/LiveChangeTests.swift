import APIModels
import Foundation
import Testing

extension EndToEnd {
    /// What an operator changes while a machine is at work: limits, disks that come and go, sizes, write protection.
    @Suite(.serialized)
    struct LiveChanges {
        /// What `causeway-load --json` reports.
        struct LoadReport: Decodable {
            struct Kind: Decodable {
                var operations: UInt64
                var operationsPerSecond: Double
                var bytesPerSecond: Double
            }
            var read: Kind
            var write: Kind
            var errors: Int
            var operationsPerSecond: Double { read.operationsPerSecond + write.operationsPerSecond }
            var bytesPerSecond: Double { read.bytesPerSecond + write.bytesPerSecond }
        }

        private func load(_ url: String, _ arguments: String...) async throws -> LoadReport {
            let output = try await Command.check("causeway-load", ["run", url, "--json"] + arguments, seconds: 120)
            return try JSONDecoder().decode(LoadReport.self, from: Data(output.utf8))
        }

        /// The operations that a machine did, by the volume's own count, in each second of a while.
        private func rate(_ lab: Lab, over time: Duration) async throws -> Double {
            func count() async throws -> (operations: Double, at: ContinuousClock.Instant) {
                let io = try await lab.status("data").io
                return (Double(io.reads + io.writes), .now)
            }
            let first = try await count()
            try await Task.sleep(for: time)
            let last = try await count()
            let elapsed = (last.at - first.at).components
            return (last.operations - first.operations) / (Double(elapsed.seconds) + Double(elapsed.attoseconds) / 1e18)
        }

        @Test("limits hold end to end, change under load, are shown, and end")
        func limits() async throws {
            try await Lab.with(disks: [("data", 32 << 20)]) { lab in
                let url = lab.url("data")
                let set = try await lab.causeway(.onprem, "volume", "limit", "data", "--iops", "100", "--iops-burst", "20")
                #expect(set.isSuccess, "\(set)")
                #expect(try await lab.status("data").limits == .init(operationsPerSecond: 100, burstOperations: 20))
                // The first second uses the burst up.
                let operations = try await load(url, "--mix", "50/50", "--queue-depth", "16", "--ramp", "1s", "--runtime", "5s")
                #expect(abs(operations.operationsPerSecond - 100) < 5, "\(operations)")
                // Reads and writes are served alike.
                #expect(abs(operations.read.operationsPerSecond - 50) < 15, "\(operations)")

                let running = try Command.start(
                    "causeway-load", ["run", url, "--mix", "70/30", "--queue-depth", "16", "--runtime", "120s", "--json"])
                // However slow the machine is, the load goes on until all was measured.
                defer { running.signal(SIGKILL) }
                for wanted in [100, 200, 50] {
                    _ = try await lab.causeway(.onprem, "volume", "limit", "data", "--iops", "\(wanted)", "--iops-burst", "10")
                    let measured = try await rate(lab, over: .milliseconds(2_500))
                    #expect(abs(measured - Double(wanted)) < Double(wanted) * 0.1, "\(wanted): \(measured)")
                }
                running.signal(SIGTERM)
                #expect(try await running.wait(seconds: 60).isSuccess)

                _ = try await lab.causeway(.onprem, "volume", "limit", "data", "--bandwidth", "2MiB", "--bandwidth-burst", "256KiB")
                let bytes = try await load(
                    url, "--mix", "50/50", "--block-size", "64KiB", "--queue-depth", "8", "--ramp", "1s", "--runtime", "4s")
                #expect(abs(bytes.bytesPerSecond - Double(2 << 20)) < Double(2 << 20) * 0.05, "\(bytes)")
                let shown = try await lab.causeway(.cloud, "volume", "show", "data")
                #expect(shown.output.contains("2.0 MiB/s (256 KiB at once)") && shown.output.contains("throttled"), "\(shown)")

                let lifted = try await lab.causeway(.onprem, "volume", "limit", "data", "--none")
                #expect(lifted.isSuccess, "\(lifted)")
                let status = try await lab.status("data")
                #expect(status.limits == nil)
                #expect((status.throttle?.operations ?? 0) > 500 && status.throttle?.refused == 0 && status.throttle?.waiting == 0)
                let metrics = try await lab.causeway(.cloud, "metrics")
                #expect(metrics.output.contains("causeway_volume_throttled_operations_total{volume=\"data\"}"))
                let free = try await load(url, "--queue-depth", "16", "--runtime", "2s")
                #expect(free.operationsPerSecond > 150, "\(free)")
            }
        }

        @Test("what limits can't be is refused, and a limit outlives a restart of both edges")
        func limitsOfLimits() async throws {
            try await Lab.with(disks: [("data", 16 << 20)]) { lab in
                for wrong in [["--iops", "0"], ["--bandwidth", "1KiB"], ["--iops-burst", "10"], [], ["--iops", "10", "--none"]] {
                    let edge = lab.edge(.onprem)
                    let refused = try await Command.run(
                        "causeway", ["volume", "limit", "data"] + wrong,
                        environment: ["CAUSEWAY_API": edge.api, "CAUSEWAY_TOKEN": edge.token], seconds: 30)
                    #expect(!refused.isSuccess, "\(refused)")
                }
                _ = try await lab.causeway(.onprem, "volume", "limit", "data", "--iops", "80", "--iops-burst", "1")
                for side in [Lab.Side.onprem, .cloud] {
                    try await lab.kill(side)
                    try await lab.restart(side)
                }
                try await lab.untilServing("data")
                let operations = try await load(lab.url("data"), "--queue-depth", "4", "--runtime", "3s")
                // Never more than the limit allows; how close to it depends on who else uses the machine.
                #expect(operations.operationsPerSecond < 84 && operations.operationsPerSecond > 20, "\(operations)")
                // A limit does not hold a detach up, and the cloud edge alone may not change it.
                #expect(try await !lab.causeway(.cloud, "volume", "limit", "data", "--none").isSuccess)
                #expect(try await lab.causeway(.onprem, "volume", "detach", "data").isSuccess)
            }
        }

        @Test("a disk grows under load, by the API, by a rescan and by SIGHUP, and the new range comes home")
        func grow() async throws {
            // The first end is in the middle of a block.
            try await Lab.with(disks: [("data", (32 << 20) - 1_536)], options: ["--recovery-point-objective", "500ms"]) { lab in
                let (url, disk) = (lab.url("data"), lab.disk("data"))
                let state = lab.directory.appendingPathComponent("load.state").path
                let running = try Command.start(
                    "causeway-load",
                    [
                        "run", url, "--mix", "50/50", "--queue-depth", "8", "--rate-iops", "300", "--runtime", "10s", "--verify", state,
                        "--range", "0-31MiB", "--flush-every", "100", "--reconnect", "60s", "--json",
                    ])
                try await Command.check("qemu-io", ["-f", "raw", "-c", "read -P 0 33552384 512", url], seconds: 30)
                let resized = try await lab.causeway(.onprem, "disk", "resize", "data", "40MiB")
                #expect(resized.isSuccess, "\(resized)")
                try await untilSize(lab, 40 << 20)
                // What the old end had cut off is there, and whole.
                let beyond = try await Command.check(
                    "qemu-io", ["-f", "raw", "-c", "write -P 0x77 33552384 4096", "-c", "read -P 0x77 33552384 4096", url], seconds: 30)
                #expect(!beyond.contains("failed"), "\(beyond)")

                try await Command.check("truncate", ["-s", "48M", disk])
                let noticed = try await lab.causeway(.onprem, "disk", "show", "data")
                #expect(noticed.output.contains("causeway disk rescan data"), "\(noticed)")
                #expect(try await lab.causeway(.onprem, "disk", "rescan", "data").isSuccess)
                try await untilSize(lab, 48 << 20)
                try await Command.check("truncate", ["-s", "56M", disk])
                _ = Glibc.kill(lab.edge(.onprem).pid, SIGHUP)
                try await untilSize(lab, 56 << 20)
                let capacity = try await Command.check("iscsi-readcapacity16", [url], seconds: 20)
                #expect(capacity.contains("\(56 << 20)"), "\(capacity)")

                for smaller in ["32MiB", "48MiB"] {
                    let refused = try await lab.causeway(.onprem, "disk", "resize", "data", smaller)
                    #expect(!refused.isSuccess && refused.errors.contains("less"), "\(refused)")
                }
                let second = lab.directory.appendingPathComponent("second.state").path
                let written = try await Command.run(
                    "causeway-load",
                    [
                        "run", url, "--mix", "30/70", "--queue-depth", "8", "--runtime", "3s", "--verify", second, "--range", "33MiB-56MiB",
                        "--reconnect", "60s",
                    ], seconds: 60)
                #expect(written.isSuccess, "\(written)")
                let result = try await running.wait(seconds: 60)
                #expect(result.isSuccess, "\(result)")
                try await lab.seal("data")
                for (source, ledger) in [(url, state), (disk, state), (url, second), (disk, second)] {
                    let verified = try await Command.run("causeway-load", ["verify", source, ledger, "--exact"], seconds: 60)
                    #expect(verified.isSuccess, "\(verified)")
                }
                let compared = try await Command.run(
                    "qemu-img", ["compare", "-U", "-f", "raw", "-F", "raw", url, disk], seconds: 240)
                #expect(compared.isSuccess, "\(compared)")
                let events = try await lab.causeway(.onprem, "events")
                #expect(events.output.components(separatedBy: "disk.grown").count == 4, "\(events)")
            }
        }

        private func untilSize(_ lab: Lab, _ bytes: UInt64) async throws {
            try await Lab.untilTrue(seconds: 20, "the cloud edge to serve \(bytes) bytes") {
                try await lab.status("data").sizeBytes == bytes
            }
        }

        @Test("a disk that shrank is not served until it is as large again")
        func shrink() async throws {
            try await Lab.with(disks: [("data", 32 << 20)]) { lab in
                try await Command.check(
                    "qemu-io", ["-f", "raw", "-c", "write -P 0x31 24M 1M", "-c", "flush", lab.url("data")], seconds: 30)
                try await lab.seal("data")
                let copy = lab.directory.appendingPathComponent("copy.img").path
                try await lab.kill(.onprem)
                try await Command.check("cp", [lab.disk("data"), copy])
                try await Command.check("truncate", ["-s", "16M", lab.disk("data")])
                try await lab.restart(.onprem)
                try await Lab.untilTrue(seconds: 30, "the shrunk disk to be refused") {
                    try await lab.causeway(.onprem, "disk", "show", "data").output.contains("less")
                }
                try await Command.check("cp", [copy, lab.disk("data")])
                try await lab.untilServing("data")
                let read = try await Command.check("qemu-io", ["-f", "raw", "-c", "read -P 0x31 24M 1M", lab.url("data")], seconds: 30)
                #expect(!read.contains("failed"), "\(read)")
            }
        }

        @Test("home stops while a detach waits for what is not home, and serves the volume on when it is back")
        func stopWhileDetaching() async throws {
            try await Lab.with(disks: [("data", 16 << 20)], options: ["--rtt", "5ms", "--rate", "2mbit"]) { lab in
                let noise = try Lab.makeNoise(in: lab.directory, mebibytes: 4)
                try await Command.check(
                    "qemu-io", ["-f", "raw", "-c", "write -s \(noise) 0 4M", "-c", "flush", lab.url("data")], seconds: 60)
                let detach = try Command.start(
                    "causeway", ["volume", "detach", "data", "--api", lab.edge(.onprem).api, "--token", lab.edge(.onprem).token])
                try await Lab.untilTrue(seconds: 10, "the detach to begin") {
                    try await lab.causeway(.onprem, "volume", "show", "data", "--output", "json").output.contains("\"detaching\"")
                }
                // Within 20 s: it does not wait for the points.
                try await lab.kill(.onprem, by: SIGTERM)
                detach.signal(SIGKILL)
                _ = try? await detach.wait(seconds: 10)
                try await lab.restart(.onprem)
                try await lab.untilServing("data")
                try await lab.untilCaughtUp("data")
                try await lab.check("data", hasAtItsStart: noise)
            }
        }

        @Test("a volume becomes read-only and writable again while it is served")
        func readOnly() async throws {
            try await Lab.with(disks: [("data", 16 << 20)]) { lab in
                let write = ["-f", "raw", "-c", "write -P 0x11 0 64k", "-c", "flush", lab.url("data")]
                try await Command.check("qemu-io", write, seconds: 30)
                let set = try await lab.causeway(.onprem, "volume", "set", "data", "--read-only")
                #expect(set.isSuccess && set.output.contains("read-only"), "\(set)")
                let refused = try await Command.run("qemu-io", write, seconds: 30)
                #expect(!refused.isSuccess || refused.output.contains("failed"), "\(refused)")
                let read = try await Command.check(
                    "qemu-io", ["-r", "-f", "raw", "-c", "read -P 0x11 0 64k", lab.url("data")], seconds: 30)
                #expect(!read.contains("failed"), "\(read)")
                #expect(try await lab.causeway(.onprem, "volume", "set", "data", "--no-read-only").isSuccess)
                try await Command.check("qemu-io", write, seconds: 30)
            }
        }

        @Test("disks of one machine share a target, and come and go while the others are under load")
        func units() async throws {
            try await Lab.with(disks: [("data", 32 << 20)], options: ["--recovery-point-objective", "500ms"]) { lab in
                let url = lab.url("data")
                let second = lab.directory.appendingPathComponent("second.img").path
                try await Command.check("truncate", ["-s", "16M", second])
                #expect(try await lab.causeway(.onprem, "disk", "add", "second", second).isSuccess)
                let state = lab.directory.appendingPathComponent("load.state").path
                let running = try Command.start(
                    "causeway-load",
                    [
                        "run", url, "--mix", "40/60", "--queue-depth", "8", "--rate-iops", "300", "--runtime", "15s", "--verify", state,
                        "--flush-every", "100", "--reconnect", "60s", "--json",
                    ])
                let created = try await lab.causeway(.onprem, "volume", "create", "extra", "--disk", "second", "--target", "data")
                #expect(created.isSuccess, "\(created)")
                let extra = try await lab.status("extra")
                #expect(extra.target?.logicalUnit == 1 && extra.target?.name == "data")
                #expect(try await extra.target?.iqn == lab.status("data").target?.iqn)
                let other = url.replacing(/\/0$/, with: "/1")
                for round in 1...3 {
                    let written = try await Command.check(
                        "qemu-io", ["-f", "raw", "-c", "write -P \(round) 0 1M", "-c", "flush", "-c", "read -P \(round) 0 1M", other],
                        seconds: 30)
                    #expect(!written.contains("failed"), "\(written)")
                    let detached = try await lab.causeway(.onprem, "volume", "detach", "extra")
                    #expect(detached.isSuccess && detached.output.contains("everything is at home"), "\(detached)")
                    let home = try await Command.check(
                        "qemu-io", ["-r", "-f", "raw", "-c", "read -P \(round) 0 1M", second], seconds: 30)
                    #expect(!home.contains("failed"), "\(home)")
                    #expect(try await !Command.run("iscsi-inq", [other], seconds: 20).isSuccess)
                    #expect(try await Command.run("iscsi-inq", [url], seconds: 20).isSuccess)
                    #expect(try await lab.causeway(.onprem, "volume", "attach", "extra").isSuccess)
                }
                let portal = url.replacing(/\/iqn.*/, with: "/")
                let listed = try await Command.check("iscsi-ls", ["-s", portal], seconds: 20)
                #expect(listed.contains("Lun:0") && listed.contains("Lun:1"), "\(listed)")
                // A machine that comes back after a crash of the edge finds both disks at once.
                let both = lab.directory.appendingPathComponent("both.state").path
                let loaded = try Command.start(
                    "causeway-load",
                    [
                        "run", other, "--mix", "40/60", "--queue-depth", "4", "--rate-iops", "200", "--runtime", "5s", "--verify", both,
                        "--flush-every", "50", "--reconnect", "60s",
                    ])
                let before = try await lab.status("extra").io.writes
                try await Lab.untilTrue(seconds: 20, "the second load to begin") { try await lab.status("extra").io.writes > before + 50 }
                try await lab.kill(.cloud)
                try await lab.restart(.cloud)
                for load in [running, loaded] {
                    let result = try await load.wait(seconds: 90)
                    #expect(result.isSuccess, "\(result)")
                }
                for name in ["data", "extra"] { try await lab.seal(name) }
                for (source, ledger) in [(url, state), (lab.disk("data"), state), (other, both), (second, both)] {
                    let verified = try await Command.run("causeway-load", ["verify", source, ledger], seconds: 60)
                    #expect(verified.isSuccess, "\(verified)")
                }
                #expect(try await lab.causeway(.onprem, "volume", "detach", "extra").isSuccess)
            }
        }

        @Test("what a target can't be is refused, and says so")
        func refusals() async throws {
            try await Lab.with(disks: [("data", 16 << 20)]) { lab in
                let second = lab.directory.appendingPathComponent("second.img").path
                try await Command.check("truncate", ["-s", "16M", second])
                #expect(try await lab.causeway(.onprem, "disk", "add", "second", second).isSuccess)
                func create(_ name: String, _ options: String...) async throws -> CommandResult {
                    let edge = lab.edge(.onprem)
                    return try await Command.run(
                        "causeway", ["volume", "create", name, "--disk", "second", "--no-attach"] + options,
                        environment: ["CAUSEWAY_API": edge.api, "CAUSEWAY_TOKEN": edge.token], seconds: 30)
                }
                for (options, words) in [
                    (["--target", "data", "--lun", "0"], "is the volume"), (["--target", "data", "--lun", "256"], "255"),
                    (["--target", "data", "--initiator", "iqn.x"], "leave it out"), (["--target", "-"], "target"),
                ] {
                    let edge = lab.edge(.onprem)
                    let refused = try await Command.run(
                        "causeway", ["volume", "create", "extra", "--disk", "second", "--no-attach"] + options,
                        environment: ["CAUSEWAY_API": edge.api, "CAUSEWAY_TOKEN": edge.token], seconds: 30)
                    #expect(!refused.isSuccess && refused.errors.contains(words), "\(refused)")
                }
                #expect(try await create("extra", "--target", "data", "--lun", "9").isSuccess)
                #expect(try await create("third", "--target", "shared").isSuccess)
                // Nobody who names no target means to put a disk into one that is there.
                let shared = try await create("shared")
                #expect(!shared.isSuccess && shared.errors.contains("--target shared"), "\(shared)")
                let shown = try await lab.causeway(.onprem, "volume", "show", "extra")
                #expect(shown.output.contains("causeway:data, logical unit 9"), "\(shown)")
                #expect(try await lab.causeway(.onprem, "volume", "delete", "extra").isSuccess)
                #expect(try await Command.run("iscsi-inq", [lab.url("data")], seconds: 20).isSuccess)
            }
        }
    }
}
