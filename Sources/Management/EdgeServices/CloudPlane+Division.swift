import APIModels
import Blocks
import DequeModule
import EdgeConfiguration
import LocalFiles
import ManagementAPI
import NIOCore
import SecureCache

// How the cache is divided is what the cache has; the file `cache-division` says it to the next run. One change is made at a time: it is
// looked at, kept, and then in force, so one that can't be or can't be kept leaves all as it is. What is in force and could not be kept is
// kept later: a share whose volume was given back meanwhile, and the division that stayed when a write failed half-way.

/// Changes of how the cache is divided.
struct DivisionChanges {
    /// So many may wait for those before them.
    static let waitingMax = 64

    /// A division is being kept.
    fileprivate var isKeeping = false
    /// What is kept may not be what is in force.
    fileprivate var isStale = false
    fileprivate var waiting: Deque<() -> Void> = []
}

extension CloudPlane {
    /// The cache, if it can be changed.
    func needCache() throws -> SecureCache<LocalDirectory> {
        if let cache, !cache.isUnusable { return cache }
        throw APIError.unavailable(
            "cache_unusable", "The cache is not open", detail: cacheTrouble?.detail ?? "home has not sent its key yet",
            action: "See `causeway cache show`.")
    }

    // MARK: Changing

    /// Divides the cache in another way, durably.
    /// - Parameter change: is asked twice, because volumes may be given back while it is being kept.
    func divideCache(
        _ change: @escaping (inout CacheDivision) throws -> Void, completion: @escaping (Result<Void, any Error>) -> Void
    ) {
        if divisionChanges.isKeeping {
            guard divisionChanges.waiting.count < DivisionChanges.waitingMax else {
                return completion(.failure(Problem.tooManyDivisions))
            }
            return divisionChanges.waiting.append { [self] in divideCache(change, completion: completion) }
        }
        do {
            let division = try divided(by: change)
            keep(division) { [self] result in completion(result.flatMap { takeOver(change, kept: division) }) }
        } catch {
            completion(.failure(error))
        }
    }

    /// The division after a change, if the cache can have it.
    private func divided(by change: (inout CacheDivision) throws -> Void) throws -> CacheDivision {
        let cache = try needCache()
        var division = cache.division
        try change(&division)
        do throws(CacheError) {
            try cache.checkDivision(division)
        } catch {
            throw Problem(dividing: error, from: cache.division, to: division, name: volumeName)
        }
        return division
    }

    private func takeOver(_ change: (inout CacheDivision) throws -> Void, kept: CacheDivision) -> Result<Void, any Error> {
        // Another size of the cache, or a volume that was given back, may be in the way by now.
        divisionChanges.isStale = true
        return Result {
            let division = try divided(by: change)
            try needCache().divide(division)
            divisionChanges.isStale = division != kept
        }
    }

    /// What a volume that is served here is called.
    func volumeName(_ identifier: VolumeIdentifier) -> String { served[identifier]?.grant.name ?? "\(identifier)" }

    // MARK: Keeping

    private func keep(_ division: CacheDivision, completion: @escaping (Result<Void, any Error>) -> Void) {
        guard let directory = stateSpace.directory else { return completion(.success(())) }
        divisionChanges.isKeeping = true
        let bound = NIOLoopBound((self, completion), eventLoop: eventLoop)
        threadPool.runIfActive(eventLoop: eventLoop) { try KeptDivision.keep(division, in: directory) }.whenComplete { result in
            let (plane, completion) = bound.value
            plane.divisionChanges.isKeeping = false
            if case .failure = result { plane.divisionChanges.isStale = true }
            completion(result.mapError { Problem(keeping: $0) })
            // It keeps what it changes, and calls the next one then; one that is refused keeps nothing.
            while !plane.divisionChanges.isKeeping, let next = plane.divisionChanges.waiting.popFirst() { next() }
        }
    }

    /// Keeps what is in force, should that not have been possible before.
    func keepStaleDivision() {
        guard divisionChanges.isStale, !divisionChanges.isKeeping, let cache else { return }
        divisionChanges.isStale = false
        keep(cache.division) { _ in }
    }

    // MARK: Volumes that go

    /// The cache forgets a volume, and what was said of its share.
    func forgetInCache(_ identifier: VolumeIdentifier) {
        guard let cache else { return }
        if cache.division.shares[identifier] != nil { divisionChanges.isStale = true }
        cache.detach(volume: identifier)
    }

    /// Forgets the shares of volumes that home has taken back, also while this edge was down.
    func forgetShares(except granted: Set<String>) {
        guard let cache else { return }
        let gone = cache.division.shares.keys.filter { !granted.contains($0.description) }
        for identifier in gone { cache.forgetShare(of: identifier) }
        if !gone.isEmpty { divisionChanges.isStale = true }
    }
}
