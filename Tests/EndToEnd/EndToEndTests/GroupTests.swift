import APIModels
import Foundation
import Testing

extension EndToEndFaults {
    @Suite(.serialized)
    struct Groups {
        /// Writes a counter to the first volume, waits, writes it to the second, waits, and counts on: the second is never ahead of
        /// the first, nor behind by more than one, in any cut through both. Prints the first number and then every 100th.
        private static let writer = """
            import socket, struct, sys
            def connect(url):
                host, export = url[len('nbd://'):].split('/', 1)
                name, port = host.rsplit(':', 1)
                s = socket.create_connection((name, int(port)), 30)
                def take(n):
                    data = b''
                    while len(data) < n:
                        part = s.recv(n - len(data))
                        if not part: raise EOFError
                        data += part
                    return data
                take(18)
                name = export.encode()
                s.sendall(struct.pack('>I', 3))
                body = struct.pack('>I', len(name)) + name + struct.pack('>H', 0)
                s.sendall(b'IHAVEOPT' + struct.pack('>II', 7, len(body)) + body)
                while True:
                    magic, option, kind, length = struct.unpack('>QIII', take(20))
                    take(length)
                    if kind == 1: return s, take
                    if kind >= 1 << 31: raise SystemExit('the export was refused: %x' % kind)
            def write(connection, number):
                s, take = connection
                s.sendall(struct.pack('>IHHQQI', 0x25609513, 0, 1, number, 0, 4096) + struct.pack('>Q', number) * 512)
                magic, error, cookie = struct.unpack('>IIQ', take(16))
                if error: raise SystemExit('a write failed: %d' % error)
            first, second = connect(sys.argv[1]), connect(sys.argv[2])
            number = int(sys.argv[3])
            try:
                while True:
                    write(first, number)
                    write(second, number)
                    if number % 100 == 0 or number == int(sys.argv[3]): print(number, flush=True)
                    number += 1
            except (EOFError, OSError):
                print(number, flush=True)
            """

        private func group(_ lab: Lab, _ side: Lab.Side) async throws -> APIModels.VolumeGroup {
            let result = try await lab.causeway(side, "group", "show", "machine", "--output", "json")
            guard result.isSuccess else { throw CommandFailure(description: result.description) }
            return try APICoding.decoder().decode(APIModels.VolumeGroup.self, from: Data(result.output.utf8))
        }

        /// The counter on a disk at home.
        private func counter(_ lab: Lab, _ name: String) throws -> UInt64 {
            let file = try FileHandle(forReadingFrom: URL(fileURLWithPath: lab.disk(name)))
            defer { try? file.close() }
            return try #require(try file.read(upToCount: 8)).reduce(0) { $0 << 8 | UInt64($1) }
        }

