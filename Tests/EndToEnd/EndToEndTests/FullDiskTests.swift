import APIModels
import Foundation
import Testing

extension EndToEndShortage {
    /// Logs, disks and file systems that take no more for a while: no daemon ends, nothing that was flushed is lost, and work goes on
    /// by itself.
    @Suite(.serialized)
    struct FullDisks {
        static let withoutFileSystem: Comment = "needs root, mount namespaces and loop devices"

        /// Stamped writes, some of them with FUA, in the background; each byte is checked later by what `state` says was promised.
        private func startLoad(_ lab: Lab, bytes: String, depth: Int, keepsWrites: Bool = true) throws -> RunningCommand {
            try Command.start(
                "causeway-load",
                [
                    "run", lab.url("data"), "--write", "--block-size", "64KiB", "--bytes", bytes, "--queue-depth", "\(depth)",
                    "--flush-every", "20", "--fua", "5", "--verify", state(lab), "--reconnect", "60s", "--timeout", "60s",
                    "--rate-iops", "200",
                ] + (keepsWrites ? ["--target-keeps-writes"] : []))
        }

        private func state(_ lab: Lab) -> String { lab.directory.appendingPathComponent("load.state").path }

        private func events(_ lab: Lab) async throws -> [String] {
            let result = try await lab.causeway(.cloud, "events", "--output", "json")
            guard result.isSuccess else { throw CommandFailure(description: result.description) }
            return try result.output.split(separator: "\n").map {
                try APICoding.decoder().decode(APIModels.Event.self, from: Data($0.utf8)).kind
            }
        }

        private func untilTold(_ kinds: String..., in lab: Lab) async throws {
            try await Lab.untilTrue(seconds: 60, "the event \(kinds)") { try await events(lab).contains { kinds.contains($0) } }
        }

        /// The load ends well, and the volume and the disk at home hold what was promised; the daemons are those that were started.
        private func checkAllIsThere(_ lab: Lab, after load: RunningCommand) async throws {
            let result = try await load.wait(seconds: 120)
            #expect(result.isSuccess, "\(result)")
            try await checkAllIsThere(lab, exact: true)
        }

        /// The same; with `exact` every acknowledged write must be there, flushed or not.
        private func checkAllIsThere(_ lab: Lab, exact: Bool) async throws {
            #expect(!Lab.hasEnded(lab.edge(.cloud).pid) && !Lab.hasEnded(lab.edge(.onprem).pid))
            try await lab.seal("data")
            for place in [lab.url("data"), lab.disk("data")] {
                let verified = try await Command.run(
                    "causeway-load", ["verify", place, state(lab)] + (exact ? ["--exact"] : []), seconds: 120)
                #expect(verified.isSuccess, "\(verified)")
            }
            let compared = try await Command.run(
                "qemu-img", ["compare", "-U", "-f", "raw", "-F", "raw", lab.url("data"), lab.disk("data")], seconds: 240)
            #expect(compared.isSuccess, "\(compared)")
        }

        @Test("a full log: writers wait, and go on when the line is back")
        func log() async throws {
            try await Lab.with(disks: [("data", 32 << 20)], options: ["--rtt", "10ms", "--log-size", "16MiB"]) { lab in
                try await lab.relay("cut")
                let load = try startLoad(lab, bytes: "32MiB", depth: 64)
                try await untilTold("log.full", in: lab)
                #expect(try await lab.status("data").state == .full)
                #expect(load.isRunning)
                try await lab.relay("restore")
                try await checkAllIsThere(lab, after: load)
            }
        }

        @Test(
            "a full file system under the cloud edge: writers wait, and go on when there is room",
            .enabled(FullDisks.withoutFileSystem, LabFileSystem.isPossible))
        func fileSystem() async throws {
            let options = ["--rtt", "10ms", "--log-size", "256MiB", "--cache-size", "16MiB"]
            try await Lab.with(disks: [("data", 32 << 20)], options: options, stateMebibytes: 96) { lab in
                try await lab.fileSystem(.fill(leavingMiB: 8))
                try await lab.relay("cut")
                let load = try startLoad(lab, bytes: "24MiB", depth: 8)
                try await untilTold("log.no_space", in: lab)
                #expect(try await lab.status("data").state == .full)
                #expect(load.isRunning)
                try await lab.fileSystem(.empty)
                try await untilTold("log.writable", in: lab)
                try await lab.relay("restore")
                try await checkAllIsThere(lab, after: load)
            }
        }

