import APIModels
import Foundation
import Testing

extension EndToEndFaults {
    @Suite(.serialized)
    struct KeptPoints {
        private func points(_ lab: Lab) async throws -> APIModels.KeptPoints {
            let result = try await lab.causeway(.onprem, "volume", "point", "list", "data", "--output", "json")
            guard result.isSuccess else { throw CommandFailure(description: result.description) }
            return try APICoding.decoder().decode(APIModels.KeptPoints.self, from: Data(result.output.utf8))
        }

        private func isEqual(_ first: String, _ second: String) async throws -> Bool {
            try await Command.run("cmp", [first, second], seconds: 60).isSuccess
        }

        @Test("a disk is read at points that it was at, and goes back to one, whatever is killed")
        func goesBack() async throws {
            try await Lab.with(disks: [("data", 32 << 20)], options: ["--nbd", "--recovery-point-objective", "1h"]) { lab in
                let disk = lab.disk("data")
                let copies = (0..<4).map { lab.directory.appendingPathComponent("copy-\($0)").path }
                let refused = try await lab.causeway(.onprem, "volume", "detach", "data", "--to-point", "1")
                #expect(!refused.isSuccess && refused.errors.contains("can't be had again"), "\(refused)")
                #expect(try await lab.causeway(.onprem, "volume", "set", "data", "--keep-points", "3").isSuccess)
                // Data over data, data over nothing, nothing over data.
                let steps = [
                    ["write -P 1 0 9M"], ["write -P 2 1M 300k", "write -P 3 20M 5k"], ["discard 0 8M", "write -P 4 64k 4k"],
                    ["write -P 5 0 24M"],
                ]
                for (step, copy) in zip(steps, copies) {
                    try await Command.check("qemu-io", ["-f", "raw"] + (step + ["flush"]).flatMap { ["-c", $0] } + [lab.nbd("data")])
                    try await lab.seal("data")
                    try await Command.check("cp", ["--sparse=always", disk, copy])
                }
                let kept = try await points(lab)
                #expect(kept.past.count == 3 && kept.past.last?.point == kept.onDisk - 1, "\(kept)")
                let image = lab.directory.appendingPathComponent("past.img").path
                for (past, copy) in zip(kept.past, copies) {
                    let exported = try await lab.causeway(
                        .onprem, "volume", "point", "export", "data", String(past.point), image, "--force")
                    #expect(exported.isSuccess, "\(exported)")
                    #expect(try await isEqual(image, copy), "point \(past.point)")
                }
                // Both ends die; what is kept is still there, and the disk goes back twice as far as the last seal.
                try await lab.kill(.onprem)
                try await lab.restart(.onprem)
                try await lab.untilServing("data")
                let target = kept.past[1].point
                let back = try await lab.causeway(.onprem, "volume", "detach", "data", "--to-point", String(target))
                #expect(back.isSuccess, "\(back)")
                #expect(try await isEqual(disk, copies[1]))
                // A machine goes on from there.
                #expect(try await lab.causeway(.onprem, "volume", "attach", "data").isSuccess)
                try await lab.untilServing("data")
                try await Command.check("qemu-io", ["-r", "-f", "raw", "-c", "read -P 2 1M 300k", "-c", "read -P 1 0 1M", lab.nbd("data")])
                #expect(try await points(lab).past.isEmpty)
            }
        }
    }
}