        @Test("two volumes of a group are at one instant at home, whatever is killed, and go on together")
        func kills() async throws {
            try await Lab.with(
                disks: [("data", 8 << 20), ("redo", 8 << 20)], options: ["--nbd", "--recovery-point-objective", "100ms"]
            ) { lab in
                let created = try await lab.causeway(
                    .onprem, "group", "create", "machine", "data", "redo", "--recovery-point-objective", "100ms")
                #expect(created.isSuccess, "\(created)")
                var reached: UInt64 = 0
                for round in 0..<3 {
                    let load = try Command.start(
                        "python3", ["-c", Self.writer, lab.nbd("data"), lab.nbd("redo"), String(reached + 1)])
                    try await Lab.untilTrue(seconds: 60, "some points of the group to come home") { [reached] in
                        try counter(lab, "redo") > reached + 200
                    }
                    // Nothing comes after this: home settles what it has.
                    try await lab.kill(round.isMultiple(of: 2) ? .onprem : .cloud)
                    try await lab.kill(round.isMultiple(of: 2) ? .cloud : .onprem)
                    _ = try await load.wait(seconds: 60)
                    try await lab.restart(.onprem)
                    try await Lab.untilTrue(seconds: 60, "the disks to be at one point") {
                        let group = try await group(lab, .onprem)
                        return group.applied && group.point > 0
                    }
                    let (first, second) = (try counter(lab, "data"), try counter(lab, "redo"))
                    #expect(first == second || first == second + 1, "data is at write \(first), redo at \(second)")
                    try await lab.restart(.cloud)
                    try await lab.untilServing("data")
                    try await lab.untilServing("redo")
                    let sealed = try await lab.causeway(.onprem, "group", "seal", "machine", "--wait", "--output", "json")
                    #expect(sealed.isSuccess, "\(sealed)")
                    reached = try counter(lab, "data")
                    #expect(reached >= first)
                }
                let cut = try #require(try await group(lab, .cloud).cut)
                print("cuts: \(cut.count), the longest took \(Int(cut.longestSeconds * 1e6)) µs")
                try await brackets(lab)
                try await leaving(lab)
                // A volume that is given back comes home whole, and the other has points without it.
                #expect(try await lab.causeway(.onprem, "volume", "detach", "redo").isSuccess)
                let alone = try await lab.causeway(.onprem, "group", "seal", "machine", "--wait")
                #expect(alone.isSuccess, "\(alone)")
                #expect(try await lab.causeway(.onprem, "group", "delete", "machine").isSuccess)
                try await lab.seal("data")
            }
        }

        /// A volume leaves the group, and joins it again: whatever its log has kept of earlier points counts as older from then on.
        private func leaving(_ lab: Lab) async throws {
            let before = try await group(lab, .onprem).point
            for (volumes, term) in [(["data"], 1), (["data", "redo"], 2)] as [([String], UInt64)] {
                #expect(try await lab.causeway(.onprem, arguments: ["group", "set", "machine", "--volumes"] + volumes).isSuccess)
                try await Lab.untilTrue(seconds: 30, "the cloud edge to know the volumes of the group") {
                    try await group(lab, .cloud).members.map(\.volume) == volumes
                }
                let sealed = try await lab.causeway(.onprem, "group", "seal", "machine", "--wait")
                #expect(sealed.isSuccess, "\(sealed)")
                let after = try await group(lab, .onprem)
                #expect(after.point > before + (term - 1) * 1_000_000_000 && after.members.map(\.volume).sorted() == volumes)
            }
        }

        /// Nobody writes: somebody says so round a seal, and comes back in time, or does not.
        private func brackets(_ lab: Lab) async throws {
            let untilMarked = { (mark: String) in
                try await Lab.untilTrue(seconds: 30, "both disks to be at a point that is \(mark)") {
                    for name in ["data", "redo"] {
                        guard try await lab.causeway(.onprem, "volume", "show", name).output.contains(mark) else { return false }
                    }
                    return true
                }
            }
            #expect(try await lab.causeway(.onprem, "bracket", "begin", "--group", "machine", "--label", "nightly").isSuccess)
            let second = try await lab.causeway(.cloud, "bracket", "begin", "--group", "machine")
            #expect(second.status == 1 && "\(second)".contains("has not ended"), "\(second)")
            let sealed = try await lab.causeway(.onprem, "bracket", "seal", "--group", "machine")
            #expect(sealed.isSuccess && sealed.output.contains("application"), "\(sealed)")
            try await untilMarked("application-consistent, “nightly”")
            // A volume's bracket in a group is one of the group's points, and ends by itself.
            #expect(
                try await lab.causeway(.onprem, "bracket", "begin", "--volume", "data", "--label", "late", "--timeout-seconds", "1")
                    .isSuccess)
            try await untilMarked("crash-consistent, “late”")
            let late = try await lab.causeway(.onprem, "bracket", "seal", "--volume", "data")
            #expect(late.status == 1 && "\(late)".contains("has ended by itself"), "\(late)")
        }

