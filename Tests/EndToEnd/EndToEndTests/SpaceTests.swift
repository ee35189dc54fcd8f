import Foundation
import Testing

extension EndToEnd {
    /// Space that a machine gives back is given back at home (T3, "free space").
    @Suite(.serialized)
    struct Space {
        private func usedBytes(_ path: String) -> Int {
            var status = stat()
            return stat(path, &status) == 0 ? Int(status.st_blocks) * 512 : -1
        }

        @Test("what is discarded or written as zeroes becomes holes in the disk's file, and GET LBA STATUS knows it")
        func holes() async throws {
            try await Lab.with(disks: [("thin", 64 << 20)]) { lab in
                let url = lab.url("thin")
                #expect(usedBytes(lab.disk("thin")) == 0)
                try await Command.check("qemu-io", ["-f", "raw", "-c", "write -P 0x5a 8M 16M", "-c", "flush", url], seconds: 60)
                try await lab.seal("thin")
                #expect(usedBytes(lab.disk("thin")) == 16 << 20)
                // Half by UNMAP, a quarter by WRITE SAME.
                try await Command.check(
                    "qemu-io", ["-f", "raw", "-d", "unmap", "-c", "discard 8M 8M", "-c", "write -zu 16M 4M", url],
                    seconds: 60)
                try await lab.seal("thin")
                #expect(usedBytes(lab.disk("thin")) == 4 << 20)
                let map = try await Command.check("qemu-img", ["map", "--output=json", "-f", "raw", url], seconds: 60)
                #expect(map.contains("20971520"), "the data begins at 20 MiB: \(map)")
                let read = try await Command.check(
                    "qemu-io", ["-f", "raw", "-c", "read -P 0 8M 12M", "-c", "read -P 0x5a 20484k 1M", url], seconds: 60)
                #expect(!read.contains("verification failed"))
                let compared = try await Command.run(
                    "qemu-img", ["compare", "-U", "-f", "raw", "-F", "raw", url, lab.disk("thin")], seconds: 240)
                #expect(compared.isSuccess, "\(compared)")
            }
        }
    }
}
