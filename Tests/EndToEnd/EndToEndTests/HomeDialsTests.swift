import APIModels
import Foundation
import Testing

extension EndToEnd {
    /// Pairs of which the on-prem edge dials, because it lets nobody in.
    @Suite(.serialized)
    struct HomeDials {
        private func edges(_ lab: Lab) async throws -> [PeerEdge] {
            let result = try await lab.causeway(.onprem, "edge", "list", "--output", "json")
            guard result.isSuccess else { throw CommandFailure(description: result.description) }
            return try APICoding.decoder().decode([PeerEdge].self, from: Data(result.output.utf8))
        }

        private func link(_ lab: Lab, _ side: Lab.Side) async throws -> Link {
            try #require(await lab.links(side).first)
        }

        @Test("over a cut, restarts of either edge, another address and back, and until it is revoked")
        func life() async throws {
            let options = ["--home-dials", "--rtt", "10ms", "--recovery-point-objective", "300ms", "--log-level", "debug"]
            try await Lab.with(disks: [("data", 64 << 20)], options: options) { lab in
                let edge = try #require(try await edges(lab).first)
                let address = try #require(edge.address)
                let noise = try Lab.makeNoise(in: lab.directory, mebibytes: 16)
                let config = try String(contentsOfFile: lab.edge(.cloud).config, encoding: .utf8)
                #expect(!config.contains("connect:") && config.contains("listen:"))

                // Half of it goes home over a line that is cut, the other half after both edges were killed.
                try await Command.check("qemu-io", ["-f", "raw", "-c", "write -s \(noise) 0 8M", lab.url("data")], seconds: 60)
                try await lab.relay("reset")
                try await lab.kill(.onprem)
                try await Command.check(
                    "qemu-io", ["-f", "raw", "-c", "write -s \(noise) 8M 8M", "-c", "flush", lab.url("data")], seconds: 60)
                #expect(try await link(lab, .cloud).lastError?.contains("has not dialled") == true)
                try await lab.restart(.onprem)
                try await lab.untilServing("data")
                try await lab.kill(.cloud)
                try await lab.restart(.cloud)
                try await lab.untilServing("data")
                try await lab.seal("data")
                try await Command.check("cmp", ["-n", "\(8 << 20)", noise, lab.disk("data")])
                try await Command.check("cmp", ["-n", "\(8 << 20)", noise, lab.disk("data"), "0", "\(8 << 20)"])

                // An address where nobody is: the link ends, and home says why.
                let moved = try await lab.causeway(.onprem, "edge", "change", "cloud", "--connect", "127.0.0.1:1")
                #expect(moved.isSuccess && moved.output.contains("127.0.0.1:1"), "\(moved)")
                try await Lab.untilTrue(seconds: 30, "home to say that it can't connect") {
                    try await link(lab, .onprem).lastError?.contains("cannot connect to 127.0.0.1:1") == true
                }
                try await lab.kill(.onprem, by: SIGTERM)
                try await lab.restart(.onprem)
                #expect(try await edges(lab).first?.address == "127.0.0.1:1")
                #expect(try await lab.causeway(.onprem, "edge", "change", edge.identifier, "--connect", address).isSuccess)
                try await lab.untilServing("data")

                for (arguments, text) in [
                    (["edge", "change", "cloud"], "either --connect"), (["edge", "change", "cloud", "--connect", "nowhere"], "no port"),
                    (["edge", "change", "cloud", "--connect", "a:0"], "port 0"), (["edge", "change", "nobody", "--dials"], "nobody"),
                    (["pair", "--connect", "a:0"], "port 0"),
                ] {
                    let refused = try await lab.causeway(.onprem, arguments: arguments)
                    #expect(!refused.isSuccess && refused.errors.contains(text), "\(refused)")
                }

                #expect(try await lab.causeway(.onprem, "edge", "revoke", "cloud").isSuccess)
                try await Lab.untilTrue(seconds: 30, "the cloud edge to hear that it was revoked") {
                    try await lab.causeway(.cloud, "status").output.contains("revoked")
                }
            }
        }

        /// One that dials and one that is dialled, at one home: a pair of labs has no such shape, so the second edge is started by hand.
        @Test("two cloud edges of one home, of which one dials and the other is dialled; tokens of the wrong kind are refused")
        func bothWays() async throws {
            try await Lab.with(disks: [("data", 16 << 20), ("more", 16 << 20)], options: ["--recovery-point-objective", "300ms"]) { lab in
                let second = try await SecondCloudEdge.start(in: lab.directory)
                do {
                    try await check(lab, second)
                } catch {
                    let log = await second.end()
                    throw CommandFailure(description: "\(error)\n\(log)")
                }
                await second.end()
            }
        }

