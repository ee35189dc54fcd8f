import APIModels
import Foundation
import Glibc
import Testing

extension EndToEndShortage {
    /// A write log under pressure: what crosses the line, what the operator hears, how writers slow down and go on.
    @Suite(.serialized)
    struct Pressure {
        private func sentWriteBehind(_ lab: Lab) async throws -> UInt64 {
            let result = try await lab.causeway(.cloud, "link", "list", "--output", "json")
            let links = try APICoding.decoder().decode([APIModels.Link].self, from: Data(result.output.utf8))
            return links.flatMap(\.traffic).filter { $0.trafficClass == "writeBehind" }.reduce(0) { $0 + $1.sentBytes }
        }

        private func eventKinds(_ lab: Lab) async throws -> [String] {
            let result = try await lab.causeway(.cloud, "events", "--output", "json")
            return try result.output.split(separator: "\n").map {
                try APICoding.decoder().decode(APIModels.Event.self, from: Data($0.utf8)).kind
            }
        }

        /// A volume and its disk at home hold the same.
        private func compare(_ lab: Lab) async throws {
            let compared = try await Command.run(
                "qemu-img", ["compare", "-U", "-f", "raw", "-F", "raw", lab.url("data"), lab.disk("data")], seconds: 240)
            #expect(compared.isSuccess, "\(compared)")
        }

        /// How many overwrites: `make soak-overwrites` makes 100,000.
        static let overwrites = Int(ProcessInfo.processInfo.environment["CAUSEWAY_OVERWRITES"] ?? "") ?? 20_000

        @Test("flushed overwrites of 1,000 blocks within one point cross the link as at most 1,000 blocks")
        func consolidation() async throws {
            try await Lab.with(disks: [("data", 64 << 20)], options: ["--log-size", "4GiB", "--recovery-point-objective", "1h"]) { lab in
                let before = try await sentWriteBehind(lab)
                let points = try await lab.status("data").points.lastSealed
                let state = lab.directory.appendingPathComponent("load.state").path
                // Each write is flushed before it is answered: they all have FUA.
                try await Command.check(
                    "causeway-load",
                    [
                        "run", lab.url("data"), "--write", "--block-size", "4KiB", "--operations", "\(Self.overwrites)", "--fua", "100",
                        "--queue-depth", "128", "--range", "0-4096000", "--verify", state,
                    ], seconds: 600)
                let unsent = try await lab.status("data")
                #expect(unsent.io.writes >= Self.overwrites)
                #expect(unsent.points.lastSealed == points && unsent.unsent?.bytes == 1_000 * 4_096, "it is one point")
                #expect(try await sentWriteBehind(lab) == before, "nothing crosses before the seal")
                try await lab.seal("data")
                #expect(try await lab.status("data").points.lastSealed == points + 1)
                // What is sent besides the blocks: the heads of messages of 4 to 16 KiB.
                let sent = try await sentWriteBehind(lab) - before
                #expect(sent >= 1_000 * 4_096 && sent <= 1_000 * 4_096 / 100 * 102, "\(sent) bytes crossed")
                let home = try await Command.run("causeway-load", ["verify", lab.disk("data"), state, "--exact"], seconds: 120)
                #expect(home.isSuccess, "\(home)")
            }
        }

        @Test("a log that fills is told, slows its writers, and grows while they wait; the size outlives a restart")
        func growing() async throws {
            try await Lab.with(disks: [("data", 256 << 20)], options: ["--log-size", "16MiB", "--rtt", "10ms"]) { lab in
                try await lab.relay("cut")
                // More than fits: with the line down it can't end before the log grows.
                let writer = try Command.start(
                    "causeway-load",
                    [
                        "run", lab.url("data"), "--write", "--pattern", "sequential", "--block-size", "64KiB", "--bytes", "48MiB",
                        "--queue-depth", "4", "--timeout", "60s", "--json",
                    ])
                try await Lab.untilTrue(seconds: 60, "the log to be nearly full") {
                    (try await lab.status("data").writeLog?.usedPercent ?? 0) > 90
                }
                let shown = try await lab.causeway(.cloud, "volume", "show", "data")
                #expect(shown.output.contains("write log") && shown.output.contains("of 16.0 MiB"), "\(shown)")
                let told = try await eventKinds(lab).filter { $0 == "log.filling" }
                #expect(told.count >= 2, "\(told)")
                #expect(writer.isRunning, "it waits")
                // Home can't be reached, and need not be.
                let grown = try await lab.causeway(.cloud, "volume", "set", "data", "--log-size", "128MiB")
                #expect(grown.isSuccess, "\(grown)")
                let result = try await writer.wait(seconds: 60)
                #expect(result.isSuccess, "\(result)")
                var log = try #require(try await lab.status("data").writeLog)
                #expect(log.sizeBytes == 128 << 20 && log.isOwnSize && log.usedBytes > 48 << 20 && log.waitedWrites > 0)
                // Too small, and what is home's to say.
                #expect(try await !lab.causeway(.cloud, "volume", "set", "data", "--log-size", "1MiB").isSuccess)
                #expect(try await !lab.causeway(.cloud, "volume", "set", "data", "--log-size", "32MiB", "--read-only").isSuccess)
                try await lab.relay("restore")
                try await lab.kill(.cloud)
                try await lab.restart(.cloud)
                try await lab.untilServing("data")
                log = try #require(try await lab.status("data").writeLog)
                #expect(log.sizeBytes == 128 << 20 && log.isOwnSize)
                try await lab.seal("data")
                try await compare(lab)
                // From home, back to the edge's own; and that by the configuration.
                let followed = try await lab.causeway(.onprem, "volume", "set", "data", "--log-size", "0")
                #expect(followed.isSuccess, "\(followed)")
                #expect(try await lab.status("data").writeLog?.sizeBytes == 16 << 20)
                let config = lab.edge(.cloud).config
                let text = try String(contentsOfFile: config, encoding: .utf8)
                try text.replacing("size: 16MiB", with: "size: 64MiB").write(toFile: config, atomically: true, encoding: .utf8)
                _ = Glibc.kill(lab.edge(.cloud).pid, SIGHUP)
                try await Lab.untilTrue(seconds: 10, "the configuration to be taken over") {
                    try await lab.status("data").writeLog?.sizeBytes == 64 << 20
                }
            }
        }
    }
}
