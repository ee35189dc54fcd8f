import APIModels
import Blocks
import Ciphers
import EdgeConfiguration
import Files
import LocalFiles
import ManagementAPI
import NIOCore
import SecureCache

/// The cache of this edge: opened when home has sent its key, tried again while it can't be, and resized while it serves.
extension CloudEdge {
    /// How often a cache that can't be opened is tried again.
    private static var cacheRetryInterval: Duration { .seconds(5) }

    // MARK: Opening

    /// Opens the cache, once a process. Volumes are served also when that fails.
    func openCache(_ key: SecretKey) async throws {
        if try await needPlane().run({ $0.cache != nil }) { return }
        if try await tryCache(key) { return }
        retryingCache?.cancel()
        retryingCache = Task { [weak self] in
            while !Task.isCancelled {
                try? await Task.sleep(for: Self.cacheRetryInterval)
                guard let self, !Task.isCancelled else { return }
                if (try? await self.tryCache(key)) == true { return }
            }
        }
    }

    /// True when the cache is open.
    private func tryCache(_ key: SecretKey) async throws -> Bool {
        let (path, environment) = (cloud.cachePath, environment)
        let directory = try environment.subdirectory(CacheRecordsDirectory.name)
        var limits = environment.memory.cache
        limits.sharesBlocks = cloud.sharesCachedBlocks
        let configured = cloud.cacheSizeBytes
        var byteCount = try CloudPlane.keptCacheSize.read(in: environment.directory) ?? configured
        var (file, beside, failure): (OpenFile?, OpenFile?, String) = (nil, nil, "")
        do throws(EdgeFailure) {
            let place = try CacheFile.open(path)
            file = place.file
            if CacheFile.isOnFileSystem(of: environment.directory, place.file) { beside = place.file }
            limits.deviceBytes = place.deviceBytes
            if let device = place.deviceBytes { byteCount = min(byteCount, device) }
        } catch {
            failure = error.description
        }
        do {
            try await takeOverDivision(key)
        } catch {
            // What can't be read now may be read later: nothing takes the place of it.
            (file, failure) = (nil, "how it is divided can't be read from the state directory: \(error)")
        }
        let (found, shared, reason, size, bounds) = (file, beside, failure, byteCount, limits)
        let volumeKeys = secrets?.volumeKeys ?? [:]
        let isOpen = try await needPlane().call { (plane: CloudPlane, completion: @escaping (Result<Bool, any Error>) -> Void) in
            let local = found.map { LocalFile($0, eventLoop: environment.eventLoop, threadPool: environment.cacheThreadPool) }
            let opening = CacheOpening(
                file: local, failure: reason, path: path, directory: directory, byteCount: size,
                fileBesideLogs: shared,
                keys: CacheKeys(cache: key) { volumeKeys[$0]?[$1] }, limits: bounds)
            plane.openCache(opening, completion: completion)
        }
        // What the configuration has got meanwhile.
        if isOpen, cloud.cacheSizeBytes != configured { await configuredCacheSizeChanged() }
        return isOpen
    }

    /// Has the cache divided as the run before has kept it, once.
    private func takeOverDivision(_ key: SecretKey) async throws {
        if isDivisionRead { return }
        let division = try readDivision(key)
        try await needPlane().run { try $0.divisionWasRead(division) }
        isDivisionRead = true
    }

    /// How the cache was divided in the run before.
    private func readDivision(_ key: SecretKey) throws -> CacheDivision {
        do {
            return try KeptDivision.read(in: environment.directory, key: key)
        } catch let error as KeptDivision.Damage {
            let copy = try KeptDivision.setAside(in: environment.directory)
            environment.recorder.record(
                "cache.division_lost", severity: .warning,
                "how the cache is divided can't be told: \(error); it was renamed to \(copy). There are no partitions, shares and pins now: set them again "
                    + "(`causeway cache partition`, `causeway volume cache`)")
            return CacheDivision()
        }
    }

    // MARK: The API

    func cache() async throws -> EdgeCache {
        let own = try? CloudPlane.keptCacheSize.read(in: environment.directory)
        let (path, configured) = (cloud.cachePath, cloud.cacheSizeBytes)
        let isDivisionRead = isDivisionRead
        return try await needPlane().run { plane in
            guard let cache = plane.cache else {
                return EdgeCache(
                    path: path, state: .waiting, sizeBytes: own ?? configured, wantedSizeBytes: own ?? configured, isOwnSize: own != nil)
            }
            plane.countReads()
            let now = cache.statistics
            let lack = plane.lackOfRoom(now)
            let state: EdgeCache.State =
                switch plane.cacheTrouble {
                case .unusable: .unusable
                case .degraded: .degraded
                case nil: now.byteCount != now.byteCountWanted ? .resizing : lack == nil ? .running : .bounded
                }
            let blockBytes = UInt64(BlockGeometry.blockBytes)
            return EdgeCache(
                path: path, state: state, message: plane.cacheTrouble?.detail ?? lack, sizeBytes: now.byteCount,
                wantedSizeBytes: now.byteCountWanted, isOwnSize: own != nil, bytesToEmpty: now.bytesToEmpty, blocks: now.blocksHeld,
                sharedBlocks: now.sharedBlocks, sharedReferences: now.sharedReferences, heldBytes: now.blocksHeld * blockBytes,
                storedBytes: now.blocksStored * blockBytes, hits: now.hits, misses: plane.cacheTally.total.misses, evicted: now.evicted,
                moved: now.moved, corrupt: now.corrupt, indexBytes: UInt64(now.indexBytes),
                partitions: isDivisionRead ? CachePartition.all(of: cache) : nil, isLoosened: cache.isLoosened && !cache.isUnusable)
        }
    }

    /// Gives the cache another size, for good; 0 for the configuration's.
    func changeCache(_ change: CacheChange) async throws -> EdgeCache {
        if let byteCount = change.sizeBytes {
            let range = CloudPlane.keptCacheSize.range
            guard byteCount == 0 || range.contains(byteCount) else {
                throw APIError.invalid("sizeBytes", "must be 0, or from \(range.lowerBound) to \(range.upperBound)")
            }
            let change = cacheSizeChange(own: byteCount == 0 ? nil : byteCount)
            try await needPlane().call { (plane: CloudPlane, completion: @escaping (Result<Void, any Error>) -> Void) in
                plane.resizeCache(change, completion: completion)
            }
        }
        return try await cache()
    }

    /// Takes over a size that the configuration has got, unless another one was set here.
    func configuredCacheSizeChanged() async {
        let change = cacheSizeChange(own: nil)
        do {
            try await needPlane().call { (plane: CloudPlane, completion: @escaping (Result<Void, any Error>) -> Void) in
                plane.configuredCacheSizeChanged(change, completion: completion)
            }
        } catch {
            environment.recorder.record(
                "cache.resize_refused", severity: .warning,
                "the cache can't get the size of the configuration: \(Problem(describing: error).detail ?? "")",
                logMessage: "the cache can't get the size of the configuration; `causeway events` says why")
        }
    }

    private func cacheSizeChange(own: UInt64?) -> CacheSizeChange {
        CacheSizeChange(own: own, configured: cloud.cacheSizeBytes, path: cloud.cachePath)
    }
}
