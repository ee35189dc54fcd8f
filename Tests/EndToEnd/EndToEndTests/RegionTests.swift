import APIModels
import Foundation
import Testing

extension EndToEndFaults {
    /// What is cloud-only of a disk: it outlives its daemon, home sees nothing of it, and all of it once it is wanted there.
    @Suite(.serialized)
    struct Regions {
        private func regions(_ lab: Lab) async throws -> VolumeRegions {
            let result = try await lab.causeway(.cloud, "volume", "region", "list", "data", "--output", "json")
            guard result.isSuccess else { throw CommandFailure(description: result.description) }
            return try APICoding.decoder().decode(VolumeRegions.self, from: Data(result.output.utf8))
        }

        private func verify(_ source: String, _ state: String) async throws {
            let result = try await Command.run("causeway-load", ["verify", source, state, "--exact"], seconds: 120)
            #expect(result.isSuccess, "\(result)")
        }

        /// The disk at home as a program reads it.
        private func homeReads(_ patterns: String..., lab: Lab) async throws -> Bool {
            let result = try await Command.run(
                "qemu-io", ["-r", "-U", "-f", "raw"] + patterns.flatMap { ["-c", "read -P \($0)"] } + [lab.disk("data")], seconds: 60)
            return result.isSuccess && !result.output.contains("verification failed")
        }

        @Test("a cloud-only region under SIGKILL: nothing acknowledged is lost, home has nothing of it, and all of it when it is imaged")
        func kills() async throws {
            try await Lab.with(disks: [("data", 64 << 20)], options: ["--recovery-point-objective", "300ms"]) { lab in
                let set = try await lab.causeway(
                    .cloud, "volume", "region", "set", "data", "--start", "16MiB", "--size", "32MiB", "--policy", "cloud-only")
                #expect(set.isSuccess, "\(set)")
                let state = lab.directory.appendingPathComponent("load.state").path
                let load = try Command.start(
                    "causeway-load",
                    [
                        "run", lab.url("data"), "--mix", "30/70", "--block-size", "4KiB", "--queue-depth", "8", "--flush-every", "50",
                        "--fua", "5", "--rate-iops", "1500", "--runtime", "15s", "--verify", state, "--reconnect", "60s",
                        "--target-keeps-writes",
                    ])
                for _ in 0..<2 {
                    let before = try await lab.status("data").io.writes
                    try await Lab.untilTrue(seconds: 30, "some writes") { try await lab.status("data").io.writes > before + 500 }
                    #expect(load.isRunning, "the load generator ended early")
                    try await lab.kill(.cloud)
                    try await lab.restart(.cloud)
                    try await lab.untilServing("data")
                }
                let result = try await load.wait(seconds: 120)
                #expect(result.isSuccess, "\(result)")
                let url = lab.url("data")
                try await verify(url, state)
                try await lab.seal("data")
                let held = try await regions(lab)
                #expect(held.cloudOnlyBytes > 1 << 20, "\(held.cloudOnlyBytes) bytes are cloud-only")
                #expect(try await homeReads("0 16M 32M", lab: lab), "home shows something of the region")
                #expect(try await !homeReads("0 0 16M", lab: lab), "home shows nothing at all")
                let refused = try await lab.causeway(.onprem, "volume", "detach", "data")
                #expect(refused.status == 1 && refused.errors.contains("region settle"), "\(refused)")

                // Killed while it brings them home, it goes on.
                let imaged = try await lab.causeway(
                    .cloud, "volume", "region", "set", "data", "--start", "16MiB", "--size", "32MiB", "--policy", "onprem")
                #expect(imaged.isSuccess, "\(imaged)")
                try await lab.kill(.cloud)
                try await lab.restart(.cloud)
                try await lab.untilServing("data")
                try await verify(url, state)
                try await Lab.untilTrue(seconds: 60, "the cloud-only writes to be in the log") {
                    let regions = try await regions(lab)
                    return !regions.imaging && regions.cloudOnlyBytes == 0
                }
                try await lab.seal("data")
                try await verify(url, state)
                try await verify(lab.disk("data"), state)
                let compared = try await Command.run(
                    "qemu-img", ["compare", "-U", "-f", "raw", "-F", "raw", url, lab.disk("data")], seconds: 240)
                #expect(compared.isSuccess, "\(compared)")
            }
        }

        @Test("a cloud-only disk that is gone is told, and nothing is served in its place until it is put back")
        func lost() async throws {
            try await Lab.with(disks: [("data", 32 << 20)]) { lab in
                let set = try await lab.causeway(
                    .cloud, "volume", "region", "set", "data", "--start", "8MiB", "--size", "8MiB", "--policy", "cloud-only")
                #expect(set.isSuccess, "\(set)")
                let url = lab.url("data")
                let written = try await Command.run("qemu-io", ["-f", "raw", "-c", "write -P 9 8M 1M", "-c", "flush", url], seconds: 60)
                #expect(written.isSuccess, "\(written)")
                let volumes = URL(fileURLWithPath: lab.edge(.cloud).state).appendingPathComponent("volumes")
                let volume = try #require(FileManager.default.contentsOfDirectory(atPath: volumes.path).first)
                let disk = volumes.appendingPathComponent(volume).appendingPathComponent("cloud-only")
                let aside = lab.directory.appendingPathComponent("aside")
                try await lab.kill(.cloud)
                try FileManager.default.moveItem(at: disk, to: aside)
                try await lab.restart(.cloud)
                try await Lab.untilTrue(seconds: 60, "the event about the disk") {
                    let events = try await lab.causeway(.cloud, "events", "--output", "json")
                    return events.output.contains("volume.failed") && events.output.contains("cloud-only disk is missing")
                }
                #expect(!FileManager.default.fileExists(atPath: disk.path), "something was made where the disk was")
                try FileManager.default.moveItem(at: aside, to: disk)
                try await lab.untilServing("data")
                let read = try await Command.run("qemu-io", ["-r", "-f", "raw", "-c", "read -P 9 8M 1M", url], seconds: 60)
                #expect(read.isSuccess && !read.output.contains("verification failed"), "\(read)")
                let discarded = try await lab.causeway(.cloud, "volume", "region", "settle", "data", "--writes", "discard")
                #expect(discarded.isSuccess, "\(discarded)")
            }
        }
    }
}
