import APIModels
import Foundation
import Testing

extension EndToEndFaults {
    @Suite(.serialized)
    struct Keys {
        private func keys(_ lab: Lab) async throws -> [DataKey] {
            let listed = try await lab.causeway(.onprem, "key", "list", "--output", "json")
            guard listed.isSuccess else { throw CommandFailure(description: listed.description) }
            return try APICoding.decoder().decode([DataKey].self, from: Data(listed.output.utf8))
        }

        private func refused(_ lab: Lab, _ arguments: String..., naming word: String) async throws {
            let edge = lab.edge(.onprem)
            let result = try await Command.run("causeway", arguments + ["--api", edge.api, "--token", edge.token])
            #expect(result.status == 1 && result.errors.contains(word), "\(result)")
        }

        /// Points are sealed by rotations and by hand only, so that it is known what is unsent.
        @Test("keys are rotated under verified writes and SIGKILL of both daemons; a shred leaves nothing to be read")
        func rotateAndShred() async throws {
            let options = ["--rtt", "2ms", "--rate", "1gbit", "--recovery-point-objective", "10m"]
            try await Lab.with(disks: [("data", 32 << 20)], options: options) { lab in
                let limits = try String(contentsOfFile: "/proc/\(lab.edge(.cloud).pid)/limits", encoding: .utf8)
                #expect(limits.contains(/Max core file size\s+0\s+0/))
                let state = lab.directory.appendingPathComponent("load.state").path
                let load = try Command.start(
                    "causeway-load",
                    [
                        "run", lab.url("data"), "--mix", "30/70", "--block-size", "4KiB", "--queue-depth", "8", "--flush-every", "50",
                        "--fua", "5", "--rate-iops", "1500", "--runtime", "6s", "--verify", state, "--reconnect", "60s",
                        "--target-keeps-writes", "--json",
                    ])
                try await Lab.untilTrue(seconds: 20, "writes to come") { try await lab.status("data").io.writes > 200 }
                for (generation, side) in [(2, Lab.Side.cloud), (3, .onprem)] {
                    let rotated = try await lab.causeway(.onprem, "key", "rotate", "data", "--output", "json")
                    #expect(rotated.isSuccess, "\(rotated)")
                    let rotation = try APICoding.decoder().decode(KeyRotation.self, from: Data(rotated.output.utf8))
                    #expect(rotation == KeyRotation(volume: "data", generation: UInt64(generation), inForce: true))
                    try await lab.kill(side)
                    try await lab.restart(side)
                    try await lab.untilServing("data")
                }
                let master = try await lab.causeway(.onprem, "key", "rotate-master")
                #expect(master.isSuccess, "\(master)")
                let result = try await load.wait(seconds: 90)
                #expect(result.isSuccess, "\(result)")
                try await lab.seal("data")
                try await Lab.untilTrue(seconds: 30, "the older keys to be destroyed") {
                    try await keys(lab).map(\.state) == [.destroyed, .destroyed, .active]
                }
                // Everything again, without the keys of before, and with the new master key.
                try await lab.kill(.cloud)
                try await lab.kill(.onprem)
                try await lab.restart(.onprem)
                try await lab.restart(.cloud)
                try await lab.untilServing("data")
                for place in [lab.url("data"), lab.disk("data")] {
                    let verified = try await Command.run("causeway-load", ["verify", place, state, "--exact"], seconds: 120)
                    #expect(verified.isSuccess, "\(verified)")
                }
                try await shred(lab)
            }
        }

        private func shred(_ lab: Lab) async throws {
            let (url, cloud, onprem) = (lab.url("data"), lab.edge(.cloud), lab.edge(.onprem))
            let file = lab.directory.appendingPathComponent("before.keys").path
            let export = ["volume", "recovery-key", "data", "--output", file, "--api", onprem.api, "--token", onprem.token]
            try await Command.check("causeway", export)
            try await Command.check("qemu-io", ["-f", "raw", "-c", "write -P 7 0 1M", "-c", "flush", url])
            try await refused(lab, "volume", "shred", "data", naming: "unsent writes")
            try await lab.relay("cut")
            try await Lab.untilTrue(seconds: 30, "the cut to be noticed") { try await lab.status("data").state == .linkDown }
            try await refused(lab, "volume", "shred", "data", naming: "can't be asked")
            let shredded = try await lab.causeway(.onprem, "volume", "shred", "data", "--force", "--output", "json")
            #expect(shredded.isSuccess, "\(shredded)")
            let outcome = try APICoding.decoder().decode(ShredResult.self, from: Data(shredded.output.utf8))
            #expect(outcome == ShredResult(volume: "data", destroyedGenerations: [3], edgeTold: false, unsentBytes: nil))
            #expect(try await keys(lab).allSatisfy { $0.state == .destroyed })
            try await refused(lab, "volume", "recovery-key", "data", "--output", file + ".after", naming: "its keys are destroyed")
            // The edge that was not told lets go as soon as it hears of it.
            try await lab.relay("restore")
            try await Lab.untilTrue(seconds: 30, "the cloud edge to let go") {
                let listed = try await lab.causeway(.cloud, "volume", "list", "--output", "json").output
                return try APICoding.decoder().decode([APIModels.Volume].self, from: Data(listed.utf8)).isEmpty
            }
            try await lab.kill(.cloud)
            let verify = ["recover", "verify", "--state", cloud.state]
            let without = try await Command.run("causeway", verify)
            #expect(!without.isSuccess, "\(without)")
            let listed = try await Command.check("causeway", ["recover", "list", "--state", cloud.state])
            #expect(listed.contains("no key"), "\(listed)")
            // Who exported the key before is the one who can.
            let with = try await Command.run("causeway", verify + ["--keys", file])
            #expect(with.isSuccess, "\(with)")
            // What is at home stays, and is served under a new key.
            try await lab.restart(.cloud)
            let attached = try await lab.causeway(.onprem, "volume", "attach", "data")
            #expect(attached.isSuccess, "\(attached)")
            try await lab.untilServing("data")
            #expect(try await keys(lab).map(\.generation) == [1])
            let compared = try await Command.run(
                "qemu-img", ["compare", "-U", "-f", "raw", "-F", "raw", url, lab.disk("data")], seconds: 120)
            #expect(compared.isSuccess, "\(compared)")
            let clean = try await lab.causeway(.onprem, "volume", "shred", "data", "--output", "json")
            #expect(clean.isSuccess, "\(clean)")
            let told = try APICoding.decoder().decode(ShredResult.self, from: Data(clean.output.utf8))
            #expect(told == ShredResult(volume: "data", destroyedGenerations: [1], edgeTold: true, unsentBytes: 0))
        }
    }
}
