import Foundation
import Testing

extension EndToEnd {
    /// Whatever is wrong is said, with what to do, and nothing is lost by it.
    @Suite(.serialized)
    struct Refusals {
        @Test("a wrong CHAP secret, a foreign target, a second writer of the disk")
        func clients() async throws {
            try await Lab.with(disks: [("data", 16 << 20)]) { lab in
                let url = lab.url("data")
                let wrong = url.replacing(/%[^@]*@/, with: "%wrongwrongwrong@")
                let refused = try await Command.run("iscsi-inq", [wrong], seconds: 20)
                #expect(!refused.isSuccess)
                let missing = url.replacing("causeway:data", with: "causeway:other")
                #expect(try await !Command.run("iscsi-inq", [missing], seconds: 20).isSuccess)

                let other = lab.directory.appendingPathComponent("other").path
                let second = try await Command.run(
                    "causeway", ["lab", "up", "--directory", other, "--disk", "data=\(lab.disk("data"))", "--detach"], seconds: 90)
                #expect(!second.isSuccess)
                #expect((second.output + second.errors).contains("lock") || (second.output + second.errors).contains("use"), "\(second)")
                #expect(try await Command.run("iscsi-inq", [url], seconds: 20).isSuccess)
            }
        }

        @Test("a lab in a file, and in a directory that one may not read")
        func labDirectories() async throws {
            let directory = try Lab.makeDirectory()
            defer { try? FileManager.default.removeItem(at: directory) }
            let file = directory.appendingPathComponent("file").path
            try Data("mine".utf8).write(to: URL(fileURLWithPath: file))
            for place in [file, file + "/below"] {
                let refused = try await Command.run("causeway", ["lab", "up", "--directory", place, "--detach"], seconds: 20)
                #expect(refused.status == 1 && refused.errors.contains("directory"), "\(refused)")
                #expect(!refused.errors.contains("NSCocoa") && !refused.errors.contains("Error Domain"), "\(refused)")
            }
            #expect(try Data(contentsOf: URL(fileURLWithPath: file)) == Data("mine".utf8))
            // The file's account may not read what is in a directory of root's: that is not the same as no lab.
            guard getuid() == 0 else { return }
            try FileManager.default.setAttributes([.posixPermissions: 0o700], ofItemAtPath: directory.path)
            let down = Command.path(of: "causeway")
            let refused = try await Command.run(
                "setpriv", ["--reuid=65534", "--clear-groups", down, "lab", "down", "--directory", directory.path], seconds: 20)
            #expect(refused.status == 1 && refused.errors.contains("Permission denied"), "\(refused)")
        }

        @Test("a number below zero is called that, wherever a command takes one")
        func negativeNumbers() async throws {
            for (program, arguments, text) in [
                ("causeway", ["cache", "resize", "-5"], "“-5” is a negative number"),
                ("causeway", ["cache", "partition", "lab", "-20GiB"], "“-20GiB” is a negative number"),
                ("causeway", ["volume", "cache", "pin", "mail", "--start", "0", "--size", "-5"], "--size takes a positive one"),
                ("causeway", ["volume", "cache", "pin", "mail", "--start=-1GiB", "--size", "5"], "--start takes a positive one"),
                ("causeway", ["volume", "set", "mail", "--recovery-point-objective", "-5s"], "--recovery-point-objective takes"),
                ("causeway", ["lab", "up", "--directory", "lab", "--portals", "-1"], "--portals takes a positive one"),
                ("causeway-load", ["run", "iscsi://nowhere/target/0", "--queue-depth", "-1"], "--queue-depth takes a positive one"),
            ] {
                let refused = try await Command.run(program, arguments, seconds: 20)
                #expect(refused.status == 64 && refused.errors.contains(text), "\(refused)")
            }
            // What the parser says of other mistakes stays.
            let other = try await Command.run("causeway", ["cache", "resize", "-x"], seconds: 20)
            #expect(other.status == 64 && !other.errors.contains("negative"), "\(other)")
            let reserved = try await Command.run("causeway", ["cache", "partition", "shared", "1GiB"], seconds: 20)
            #expect(reserved.status == 64 && reserved.errors.contains("Choose another name"), "\(reserved)")
        }

