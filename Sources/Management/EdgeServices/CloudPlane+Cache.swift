import Ciphers
import EdgeConfiguration
import Files
import LocalFiles
import NIOCore
import SecureCache

// The cache costs speed when it fails, and nothing else: a volume is served with it or without. What is wrong is told once, and what
// could not be opened is tried again (CloudEdge+Cache.swift); a disk that takes no writes is tried with each round of `saveCache`.

/// What is wrong with the cache.
enum CacheTrouble: Equatable {
    /// It can't be opened or read; the text says why.
    case unusable(String)
    /// Its disk takes no writes.
    case degraded

    /// A sentence that names nothing.
    var problem: String {
        switch self {
        case .unusable: "the cache can't be used: reads go home"
        case .degraded: "the cache's disk takes no writes"
        }
    }

    var detail: String {
        switch self {
        case .unusable(let reason): reason
        case .degraded: "its disk takes no writes; it serves what it has"
        }
    }
}

/// Where the cache is, and what opens it.
struct CacheOpening {
    /// Nil when it can't be opened, for a reason in words.
    let file: LocalFile?
    let failure: String
    let path: String
    let directory: OpenDirectory
    let byteCount: UInt64
    /// The file once more, when it is on the file system of the state directory.
    let fileBesideLogs: OpenFile?
    let keys: CacheKeys
    let limits: CacheLimits
}

extension CloudPlane {
    /// How often new blocks of the cache are made durable, and a disk that took no writes is tried again.
    static let cacheSaveInterval: TimeAmount = .seconds(5)
    /// How large a cache passes for that only stands in for one, which uses none of it.
    private static let standInBytes: UInt64 = 16 << 20
    /// How often it is told, at most, that the cache's disk takes no writes.
    static let cacheFailureInterval: TimeAmount = .seconds(60)

    // MARK: Opening

    /// Opens the cache, or one that stands in for it. True when it is the cache.
    func openCache(_ opening: CacheOpening, completion: @escaping (Result<Bool, any Error>) -> Void) {
        cacheKey = opening.keys.cache
        guard let file = opening.file else { return standIn(opening, because: opening.failure, completion: completion) }
        open(opening, file, byteCount: opening.byteCount) { [self] result in
            switch result {
            case .success(let opened) where !opened.isUnusable:
                shareSpace(withCacheIn: opening.fileBesideLogs) { [self] in
                    if isStopping {
                        opened.close { _ in }
                        completion(.success(false))
                        return false
                    }
                    adopt(opened)
                    tellSize(of: opened, opening)
                    completion(.success(true))
                    return true
                }
            case .success(let opened):
                opened.close { _ in }
                standIn(opening, because: "the cache \(opening.path) can't be read", completion: completion)
            case .failure(let error):
                file.close()
                standIn(opening, because: "the cache \(opening.path) can't be opened: \(error)", completion: completion)
            }
        }
    }

    /// A cache that was made larger may not be as small as it is to be.
    private func tellSize(of opened: SecureCache<LocalDirectory>, _ opening: CacheOpening) {
        let byteCount = opened.statistics.byteCount
        if byteCount <= opening.byteCount { return }
        let anew =
            opening.limits.deviceBytes == nil ? "remove \(opening.path)" : "write zeroes over the first 4096 bytes of \(opening.path)"
        recorder.record(
            "cache.resize_refused", severity: .warning,
            "the cache can't have \(ByteSize.rounded(opening.byteCount)) with the segments that it was made with: it has \(ByteSize.rounded(byteCount)), which is as "
                + "small as it can be. Set that with `causeway cache resize`, or stop this edge and \(anew), so that another one is made")
    }

    private func open(
        _ opening: CacheOpening, _ file: LocalFile, byteCount: UInt64,
        completion: @escaping (Result<SecureCache<LocalDirectory>, CacheError>) -> Void
    ) {
        let records = LocalDirectory(opening.directory, eventLoop: eventLoop, threadPool: threadPool)
        SecureCache.open(
            file: file, directory: records, byteCount: byteCount, keys: opening.keys, limits: opening.limits,
            division: cache?.division ?? cacheChanges.keptDivision ?? CacheDivision(), random: .system, completion: completion)
    }

