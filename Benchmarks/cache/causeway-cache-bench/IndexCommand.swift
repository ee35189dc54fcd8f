import ArgumentParser
import Blocks
import Ciphers
import Foundation
import NIOCore
import NIOPosix

/// The memory of an index, and how long a restart takes. The blocks' bytes are thrown away, so that a cache may be larger than the
/// machine's disk; its records are real.
struct IndexCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "index", abstract: "Fills the index of a cache; prints its memory and the time of a restart.")

    enum Pattern: String, ExpressibleByArgument, CaseIterable, Encodable {
        /// Blocks in their order, as a disk is read ahead.
        case sequential
        /// All blocks of a disk, in no order.
        case random
        /// A quarter of the blocks of a disk, in no order.
        case quarter
    }

    @Option(help: "The cache's size in GiB.")
    var gibibytes = 100
    @Option(help: "How much of it is filled, in GiB; by default all.")
    var filledGibibytes: Int?
    @Option(help: "\(Pattern.allCases.map(\.rawValue).joined(separator: ", "))")
    var pattern = Pattern.random

    private struct Result: Encodable {
        let pattern: Pattern
        let gibibytes: Int
        var blocks: UInt64 = 0
        /// What an index of nothing takes.
        var emptyBytes = 0
        var indexBytes = 0
        var bytesPerBlock = 0.0
        /// The whole, were the cache full of such blocks, for each TiB of it.
        var mebibytesPerTebibyte = 0.0
        /// What the process grew by.
        var residentBytes = 0
        var recordBytes: UInt64 = 0
        var fillSeconds = 0.0
        var restartSeconds = 0.0
    }

    func run() async throws {
        let byteCount = UInt64(gibibytes) << 30
        let blocks = UInt64(filledGibibytes ?? gibibytes) << 30 / 4128 / 1008 * 1000
        try await Bench.inTemporaryDirectory { directory, eventLoop, threadPool in
            var result = Result(pattern: pattern, gibibytes: gibibytes)
            let key = try SecretKey.random()
            let open = {
                try await BenchCache.open(
                    directory, byteCount: byteCount, segmentBytes: 4 << 20, key: key, isWeightless: true, on: eventLoop,
                    threadPool: threadPool)
            }
            let residentBefore = Bench.residentBytes()
            let cache = try await open()
            result.emptyBytes = try await cache.with { $0.cache.statistics.indexBytes }
            var clock = ContinuousClock.now
            try await fill(cache, blocks)
            result.fillSeconds = Bench.seconds(since: clock)
            let statistics = try await cache.with { $0.cache.statistics }
            result.blocks = statistics.blocksHeld
            result.indexBytes = statistics.indexBytes
            result.bytesPerBlock = Double(statistics.indexBytes - result.emptyBytes) / Double(max(1, statistics.blocksHeld))
            let full = result.bytesPerBlock * Double(byteCount / 4128) + Double(result.emptyBytes)
            result.mebibytesPerTebibyte = full / Double(1 << 20) * 1024 / Double(gibibytes)
            result.residentBytes = Bench.residentBytes() - residentBefore
            result.recordBytes = try await cache.with { $0.records.bytesWritten }
            try await cache.close()
            clock = .now
            let again = try await open()
            result.restartSeconds = Bench.seconds(since: clock)
            let held = try await again.with { $0.cache.statistics.blocksHeld }
            guard held == result.blocks else { throw BenchError("\(held) blocks after a restart, \(result.blocks) before") }
            try await again.close()
            try Bench.print(result)
        }
    }

    private func fill(_ cache: BenchCache, _ blocks: UInt64) async throws {
        let bytes = ByteBuffer(repeating: 1, count: 4096)
        // A full cycle of a linear congruence over a power of two, of which numbers beyond the blocks are left out.
        let width = UInt64(max(1, 64 - (blocks - 1).leadingZeroBitCount))
        let mask: UInt64 = (1 << width) - 1
        var position: UInt64 = 0
        var done: UInt64 = 0
        while done < blocks {
            var batch: [UInt64] = []
            while batch.count < 1024, done < blocks {
                switch pattern {
                case .sequential: batch.append(done)
                case .random, .quarter:
                    repeat {
                        position = (position &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407) & mask
                    } while position >= blocks
                    batch.append(pattern == .quarter ? position * 4 + (position >> 7 & 3) : position)
                }
                done += 1
            }
            let inserted = batch
            try await cache.wait { parts, promise in
                for block in inserted { parts.cache.insert(BenchCache.volume, block: block, data: bytes) }
                parts.cache.synchronize { promise.completeWith($0.mapError { $0 as any Error }) }
            }
        }
    }
}