        private func check(_ lab: Lab, _ second: SecondCloudEdge) async throws {
            let plain = try await lab.causeway(.onprem, "pair")
            let token = plain.output.trimmingCharacters(in: .whitespacesAndNewlines)
            let refused = try await second.causeway(["join", token])
            #expect(!refused.isSuccess && refused.errors.contains("pair --connect"), "\(refused)")

            // Whoever else comes to the port does no harm.
            let invited = try await lab.causeway(.onprem, "pair", "--connect", second.link)
            #expect(invited.isSuccess, "\(invited)")
            let joining = Task { try await second.causeway(["join", invited.output.trimmingCharacters(in: .whitespacesAndNewlines)]) }
            let stranger =
                "import socket,sys,os; h,p=sys.argv[1].split(':'); s=socket.create_connection((h,int(p)),5); s.sendall(os.urandom(300)); s.recv(1)"
            try await Lab.untilTrue(seconds: 20, "the edge to wait for home, or to have joined") {
                try await Command.run("python3", ["-c", stranger, second.link], seconds: 20).errors.contains("refused") == false
            }
            let joined = try await joining.value
            #expect(joined.isSuccess && joined.output.contains("joined"), "\(joined)")
            let again = try await second.causeway(["join", token])
            #expect(!again.isSuccess && again.errors.contains("is paired with"), "\(again)")

            // The second disk moves there, while the first goes on being served by the edge that dials.
            #expect(try await lab.causeway(.onprem, "volume", "detach", "more").isSuccess)
            let edge = try #require(try await edges(lab).first { $0.name == "second" })
            #expect(edge.address == second.link)
            let attached = try await lab.causeway(.onprem, "volume", "attach", "more", "--edge", edge.identifier)
            #expect(attached.isSuccess, "\(attached)")
            let credentials = try await lab.causeway(.onprem, "volume", "credentials", "more", "--output", "json")
            let url = try #require(try APICoding.decoder().decode(VolumeCredentials.self, from: Data(credentials.output.utf8)).url)
            for (url, pattern) in [(url, "0x5a"), (lab.url("data"), "0x3c")] {
                try await Command.check("qemu-io", ["-f", "raw", "-c", "write -P \(pattern) 0 4M", "-c", "flush", url], seconds: 60)
            }
            for name in ["more", "data"] {
                let sealed = try await lab.causeway(.onprem, "volume", "seal", name, "--wait")
                #expect(sealed.isSuccess, "\(sealed)")
            }
            for (name, pattern) in [("more", "0x5a"), ("data", "0x3c")] {
                let read = try await Command.check("qemu-io", ["-r", "-U", "-f", "raw", "-c", "read -P \(pattern) 0 4M", lab.disk(name)])
                #expect(!read.contains("verification failed"))
            }
            #expect(try await lab.links(.onprem).filter { $0.state == .up }.count == 2)
        }
    }
}

/// A cloud edge beside a lab's, that waits for home to dial.
private struct SecondCloudEdge {
    let directory: URL
    let running: RunningCommand
    let api: String
    let link: String
    let token: String

    static func start(in directory: URL) async throws -> SecondCloudEdge {
        let state = directory.appendingPathComponent("second")
        try FileManager.default.createDirectory(at: state, withIntermediateDirectories: true)
        // The system's choice, taken for a moment: the configuration has to name ports.
        let script = "import socket\nfor s in [socket.socket() for _ in range(3)]: s.bind(('127.0.0.1',0)); print(s.getsockname()[1])"
        let ports = try await Command.check("python3", ["-c", script]).split(separator: "\n").map(String.init)
        let addresses = ports.map { "127.0.0.1:\($0)" }
        let config = directory.appendingPathComponent("second.yaml")
        let text = """
            role: cloud
            name: second
            state: \(state.path)
            api: {listen: '\(addresses[0])'}
            link: {listen: '\(addresses[1])'}
            target: {listen: '\(addresses[2])'}
            cache: {size: 64MiB}
            points: {recoveryPointObjective: 300ms}
            """
        try Data(text.utf8).write(to: config)
        let running = try Command.start("causewayd", ["--config", config.path])
        let tokenFile = state.appendingPathComponent("api-token").path
        var token = ""
        do {
            try await Lab.untilTrue(seconds: 60, "the second cloud edge to come up") {
                token = ((try? String(contentsOfFile: tokenFile, encoding: .utf8)) ?? "").trimmingCharacters(in: .whitespacesAndNewlines)
                let environment = ["CAUSEWAY_API": "http://\(addresses[0])", "CAUSEWAY_TOKEN": token]
                return try await Command.run("causeway", ["edge", "list"], environment: environment, seconds: 10).isSuccess
            }
        } catch {
            running.signal(SIGKILL)
            throw CommandFailure(description: "\(error)\n\(try await running.wait(seconds: 20))")
        }
        return SecondCloudEdge(directory: directory, running: running, api: "http://\(addresses[0])", link: addresses[1], token: token)
    }

    func causeway(_ arguments: [String]) async throws -> CommandResult {
        try await Command.run("causeway", arguments, environment: ["CAUSEWAY_API": api, "CAUSEWAY_TOKEN": token], seconds: 90)
    }

    @discardableResult
    func end() async -> String {
        running.signal(SIGTERM)
        let result = try? await running.wait(seconds: 60)
        return result.map { "\($0)" } ?? "it did not end"
    }
}
