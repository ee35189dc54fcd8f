import APIModels
import Foundation
import Testing

extension EndToEnd {
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
                // A volume that is given back comes home whole, and the other has points without it.
                #expect(try await lab.causeway(.onprem, "volume", "detach", "redo").isSuccess)
                let alone = try await lab.causeway(.onprem, "group", "seal", "machine", "--wait")
                #expect(alone.isSuccess, "\(alone)")
                #expect(try await lab.causeway(.onprem, "group", "delete", "machine").isSuccess)
                try await lab.seal("data")
            }
        }
    }
}
