import APIModels
import Foundation
import Testing

extension EndToEnd {
    /// TCP services of one side, reached from the other over the link.
    @Suite(.serialized)
    struct Tunnels {
        private func tunnels(_ lab: Lab, _ side: Lab.Side) async throws -> [Tunnel] {
            let result = try await lab.causeway(side, "tunnel", "list", "--output", "json")
            guard result.isSuccess else { throw CommandFailure(description: result.description) }
            return try APICoding.decoder().decode([Tunnel].self, from: Data(result.output.utf8))
        }

        /// Where the edge listens, once it does.
        private func listening(_ lab: Lab, _ side: Lab.Side, _ name: String) async throws -> String {
            var address: String?
            try await Lab.untilTrue(seconds: 30, "the \(side) edge to listen for \(name)") {
                let tunnel = try await tunnels(lab, side).first { $0.name == name }
                address = tunnel?.state == .listening ? tunnel?.listen : nil
                return address != nil
            }
            return try #require(address)
        }

        /// A port that was free a moment ago.
        private func freePort() async throws -> String {
            let script = "import socket; s=socket.socket(); s.bind(('127.0.0.1',0)); print(s.getsockname()[1])"
            return try await Command.check("python3", ["-c", script]).trimmingCharacters(in: .whitespacesAndNewlines)
        }

        private func untilAnswers(_ port: String) async throws {
            let script = "import socket,sys; socket.create_connection(('127.0.0.1',int(sys.argv[1])),2)"
            try await Lab.untilTrue(seconds: 20, "a service on port \(port)") {
                try await Command.run("python3", ["-c", script, port], seconds: 10).isSuccess
            }
        }

        @Test("an NBD server at home, through cuts and restarts; a web server in the cloud, from home")
        func services() async throws {
            try await Lab.with(disks: [("data", 16 << 20)], options: ["--rtt", "10ms", "--rate", "200mbit"]) { lab in
                let noise = try Lab.makeNoise(in: lab.directory, mebibytes: 48)
                let port = try await freePort()
                let server = try Command.start("nbdkit", ["-f", "-p", port, "-i", "127.0.0.1", "file", noise])
                defer { server.signal(SIGKILL) }
                try await untilAnswers(port)
                let created = try await lab.causeway(
                    .onprem, "tunnel", "create", "store", "--edge", "cloud", "--listen", "127.0.0.1:0", "--connect", "127.0.0.1:\(port)")
                #expect(created.isSuccess && created.output.contains("to home"), "\(created)")
                var address = try await listening(lab, .cloud, "store")
                let copy = lab.directory.appendingPathComponent("copy").path

                // The line is reset under it: the link's session goes on, and the connections with it.
                let copying = Task { [address] in try await Command.run("nbdcopy", ["nbd://\(address)", copy], seconds: 110) }
                try await Lab.untilTrue(seconds: 60, "bytes to come through") {
                    (try await tunnels(lab, .cloud).first?.receivedBytes ?? 0) > 8 << 20
                }
                try await lab.relay("reset")
                let copied = try await copying.value
                #expect(copied.isSuccess, "\(copied)")
                try await Command.check("cmp", [noise, copy])

                // Home keeps it, and tells an edge that comes back.
                try await lab.kill(.cloud)
                try await lab.kill(.onprem)
                try await lab.restart(.onprem)
                try await lab.restart(.cloud)
                address = try await listening(lab, .cloud, "store")
                try await Command.check("nbdinfo", ["--size", "nbd://\(address)"], seconds: 30)

                try await theOtherWay(lab)

                // The service goes: whoever comes is told so by a reset, and the operator in words.
                server.signal(SIGKILL)
                _ = try await server.wait(seconds: 20)
                #expect(try await !Command.run("nbdinfo", ["--size", "nbd://\(address)"], seconds: 30).isSuccess)
                let message = try await tunnels(lab, .onprem).first { $0.name == "store" }?.message
                #expect(message?.contains("can't connect to 127.0.0.1:\(port)") == true, "\(message ?? "")")
                #expect(try await lab.causeway(.onprem, "tunnel", "delete", "store").isSuccess)
                try await Lab.untilTrue(seconds: 20, "the cloud edge to listen no more") {
                    try await tunnels(lab, .cloud).allSatisfy { $0.name != "store" }
                }
                #expect(try await !Command.run("nbdinfo", ["--size", "nbd://\(address)"], seconds: 30).isSuccess)
            }
        }

