import Files
import Foundation
import Testing

@testable import EdgeServices

@Suite struct CacheFileTests {
    private func place(_ bytes: [UInt8]) throws -> String {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("cache-\(UUID().uuidString)").path
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        return path
    }

    @Test func takesWhatIsEmptyOrACacheAndIsItsOnlyUser() throws {
        for bytes in [[], [UInt8](repeating: 0, count: 1 << 20), Array("CAUSECAC".utf8) + [0, 1, 2]] {
            let path = try place(bytes)
            defer { try? FileManager.default.removeItem(atPath: path) }
            let file = try CacheFile.open(path)
            #expect(file.deviceBytes == nil)
            do {
                _ = try CacheFile.open(path)
                Issue.record("a second user was let in")
            } catch {
                #expect(error.description.contains("another program uses it"), "\(error)")
            }
            withExtendedLifetime(file) {}
        }
    }

    /// The first non-zero byte of a file system may be far from the start: a superblock of ext4 lies at 1 KiB, one of btrfs at 64 KiB.
    @Test(arguments: [0, 1_080, 4_096, 65_600]) func leavesAloneWhatHoldsSomethingElse(at offset: Int) throws {
        var bytes = [UInt8](repeating: 0, count: 1 << 20)
        bytes[offset] = 0x53
        let path = try place(bytes)
        defer { try? FileManager.default.removeItem(atPath: path) }
        do {
            _ = try CacheFile.open(path)
            Issue.record("it was taken")
        } catch {
            #expect(error.description.contains("holds something else"), "\(error)")
        }
        #expect(try Data(contentsOf: URL(fileURLWithPath: path)) == Data(bytes))
    }

    @Test func namesWhatItCantUse() {
        for path in ["/dev/null", "/tmp", "/nonexistent/cache"] {
            #expect(throws: EdgeFailure.self) { try CacheFile.open(path) }
        }
    }
}
