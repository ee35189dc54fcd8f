import APIModels
import Foundation
import Glibc
import Testing

extension EndToEndFaults {
    /// What a cloud edge leaves on its disk, in its log and in its memory tells nobody what it served.
    @Suite(.serialized)
    struct Confidentiality {
        private static let program = URL(fileURLWithPath: #filePath)
            .deletingLastPathComponent().deletingLastPathComponent().appendingPathComponent("secret-search").path

        private struct Places: Decodable {
            var kept: Int
            var open: Int
        }

        private func search<Answer: Decodable>(_ kind: String, _ paths: [String], for needles: [String: Data]) async throws -> Answer {
            let input = String(decoding: try JSONEncoder().encode(needles.mapValues { $0.base64EncodedString() }), as: UTF8.self)
            let result = try await Command.run(Self.program, [kind] + paths, input: input, seconds: 120)
            guard result.isSuccess else { throw CommandFailure(description: result.description) }
            return try JSONDecoder().decode(Answer.self, from: Data(result.output.utf8))
        }

        private static let volume = "payroll-of-2026"
        private static let partition = "partition-of-the-board"
        private static let fileName = "quarterly-merger-plan.txt"
        private static let content = "what nobody at the cloud's provider may read; "
        private static let initiatorSecret = "the initiator's secret"
        private static let cacheKey = "the cache's key"

        /// An ext4 image with a file of a known name, full of a known text.
        private func makeImage(in directory: URL) async throws -> String {
            let tree = directory.appendingPathComponent("tree")
            try FileManager.default.createDirectory(at: tree, withIntermediateDirectories: true)
            let text = String(repeating: Self.content, count: 20_000)
            try Data(text.utf8).write(to: tree.appendingPathComponent(Self.fileName))
            let image = directory.appendingPathComponent("image.ext4").path
            try await Command.check("truncate", ["-s", "16M", image])
            try await Command.check("mkfs.ext4", ["-q", "-F", "-d", tree.path, image])
            return image
        }

        /// Keys and secrets that home has, and what else is known there only.
        private func known(_ lab: Lab) async throws -> (secrets: [String: Data], others: [String: Data]) {
            let path = lab.directory.appendingPathComponent("exported.keys").path
            let exported = try await lab.causeway(.onprem, "volume", "recovery-key", "--all", "--output", path)
            guard exported.isSuccess else { throw CommandFailure(description: exported.description) }
            let recovery = try APICoding.decoder().decode(RecoveryKeys.self, from: Data(contentsOf: URL(fileURLWithPath: path)))
            var secrets: [String: Data] = [:]
            for key in recovery.volumes { secrets["the key of a volume, generation \(key.generation ?? 1)"] = key.dataKey }
            for cache in recovery.caches { secrets[Self.cacheKey] = cache.key }
            let shown = try await lab.causeway(.onprem, "volume", "credentials", Self.volume, "--output", "json")
            guard shown.isSuccess else { throw CommandFailure(description: shown.description) }
            let credentials = try APICoding.decoder().decode(VolumeCredentials.self, from: Data(shown.output.utf8))
            secrets[Self.initiatorSecret] = Data(credentials.secret.utf8)
            let others = [
                "the volume's name": Data(Self.volume.utf8), "a partition's name": Data(Self.partition.utf8),
                "a file's name": Data(Self.fileName.utf8), "a file's content": Data(Self.content.utf8),
            ]
            return (secrets, others)
        }

        @Test(
            "known contents, names and keys are nowhere in what a cloud edge stores and logs; a crash leaves no core file"
        )
        func nothingReadable() async throws {
            let directory = try Lab.makeDirectory()
            defer { try? FileManager.default.removeItem(at: directory) }
            let image = try await makeImage(in: directory)
            let options = ["--recovery-point-objective", "1h", "--rtt", "2ms"]
            try await Lab.with(disks: [], copies: [(Self.volume, image)], options: options) { lab in
                let set = try await lab.causeway(
                    .cloud, "volume", "region", "set", Self.volume, "--start", "12MiB", "--size", "4MiB", "--policy", "cloud-only")
                #expect(set.isSuccess, "\(set)")
                try await divideCache(lab)
                let url = lab.url(Self.volume)
                // Read, so that it is in the cache; written, so that it is in the write log and on the cloud-only disk.
                try await Command.check("qemu-img", ["compare", "-U", "-f", "raw", "-F", "raw", url, lab.disk(Self.volume)])
                let content = directory.appendingPathComponent("content").path
                try Data(String(repeating: Self.content, count: 30_000).utf8).write(to: URL(fileURLWithPath: content))
                for offset in ["8M", "13M"] {
                    let written = try await Command.check(
                        "qemu-io", ["-f", "raw", "-c", "write -s \(content) \(offset) 1M", "-c", "flush", url])
                    #expect(!written.contains("failed"), "\(written)")
                }
                let rotated = try await lab.causeway(.onprem, "key", "rotate", Self.volume)
                #expect(rotated.isSuccess, "\(rotated)")
                try await Command.check("qemu-io", ["-f", "raw", "-c", "write -s \(content) 8M 1M", "-c", "flush", url])
                let (secrets, others) = try await known(lab)
                #expect(secrets.count >= 4, "\(secrets.keys)")
                try await checkMemory(lab, secrets)
                try await checkFiles(lab, secrets.merging(others) { first, _ in first })
                try await crash(lab)
                // What a restart reads and writes leaves no more; nor does what is refused before the keys have come.
                try await lab.relay("cut")
                try await lab.restart(.cloud)
                let early = try await lab.causeway(.cloud, "cache", "partition", Self.partition, "40MiB")
                #expect(!early.isSuccess, "\(early)")
                try await lab.relay("restore")
                try await lab.untilServing(Self.volume)
                try await lab.seal(Self.volume)
                try await checkMemory(lab, secrets)
                try await checkFiles(lab, secrets.merging(others) { first, _ in first })
                try await detach(lab, secrets)
            }
        }

        /// Gives the volume a partition of the cache, and has a change of it refused.
        private func divideCache(_ lab: Lab) async throws {
            for (arguments, isPossible) in [
                (["cache", "partition", Self.partition, "32MiB"], true),
                (["volume", "cache", "set", Self.volume, "--partition", Self.partition], true),
                (["cache", "partition", Self.partition, "0"], false), (["cache", "resize", "40MiB"], false),
            ] {
                let edge = lab.edge(.cloud)
                let result = try await Command.run(
                    "causeway", arguments, environment: ["CAUSEWAY_API": edge.api, "CAUSEWAY_TOKEN": edge.token], seconds: 30)
                #expect(result.isSuccess == isPossible, "\(result)")
            }
        }

        /// What has been taken back, with what is written to be cloud-only: its secrets are in no memory any more, locked or not.
        private func detach(_ lab: Lab, _ secrets: [String: Data]) async throws {
            let detached = try await lab.causeway(.onprem, "volume", "detach", Self.volume, "--force")
            #expect(detached.isSuccess, "\(detached)")
            let wiped = secrets.filter { $0.key != Self.cacheKey }
            try await Lab.untilTrue(seconds: 30, "the secrets of a detached volume to be wiped") {
                let found: [String: Places] = try await search("memory", ["\(lab.edge(.cloud).pid)"], for: wiped)
                return found.values.allSatisfy { $0.kept == 0 && $0.open == 0 }
            }
        }

        private func checkFiles(_ lab: Lab, _ needles: [String: Data]) async throws {
            let logs = lab.directory.appendingPathComponent("lab/cloud.log").path
            let found: [String: [String]] = try await search("files", [lab.edge(.cloud).state, logs], for: needles)
            for (name, paths) in found { #expect(paths.isEmpty, "\(name) is in \(paths)") }
            #expect(FileManager.default.fileExists(atPath: "\(lab.edge(.cloud).state)/cache-division"), "the cache is not even divided")
            // At home it would have been found.
            let home: [String: [String]] = try await search("files", [lab.edge(.onprem).state, lab.disk(Self.volume)], for: needles)
            for name in ["the volume's name", "a file's name", "a file's content", Self.initiatorSecret] {
                #expect(home[name]?.isEmpty == false, "\(name) is not even at home")
            }
        }

        /// Keys and the secrets of initiators are in locked memory only: no core file has the rest, because none is made, but swap may.
        private func checkMemory(_ lab: Lab, _ secrets: [String: Data]) async throws {
            let found: [String: Places] = try await search("memory", ["\(lab.edge(.cloud).pid)"], for: secrets)
            for (name, places) in found { #expect(places.open == 0, "\(name): \(places)") }
            // Of the volume's keys the first may be destroyed by now.
            for name in [Self.cacheKey, Self.initiatorSecret] {
                #expect(found[name]?.kept ?? 0 > 0, "\(name) is not even in locked memory")
            }
            #expect(found.values.count { $0.kept > 0 } >= 3, "no key of the volume was found: \(found)")
        }

        /// A daemon that crashes leaves no core file, whatever its parent allows.
        private func crash(_ lab: Lab) async throws {
            let pid = lab.edge(.cloud).pid
            let limits = try String(contentsOfFile: "/proc/\(pid)/limits", encoding: .utf8)
            #expect(limits.contains(/Max core file size\s+0\s+0/))
            // What is not dumpable belongs to root.
            let place = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(pid)/cwd")
            let before = try Set(FileManager.default.contentsOfDirectory(atPath: place))
            try await lab.kill(.cloud, by: SIGSEGV)
            let after = try Set(FileManager.default.contentsOfDirectory(atPath: place))
            #expect(!after.subtracting(before).contains { $0.hasPrefix("core") }, "\(after.subtracting(before))")
        }

        /// Half of an old copy is what a device has that lost writes, or an attacker who swaps segments.
        @Test("an old copy of the cache, or of half of it, is put back: nothing old is read, and the cache says what it found")
        func oldCopy() async throws {
            try await Lab.with(disks: [("data", 32 << 20)], options: ["--rtt", "2ms", "--cache-size", "64MiB"]) { lab in
                let state = URL(fileURLWithPath: lab.edge(.cloud).state)
                let names = ["cache", "cache-index"]
                let copy = lab.directory.appendingPathComponent("copy")
                try FileManager.default.createDirectory(at: copy, withIntermediateDirectories: true)
                let url = lab.url("data")
                let (older, newer) = (
                    try Lab.makeNoise(in: lab.directory, named: "older", mebibytes: 16),
                    try Lab.makeNoise(in: lab.directory, named: "newer", mebibytes: 16)
                )
                func write(_ content: String) async throws {
                    let output = try await Command.check("qemu-io", ["-f", "raw", "-c", "write -s \(content) 0 16M", "-c", "flush", url])
                    #expect(!output.contains("failed"), "\(output)")
                    try await lab.seal("data")
                    // Until the cache has the point for good, reads are of the log.
                    try await Lab.untilTrue(seconds: 30, "the log to let go") {
                        (try await lab.status("data").writeLog?.usedBytes ?? .max) < 1 << 20
                    }
                }
                try await write(older)
                try await lab.kill(.cloud, by: SIGTERM)
                for name in names { try await Command.check("cp", ["-r", state.appendingPathComponent(name).path, copy.path]) }
                try await lab.restart(.cloud)
                try await lab.untilServing("data")
                try await write(newer)
                try await lab.check("data", hasAtItsStart: newer)
                try await lab.kill(.cloud, by: SIGTERM)
                // Every second MiB is one of the old copy: blocks of the same volume, sealed under the same key, at other places.
                let script = """
                    import os, sys
                    old, new = open(sys.argv[1], "rb").read(), open(sys.argv[2], "r+b")
                    for at in range(1 << 20, os.fstat(new.fileno()).st_size, 2 << 20):
                        new.seek(at)
                        new.write(old[(at + (4 << 20)) % (16 << 20):][:1 << 20])
                    """
                let cache = state.appendingPathComponent("cache").path
                try await Command.check("python3", ["-c", script, copy.appendingPathComponent("cache").path, cache])
                try await lab.restart(.cloud)
                try await lab.untilServing("data")
                try await lab.check("data", hasAtItsStart: newer)
                let mixed = try await lab.status("data").cache
                #expect(mixed?.corrupt ?? 0 > 0, "\(String(describing: mixed))")
                try await Lab.untilTrue(seconds: 30, "the event") {
                    try await lab.causeway(.cloud, "events", "--output", "json").output.contains("cache.damaged")
                }
                // All of it, with the tables that belong to it.
                try await lab.kill(.cloud, by: SIGTERM)
                for name in names {
                    try FileManager.default.removeItem(at: state.appendingPathComponent(name))
                    try await Command.check("cp", ["-r", copy.appendingPathComponent(name).path, state.path])
                }
                try await lab.restart(.cloud)
                try await lab.untilServing("data")
                #expect(try await lab.status("data").cache?.blocks == 0, "blocks of an old copy count")
                try await lab.check("data", hasAtItsStart: newer)
                #expect(try await lab.status("data").cache?.misses ?? 0 > 0)
            }
        }
    }
}
