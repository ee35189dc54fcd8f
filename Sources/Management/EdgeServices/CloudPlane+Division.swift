import APIModels
import Blocks
import Files
import LocalFiles
import ManagementAPI
import NIOCore
import SecureCache

// How the cache is divided is what the cache has; the file says it to the next run. A division is in force before it is durable: a crash in
// between leaves the one before, and costs hits at most.

extension CloudPlane {
    /// The cache, if it can be changed.
    func needCache() throws -> SecureCache<LocalDirectory> {
        if let cache, !cache.isUnusable { return cache }
        throw APIError.unavailable(
            "cache_unusable", "The cache is not open", detail: cacheTrouble?.detail ?? "home has not sent its key yet",
            action: "See `causeway cache show`.")
    }

    /// Divides the cache in another way, and completes when that is durable. What can't be, or can't be kept, leaves all as it is.
    func divideCache(_ change: (inout CacheDivision) throws -> Void, completion: @escaping (Result<Void, any Error>) -> Void) {
        do {
            let cache = try needCache()
            let before = cache.division
            var division = before
            try change(&division)
            do throws(CacheError) {
                try cache.divide(division)
            } catch {
                throw Problem(dividing: error) { [self] in served[$0]?.grant.name ?? "\($0)" }
            }
            keepDivision { result in
                if case .failure = result { try? cache.divide(before) }
                completion(
                    result.mapError {
                        Problem(
                            status: 507, code: "state_directory", title: "The division of the cache can't be kept", detail: "\($0)",
                            action: "make room in the state directory, or mend its file system")
                    })
            }
        } catch {
            completion(.failure(error))
        }
    }

    /// Keeps how the cache is divided, for the next run.
    private func keepDivision(completion: @escaping (Result<Void, any Error>) -> Void) {
        guard let cache, let directory = stateDirectory else { return completion(.success(())) }
        let division = cache.division
        let bound = NIOLoopBound(completion, eventLoop: eventLoop)
        threadPool.runIfActive(eventLoop: eventLoop) { try KeptDivision.keep(division, in: directory) }.whenComplete { bound.value($0) }
    }

    /// The cache forgets a volume, and what was said of its share.
    func forgetInCache(_ identifier: VolumeIdentifier) {
        guard let cache else { return }
        let hadShare = cache.division.shares[identifier] != nil
        cache.detach(volume: identifier)
        // Should that fail, the next run has a share for nobody until something of the division is changed.
        if hadShare { keepDivision { _ in } }
    }
}

extension Problem {
    /// - Parameter name: what a volume is called.
    init(dividing error: CacheError, name: (VolumeIdentifier) -> String) {
        let detail =
            if case .division(let division) = error { Problem.text(of: division, name) } else { "\(error)" }
        self.init(
            status: 409, code: "cache_division", title: "The cache can't be divided like that", detail: detail,
            action: "Choose other sizes, or make the cache larger; it stays divided as it is. See `causeway cache show`.")
    }

    /// What is wrong with a division, in words.
    static func text(of error: CacheDivisionError, _ name: (VolumeIdentifier) -> String) -> String {
        switch error {
        case .noPartition(let partition): "there is no partition “\(partition)”, or a volume still uses it"
        case .partitionTooSmall(let partition, let needed): "partition “\(partition)” needs at least \(needed) bytes"
        case .tooManyPools(let max): "partitions and volumes with a guarantee or a maximum are more than \(max - 1)"
        case .tooManyPins(let volume, let max): "volume “\(name(volume))” would have more than \(max) pinned ranges"
        case .badPin(let volume): "a range of volume “\(name(volume))” is empty, or behind the end of any disk"
        case .maximumTooSmall(let volume, let needed): "the maximum of volume “\(name(volume))” must be at least \(needed) bytes"
        case .guaranteeOverMaximum(let volume): "volume “\(name(volume))” can't be guaranteed more than its maximum"
        case .pinsOverMaximum(let volume, let pinned, let max):
            "volume “\(name(volume))” has \(pinned) bytes pinned, and its maximum has room for \(max)"
        case .tooMuchPromised(let partition, let promised, let max):
            "guarantees and pins in \(partition.map { "partition “\($0)”" } ?? "the shared part of the cache") take \(promised) bytes, "
                + "and it can keep \(max): what is pinned takes a third more than it is"
        case .partitionsTooLarge(let byteCount, let max):
            "the partitions have \(byteCount) bytes together, and the cache has room for \(max)"
        }
    }
}
