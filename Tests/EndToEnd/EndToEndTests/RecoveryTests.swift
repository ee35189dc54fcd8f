import APIModels
import Foundation
import Testing

extension EndToEndFaults {
    @Suite(.serialized)
    struct Recovery {
        private func keys(_ lab: Lab, _ arguments: [String], to path: String) async throws -> RecoveryKeys {
            let edge = lab.edge(.onprem)
            try await Command.check(
                "causeway", ["volume", "recovery-key"] + arguments + ["--output", path, "--api", edge.api, "--token", edge.token])
            let mode = try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int
            #expect(mode == 0o600)
            return try APICoding.decoder().decode(RecoveryKeys.self, from: Data(contentsOf: URL(fileURLWithPath: path)))
        }

        /// True when a program finds each pattern where it should be: lines of `read -P` for qemu-io.
        private func reads(_ patterns: [String], in image: String) async throws -> Bool {
            let result = try await Command.run(
                "qemu-io", ["-r", "-U", "-f", "raw"] + patterns.flatMap { ["-c", "read -P \($0)"] } + [image], seconds: 60)
            return result.isSuccess && !result.output.contains("verification failed")
        }

        @Test("the cloud edge is lost with the line cut: its state directory and the key give the disk as it was written and flushed")
        func cloudEdgeIsLost() async throws {
            try await Lab.with(disks: [("data", 32 << 20), ("other", 8 << 20)], options: ["--rtt", "5ms", "--rate", "1gbit"]) { lab in
                let url = lab.url("data")
                try await Command.check("qemu-io", ["-f", "raw", "-c", "write -P 1 0 4M", "-c", "flush", url])
                try await lab.seal("data")
                let file = lab.directory.appendingPathComponent("data.keys").path
                let one = try await keys(lab, ["data"], to: file)
                #expect(one.volumes.map(\.volume) == ["data"] && one.caches.isEmpty && one.volumes[0].sectorCount == 32 << 11)
                let allFile = lab.directory.appendingPathComponent("all.keys").path
                let all = try await keys(lab, ["--all"], to: allFile)
                #expect(all.volumes.map(\.volume) == ["data", "other"] && all.caches.count == 1)
                #expect(all.volumes[0] == one.volumes[0])
                let events = try await lab.causeway(.onprem, "events", "--output", "json").output
                #expect(events.contains("keys.exported"))
                for key in all.volumes.map(\.dataKey) + all.caches.map(\.key) {
                    #expect(!events.contains(key.base64EncodedString()) && !lab.logTails().contains(key.base64EncodedString()))
                }

                try await lab.relay("cut")
                try await Lab.untilTrue(seconds: 30, "the cut to be noticed") { try await lab.status("data").state == .linkDown }
                try await Command.check(
                    "qemu-io",
                    ["-f", "raw", "-c", "write -P 2 1M 2M", "-c", "write -z 8M 1M", "-c", "write -P 3 31M 1M", "-c", "flush", url],
                    seconds: 60)
                let state = lab.edge(.cloud).state
                let refused = try await Command.run("causeway", ["recover", "list", "--state", state])
                #expect(refused.status == 1 && refused.errors.contains("in use"), "\(refused)")
                try await lab.kill(.cloud)

                let listed = try await Command.check("causeway", ["recover", "list", "--state", state, "--keys", file])
                #expect(listed.contains("data") && listed.contains("no key"), "\(listed)")
                let verified = try await Command.run("causeway", ["recover", "verify", "--state", state, "--keys", allFile])
                #expect(verified.isSuccess && verified.output.contains("data (\(one.volumes[0].identifier)): whole"), "\(verified)")
                let partly = try await Command.run("causeway", ["recover", "verify", "--state", state, "--keys", file])
                #expect(partly.status == 1 && partly.output.contains("whole") && partly.errors.contains("1 of 2 logs"), "\(partly)")
                let nothing = try await Command.run("causeway", ["recover", "verify", "--state", "/tmp", "--keys", file])
                #expect(nothing.status == 1 && nothing.errors.contains("no log"), "\(nothing)")

                let base = lab.disk("data")
                let image = lab.directory.appendingPathComponent("recovered.img").path
                let export = ["recover", "export", "--state", state, "--keys", file, "--volume", "data", "--output", image, "--base", base]
                // Home may put points on the base while it runs.
                let busy = try await Command.run("causeway", export)
                #expect(busy.status == 1 && !FileManager.default.fileExists(atPath: image), "\(busy)")
                try await lab.kill(.onprem)
                try await Command.check("causeway", export, seconds: 60)
                let written = ["1 0 1M", "2 1M 2M", "1 3M 1M", "0 4M 27M", "3 31M 1M"]
                #expect(try await reads(written, in: image))
                #expect(try await !reads(written, in: base))
                let again = try await Command.run("causeway", export)
                #expect(again.status == 1 && again.errors.contains("exists"), "\(again)")

                // What was recovered is what goes home when the edge comes back after all.
                try await lab.restart(.onprem)
                try await lab.restart(.cloud)
                try await lab.relay("restore")
                try await lab.untilServing("data")
                try await lab.seal("data")
                let compared = try await Command.run("qemu-img", ["compare", "-U", "-f", "raw", "-F", "raw", image, base], seconds: 240)
                #expect(compared.isSuccess, "\(compared)")
            }
        }

