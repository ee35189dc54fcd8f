import Foundation
import Testing

/// What a line of packets needs of a machine.
private let hasRightsForLines = geteuid() == 0 && FileManager.default.fileExists(atPath: "/dev/net/tun")

extension EndToEnd {
    /// A lab whose edges have a line of packets between them.
    @Suite(.serialized, .enabled(if: hasRightsForLines, "needs root and /dev/net/tun"))
    struct PacketLines {
        /// What the emulator says of itself.
        struct Statistics: Decodable {
            struct Direction: Decodable {
                var enteredBytes: UInt64
                var carriedBytes: UInt64
                var deliveredBytes: UInt64
                var lostPackets: UInt64
                var cutPackets: UInt64
                var packetsInTransit: Int
            }
            var line: String
            var roundTripNanoseconds: Int64
            var bytesPerSecond: UInt64?
            var lossShare: Double
            var toServer: Direction
            var toClient: Direction
        }

        private func statistics(_ lab: Lab) async throws -> Statistics {
            try JSONDecoder().decode(Statistics.self, from: Data(try await lab.relay("stats").utf8))
        }

        @Test("writes come home over a line that loses packets, is cut, and holds; the on-prem edge is killed in its namespace")
        func loss() async throws {
            let options = [
                "--wan", "packets", "--rtt", "10ms", "--rate", "200mbit", "--loss", "1%/3", "--jitter", "1ms", "--reorder", "0.5%",
            ]
            try await Lab.with(disks: [("data", 16 << 20)], options: options) { lab in
                let url = lab.url("data")
                let before = try await statistics(lab)
                #expect(before.line == "up" && before.roundTripNanoseconds == 10_000_000 && before.bytesPerSecond == 25_000_000)
                #expect(abs(before.lossShare - 0.01) < 1e-9)
                // The link would leave few packets of what it can compress.
                let noise = try Lab.makeNoise(in: lab.directory, mebibytes: 8)
                try await Command.check("qemu-io", ["-f", "raw", "-c", "write -s \(noise) 0 8M", "-c", "flush", url], seconds: 60)
                try await lab.seal("data")
                let after = try await statistics(lab)
                #expect(after.toServer.lostPackets > 0)
                #expect(after.toServer.deliveredBytes < after.toServer.enteredBytes)

                #expect(try await lab.relay("cut").hasPrefix("ok"))
                try await Command.check("qemu-io", ["-f", "raw", "-c", "write -P 9 4M 4M", "-c", "flush", url], seconds: 60)
                try await Lab.untilTrue(seconds: 20, "the cut to take packets") { try await statistics(lab).toServer.cutPackets > 0 }
                #expect(try await lab.relay("restore").hasPrefix("ok"))
                try await lab.seal("data")

                #expect(try await lab.relay("set loss=0 reorder=0").hasPrefix("ok"))
                #expect(try await lab.relay("hold").hasPrefix("ok"))
                try await Command.check("qemu-io", ["-f", "raw", "-c", "write -P 5 12M 1M", "-c", "flush", url], seconds: 60)
                try await lab.kill(.onprem)
                #expect(try await lab.relay("restore").hasPrefix("ok"))
                try await lab.restart(.onprem)
                try await lab.seal("data")
                try await Command.check("cmp", ["-n", "\(4 << 20)", noise, lab.disk("data")])
                for (pattern, range) in [(9, "4M 4M"), (0, "8M 4M"), (5, "12M 1M")] {
                    try await Command.check(
                        "qemu-io", ["-U", "-r", "-f", "raw", "-c", "read -P \(pattern) \(range)", lab.disk("data")], seconds: 60)
                }
            }
        }

        @Test("what only a line of packets can do is refused for the relay, and a line without rights says what it lacks")
        func refusals() async throws {
            let directory = try Lab.makeDirectory()
            defer { try? FileManager.default.removeItem(at: directory) }
            let up = ["lab", "up", "--directory", directory.appendingPathComponent("lab").path, "--detach"]
            let relay = try await Command.run("causeway", up + ["--loss", "1%"], seconds: 20)
            #expect(!relay.isSuccess && relay.errors.contains("--wan packets"))
            let wrong = try await Command.run("causeway", up + ["--wan", "packets", "--loss", "lots"], seconds: 20)
            #expect(!wrong.isSuccess && wrong.errors.contains("1%"))
            // As root without its rights.
            let bare = try await Command.run(
                "setpriv", ["--bounding-set=-all", "--inh-caps=-all", Command.path(of: "causeway")] + up + ["--wan", "packets"], seconds: 60
            )
            #expect(!bare.isSuccess && bare.errors.contains("CAP_NET_ADMIN") && bare.errors.contains("relay"))
        }
    }
}