        @Test("a daemon that something else started again: `lab down` ends it, leaves that alone, and says so")
        func wrapper() async throws {
            try await Lab.with(disks: [("data", 16 << 20)]) { lab in
                try await lab.kill(.cloud)
                // It has the daemon's words on its own command line, and outlives it.
                let script = "import subprocess, sys, time; subprocess.run(sys.argv[1:]); time.sleep(120)"
                let wrapper = try Command.start(
                    "python3", ["-c", script, Command.path(of: "causewayd"), "--config", lab.edge(.cloud).config])
                defer { wrapper.signal(SIGKILL) }
                try await lab.untilServing("data")
                let lock = try String(contentsOfFile: lab.edge(.cloud).state + "/lock", encoding: .utf8)
                let daemon = try #require(Int32(lock.trimmingCharacters(in: .whitespacesAndNewlines)))
                #expect(daemon != wrapper.processIdentifier)
                let place = ["--directory", lab.directory.appendingPathComponent("lab").path]
                let status = try await Command.run("causeway", ["lab", "status"] + place)
                #expect(status.isSuccess && status.output.contains(" \(daemon) "), "\(status)")
                let down = try await Command.run("causeway", ["lab", "down"] + place)
                #expect(down.isSuccess && down.output.contains("process \(daemon), which the lab had not started"), "\(down)")
                #expect(down.output.contains("everything is at home"), "\(down)")
                #expect(Lab.hasEnded(daemon) && wrapper.isRunning)
            }
        }

