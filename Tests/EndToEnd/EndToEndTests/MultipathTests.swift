import Foundation
import Testing

extension EndToEnd {
    @Suite(.serialized)
    struct Multipath {
        @Test("two portals are found by discovery, and libiscsi's multipath tests pass over both")
        func portals() async throws {
            try await Lab.with(disks: [("data", 64 << 20)], options: ["--portals", "2"]) { lab in
                let portals = try #require(try await lab.status("data").target?.portals)
                #expect(portals.count == 2)
                let urls = portals.map { lab.url("data").replacing(/@[^\/]+\//, with: "@\($0)/") }
                for url in urls {
                    let listed = try await Command.check("iscsi-ls", ["-s", url.replacing(/\/iqn.*/, with: "/")], seconds: 20)
                    for portal in portals { #expect(listed.contains("\(portal),1"), "\(listed)") }
                }
                let tests = try await Command.run(
                    "iscsi-test-cu", ["--dataloss", "--verbose", "--test", "ALL.MultipathIO"] + urls, seconds: 120)
                #expect(tests.isSuccess, "\(tests)")
                #expect(!tests.output.contains("[SKIPPED]"), "\(tests.output)")
                // One path's end is not the other's.
                try await Command.check("qemu-io", ["-f", "raw", "-c", "write -P 7 0 1M", urls[0]], seconds: 30)
                let read = try await Command.check("qemu-io", ["-f", "raw", "-c", "read -P 7 0 1M", urls[1]], seconds: 30)
                #expect(!read.contains("verification failed"))
            }
        }
    }
}