        private func theOtherWay(_ lab: Lab) async throws {
            let port = try await freePort()
            let server = try Command.start(
                "python3", ["-m", "http.server", port, "--bind", "127.0.0.1", "--directory", lab.directory.path])
            defer { server.signal(SIGKILL) }
            try await untilAnswers(port)
            let created = try await lab.causeway(
                .onprem,
                arguments: [
                    "tunnel", "create", "web", "--edge", "cloud", "--to-cloud", "--precedence", "bulk", "--listen", "127.0.0.1:0",
                    "--connect", "127.0.0.1:\(port)",
                ])
            #expect(created.isSuccess, "\(created)")
            let address = try await listening(lab, .onprem, "web")
            try await Lab.untilTrue(seconds: 20, "the cloud edge to know of it") {
                try await tunnels(lab, .cloud).contains { $0.name == "web" && $0.state == .connecting }
            }
            let script = """
                import sys, urllib.request, hashlib, concurrent.futures
                want = hashlib.sha256(open(sys.argv[2], 'rb').read()).digest()
                def get(_): return hashlib.sha256(urllib.request.urlopen('http://' + sys.argv[1] + '/noise', timeout=60).read()).digest() == want
                with concurrent.futures.ThreadPoolExecutor(3) as pool: assert all(pool.map(get, range(3)))
                """
            let noise = lab.directory.appendingPathComponent("noise").path
            try await Command.check("python3", ["-c", script, address, noise], seconds: 110)
            let metrics = try await lab.causeway(.onprem, "metrics").output
            #expect(metrics.contains("causeway_tunnel_received_bytes_total{tunnel=\"web\"}"))
        }

        @Test("what makes no sense is refused with what to do, and so is who may not come")
        func refusals() async throws {
            try await Lab.with(disks: [("data", 16 << 20)]) { lab in
                let create = ["tunnel", "create", "name", "--edge", "cloud", "--connect", "127.0.0.1:9"]
                for (arguments, text) in [
                    (create + ["--listen", "0.0.0.0:0"], "say from which networks"), (create + ["--listen", "nowhere"], "no port"),
                    (create + ["--listen", "127.0.0.1:0", "--allow", "10.0.0.0/40"], "no network"),
                    (["tunnel", "create", "name", "--edge", "nobody", "--connect", "a:1", "--listen", "127.0.0.1:0"], "nobody"),
                    (["tunnel", "create", "name", "--edge", "cloud", "--connect", "a:0", "--listen", "127.0.0.1:0"], "port 0"),
                    (["tunnel", "create", "a b", "--edge", "cloud", "--connect", "a:1", "--listen", "127.0.0.1:0"], "name"),
                    (["tunnel", "delete", "nothing"], "nothing"),
                ] {
                    let refused = try await lab.causeway(.onprem, arguments: arguments)
                    #expect(!refused.isSuccess && refused.errors.contains(text), "\(refused)")
                }
                let away = try await lab.causeway(.cloud, arguments: create + ["--listen", "127.0.0.1:0"])
                #expect(!away.isSuccess && away.errors.contains("on-prem"), "\(away)")
                let closed = try await lab.causeway(.onprem, arguments: create + ["--listen", "127.0.0.1:0", "--allow", "10.1.0.0/16"])
                #expect(closed.isSuccess, "\(closed)")
                let twice = try await lab.causeway(.onprem, arguments: create + ["--listen", "127.0.0.1:0"])
                #expect(!twice.isSuccess && twice.errors.contains("another name"), "\(twice)")
                let address = try await listening(lab, .cloud, "name")
                let script =
                    "import socket,sys; h,p=sys.argv[1].split(':'); s=socket.create_connection((h,int(p)),5); print(len(s.recv(1)))"
                let stranger = try await Command.run("python3", ["-c", script, address], seconds: 20)
                #expect(stranger.output.trimmingCharacters(in: .whitespacesAndNewlines) != "1", "\(stranger)")
                try await Lab.untilTrue(seconds: 20, "the refusal to be counted") {
                    try await tunnels(lab, .cloud).first?.refusedTotal == 1
                }
                // An address that is taken is told, and had once it is free.
                let portal = lab.url("data").split(separator: "@")[1].split(separator: "/")[0]
                let taken = ["tunnel", "create", "taken", "--edge", "cloud", "--connect", "127.0.0.1:9", "--listen", String(portal)]
                #expect(try await lab.causeway(.onprem, arguments: taken).isSuccess)
                try await Lab.untilTrue(seconds: 20, "the cloud edge to say that it can't listen") {
                    try await tunnels(lab, .cloud).first { $0.name == "taken" }?.message?.contains("can't listen at \(portal)") == true
                }
            }
        }
    }
}