        @Test("a lab whose daemons are started by a script goes down with both")
        func script() async throws {
            let directory = try Lab.makeDirectory()
            defer { try? FileManager.default.removeItem(at: directory) }
            let script = directory.appendingPathComponent("daemon").path
            // It waits for the daemon, and then goes on for ever.
            let text = "#!/bin/sh\n'\(Command.path(of: "causewayd"))' \"$@\"\nwhile :; do sleep 1; done\n"
            #expect(FileManager.default.createFile(atPath: script, contents: Data(text.utf8), attributes: [.posixPermissions: 0o755]))
            let disk = directory.appendingPathComponent("data.img").path
            #expect(FileManager.default.createFile(atPath: disk, contents: Data(count: 1 << 20)))
            let lab = directory.appendingPathComponent("lab").path
            let up = try await Command.run(
                "causeway", ["lab", "up", "--directory", lab, "--disk", "data=\(disk)", "--detach", "--output", "json"],
                environment: ["CAUSEWAYD": script], seconds: 90)
            #expect(up.isSuccess, "\(up)")
            let record = try JSONDecoder().decode(Lab.Description.self, from: Data(up.output.utf8))
            let daemons = try ["cloud", "onprem"].map {
                let lock = try String(contentsOfFile: "\(lab)/\($0)/lock", encoding: .utf8)
                return try #require(Int32(lock.trimmingCharacters(in: .whitespacesAndNewlines)))
            }
            #expect(Set(daemons).isDisjoint(with: [record.cloud.pid, record.onprem.pid]))
            let down = try await Command.run("causeway", ["lab", "down", "--directory", lab], seconds: 90)
            #expect(down.isSuccess && down.output.contains("everything is at home") && !down.output.contains("note:"), "\(down)")
            for pid in daemons + [record.cloud.pid, record.onprem.pid] { #expect(Lab.hasEnded(pid), "process \(pid)") }
        }

        @Test("another file in the disk's place, while the daemon is down, is refused until the right one is back")
        func swappedDisk() async throws {
            try await Lab.with(disks: [("data", 16 << 20)]) { lab in
                let url = lab.url("data")
                try await Command.check("qemu-io", ["-f", "raw", "-c", "write -P 0x11 1M 1M", "-c", "flush", url], seconds: 60)
                try await lab.seal("data")
                // One more write, which is to reach the right disk and no other.
                try await Command.check("qemu-io", ["-f", "raw", "-c", "write -P 0x22 4M 64k", "-c", "flush", url], seconds: 60)
                try await lab.kill(.onprem)
                let (path, aside) = (lab.disk("data"), lab.disk("data") + ".aside")
                try FileManager.default.moveItem(atPath: path, toPath: aside)
                let foreign = Data(repeating: 0x77, count: 16 << 20)
                try foreign.write(to: URL(fileURLWithPath: path))
                try await lab.restart(.onprem, waitUntilHealthy: false)
                var shown = ""
                try await Lab.untilTrue(seconds: 60, "the foreign disk to be refused") {
                    shown = try await lab.causeway(.onprem, "volume", "show", "data").output
                    return shown.contains("another disk")
                }
                #expect(try Data(contentsOf: URL(fileURLWithPath: path)) == foreign, "\(shown)")
                try FileManager.default.removeItem(atPath: path)
                try FileManager.default.moveItem(atPath: aside, toPath: path)
                try await lab.untilServing("data")
                try await lab.seal("data")
                let read = try await Command.check(
                    "qemu-io", ["-r", "-U", "-f", "raw", "-c", "read -P 0x11 1M 1M", "-c", "read -P 0x22 4M 64k", path], seconds: 60)
                #expect(!read.contains("verification failed"), "\(read)")
            }
        }

        @Test("tokens: expired, used twice, cut short; and a revoked edge stays out")
        func pairing() async throws {
            try await Lab.with(disks: [("data", 16 << 20)]) { lab in
                let again = try await lab.causeway(.cloud, "join", "cwp1.AAAA")
                #expect(!again.isSuccess)
                #expect(again.errors.contains("paired"), "\(again)")

                let configuration = lab.directory.appendingPathComponent("third.yaml").path
                let state = lab.directory.appendingPathComponent("third").path
                let api = 20_000 + Int(lab.description.cloud.pid) % 10_000
                try Data(
                    """
                    role: cloud
                    name: third
                    state: \(state)
                    api: {listen: "127.0.0.1:\(api)"}
                    target: {listen: ["127.0.0.1:0"]}
                    """.utf8
                ).write(to: URL(fileURLWithPath: configuration))
                let third = try Command.start("causewayd", ["--config", configuration])
                defer { third.signal(SIGKILL) }
                var environment: [String: String] = [:]
                try await Lab.untilTrue(seconds: 30, "the third edge's token") {
                    guard let token = try? String(contentsOfFile: state + "/api-token", encoding: .utf8) else { return false }
                    environment = [
                        "CAUSEWAY_API": "http://127.0.0.1:\(api)", "CAUSEWAY_TOKEN": token.trimmingCharacters(in: .whitespacesAndNewlines),
                    ]
                    return try await Command.run("causeway", ["status"], environment: environment, seconds: 10).isSuccess
                }
                let expired = try await Self.token(lab, expires: "1s")
                try await Task.sleep(for: .milliseconds(1_500))
                let late = try await Command.run("causeway", ["join", expired], environment: environment, seconds: 30)
                #expect(!late.isSuccess && late.errors.contains("causeway pair"), "\(late)")
                let cut = try await Command.run("causeway", ["join", String(expired.dropLast(5))], environment: environment, seconds: 30)
                #expect(!cut.isSuccess && cut.errors.contains("token"), "\(cut)")

                let good = try await Self.token(lab, expires: "5m")
                let joined = try await Command.run("causeway", ["join", good], environment: environment, seconds: 60)
                #expect(joined.isSuccess, "\(joined)")
                let list = try await lab.causeway(.onprem, "edge", "list", "--output", "json")
                #expect(list.output.contains("third"))
                let identifier = try #require(
                    list.output.firstMatch(of: /"identifier"\s*:\s*"(cloud-[^"]+)"(?:[^}]*)"name"\s*:\s*"third"/)?.1)
                let revoked = try await lab.causeway(.onprem, "edge", "revoke", String(identifier))
                #expect(revoked.isSuccess, "\(revoked)")
                try await Lab.untilTrue(seconds: 30, "the revoked edge to be disconnected") {
                    let links = try await Command.run(
                        "causeway", ["link", "list", "--output", "json"], environment: environment, seconds: 10)
                    return !links.output.contains("\"state\" : \"up\"") && !links.output.contains("\"state\":\"up\"")
                }
                let status = try await Command.run("causeway", ["status", "--output", "json"], environment: environment, seconds: 10)
                #expect(status.output.contains("revoked"), "\(status)")
                third.signal(SIGTERM)
                #expect(try await third.wait(seconds: 30).status == 0)

                // It hears of it too when it was not there, or the line was cut, when that happened.
                let back = try Command.start("causewayd", ["--config", configuration])
                defer { back.signal(SIGKILL) }
                let known = environment
                try await Lab.untilTrue(seconds: 30, "the revoked edge to hear of it when it comes again") {
                    try await Command.run("causeway", ["status", "--output", "json"], environment: known, seconds: 10).output
                        .contains("revoked")
                }
                back.signal(SIGTERM)
                #expect(try await back.wait(seconds: 30).status == 0)
            }
        }

        private static func token(_ lab: Lab, expires: String) async throws -> String {
            let result = try await lab.causeway(.onprem, "pair", "--expires", expires)
            guard result.isSuccess, let token = result.output.firstMatch(of: /cwp1\.[A-Za-z0-9_-]+/)?.0 else {
                throw CommandFailure(description: "no token: \(result)")
            }
            return String(token)
        }