        @Test("the cloud edge is lost and exported into the disk: home refuses it, and serves it when the volume is attached anew")
        func exportInPlace() async throws {
            try await Lab.with(disks: [("data", 32 << 20)], options: ["--rtt", "5ms", "--rate", "1gbit"]) { lab in
                let (url, disk, state) = (lab.url("data"), lab.disk("data"), lab.edge(.cloud).state)
                try await Command.check("qemu-io", ["-f", "raw", "-c", "write -P 1 0 4M", "-c", "flush", url])
                try await lab.seal("data")
                let file = lab.directory.appendingPathComponent("data.keys").path
                _ = try await keys(lab, ["data"], to: file)
                try await lab.relay("cut")
                try await Command.check("qemu-io", ["-f", "raw", "-c", "write -P 2 0 8M", "-c", "flush", url], seconds: 60)
                try await lab.kill(.cloud)
                try await lab.kill(.onprem)
                try await Command.check(
                    "causeway", ["recover", "export", "--state", state, "--keys", file, "--volume", "data", "--in-place", disk], seconds: 60
                )
                let written = ["2 0 8M", "0 8M 24M"]
                #expect(try await reads(written, in: disk))

                try await lab.restart(.onprem, waitUntilHealthy: false)
                try await Lab.untilTrue(seconds: 30, "the disk to be refused") {
                    try await lab.causeway(.onprem, "events", "--output", "json").output.contains("disk.unavailable")
                }
                let detached = try await lab.causeway(.onprem, "volume", "detach", "data", "--force")
                #expect(detached.isSuccess, "\(detached)")
                // Here the lost edge takes part in what follows: its log is retired, and nothing of it comes home.
                try await lab.relay("restore")
                try await lab.restart(.cloud)
                let attached = try await lab.causeway(.onprem, "volume", "attach", "data")
                #expect(attached.isSuccess, "\(attached)")
                try await lab.untilServing("data")
                #expect(try await reads(written, in: url))
                #expect(try FileManager.default.contentsOfDirectory(atPath: state + "/retired").count == 1)
                try await Command.check("qemu-io", ["-f", "raw", "-c", "write -P 3 0 1M", "-c", "flush", url], seconds: 60)
                try await lab.seal("data")
                #expect(try await reads(["3 0 1M", "2 1M 7M", "0 8M 24M"], in: disk))
            }
        }