        @Test(
            "a cache that grows beside the logs leaves them their room",
            .enabled(FullDisks.withoutFileSystem, LabFileSystem.isPossible))
        func cacheBesideLogs() async throws {
            let options = ["--rtt", "2ms", "--log-size", "64MiB", "--cache-size", "192MiB", "--recovery-point-objective", "300ms"]
            try await Lab.with(disks: [("data", 256 << 20)], options: options, stateMebibytes: 256) { lab in
                for start in stride(from: 0, to: 240, by: 16) {
                    let noise = try Lab.makeNoise(in: lab.directory, mebibytes: 16)
                    try await Command.check(
                        "qemu-io", ["-f", "raw", "-c", "write -s \(noise) \(start)M 16M", "-c", "flush", lab.url("data")], seconds: 60)
                    try await lab.seal("data")
                }
                let cache = try await lab.causeway(.cloud, "cache", "show")
                #expect(cache.output.contains("no room for") && cache.output.contains("Free some there"), "\(cache)")
                #expect(cache.output.contains("bounded"), "\(cache)")
                let grown = try await lab.causeway(.cloud, "cache", "resize", "224MiB")
                #expect(grown.errors.contains("write logs may still take"), "\(grown)")
                #expect(try await events(lab).count { $0 == "cache.bounded" } == 1)
                try await lab.relay("cut")
                try await Command.check(
                    "qemu-io", ["-f", "raw", "-c", "write -P 8 0 48M", "-c", "flush", lab.url("data")], seconds: 60)
                #expect(try await lab.status("data").state != .full)
                try await lab.relay("restore")
                try await lab.seal("data")
                #expect(try await events(lab).allSatisfy { !["log.no_space", "log.full"].contains($0) })
            }
        }

        /// What the cache has taken it gives back to nobody, also not to a log that can be opened at last.
        @Test(
            "a cache beside the log of a volume that can't be opened leaves it its room",
            .enabled(FullDisks.withoutFileSystem, LabFileSystem.isPossible))
        func cacheBesideAnUnopenedLog() async throws {
            let options = ["--rtt", "2ms", "--log-size", "64MiB", "--cache-size", "192MiB", "--recovery-point-objective", "300ms"]
            try await Lab.with(disks: [("data", 256 << 20), ("other", 16 << 20)], options: options, stateMebibytes: 256) { lab in
                let state = "/proc/\(lab.edge(.onprem).pid)/root\(try #require(lab.fileSystem).mountPoint)"
                let identifier = try await lab.status("other").identifier
                try await lab.kill(.cloud)
                try Data("{".utf8).write(to: URL(fileURLWithPath: "\(state)/volumes/\(identifier)/regions"))
                try await lab.restart(.cloud)
                try await lab.untilServing("data")
                for start in stride(from: 0, to: 240, by: 16) {
                    let noise = try Lab.makeNoise(in: lab.directory, mebibytes: 16)
                    try await Command.check(
                        "qemu-io", ["-f", "raw", "-c", "write -s \(noise) \(start)M 16M", "-c", "flush", lab.url("data")], seconds: 60)
                    try await lab.seal("data")
                }
                #expect(try await events(lab).contains("volume.failed"))
                // Of some 240 MiB an eighth is nobody's, and each log may take 64.
                var cache = stat()
                #expect(stat("\(state)/cache", &cache) == 0)
                #expect((64 << 20...104 << 20).contains(Int(cache.st_blocks) * 512), "\(cache.st_blocks) blocks")
            }
        }

        @Test(
            "one full file system under both edges: the log leaves home the room that points need",
            .enabled(FullDisks.withoutFileSystem, LabFileSystem.isPossible))
        func sharedFileSystem() async throws {
            let options = ["--rtt", "10ms", "--rate", "40mbit", "--log-size", "256MiB", "--cache-size", "16MiB"]
            try await Lab.with(disks: [("data", 64 << 20)], options: options, stateMebibytes: 96, under: .both) { lab in
                let load = try startLoad(lab, bytes: "160MiB", depth: 16)
                try await untilTold("state.filling", in: lab)
                try await checkAllIsThere(lab, after: load)
            }
        }

