import Blocks
import Ciphers
import Files
import LocalFiles
import NIOCore
import NIOPosix
import SecureCache

/// Why a measurement could not be made.
struct BenchError: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// A cache in a directory, with one volume. All on one loop.
final class BenchCache: Sendable {
    typealias Cache = SecureCache<BenchDirectory>

    static let volume = VolumeIdentifier(high: 1, low: 2)

    /// What lives on the loop.
    struct Parts {
        let cache: Cache
        let blocks: BenchFile
        let records: BenchDirectory
        var bytesWritten: UInt64 { blocks.bytesWritten + records.bytesWritten }
    }

    let eventLoop: any EventLoop
    private let parts: NIOLoopBoundBox<Parts?>

    private init(eventLoop: any EventLoop, parts: NIOLoopBoundBox<Parts?>) {
        self.eventLoop = eventLoop
        self.parts = parts
    }

    /// Opens the cache in `directory`, or makes one there.
    static func open(
        _ directory: String, byteCount: UInt64, segmentBytes: Int, key: SecretKey, isWeightless: Bool, on eventLoop: any EventLoop,
        threadPool: NIOThreadPool
    ) async throws -> BenchCache {
        let promise = eventLoop.makePromise(of: BenchCache.self)
        eventLoop.execute {
            let box = NIOLoopBoundBox<Parts?>.makeBoxSendingValue(nil, eventLoop: eventLoop)
            do {
                let opened = try OpenDirectory(directory, create: true)
                let blocks = BenchFile(
                    LocalFile(try opened.open("cache", [.write, .create]), eventLoop: eventLoop, threadPool: threadPool),
                    eventLoop: eventLoop, isWeightless: isWeightless)
                let records = BenchDirectory(
                    LocalDirectory(
                        try OpenDirectory(directory + "/records", create: true), eventLoop: eventLoop, threadPool: threadPool),
                    eventLoop: eventLoop)
                Cache.open(
                    file: blocks, directory: records, byteCount: byteCount, keys: CacheKeys(cache: key) { _, _ in key },
                    limits: CacheLimits(segmentBytes: segmentBytes),
                    random: .system
                ) { result in
                    switch result {
                    case .failure(let error): promise.fail(error)
                    case .success(let cache):
                        cache.attach(volume: volume, key: key, generation: 1)
                        box.value = Parts(cache: cache, blocks: blocks, records: records)
                        promise.succeed(BenchCache(eventLoop: eventLoop, parts: box))
                    }
                }
            } catch {
                promise.fail(error)
            }
        }
        return try await promise.futureResult.get()
    }

    /// Does something with the cache on its loop.
    func with<Value: Sendable>(_ body: @escaping @Sendable (Parts) throws -> Value) async throws -> Value {
        try await eventLoop.submit { [parts] in
            guard let parts = parts.value else { throw BenchError("the cache is closed") }
            return try body(parts)
        }.get()
    }

    /// Does something that ends later with the cache on its loop.
    func wait<Value: Sendable>(_ body: @escaping @Sendable (Parts, EventLoopPromise<Value>) -> Void) async throws -> Value {
        try await eventLoop.flatSubmit { [parts, eventLoop] in
            let promise = eventLoop.makePromise(of: Value.self)
            if let parts = parts.value { body(parts, promise) } else { promise.fail(BenchError("the cache is closed")) }
            return promise.futureResult
        }.get()
    }

    func synchronize() async throws {
        try await wait { parts, promise in parts.cache.synchronize { promise.completeWith($0.mapError { $0 as any Error }) } }
    }

    /// Ends it as a daemon that stops does.
    func close() async throws {
        try await wait { parts, promise in parts.cache.close { promise.completeWith($0.mapError { $0 as any Error }) } }
        try await eventLoop.submit { [parts] in parts.value = nil }.get()
    }
}
