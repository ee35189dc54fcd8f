import Blocks
import Ciphers
import NIOCore
import SimulatedStorage
import Testing

@testable import SecureCache

typealias Cache = SecureCache<SimulatedDirectory>

/// A machine with one cache on a small disk.
final class CacheHarness {
    let scheduler: Scheduler
    let machine: SimulatedMachine
    let volume = VolumeIdentifier(high: 0x1122_3344_5566_7788, low: 0x99aa_bbcc_ddee_ff00)
    let other = VolumeIdentifier(high: 5, low: 6)
    let volumeKey: SecretKey
    let otherKey: SecretKey
    var edgeKey: SecretKey
    /// The keys of volumes that are there when the cache is opened.
    var volumeKeys: [VolumeIdentifier: [KeyGeneration: SecretKey]] = [:]
    var limits = CacheLimits(unwrittenBytesMax: 1 << 20, segmentBytes: 128 << 10, writeBytes: 32 << 10)
    var byteCount = 8 * (128 << 10)
    var division = CacheDivision()
    var cache: Cache?

    init(seed: UInt64 = 1) throws {
        scheduler = Scheduler(seed: seed)
        machine = SimulatedMachine(scheduler: scheduler)
        edgeKey = try SecretKey([UInt8](repeating: 1, count: 32))
        volumeKey = try SecretKey([UInt8](repeating: 2, count: 32))
        otherKey = try SecretKey([UInt8](repeating: 3, count: 32))
        volumeKeys = [volume: [1: volumeKey], other: [1: otherKey]]
    }

    /// What is at hand when the cache is opened.
    var keys: CacheKeys {
        let known = volumeKeys
        return CacheKeys(cache: edgeKey) { volume, generation in known[volume]?[generation] }
    }

    var random: SeededRandom { scheduler.random }
    var file: SimulatedFile { machine.disk("cache", byteCount: byteCount) }
    var directory: SimulatedDirectory { machine.directory("records") }

    @discardableResult
    func open(attaching: Bool = true) throws -> Cache {
        var result: Result<Cache, CacheError>?
        Cache.open(
            file: file, directory: directory, byteCount: UInt64(byteCount), keys: keys, limits: limits, division: division,
            random: random.source
        ) { result = $0 }
        scheduler.runUntilIdle()
        let cache = try #require(result, "the cache never opened").get()
        self.cache = cache
        if attaching {
            cache.attach(volume: volume, key: volumeKey, generation: 1)
            cache.attach(volume: other, key: otherKey, generation: 1)
        }
        return cache
    }

    func synchronize() throws {
        let cache = try #require(self.cache)
        var result: Result<Void, CacheError>?
        cache.synchronize { result = $0 }
        scheduler.runUntilIdle()
        try #require(result, "synchronize never completed").get()
    }

    /// The bytes of blocks, read in one of the two ways; nil for a miss.
    func read(_ blocks: Range<UInt64>, of volume: VolumeIdentifier? = nil) throws -> ByteBuffer? {
        let cache = try #require(self.cache)
        var buffer = ByteBuffer(string: "ahead")
        if cache.readIfResident(volume ?? self.volume, blocks: blocks, into: &buffer) {
            buffer.moveReaderIndex(forwardBy: 5)
            return buffer
        }
        #expect(buffer.readableBytes == 5, "a read that failed must leave the buffer alone")
        var result: Result<ByteBuffer, CacheMiss>?
        Self.read(cache, volume ?? self.volume, blocks) { result = $0 }
        scheduler.runUntilIdle()
        return try? (try #require(result, "a read never completed")).get()
    }

    /// Reads into a destination that begins a little before the blocks and ends a little behind them.
    static func read(
        _ cache: Cache, _ volume: VolumeIdentifier, _ blocks: Range<UInt64>,
        completion: @escaping (Result<ByteBuffer, CacheMiss>) -> Void
    ) {
        let byteCount = blocks.count * 4096
        let destination = ReadDestination(byteCount: byteCount + 14)
        #expect(destination.clear(at: 0, byteCount: byteCount + 14))
        cache.read(volume, blocks: blocks, into: destination, at: 5) { result in
            completion(
                result.map {
                    var bytes = destination.take()
                    let ahead = bytes.readBytes(length: 5)
                    #expect(ahead == Array(repeating: 0, count: 5))
                    let read = bytes.readSlice(length: byteCount) ?? ByteBuffer()
                    #expect(bytes == ByteBuffer(repeating: 0, count: 9), "a read must stay in its part of the destination")
                    return read
                })
        }
    }

    /// Writes bytes into a file, at its start.
    func put(_ bytes: [UInt8], into file: SimulatedFile) throws {
        var result: Result<Void, StorageFileError>?
        file.write(ByteBuffer(bytes: bytes), at: 0) { result = $0 }
        scheduler.runUntilIdle()
        try #require(result, "a write never completed").get()
    }

    func crash(power: Bool) {
        if power { machine.cutPower() } else { machine.killProcess() }
        cache = nil
    }

    /// Four kilobytes that say at several places which block of which generation they are.
    static func block(_ number: UInt64, _ generation: UInt64) -> ByteBuffer {
        var buffer = ByteBuffer(repeating: UInt8(truncatingIfNeeded: generation) | 1, count: 4096)
        for position in [0, 1000, 2048, 4080] {
            buffer.setInteger(number, at: position)
            buffer.setInteger(generation, at: position + 8)
        }
        return buffer
    }

    static func blocks(_ range: Range<UInt64>, _ generation: UInt64) -> ByteBuffer {
        var buffer = ByteBuffer()
        for number in range { buffer.writeImmutableBuffer(block(number, generation)) }
        return buffer
    }
}

let zeroBlock = ByteBuffer(repeating: 0, count: 4096)

extension SecureCache {
    /// True when the block can be read.
    func contains(_ identifier: VolumeIdentifier, block: UInt64) -> Bool {
        !residentRuns(identifier, blocks: block..<block + 1).isEmpty
    }
}
