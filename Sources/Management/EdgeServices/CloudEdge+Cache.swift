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
    private static var keptSize: KeptSize { KeptSize(fileName: "cache-size", range: Configuration.Cloud.cacheSizes) }

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
        var byteCount = try Self.keptSize.read(in: environment.directory) ?? cloud.cacheSizeBytes
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
        let inForce = try await needPlane().run { $0.cache?.division }
        var division = CacheDivision()
        do {
            division = try (isDivisionRead ? inForce : nil) ?? readDivision()
            isDivisionRead = true
        } catch {
            // What can't be read now may be read later: nothing takes the place of it.
            (file, failure) = (nil, "how it is divided can't be read from the state directory: \(error)")
        }
        let (divided, found, shared, reason, size, bounds) = (division, file, beside, failure, byteCount, limits)
        let volumeKeys = secrets?.volumeKeys ?? [:]
        return try await needPlane().call { (plane: CloudPlane, completion: @escaping (Result<Bool, any Error>) -> Void) in
            let local = found.map { LocalFile($0, eventLoop: environment.eventLoop, threadPool: environment.threadPool) }
            let opening = CacheOpening(
                file: local, failure: reason, path: path, directory: directory, byteCount: size,
                division: divided, fileBesideLogs: shared,
                keys: CacheKeys(cache: key) { volumeKeys[$0]?[$1] }, limits: bounds)
            plane.openCache(opening, completion: completion)
        }
    }

    /// How the cache was divided in the run before.
    private func readDivision() throws -> CacheDivision {
        do {
            return try KeptDivision.read(in: environment.directory)
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
        let own = try? Self.keptSize.read(in: environment.directory)
        let (path, configured) = (cloud.cachePath, cloud.cacheSizeBytes)
        return try await needPlane().run { plane in
            guard let cache = plane.cache else {
                return EdgeCache(
                    path: path, state: .waiting, sizeBytes: own ?? configured, wantedSizeBytes: own ?? configured, isOwnSize: own != nil)
            }
            let now = cache.statistics
            let state: EdgeCache.State =
                switch plane.cacheTrouble {
                case .unusable: .unusable
                case .degraded: .degraded
                case nil: now.byteCount == now.byteCountWanted ? .running : .resizing
                }
            return EdgeCache(
                path: path, state: state, message: plane.cacheTrouble?.detail ?? Self.lackOfRoom(now), sizeBytes: now.byteCount,
                wantedSizeBytes: now.byteCountWanted, isOwnSize: own != nil, bytesToEmpty: now.bytesToEmpty, blocks: now.blocksHeld,
                hits: now.hits, misses: now.misses, evicted: now.evicted, moved: now.moved, corrupt: now.corrupt,
                indexBytes: UInt64(now.indexBytes),
                partitions: cache.division.partitions.sorted { $0.key < $1.key }.map {
                    CachePartition(name: $0.key, sizeBytes: $0.value, heldBytes: cache.statistics(ofPartition: $0.key)?.heldBytes ?? 0)
                }, isLoosened: cache.isLoosened && !cache.isUnusable)
        }
    }

    private static func lackOfRoom(_ statistics: CacheStatistics) -> String? {
        let byteCount = statistics.bytesWithoutRoom
        return byteCount == 0
            ? nil
            : "its file system has no room for \(byteCount) bytes of it, besides what write logs there may take: free some, or make the cache smaller"
    }

    /// Gives the cache another size, for good; 0 for the configuration's.
    func changeCache(_ change: CacheChange) async throws -> EdgeCache {
        if change.sizeBytes != nil, change.partitions != nil {
            // Each is all or nothing by itself.
            throw APIError.invalid("partitions", "must be changed by a request of its own, before or after the size")
        }
        if let byteCount = change.sizeBytes {
            let range = Self.keptSize.range
            guard byteCount == 0 || range.contains(byteCount) else {
                throw APIError.invalid("sizeBytes", "must be 0, or from \(range.lowerBound) to \(range.upperBound)")
            }
            let own = byteCount == 0 ? nil : byteCount
            let before = try await resizeCache(to: own, isChecked: own != nil)
            do throws(FileSystemError) {
                try Self.keptSize.keep(own, in: environment.directory)
            } catch {
                _ = try? await resizeCache(to: before, isChecked: false)
                throw Problem(
                    status: 507, code: "state_directory", title: "The size can't be kept", detail: "\(error)",
                    action: "make room in the state directory, or mend its file system")
            }
        }
        if let partitions = change.partitions { try await changePartitions(partitions) }
        return try await cache()
    }

    /// Takes over a size that the configuration has got, unless another one was set here.
    func configuredCacheSizeChanged() async {
        do {
            if try Self.keptSize.read(in: environment.directory) != nil { return }
            _ = try await resizeCache(to: nil, isChecked: true)
        } catch {
            environment.recorder.record(
                "cache.resize_refused", severity: .warning,
                "the cache can't get the size of the configuration: \(Problem(describing: error).detail ?? "")")
        }
    }

    /// Gives the cache a size, or without one what the configuration says, as far as its device goes. Returns the size that it was to
    /// have before.
    /// - Parameter isChecked: that a size is refused for which there is no room. One that is taken back is not: the cache makes do with
    ///   the room that there is, and says so.
    private func resizeCache(to own: UInt64?, isChecked: Bool) async throws -> UInt64 {
        let (room, configured) = (CacheFile.room(at: cloud.cachePath), cloud.cacheSizeBytes)
        return try await needPlane().run { plane in
            let cache = try plane.needCache()
            let before = cache.statistics
            let byteCount = own ?? min(configured, cache.limits.deviceBytes ?? configured)
            let forLogs = plane.stateSpace.cacheFile == nil ? 0 : plane.logBytesWanted
            if isChecked, let room, byteCount > before.byteCountWanted, byteCount > room - min(room, forLogs) {
                throw Problem.noSpace(
                    "the file system of the cache has room for \(room - min(room, forLogs)) bytes of it"
                        + (forLogs == 0 ? "" : ", besides \(forLogs) that the write logs may still take"))
            }
            do throws(CacheError) {
                try cache.resize(to: byteCount)
            } catch {
                throw Problem(resizing: error, to: byteCount, name: plane.volumeName)
            }
            if cache.statistics.byteCountWanted != before.byteCountWanted {
                plane.recorder.record("cache.resizing", "the cache is to have \(cache.statistics.byteCountWanted) bytes")
            }
            return before.byteCountWanted
        }
    }
}

extension Problem {
    fileprivate init(resizing error: CacheError, to byteCount: UInt64, name: (VolumeIdentifier) -> String) {
        let detail =
            switch error {
            case .tooSmall(let bytesNeeded): "the cache was made with segments of which it needs some: at least \(bytesNeeded) bytes"
            case .tooLarge(let bytesMax): "the device of the cache has \(bytesMax) bytes"
            case .division(let error): "the cache could not stay divided as it is: \(Problem.text(of: error, name))"
            case .file, .cipher, .closed: "\(error)"
            }
        self.init(
            status: 409, code: "cache_size", title: "The cache can't have that size", detail: detail,
            action: "Choose another size; the one that it has stays.")
    }
}
