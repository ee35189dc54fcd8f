import Blocks
import DequeModule
import NIOCore

// The way of a request through a limit:
//
//   admit ──yes──> begins at once
//     └─no─> waiting (in order) ──its turn, by the timer──> begins
//                    └────── waitMax over ──────────────> .busy
//
// A request begins, for the account, at the instant at which it was due, and not at the later one at which the timer ran. So a
// late timer delays, but takes nothing off the rate.

/// What limits have done to a volume since it was opened.
public struct ThrottleStatistics: Equatable, Sendable {
    /// Operations that had to wait.
    public var operations: UInt64 = 0
    /// How long they have waited, all together, in nanoseconds.
    public var waitNanoseconds: UInt64 = 0
    /// Operations among them that were answered `.busy`.
    public var refused: UInt64 = 0

    public init() {}
}

/// The requests of one volume that wait for their turn. Lives on the volume's event loop.
final class RequestQueue {
    /// Requests that may wait; one more is answered `.busy` at once. The front ends' command windows are smaller.
    static let requestsMax = 4_096
    /// How long a request may wait. Initiators lose patience after 30 s; what is answered before that they try again.
    static let waitMax = TimeAmount.seconds(20)

    private struct Waiting {
        let byteCount: UInt64
        let since: NIODeadline
        /// Begins the request, or ends it with the error.
        let proceed: (BlockDeviceError?) -> Void
    }

    private let eventLoop: any EventLoop
    private var limiter: RateLimiter
    private var waiting = Deque<Waiting>()
    private var timer: Scheduled<Void>?
    private var isServing = false
    private(set) var statistics: ThrottleStatistics

    init(_ limits: RateLimits, statistics: ThrottleStatistics, eventLoop: any EventLoop) {
        self.eventLoop = eventLoop
        self.statistics = statistics
        limiter = RateLimiter(limits, now: eventLoop.now)
    }

    var count: Int { waiting.count }

    /// True when a request of this size may begin now; it is then counted as begun.
    func admit(_ byteCount: Int) -> Bool {
        guard mayPass(byteCount) else { return false }
        pass(byteCount)
        return true
    }

    /// True when nobody waits and the limits leave room for a request of this size.
    func mayPass(_ byteCount: Int) -> Bool {
        guard waiting.isEmpty else { return false }
        let now = eventLoop.now
        return limiter.due(byteCount: UInt64(byteCount), notBefore: now) <= now
    }

    /// Counts a request that `mayPass` has let through.
    func pass(_ byteCount: Int) { limiter.take(byteCount: UInt64(byteCount), at: eventLoop.now) }

    /// Has a request wait for its turn behind those that are here.
    func wait(_ byteCount: Int, _ proceed: @escaping (BlockDeviceError?) -> Void) {
        statistics.operations &+= 1
        guard waiting.count < Self.requestsMax else {
            statistics.refused &+= 1
            return proceed(.busy("\(Self.requestsMax) requests wait for the volume's limits"))
        }
        waiting.append(Waiting(byteCount: UInt64(byteCount), since: eventLoop.now, proceed: proceed))
        if waiting.count == 1, !isServing { serve() }
    }

    /// Puts other limits in force, for those too who wait.
    func change(to limits: RateLimits) {
        limiter.change(to: limits, now: eventLoop.now)
        serve()
    }

    /// Lets go everybody who waits: there is no limit any more.
    func release() {
        timer?.cancel()
        timer = nil
        // What begins here may bring new requests; they find the limit gone and do not come here.
        while let next = waiting.popFirst() { begin(next, at: eventLoop.now) }
    }

    /// Begins what is due, refuses what has waited too long, and sets the timer for the next.
    private func serve() {
        // Whatever begins may end at once and bring another: the loop below takes that one in its turn.
        if isServing { return }
        isServing = true
        defer { isServing = false }
        timer?.cancel()
        timer = nil
        while let next = waiting.first {
            let now = eventLoop.now
            let due = limiter.due(byteCount: next.byteCount, notBefore: next.since)
            if due <= now {
                waiting.removeFirst()
                limiter.take(byteCount: next.byteCount, at: due)
                begin(next, at: now)
            } else if now >= next.since + Self.waitMax {
                waiting.removeFirst()
                statistics.refused &+= 1
                account(next, until: now)
                next.proceed(.busy("the volume's limits left no room for the request within \(Self.waitMax.nanoseconds / 1_000_000_000) s"))
            } else {
                return wake(at: min(due, next.since + Self.waitMax))
            }
        }
    }

    private func begin(_ next: Waiting, at now: NIODeadline) {
        account(next, until: now)
        next.proceed(nil)
    }

    private func account(_ next: Waiting, until now: NIODeadline) {
        statistics.waitNanoseconds &+= UInt64(clamping: (now - next.since).nanoseconds)
    }

    private func wake(at deadline: NIODeadline) {
        let run: () -> Void = { [weak self] in self?.serve() }
        let bound = NIOLoopBound(run, eventLoop: eventLoop)
        timer = eventLoop.scheduleTask(deadline: deadline) { bound.value() }
    }
}
