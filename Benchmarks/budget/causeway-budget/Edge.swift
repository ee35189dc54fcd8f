import Blocks
import Ciphers
import Files
import LocalFiles
import Logging
import NIOCore
import NIOPosix
import SCSI
import SecureCache
import StorageTarget
import Volumes
import WriteLog

/// Why the measurement could not be set up.
struct BudgetError: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// The data path of a cloud edge without a link: one volume whose first blocks are in the cache, behind an iSCSI target.
enum Edge {
    static let targetName = "iqn.2024-01.org.causeway:budget"
    static let sectorCount: UInt64 = 1 << 20
    static let volume = VolumeIdentifier(high: 1, low: 2)

    /// What is made one after the other.
    private struct Parts {
        let eventLoop: any EventLoop
        let threadPool: NIOThreadPool
        let directory: OpenDirectory
        let key: SecretKey
    }

    /// Makes an edge in a directory of its own, with `blockCount` blocks in the cache, and gives the port of its target. Called on the loop.
    static func start(
        on eventLoop: any EventLoop, threadPool: NIOThreadPool, directory: String, blockCount: Int,
        completion: @escaping (Result<Int, any Error>) -> Void
    ) {
        do {
            let parts = Parts(
                eventLoop: eventLoop, threadPool: threadPool, directory: try OpenDirectory(directory, create: true),
                key: try SecretKey.random())
            let file = LocalFile(
                try parts.directory.open("cache", [.write, .create]), eventLoop: eventLoop, threadPool: threadPool)
            let records = LocalDirectory(
                try OpenDirectory(directory + "/records", create: true), eventLoop: eventLoop, threadPool: threadPool)
            var limits = CacheLimits()
            limits.sharesBlocks = true
            SecureCache.open(
                file: file, directory: records, byteCount: UInt64(blockCount) * 2 * 4096 + (64 << 20),
                keys: CacheKeys(cache: parts.key) { _, _ in parts.key }, limits: limits, random: .system
            ) { result in
                switch result {
                case .failure(let error): completion(.failure(error))
                case .success(let cache):
                    cache.attach(volume: volume, key: parts.key, generation: 1)
                    fill(cache, from: 0, to: UInt64(blockCount)) { result in
                        switch result {
                        case .failure(let error): completion(.failure(error))
                        case .success: serve(parts, cache: cache, completion: completion)
                        }
                    }
                }
            }
        } catch {
            completion(.failure(error))
        }
    }

    /// Puts blocks into the cache, a part at a time, until the file holds them.
    private static func fill(
        _ cache: SecureCache<LocalDirectory>, from start: UInt64, to end: UInt64, completion: @escaping (Result<Void, any Error>) -> Void
    ) {
        if start == end { return completion(.success(())) }
        let next = min(end, start + 1024)
        for block in start..<next {
            var data = ByteBuffer(repeating: 1, count: 4096)
            data.setInteger(block, at: 0)
            cache.insert(volume, block: block, data: data)
        }
        cache.synchronize { result in
            if case .failure(let error) = result { return completion(.failure(error)) }
            fill(cache, from: next, to: end, completion: completion)
        }
    }

    private static func serve(
        _ parts: Parts, cache: SecureCache<LocalDirectory>, completion: @escaping (Result<Int, any Error>) -> Void
    ) {
        let logDirectory = LocalDirectory(parts.directory, eventLoop: parts.eventLoop, threadPool: parts.threadPool)
        WriteLog.open(
            directory: logDirectory, volume: volume, keys: DataKeys(parts.key), limits: WriteLogLimits(), random: .system, now: .now()
        ) { result in
            switch result {
            case .failure(let error): completion(.failure(error))
            case .success(let log):
                let volume = Volume(
                    identifier: volume, routingTag: 1, sectorCount: sectorCount, policy: VolumePolicy(), log: log, cache: cache,
                    clock: { .now() })
                volume.gatherTurns(of: parts.eventLoop)
                let identity = LogicalUnitIdentity(uniqueHigh: 1, uniqueLow: 2, targetName: targetName)
                let server = StorageTargetServer(
                    eventLoop: parts.eventLoop, logger: Logger(label: "budget") { _ in SwiftLogNoOpLogHandler() })
                do {
                    try server.addTarget(
                        TargetDescription(name: targetName, label: "budget", units: [(0, LogicalUnit(device: volume, identity: identity))]))
                } catch {
                    return completion(.failure(error))
                }
                // The server lives as long as its listener, and that as long as the loop.
                let bound = NIOLoopBound(completion, eventLoop: parts.eventLoop)
                server.listen(host: "127.0.0.1", port: 0).whenComplete { result in
                    bound.value(
                        result.flatMap { address in
                            address.port.map { .success($0) } ?? .failure(BudgetError("the target has no port"))
                        })
                }
            }
        }
    }
}
