import Foundation
import Testing

extension EndToEnd {
    @Suite(.serialized)
    struct Crashes {
        /// `make soak` sets more.
        static let rounds = Int(ProcessInfo.processInfo.environment["CAUSEWAY_KILLS"] ?? "") ?? 6

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
            }
        }
    }
}
