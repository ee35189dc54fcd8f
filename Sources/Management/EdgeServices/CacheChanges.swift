import APIModels
import DequeModule
import ManagementAPI
import NIOCore
import NIOPosix
import SecureCache

// The cache's size and how it is divided are changed one at a time, by whomever: each is looked at, made to last and in force before the
// next one begins. So what is kept is what is in force, in whatever order the answers of the disk come.

/// Changes of the cache's size and of how it is divided.
struct CacheChanges {
    /// So many may wait for those before them.
    static let waitingMax = 64

    fileprivate var isUnderWay = false
    fileprivate var waiting: Deque<() -> Void> = []
    /// The division that the next run will read, as far as this one has come to know it; nil when a write of it has failed, which may have
    /// come as far as the file all the same.
    var keptDivision: CacheDivision? = CacheDivision()
    /// The cache can't keep all of it.
    var loosened = LastingNotice()
}

extension CloudPlane {
    /// Makes a change of the cache when those before it are done.
    /// - Parameter change: is called then, and calls what it is given once.
    func changeInTurn<Value>(
        _ change: @escaping (@escaping (Result<Value, any Error>) -> Void) -> Void,
        completion: @escaping (Result<Value, any Error>) -> Void
    ) {
        if !cacheChanges.isUnderWay { return begin(change, completion: completion) }
        guard cacheChanges.waiting.count < CacheChanges.waitingMax else { return completion(.failure(Problem.tooManyCacheChanges)) }
        cacheChanges.waiting.append { [self] in begin(change, completion: completion) }
    }

    private func begin<Value>(
        _ change: (@escaping (Result<Value, any Error>) -> Void) -> Void, completion: @escaping (Result<Value, any Error>) -> Void
    ) {
        cacheChanges.isUnderWay = true
        change { [self] result in
            cacheChanges.isUnderWay = false
            noticeLoosening(rest: .zero)
            completion(result)
            while !cacheChanges.isUnderWay, let next = cacheChanges.waiting.popFirst() { next() }
        }
    }

    /// Does on another thread what blocks.
    func onThread<Value: Sendable>(
        _ body: @escaping @Sendable () throws -> Value, completion: @escaping (Result<Value, any Error>) -> Void
    ) {
        let bound = NIOLoopBound(completion, eventLoop: eventLoop)
        threadPool.runIfActive(eventLoop: eventLoop, body).whenComplete { bound.value($0) }
    }

    /// Ends the changes: those that wait are not made any more, and what is in force is kept, should it not be.
    func endCacheChanges(completion: @escaping () -> Void) {
        // Who waits is told by `needCache` that this edge is stopping. This one finds its place however many they are.
        let last = { [self] in begin({ [self] in keepDivisionInForce(completion: $0) }, completion: { _ in completion() }) }
        if cacheChanges.isUnderWay { cacheChanges.waiting.append(last) } else { last() }
    }
}

extension Problem {
    static var tooManyCacheChanges: Problem {
        Problem(
            status: 503, code: "busy", title: "The cache is being changed",
            detail: "\(CacheChanges.waitingMax) changes wait for one another already", action: "Try again.")
    }
}
