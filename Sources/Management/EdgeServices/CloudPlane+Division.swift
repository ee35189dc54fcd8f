import APIModels
import Blocks
import EdgeConfiguration
import LocalFiles
import ManagementAPI
import NIOCore
import SecureCache

// How the cache is divided is what the cache has; the file `cache-division` says it to the next run. A change is looked at, kept, and then
// in force, so one that can't be or can't be kept leaves all as it is. What was kept and can't be in force after all, because the cache is
// another one by now, is taken back in the file before anybody is told. What is in force and could not be kept is kept later: a share whose
// volume was given back, and the division that stayed when a write failed half-way.

extension CloudPlane {
    /// The cache, if it can be changed.
    func needCache() throws -> SecureCache<LocalDirectory> {
        if isStopping {
            throw APIError.unavailable(
                "stopping", "The edge is stopping", detail: "it changes nothing any more", action: "Try again when it runs.")
        }
        if let cache, !cache.isUnusable { return cache }
        throw APIError.unavailable(
            "cache_unusable", "The cache is not open", detail: cacheTrouble?.detail ?? "home has not sent its key yet",
            action: "See `causeway cache show`.")
    }

    // MARK: Changing

    /// Divides the cache in another way, durably; the result says whether it is another way.
    /// - Parameter change: is asked twice, because volumes may be given back while it is being kept.
    func divideCache(
        _ change: @escaping (inout CacheDivision) throws -> Void, completion: @escaping (Result<Bool, any Error>) -> Void
    ) {
        changeInTurn(
            { [self] done in
                do {
                    let (before, division) = (try needCache().division, try divided(by: change))
                    if division == before, division == cacheChanges.keptDivision { return done(.success(false)) }
                    keepDivision(division) { [self] result in
                        if case .failure(let error) = result { return done(.failure(error)) }
                        // For the partitions that volumes are in until now.
                        countReads()
                        let result = Result { try needCache().divide(try divided(by: change)) }
                        keepDivisionInForce { _ in done(result.map { division != before }) }
                    }
                } catch {
                    done(.failure(error))
                }
            }, completion: completion)
    }

    /// The division after a change, if the cache can have it.
    private func divided(by change: (inout CacheDivision) throws -> Void) throws -> CacheDivision {
        let cache = try needCache()
        var division = cache.division
        try change(&division)
        do throws(CacheError) {
            try cache.checkDivision(division)
        } catch {
            throw Problem(
                dividing: error, from: cache.division, to: division, bytesWithoutRoom: cache.statistics.bytesWithoutRoom, name: volumeName)
        }
        return division
    }

    /// What a volume that is served here is called.
    func volumeName(_ identifier: VolumeIdentifier) -> String { served[identifier]?.grant.name ?? "\(identifier)" }

    /// Tells when the cache can't keep all of its division, and when it can again.
    /// - Parameter rest: how long it must have been able to; what comes and goes by itself is told once.
    func noticeLoosening(rest: TimeAmount = LastingNotice.restInterval) {
        guard let cache, !cache.isUnusable else { return }
        switch cacheChanges.loosened.observe(cache.isLoosened, now: .now(), rest: rest) {
        case .begun:
            let (now, loosening) = (cache.statistics, cache.loosening ?? CacheLoosening())
            recorder.record(
                "cache.loosened", severity: .warning,
                "the cache has room for \(ByteSize.rounded(now.byteCount - min(now.byteCount, now.bytesWithoutRoom))), which is too little for its division: "
                    + loosening.text + (now.bytesWithoutRoom > 0 ? "; free room on its file system" : "; make it larger")
                    + ", or change partitions, shares and pins")
        case .over: recorder.record("cache.division_fits", "the cache keeps all partitions, guarantees and pins again")
        case nil: break
        }
    }

    // MARK: Keeping

    private func keepDivision(_ division: CacheDivision, completion: @escaping (Result<Void, any Error>) -> Void) {
        guard let directory = stateSpace.directory, let key = cacheKey else { return completion(.success(())) }
        onThread({ try KeptDivision.keep(division, in: directory, key: key) }) { [self] result in
            cacheChanges.keptDivision = (try? result.get()).map { division }
            completion(result.mapError { Problem(keeping: $0) })
        }
    }

    private var isDivisionKept: Bool { cache.map { $0.division == cacheChanges.keptDivision } ?? true }

    /// Keeps what is in force, should something else be kept. One change at a time does that.
    func keepDivisionInForce(completion: @escaping (Result<Void, any Error>) -> Void) {
        guard let cache, !isDivisionKept else { return completion(.success(())) }
        keepDivision(cache.division, completion: completion)
    }

    /// Keeps what is in force, should that not have been possible before.
    func keepStaleDivision() {
        if isDivisionKept { return }
        changeInTurn({ [self] in keepDivisionInForce(completion: $0) }, completion: { _ in })
    }

    /// Takes over what the run before has kept, also when it could be read only after something stood in for the cache.
    func divisionWasRead(_ division: CacheDivision) throws {
        cacheChanges.keptDivision = division
        try cache?.divide(division)
        forgetShares()
    }

    // MARK: Volumes that go

    /// The cache forgets a volume, and what was said of its share.
    func forgetInCache(_ identifier: VolumeIdentifier) { cache?.detach(volume: identifier) }

    /// Forgets the shares of volumes that home has taken back, also while this edge was down.
    func forgetShares() {
        guard let cache, let granted else { return }
        for identifier in cache.division.shares.keys where !granted.contains(identifier) { cache.forgetShare(of: identifier) }
    }
}

extension CacheLoosening {
    /// What is not kept, in words that name nothing.
    fileprivate var text: String {
        [
            partitions > 0 ? "partitions with another size: \(partitions)" : nil,
            guarantees > 0 ? "volumes to which less is guaranteed: \(guarantees)" : nil,
            maxima > 0 ? "volumes that may have more than their maximum, because segments are long: \(maxima)" : nil,
            pinnedBlocks > 0 ? "\(ByteSize.rounded(pinnedBlocks &* UInt64(BlockGeometry.blockBytes))) of what is pinned may leave" : nil,
        ].compactMap { $0 }.joined(separator: ", ")
    }
}
