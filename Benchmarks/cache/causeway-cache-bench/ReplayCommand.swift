import ArgumentParser
import Blocks
import Ciphers
import Foundation
import NIOCore
import NIOPosix

/// What happens to the cache: as `study` writes it, 32 bits, lowest byte first: the block twice, plus one for an insertion.
struct CacheEvent {
    let block: UInt64
    let isInsertion: Bool

    static func load(_ path: String) throws -> [CacheEvent] {
        guard let bytes = FileManager.default.contents(atPath: path) else { throw BenchError("can't read \(path)") }
        var buffer = ByteBuffer(bytes: bytes)
        var events: [CacheEvent] = []
        events.reserveCapacity(bytes.count / 4)
        while let word = buffer.readInteger(endianness: .little, as: UInt32.self) {
            events.append(CacheEvent(block: UInt64(word >> 1), isInsertion: word & 1 == 1))
        }
        return events
    }
}

/// A recorded trace through the cache itself, on real files.
struct ReplayCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "replay", abstract: "Runs a trace's events through the cache and prints how many reads it answered.")

    @Argument(help: "The events, from `study --events`.")
    var events: String
    @Option(help: "How many blocks the cache is for; its file is that many times 4,128 bytes.")
    var blocks: Int
    @Option(help: "Bytes of a segment at most; by default 1/256 of the cache.")
    var segmentBytes: Int?

    private struct Result: Encodable {
        var reads = 0
        var hits = 0
        var insertedBlocks: UInt64 = 0
        var movedBlocks: UInt64 = 0
        var droppedBlocks: UInt64 = 0
        var bytesWritten: UInt64 = 0
        /// Bytes written for each byte that came in.
        var writeAmplification = 0.0
        var indexBytes = 0
    }

    func run() async throws {
        let events = try CacheEvent.load(events)
        let byteCount = UInt64(blocks) * 4128
        let share = Int(byteCount / 256) / 4096 * 4096
        let segmentBytes = segmentBytes ?? min(max(share, 64 << 10), 4 << 20)
        // Small segments stand for large ones: to each there is as much time, and so as many writes.
        let insertionsMax = max(1, segmentBytes / 4128 / 4)
        try await Bench.inTemporaryDirectory { directory, eventLoop, threadPool in
            let cache = try await BenchCache.open(
                directory, byteCount: byteCount, segmentBytes: segmentBytes, key: .random(),
                isWeightless: false, on: eventLoop, threadPool: threadPool)
            var result = Result()
            var next = 0
            while next < events.count {
                let start = next
                let step: (next: Int, reads: Int, hits: Int) = try await cache.wait { parts, promise in
                    Replay(events: events, next: start, insertionsMax: insertionsMax, cache: parts.cache, promise: promise).step()
                }
                next = step.next
                result.reads += step.reads
                result.hits += step.hits
                // In life seconds pass between two points.
                try await cache.synchronize()
            }
            let statistics = try await cache.with { parts in (parts.cache.statistics, parts.bytesWritten) }
            guard statistics.0.corrupt == 0, statistics.0.writeErrors == 0 else { throw BenchError("the cache's files failed") }
            result.insertedBlocks = statistics.0.inserted
            result.movedBlocks = statistics.0.moved
            result.droppedBlocks = statistics.0.dropped
            result.bytesWritten = statistics.1
            result.writeAmplification = Double(statistics.1) / Double(max(1, statistics.0.inserted - statistics.0.dropped) * 4096)
            result.indexBytes = statistics.0.indexBytes
            try await cache.close()
            try Bench.print(result)
        }
    }
}

/// Some events of a trace, one after the other, until blocks should be written.
private final class Replay {
    private let events: [CacheEvent]
    private let cache: BenchCache.Cache
    private let promise: EventLoopPromise<(next: Int, reads: Int, hits: Int)>
    private var next: Int
    private var reads = 0
    private var hits = 0
    private var inserted = 0
    private var scratch = ByteBuffer()
    private let insertionsMax: Int

    init(
        events: [CacheEvent], next: Int, insertionsMax: Int, cache: BenchCache.Cache,
        promise: EventLoopPromise<(next: Int, reads: Int, hits: Int)>
    ) {
        self.events = events
        self.next = next
        self.insertionsMax = insertionsMax
        self.cache = cache
        self.promise = promise
    }

    func step() {
        while next < events.count, inserted < insertionsMax {
            let event = events[next]
            if event.isInsertion {
                next += 1
                insert(event.block)
                continue
            }
            scratch.clear()
            if cache.readIfResident(BenchCache.volume, blocks: event.block..<event.block + 1, into: &scratch) {
                next += 1
                hit(event.block, scratch)
                continue
            }
            // It is not here, or not in the page cache.
            let destination = ReadDestination(byteCount: 4096)
            return cache.read(BenchCache.volume, blocks: event.block..<event.block + 1, into: destination, at: 0) { [self] result in
                next += 1
                switch result {
                case .success: hit(event.block, destination.take())
                case .failure:
                    reads += 1
                    insert(event.block)
                }
                step()
            }
        }
        promise.succeed((next, reads, hits))
    }

    private func hit(_ block: UInt64, _ bytes: ByteBuffer) {
        reads += 1
        hits += 1
        if bytes.getInteger(at: bytes.readerIndex, as: UInt64.self) != block { promise.fail(BenchError("block \(block) has other bytes")) }
    }

    private func insert(_ block: UInt64) {
        inserted += 1
        var bytes = ByteBuffer(repeating: 1, count: 4096)
        bytes.setInteger(block, at: 0)
        cache.insert(BenchCache.volume, block: block, data: bytes)
    }
}
