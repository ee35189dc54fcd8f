import APIModels
import Foundation
import Testing

extension EndToEnd {
    /// Blocks of one disk that need not cross for another, through both daemons.
    @Suite(.serialized)
    struct EqualBlocks {
        private static let mebibytes = 16
        private static let overwrittenMebibytes = 4

        private let size = UInt64(Self.mebibytes) << 20
        private let overwritten = UInt64(Self.overwrittenMebibytes) << 20

        /// What the disks hold, and what is written over the beginning of one.
        private func makeImages() throws -> (directory: URL, image: String, other: String) {
            let directory = try Lab.makeDirectory()
            return (
                directory, try Lab.makeNoise(in: directory, mebibytes: Self.mebibytes),
                try Lab.makeNoise(in: directory, named: "other", mebibytes: Self.overwrittenMebibytes)
            )
        }

        private func link(_ lab: Lab, at side: Lab.Side = .onprem) async throws -> Link {
            try #require(await lab.links(side).first)
        }

        private func sentBytes(_ link: Link) -> UInt64 { link.traffic.reduce(0) { $0 + $1.sentWireBytes } }

        private func compare(_ lab: Lab, _ volume: String, _ image: String) async throws {
            try await Command.check("qemu-img", ["compare", "-f", "raw", "-F", "raw", lab.url(volume), image], seconds: 120)
        }

        @Test("a disk that equals one that was read before hardly crosses; what is not as home takes it to be is read as it is")
        func equalDisks() async throws {
            let (directory, image, other) = try makeImages()
            defer { try? FileManager.default.removeItem(at: directory) }
            try await Lab.with(
                disks: [], copies: ["first", "second", "third"].map { ($0, image) },
                options: ["--cache-size", "256MiB", "--recovery-point-objective", "300ms"]
            ) { lab in
                try await compare(lab, "first", image)
                let first = try await link(lab)
                #expect(sentBytes(first) > size)
                #expect(first.deduplication == .init())

                try await compare(lab, "second", image)
                let second = try await link(lab)
                #expect(second.deduplication == .init(referredBytes: size))
                #expect(sentBytes(second) - sentBytes(first) < size / 20)
                let served = try await lab.status("second")
                #expect(served.cache?.misses == size / 4_096, "what came from another volume's blocks was missing all the same")

                // What home takes the edge to have is something else there by now.
                try await Command.check(
                    "qemu-img", ["convert", "-n", "-f", "raw", "-O", "raw", other, lab.url("first")], seconds: 120)
                try await lab.seal("first")
                try await Lab.untilTrue(seconds: 30, "the cache to have what was written") {
                    try await lab.status("first").unsent?.bytes == 0
                }
                try await compare(lab, "third", image)
                let third = try await link(lab)
                let deduplication = try #require(third.deduplication)
                #expect(deduplication.referredBytes > 2 * size - 2 * overwritten && deduplication.wrongBytes > overwritten / 2)
                #expect(deduplication.wrongBytes <= overwritten)
                #expect(sentBytes(third) - sentBytes(second) < overwritten + size / 20)
                for volume in ["second", "third"] { try await compare(lab, volume, image) }
                #expect(sentBytes(try await link(lab)) - sentBytes(third) < 1 << 20, "the cache has all of it")
            }
        }

        @Test("what was written to one disk goes home once, though it is written to others; and what differs goes as it is")
        func equalWrites() async throws {
            let (directory, image, other) = try makeImages()
            defer { try? FileManager.default.removeItem(at: directory) }
            try await Lab.with(
                disks: ["first", "second", "third"].map { ($0, Int(size)) },
                options: ["--cache-size", "256MiB", "--recovery-point-objective", "300ms"]
            ) { lab in
                func write(_ volume: String, _ image: String) async throws {
                    try await Command.check("qemu-img", ["convert", "-n", "-f", "raw", "-O", "raw", image, lab.url(volume)], seconds: 120)
                    try await lab.seal(volume)
                    try await Lab.untilTrue(seconds: 60, "all of \(volume) to be on its disk") {
                        let status = try await lab.status(volume)
                        return status.points.applied == status.points.lastSealed && status.unsent?.bytes == 0
                    }
                }
                try await write("first", image)
                let first = try await link(lab, at: .cloud)
                #expect(sentBytes(first) > size)
                #expect(first.deduplication == .init())

                try await write("second", image)
                let second = try await link(lab, at: .cloud)
                let named = try #require(second.deduplication)
                #expect(named.referredBytes > size / 10 * 9 && named.wrongBytes == 0, "\(named)")
                #expect(sentBytes(second) - sentBytes(first) < size / 10)

                // The second disk holds what was named last, and then does not.
                try await write("second", other)
                try await write("third", image)
                let third = try await link(lab, at: .cloud)
                let deduplication = try #require(third.deduplication)
                #expect(deduplication.wrongBytes > 0 && deduplication.wrongBytes <= overwritten, "\(deduplication)")
                for volume in ["first", "third"] { try await Command.check("cmp", [lab.disk(volume), image]) }
                try await Command.check("cmp", ["-n", "\(overwritten)", lab.disk("second"), other])
            }
        }
    }
}