        @Test("when the cloud edge is lost and all is detached by force, the disks are at their last common point, twice")
        func disaster() async throws {
            try await Lab.with(
                disks: [("data", 16 << 20), ("redo", 16 << 20)],
                options: ["--nbd", "--rate", "8mbit", "--recovery-point-objective", "60s"]
            ) { lab in
                let created = try await lab.causeway(
                    .onprem, "group", "create", "machine", "data", "redo", "--recovery-point-objective", "1h")
                #expect(created.isSuccess, "\(created)")
                for together in [false, true] { try await lose(lab, together: together) }
                let last = try await lab.causeway(.onprem, "group", "seal", "machine", "--wait")
                #expect(last.isSuccess, "\(last)")
            }
        }

        /// The cloud edge is lost while home has the small part of a point, and the large one is on its way; its volumes are detached by
        /// force, one after the other or together, used by somebody, and attached again.
        private func lose(_ lab: Lab, together: Bool) async throws {
            // Sent in this order.
            let names = try await [lab.status("data"), lab.status("redo")].sorted { $0.identifier < $1.identifier }.map(\.name)
            for name in names {
                try await Command.check("qemu-io", ["-f", "raw", "-c", "write -P 1 0 4k", "-c", "flush", lab.nbd(name)])
            }
            let first = try await lab.causeway(.onprem, "group", "seal", "machine", "--wait")
            #expect(first.isSuccess, "\(first)")
            let noise = try Lab.makeNoise(in: lab.directory, mebibytes: 8)
            try await Command.check("qemu-io", ["-f", "raw", "-c", "write -P 2 0 4k", "-c", "flush", lab.nbd(names[0])])
            try await Command.check(
                "qemu-io", ["-f", "raw", "-c", "write -P 2 0 4k", "-c", "write -s \(noise) 4M 8M", "-c", "flush", lab.nbd(names[1])])
            let sealed = try await lab.causeway(.cloud, "group", "seal", "machine")
            #expect(sealed.isSuccess, "\(sealed)")
            try await Lab.untilTrue(seconds: 30, "home to hold the first volume's part") {
                try await group(lab, .onprem).members.contains { $0.received > $0.applied }
            }
            let before = try await group(lab, .onprem)
            #expect(before.applied, "what is only received is not told as applied: \(before)")
            try await lab.relay("cut")
            try await lab.kill(.cloud)
            if together {
                let detached = try await lab.causeway(.onprem, "group", "detach", "machine", "--force")
                #expect(detached.isSuccess && detached.output.contains("1 points beyond"), "\(detached)")
            } else {
                for name in names {
                    let detached = try await lab.causeway(.onprem, "volume", "detach", name, "--force")
                    #expect(detached.isSuccess, "\(detached)")
                    // A restart in between forgets nothing of it.
                    try await lab.kill(.onprem)
                    try await lab.restart(.onprem)
                }
            }
            for name in names { #expect(try counter(lab, name) == 0x0101_0101_0101_0101, "disk \(name) is beyond the common point") }
            try await lab.kill(.onprem)
            let offline = try await Command.run(
                "causeway", ["verify", "journal", "--state", lab.directory.appendingPathComponent("lab/onprem").path])
            #expect(offline.isSuccess && "\(offline)".contains("are held until"), "\(offline)")
            try await lab.restart(.onprem)
            // The owner uses the disks, and attaches them again: what was held is never applied.
            for name in names {
                let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: lab.disk(name)))
                try handle.write(contentsOf: Data(repeating: 3, count: 4096))
                try handle.close()
            }
            try await lab.relay("restore")
            try await lab.restart(.cloud)
            for name in names {
                let attached = try await lab.causeway(.onprem, "volume", "attach", name)
                #expect(attached.isSuccess, "\(attached)")
                try await lab.untilServing(name)
                #expect(try counter(lab, name) == 0x0303_0303_0303_0303)
            }
        }
    }
}