        @Test(
            "a cloud edge's cache is verified while the edge is stopped: whole, then with bytes that were flipped, then by the edge itself")
        func cacheIsVerified() async throws {
            try await Lab.with(disks: [("data", 32 << 20)]) { lab in
                let (url, state) = (lab.url("data"), lab.edge(.cloud).state)
                let noise = try Lab.makeNoise(in: lab.directory, mebibytes: 8)
                try await Command.check("qemu-io", ["-f", "raw", "-c", "write -s \(noise) 0 8M", "-c", "flush", url])
                try await lab.seal("data")
                try await Command.check("qemu-io", ["-f", "raw", "-c", "read 0 8M", url])
                let file = lab.directory.appendingPathComponent("all.keys").path
                _ = try await keys(lab, ["--all"], to: file)
                let verify = ["verify", "cache", "--state", state, "--keys", file]
                let busy = try await Command.run("causeway", verify)
                #expect(busy.status == 1 && busy.errors.contains("in use"), "\(busy)")
                // The point came home after its blocks were durable in the cache.
                try await lab.kill(.cloud)

                let whole = try await Command.run("causeway", verify)
                #expect(whole.isSuccess && whole.output.contains("data") && whole.output.contains("journal."), "\(whole)")
                struct Found: Decodable {
                    struct Volume: Decodable { var blocks, authentic, damaged: UInt64 }
                    var volumes: [Volume]
                    var isWhole: Bool
                }
                func found(_ result: CommandResult) throws -> Found { try JSONDecoder().decode(Found.self, from: Data(result.output.utf8)) }
                let before = try found(try await Command.run("causeway", verify + ["--output", "json"]))
                #expect(before.isWhole && before.volumes.count == 1 && before.volumes[0].blocks > 1_000)
                #expect(before.volumes[0].authentic == before.volumes[0].blocks)

                let handle = try #require(FileHandle(forUpdatingAtPath: state + "/cache"))
                for number in 0..<20 as Range<UInt64> {
                    try handle.seek(toOffset: 4096 + number * 3 * 4112 + 1_000)
                    let byte = try #require(try handle.read(upToCount: 1)?.first)
                    try handle.seek(toOffset: 4096 + number * 3 * 4112 + 1_000)
                    try handle.write(contentsOf: Data([byte ^ 0x40]))
                }
                try handle.close()
                let damaged = try await Command.run("causeway", verify)
                #expect(damaged.status == 1 && damaged.errors.contains("corrupt") && damaged.errors.contains("damaged"), "\(damaged)")
                let after = try found(try await Command.run("causeway", verify + ["--output", "json"]))
                #expect(!after.isWhole && after.volumes[0].damaged > 0 && after.volumes[0].damaged <= 20)
                #expect(after.volumes[0].authentic + after.volumes[0].damaged == before.volumes[0].blocks)

                // The edge serves what was written all the same.
                try await lab.restart(.cloud)
                try await lab.untilServing("data")
                try await lab.check("data", hasAtItsStart: noise)
                // And tells what it found, in one event.
                var events = ""
                try await Lab.untilTrue(seconds: 30, "the event cache.damaged") {
                    events = try await lab.causeway(.cloud, "events").output
                    return events.contains("cache.damaged")
                }
                #expect(events.contains("fetched from home"), "\(events)")
            }
        }

        @Test("an on-prem edge with another master key, or none, does not start and says what to do; its journals can be verified")
        func masterKey() async throws {
            try await Lab.with(disks: [("data", 8 << 20)]) { lab in
                try await Command.check("qemu-io", ["-f", "raw", "-c", "write -P 1 0 1M", "-c", "flush", lab.url("data")])
                try await lab.seal("data")
                let state = lab.edge(.onprem).state
                let busy = try await Command.run("causeway", ["verify", "journal", "--state", state])
                #expect(busy.status == 1 && busy.errors.contains("in use"), "\(busy)")
                try await lab.kill(.onprem)
                for arguments in [["--state", state], ["--directory", state + "/journals/data"]] {
                    let journal = try await Command.run("causeway", ["verify", "journal"] + arguments)
                    #expect(journal.isSuccess && journal.output.contains("whole"), "\(journal)")
                }
                let path = state + "/master.key"
                let right = try Data(contentsOf: URL(fileURLWithPath: path))
                try FileManager.default.removeItem(atPath: path)
                for (key, word) in [(nil, "missing"), (Data(repeating: 0x5a, count: 32), "not the one")] as [(Data?, String)] {
                    try key?.write(to: URL(fileURLWithPath: path))
                    let daemon = try Command.start("causewayd", ["--config", lab.edge(.onprem).config])
                    let result = try await daemon.wait(seconds: 30)
                    #expect(
                        result.status == 73 && result.description.contains(word) && result.description.contains("put back"), "\(result)")
                    #expect(!result.description.contains("ZZZZ"))
                }
                try right.write(to: URL(fileURLWithPath: path))
                try await lab.restart(.onprem)
                try await lab.untilServing("data")
            }
        }
    }
}
