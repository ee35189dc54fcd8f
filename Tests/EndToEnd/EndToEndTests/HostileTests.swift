import Foundation
import Testing

extension EndToEnd {
    @Suite(.serialized)
    struct Hostility {
        @Test("what is written through a volume can't be read from the cloud edge's files, and there is no core file")
        func confidentiality() async throws {
            try await Lab.with(disks: [("secretdisk", 32 << 20)]) { lab in
                let pattern = "CausewayPlaintextCanary"
                let file = lab.directory.appendingPathComponent("pattern").path
                try await Command.check("bash", ["-c", "yes \(pattern) | head -c 8M >\(file)"])
                try await Command.check(
                    "qemu-img", ["convert", "-n", "-f", "raw", "-O", "raw", file, lab.url("secretdisk")], seconds: 60)
                try await lab.seal("secretdisk")
                let cloud = lab.directory.appendingPathComponent("lab").path
                for word in [pattern, "secretdisk"] {
                    let found = try await Command.run(
                        "grep", ["-r", "-a", "-l", "-F", word, lab.description.cloud.state, "\(cloud)/cloud.log"], seconds: 60)
                    #expect(found.status == 1, "\(found)")
                }
                // It did arrive at home.
                let home = try await Command.run("grep", ["-c", "-a", "-F", pattern, lab.disk("secretdisk")], seconds: 60)
                #expect(home.isSuccess)

                _ = Glibc.kill(lab.description.cloud.pid, SIGABRT)
                let pid = lab.description.cloud.pid
                try await Lab.untilTrue(seconds: 20, "the aborted daemon to end") { Lab.hasEnded(pid) }
                let cores = try await Command.run("find", [lab.directory.path, ".", "-maxdepth", "4", "-name", "core*", "-newer", file])
                #expect(
                    cores.output.split(separator: "\n").filter { !$0.contains(".build") && !$0.contains("Sources") }.isEmpty, "\(cores)")
                try await lab.restart(.cloud)
                try await lab.untilServing("secretdisk")
            }
        }

        @Test("garbage, half-open connections and oversized lengths leave the daemons up and their memory flat")
        func garbage() async throws {
            try await Lab.with(disks: [("data", 16 << 20)]) { lab in
                let status = try await lab.causeway(.cloud, "status", "--output", "json")
                #expect(status.isSuccess)
                let ports = try Self.ports(of: lab)
                #expect(ports.count >= 4)
                let before = (lab.residentKiB(.cloud), lab.residentKiB(.onprem))
                for round in 0..<3 {
                    for port in ports {
                        try await Command.check("python3", ["-c", Self.attack, "\(port)", "\(round)"], seconds: 60)
                    }
                }
                #expect(Glibc.kill(lab.description.cloud.pid, 0) == 0)
                #expect(Glibc.kill(lab.description.onprem.pid, 0) == 0)
                let after = (lab.residentKiB(.cloud), lab.residentKiB(.onprem))
                #expect(after.0 < before.0 + 96 << 10, "cloud: \(before.0) KiB before, \(after.0) after")
                #expect(after.1 < before.1 + 96 << 10, "on-prem: \(before.1) KiB before, \(after.1) after")
                try await Command.check("qemu-io", ["-f", "raw", "-c", "write -P 3 0 1M", "-c", "read -P 3 0 1M", lab.url("data")])
            }
        }

        /// The ports that the lab's daemons listen at.
        static func ports(of lab: Lab) throws -> [Int] {
            var ports: [Int] = []
            for edge in [lab.description.cloud, lab.description.onprem] {
                let text = try String(contentsOfFile: edge.config, encoding: .utf8)
                for match in text.matches(of: /listen:[^\n]*?:(\d+)/) { ports += Int(match.1).map { [$0] } ?? [] }
                for match in text.matches(of: /-\s*"?127\.0\.0\.1:(\d+)/) { ports += Int(match.1).map { [$0] } ?? [] }
            }
            return ports
        }

        /// Random bytes, plausible headers with absurd lengths, and connections that say nothing.
        static let attack = """
            import os, random, socket, struct, sys
            port, seed = int(sys.argv[1]), int(sys.argv[2])
            chance = random.Random(seed)
            silent = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(20)]
            heads = [b"", b"\\x43\\x81\\x00\\x00" + b"\\x00\\xff\\xff\\xff", b"\\x01\\xc1\\x00\\x00\\x00\\xff\\xff\\xff", b"CWLK\\xff\\xff\\xff\\xff",
                     b"\\x16\\x03\\x01\\xff\\xff", b"POST /v1/volumes HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 99999999999\\r\\n\\r\\n",
                     b"GET /" + b"a" * 70000 + b" HTTP/1.1\\r\\n\\r\\n"]
            for round in range(60):
                s = socket.create_connection(("127.0.0.1", port), 5)
                s.settimeout(2)
                try:
                    s.sendall(chance.choice(heads) + chance.randbytes(chance.randrange(1, 60000)))
                    if chance.random() < 0.5: s.shutdown(socket.SHUT_WR)
                    if chance.random() < 0.3: s.recv(100)
                except OSError:
                    pass
                s.close()
            for s in silent: s.close()
            """
    }
}