        @Test("one state directory has one daemon; wrong configurations are named by line")
        func daemons() async throws {
            try await Lab.with(disks: [("data", 16 << 20)]) { lab in
                let second = try await Command.run("causewayd", ["--config", lab.description.cloud.config], seconds: 30)
                #expect(second.status == 75, "\(second)")
                #expect(second.errors.contains("\(lab.description.cloud.pid)"), "\(second)")

                let path = lab.directory.appendingPathComponent("wrong.yaml").path
                try Data("role: onprem\nstat: /tmp/x\nlink:\n  listen: nowhere\n".utf8).write(to: URL(fileURLWithPath: path))
                let checked = try await Command.run("causewayd", ["--check-config", "--config", path], seconds: 20)
                #expect(checked.status == 78, "\(checked)")
                #expect(checked.errors.contains("wrong.yaml:2:") && checked.errors.contains("wrong.yaml:4:"), "\(checked)")
                let right = try await Command.run("causewayd", ["--check-config", "--config", lab.description.onprem.config], seconds: 20)
                #expect(right.isSuccess, "\(right)")
            }
        }

        @Test("a detach under a writing initiator brings home what was acknowledged; SIGTERM ends both daemons with 0")
        func detachUnderLoad() async throws {
            try await Lab.with(disks: [("data", 16 << 20)]) { lab in
                let state = lab.directory.appendingPathComponent("load.state").path
                let load = try Command.start(
                    "causeway-load",
                    ["run", lab.url("data"), "--write", "--queue-depth", "8", "--rate-iops", "2000", "--runtime", "20s", "--verify", state])
                // The journal of the generator tells that writes have been acknowledged.
                try await Lab.untilTrue(seconds: 20, "the load to begin") { try await lab.status("data").io.writes > 500 }
                let detached = try await lab.causeway(.onprem, "volume", "detach", "data")
                #expect(detached.isSuccess, "\(detached)")
                _ = try await load.wait(seconds: 60)
                let home = try await Command.run("causeway-load", ["verify", lab.disk("data"), state], seconds: 60)
                #expect(home.isSuccess, "\(home)")

                for side in [Lab.Side.onprem, .cloud] {
                    try await lab.kill(side)
                    let daemon = try await lab.restart(side)
                    daemon.signal(SIGTERM)
                    let ended = try await daemon.wait(seconds: 30)
                    #expect(ended.status == 0, "\(side): \(ended)")
                    #expect(ended.errors.contains("stopped"), "\(side): \(ended)")
                }
            }
        }

        @Test("a volume goes through its whole life: created, attached, detached with everything home, attached again, deleted")
        func lifeOfAVolume() async throws {
            try await Lab.with(disks: [("data", 16 << 20)]) { lab in
                try await Command.check("qemu-io", ["-f", "raw", "-c", "write -P 9 0 2M", "-c", "flush", lab.url("data")], seconds: 30)
                let deleted = try await lab.causeway(.onprem, "volume", "delete", "data")
                #expect(!deleted.isSuccess && deleted.errors.contains("detach"), "\(deleted)")
                let detached = try await lab.causeway(.onprem, "volume", "detach", "data")
                #expect(detached.isSuccess, "\(detached)")
                // Everything is home, the target is gone, and the disk is free for others.
                try await Command.check("qemu-io", ["-f", "raw", "-c", "read -P 9 0 2M", lab.disk("data")], seconds: 30)
                #expect(try await !Command.run("iscsi-inq", [lab.url("data")], seconds: 20).isSuccess)
                // Somebody changes the disk at home meanwhile: the next attachment must not remember the old bytes.
                try await Command.check("qemu-io", ["-f", "raw", "-c", "write -P 4 0 1M", lab.disk("data")], seconds: 30)
                let attached = try await lab.causeway(.onprem, "volume", "attach", "data")
                #expect(attached.isSuccess, "\(attached)")
                try await lab.untilServing("data")
                let read = try await Command.check(
                    "qemu-io", ["-f", "raw", "-c", "read -P 4 0 1M", "-c", "read -P 9 1M 1M", lab.url("data")], seconds: 30)
                #expect(!read.contains("failed"), "\(read)")
                #expect(try await lab.causeway(.onprem, "volume", "detach", "data").isSuccess)
                #expect(try await lab.causeway(.onprem, "volume", "delete", "data").isSuccess)
                let list = try await lab.causeway(.onprem, "volume", "list", "--output", "json")
                #expect(!list.output.contains("\"data\""), "\(list)")
            }
        }
    }
}