    /// Serves without a cache until there is one.
    private func standIn(
        _ opening: CacheOpening, because reason: String, completion: @escaping (Result<Bool, any Error>) -> Void
    ) {
        if cacheTrouble == nil {
            recorder.record(
                "cache.failed", severity: .error,
                "\(reason); volumes are served without a cache, all reads go home, and the cache is tried again until it can be used")
        }
        cacheTrouble = .unusable(reason)
        if cache != nil { return completion(.success(false)) }
        let file = LocalFile(unavailable: opening.path, because: .failed(reason), eventLoop: eventLoop, threadPool: threadPool)
        // Also for a device without a medium, which has no bytes at all.
        open(opening, file, byteCount: max(opening.byteCount, Self.standInBytes)) { [self] result in
            completion(
                result.map {
                    cache = $0
                    return false
                }.mapError { EdgeFailure(.state, "the cache can't be opened: \($0)") })
        }
    }

    /// Goes on with a cache that was opened.
    private func adopt(_ fresh: SecureCache<LocalDirectory>) {
        fresh.onResized = { [unowned self] in
            // The rest has been given back.
            stateSpace.cacheBytesAtOpening = min(stateSpace.cacheBytesAtOpening, $0)
            recorder.record("cache.resized", "the cache has \(ByteSize.rounded($0)) now")
        }
        cacheDamage.beginAnew()
        if let standIn = cache {
            fresh.takeOver(from: standIn)
            for entry in served.values { entry.volume.replaceCache(fresh) }
            standIn.close { _ in }
        }
        cache = fresh
        if cacheTrouble == nil { return }
        cacheTrouble = nil
        recorder.record("cache.recovered", "the cache can be used again")
    }

    // MARK: Its disk

    /// Makes what has come into the cache survive a kill, a few seconds after it came.
    func saveCache() {
        guard let cache, NIODeadline.now() - cacheSavedAt >= Self.cacheSaveInterval else { return }
        cacheSavedAt = .now()
        keepStaleDivision()
        if cache.isUnusable { return }
        let statistics = cache.statistics
        noticeDamage(statistics)
        if statistics.isDegraded { cacheFailed() }
        guard statistics.isDegraded || statistics.inserted != cacheSavedInserts else { return }
        cacheSavedInserts = statistics.inserted
        cache.synchronize { [weak self] result in
            if case .success = result { self?.cacheSaved() }
        }
    }

    /// The cache's disk takes no writes.
    func cacheFailed() {
        guard cacheTrouble == nil else { return }
        cacheTrouble = .degraded
        // A disk that works now and then is told of now and then.
        if let last = cacheFailureToldAt, NIODeadline.now() - last < Self.cacheFailureInterval { return }
        cacheFailureToldAt = .now()
        recorder.record(
            "cache.failed", severity: .error,
            "the cache's disk takes no writes: reads that it can't serve go home, and after a restart blocks are fetched anew; it is tried again every \(Self.cacheSaveInterval.nanoseconds / 1_000_000_000) s"
        )
    }

    /// Tells of what reads and moves have found damaged.
    private func noticeDamage(_ statistics: CacheStatistics) {
        let found = cacheDamage.observe(corrupt: statistics.corrupt, readErrors: statistics.readErrors, now: .now())
        if let found { recorder.record("cache.damaged", severity: .warning, found.text) }
    }

    /// What the cache lacks of room, why, and what to do; nil when it has room for all of it.
    func lackOfRoom(_ statistics: CacheStatistics) -> String? {
        let lacking = statistics.bytesWithoutRoom
        // It may not have come to its bound yet.
        if let bound = stateSpace.cacheBound { return bound.text }
        return lacking == 0
            ? nil
            : "its file system has no room for \(ByteSize.rounded(lacking)) of it: it goes on with "
                + "\(ByteSize.rounded(statistics.byteCount - min(lacking, statistics.byteCount))). Free some there, or make the cache smaller"
    }

    private func cacheSaved() {
        guard cacheTrouble == .degraded else { return }
        cacheTrouble = nil
        recorder.record("cache.recovered", "the cache's disk takes writes again")
    }
}

extension CacheStatistics {
    /// Blocks with data, each counted once.
    var blocksStored: UInt64 { blocksHeld - min(sharedReferences, blocksHeld) + sharedBlocks }
}
