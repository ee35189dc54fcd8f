import APIModels
import Blocks
import EdgeConfiguration
import Files
import ManagementAPI
import SecureCache

/// What the cache's size is to be.
struct CacheSizeChange: Sendable {
    /// What was set here; nil for what the configuration says.
    var own: UInt64?
    var configured: UInt64
    /// Where the cache is.
    var path: String
}

extension CloudPlane {
    static var keptCacheSize: KeptSize { KeptSize(fileName: "cache-size", range: Configuration.Cloud.cacheSizes) }

    /// Gives the cache another size, for good: it is kept first, so a size that can't be kept was never in force.
    func resizeCache(_ change: CacheSizeChange, completion: @escaping (Result<Void, any Error>) -> Void) {
        changeInTurn(
            { [self] done in
                // What is configured is had as far as there is room.
                checkSize(change, isChecked: change.own != nil) { [self] result in
                    switch result {
                    case .success(let byteCount): keepSize(change.own, { [self] in try setCacheSize(byteCount) }, completion: done)
                    case .failure(let error): done(.failure(error))
                    }
                }
            }, completion: completion)
    }

    /// Gives the cache what the configuration says, if it is open and no other size was set.
    func configuredCacheSizeChanged(_ change: CacheSizeChange, completion: @escaping (Result<Void, any Error>) -> Void) {
        let directory = stateSpace.directory
        changeInTurn(
            { [self] done in
                if cache?.isUnusable ?? true { return done(.success(())) }
                onThread({ try directory.flatMap { try Self.keptCacheSize.read(in: $0) } }) { [self] own in
                    switch own {
                    case .success(nil): checkSize(change, isChecked: true) { [self] size in done(Result { try setCacheSize(size.get()) }) }
                    case .success: done(.success(()))
                    case .failure(let error): done(.failure(error))
                    }
                }
            }, completion: completion)
    }

    /// Keeps what is set, and then has it in force. When either can't be, what was kept before is kept again.
    private func keepSize(_ own: UInt64?, _ change: @escaping () throws -> Void, completion: @escaping (Result<Void, any Error>) -> Void) {
        guard let directory = stateSpace.directory else { return completion(Result(catching: change)) }
        onThread({
            let before = try Self.keptCacheSize.read(in: directory)
            do throws(FileSystemError) {
                try Self.keptCacheSize.keep(own, in: directory)
            } catch {
                // It may have come as far as the file all the same.
                try? Self.keptCacheSize.keep(before, in: directory)
                throw error
            }
            return before
        }) { [self] result in
            switch result {
            case .success(let before):
                do {
                    try change()
                    completion(.success(()))
                } catch {
                    // The cache is another one by now, or this edge is stopping.
                    onThread({ try Self.keptCacheSize.keep(before, in: directory) }) { [self] kept in
                        if case .failure(let obstacle) = kept {
                            recorder.record(
                                "cache.size_kept", severity: .warning,
                                "the cache could not be given the size that was asked for, but at the next start it will have it: what was kept "
                                    + "before can't be kept again (\(obstacle)). Set the size once more when the state directory can be written to"
                            )
                        }
                        completion(.failure(error))
                    }
                }
            case .failure(let error): completion(.failure(Problem(keepingSize: error)))
            }
        }
    }

    /// Tells the size in bytes that a change makes, if the cache can have it.
    /// - Parameter isChecked: that a size is refused for which there is no room; else the cache makes do with the room that there is, and
    ///   says so.
    private func checkSize(_ change: CacheSizeChange, isChecked: Bool, completion: @escaping (Result<UInt64, any Error>) -> Void) {
        onThread({ CacheFile.room(at: change.path) }) { [self] room in
            completion(room.flatMap { room in Result { try byteCount(of: change, room: isChecked ? room : nil) } })
        }
    }

    /// - Parameter room: what the file system has for the cache; nil where that counts for nothing.
    private func byteCount(of change: CacheSizeChange, room: UInt64?) throws -> UInt64 {
        let cache = try needCache()
        let byteCount = change.own ?? min(change.configured, cache.limits.deviceBytes ?? change.configured)
        if let room, byteCount > cache.statistics.byteCountWanted { try checkRoom(room, forCacheOf: byteCount) }
        do throws(CacheError) {
            try cache.checkSize(byteCount)
        } catch {
            throw Problem(resizing: error, to: byteCount, name: volumeName)
        }
        return byteCount
    }

    /// - Parameter room: what the file system has for the cache.
    private func checkRoom(_ room: UInt64, forCacheOf byteCount: UInt64) throws {
        let forLogs = stateSpace.cacheFile == nil ? 0 : logBytesWanted
        let left = room - min(room, forLogs)
        if byteCount <= left { return }
        throw Problem.noSpace(
            "the file system of the cache has room for \(ByteSize.rounded(left)) of it"
                + (forLogs == 0 ? "" : ", besides \(ByteSize.rounded(forLogs)) that the write logs may still take"))
    }

    private func setCacheSize(_ byteCount: UInt64) throws {
        let cache = try needCache()
        let before = cache.statistics.byteCountWanted
        do throws(CacheError) {
            try cache.resize(to: byteCount)
        } catch {
            throw Problem(resizing: error, to: byteCount, name: volumeName)
        }
        let wanted = cache.statistics.byteCountWanted
        if wanted != before { recorder.record("cache.resizing", "the cache is to have \(ByteSize.rounded(wanted))") }
    }
}

extension Problem {
    fileprivate init(keepingSize error: any Error) {
        self.init(
            status: 507, code: "state_directory", title: "The size can't be kept", detail: "\(error)",
            action: "The cache has the size that it had. Make room in the state directory, or mend its file system, and try again.")
    }

    fileprivate init(resizing error: CacheError, to byteCount: UInt64, name: (VolumeIdentifier) -> String) {
        let detail =
            switch error {
            case .tooSmall(let bytesNeeded):
                "the cache was made with segments of which it needs some: at least \(ByteSize.text(bytesNeeded))"
            case .tooLarge(let bytesMax): "the device of the cache has \(ByteSize.text(bytesMax))"
            case .division(let error): "the cache could not stay divided as it is: \(Problem.text(of: error, name))"
            case .file, .cipher, .closed: "\(error)"
            }
        self.init(
            status: 409, code: "cache_size", title: "The cache can't have that size", detail: detail,
            action: "Choose another size; the one that it has stays.")
    }
}