        @Test(
            "a full file system at home, also in the middle of a point: writers don't notice, the disk is at a sealed point, and the rest follows",
            .enabled(FullDisks.withoutFileSystem, LabFileSystem.isPossible))
        func home() async throws {
            let options = ["--nbd", "--rtt", "2ms", "--recovery-point-objective", "1h"]
            try await Lab.with(disks: [("data", 256 << 20)], options: options, stateMebibytes: 320, under: .home) { lab in
                var ledger = PointLedger(lab, "data")
                // A disk that takes no points is read as ever: what was never written comes from there, and what it has half of, too.
                let writer = try ledger.start(lab.nbd("data"), seconds: 300)
                for round in 0..<2 {
                    let received = try await lab.status("data").points.received
                    try await Lab.untilTrue(seconds: 30, "a point to be at home") {
                        try await lab.status("data").points.received > received
                    }
                    // The disk is all holes at first, so points need room there too, not only in the journal.
                    try await lab.fileSystem(.fill(leavingMiB: round + 1))
                    try await Lab.untilTrue(seconds: 60, "home to take no more") {
                        let points = try await lab.status("data").points
                        return points.lastSealed > points.received + 2
                    }
                    #expect(writer.isRunning)
                    try await lab.relay("cut")
                    try await lab.fileSystem(.empty)
                    try await ledger.matchHome()
                    try await lab.relay("restore")
                }
                #expect(try await events(lab).contains("point.delayed"))
                writer.signal(SIGTERM)
                let result = try await writer.wait(seconds: 120)
                #expect(result.isSuccess, "\(result)")
                #expect(!Lab.hasEnded(lab.edge(.cloud).pid) && !Lab.hasEnded(lab.edge(.onprem).pid))
                try await lab.seal("data")
                try await ledger.matchLast(lab.disk("data"))
            }
        }

        @Test(
            "a file system that takes no changes: writers wait, and go on when it takes them again",
            .enabled(FullDisks.withoutFileSystem, LabFileSystem.isPossible))
        func readOnly() async throws {
            let options = ["--recovery-point-objective", "500ms", "--cache-size", "16MiB"]
            try await Lab.with(disks: [("data", 32 << 20)], options: options, stateMebibytes: 96) { lab in
                let load = try startLoad(lab, bytes: "64MiB", depth: 8)
                try await Lab.untilTrue(seconds: 30, "a point to be at home") { try await lab.status("data").points.received > 0 }
                try await lab.fileSystem(.makeImmutable)
                try await untilTold("log.read_only", in: lab)
                let shown = try await lab.status("data")
                #expect(shown.state == .full && shown.message?.contains("takes no changes") == true, "\(shown)")
                #expect(load.isRunning)
                try await lab.fileSystem(.makeMutable)
                try await untilTold("log.writable", in: lab)
                try await checkAllIsThere(lab, after: load)
            }
        }

        @Test(
            "a file system that the kernel gives up: nothing flushed is missing when the daemon is started on a mended one",
            .enabled(FullDisks.withoutFileSystem, LabFileSystem.isPossible))
        func givenUp() async throws {
            try await Lab.with(disks: [("data", 32 << 20)], options: ["--cache-size", "16MiB"], stateMebibytes: 96) { lab in
                let before = try startLoad(lab, bytes: "16MiB", depth: 8, keepsWrites: false)
                #expect(try await before.wait(seconds: 120).isSuccess)
                // Nobody writes at this moment, for Linux says of a sync that is on its way when ext4 or XFS gives up that it succeeded,
                // and may lose what it was for: Benchmarks/sync/give-up shows it.
                try await lab.fileSystem(.giveUp)
                let load = try startLoad(lab, bytes: "32MiB", depth: 8, keepsWrites: false)
                // Whether a write or a sync meets it first is chance: the one waits, the other stops the volume, and writers fail.
                try await untilTold("log.read_only", "volume.stopped", in: lab)
                #expect(!Lab.hasEnded(lab.edge(.cloud).pid))
                try await lab.kill(.cloud)
                try await lab.fileSystem(.mend)
                try await lab.restart(.cloud)
                _ = try await load.wait(seconds: 120)
                try await lab.untilServing("data")
                try await checkAllIsThere(lab, exact: false)
            }
        }
    }
}
