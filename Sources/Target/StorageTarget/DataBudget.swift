import DequeModule

// Who waits for memory, and for whom.
//
// Requests for data wait in two queues, short ones and long ones, each first come first served. Short ones have an eighth besides, which nobody
// else has: the read of a block that is at hand does not wait until a deep queue of long reads has come over the line. They may have what is for
// all, too, but only while no long one waits: so neither queue waits for ever for the other.

/// Bytes of a budget that are held, by the length of the requests that hold them.
package struct HeldBytes {
    /// The longest request that counts as a short one.
    package static let shortByteCount = 16_384

    private(set) var short = 0
    private(set) var long = 0

    package init() {}

    init(_ byteCount: Int) { add(byteCount) }

    package var byteCount: Int { short + long }

    static func isShort(_ byteCount: Int) -> Bool { byteCount <= shortByteCount }

    /// Adds what one request holds.
    package mutating func add(_ byteCount: Int) {
        if Self.isShort(byteCount) { short += byteCount } else { long += byteCount }
    }

    mutating func subtract(_ other: Self) {
        short -= other.short
        long -= other.long
    }
}

/// How many bytes of data the server may hold for one direction, and who waits for room.
///
/// A request that is larger than the whole limit is granted when no other long one holds anything, so that it is served too.
package final class DataBudget {
    /// What all may have; short requests have an eighth of that besides.
    package let limit: Int
    /// What only short requests may have.
    private let keptForShort: Int
    private var held = HeldBytes()
    /// What the waiting ones want.
    package private(set) var waitingByteCount = 0
    private var shortWaiters: Deque<Waiter> = []
    private var longWaiters: Deque<Waiter> = []
    private var isGranting = false

    private struct Waiter {
        let byteCount: Int
        let grant: () -> Bool
    }

    package init(limit: Int) {
        self.limit = limit
        keptForShort = limit / 8
    }

    package var heldByteCount: Int { held.byteCount }

    /// Takes the bytes if there is room now and nobody of the same length waits.
    package func reserve(_ byteCount: Int) -> Bool {
        guard (HeldBytes.isShort(byteCount) ? shortWaiters : longWaiters).isEmpty, fits(byteCount) else { return false }
        held.add(byteCount)
        return true
    }

    /// Takes the bytes when there is room. `grant` runs then, and returns false when they are no longer wanted.
    package func wait(for byteCount: Int, grant: @escaping () -> Bool) {
        let waiter = Waiter(byteCount: byteCount, grant: grant)
        if HeldBytes.isShort(byteCount) { shortWaiters.append(waiter) } else { longWaiters.append(waiter) }
        waitingByteCount += byteCount
        serve()
    }

    /// Gives the bytes of one request back.
    package func release(_ byteCount: Int) { release(HeldBytes(byteCount)) }

    /// Gives the bytes of several requests back.
    package func release(_ bytes: HeldBytes) {
        held.subtract(bytes)
        serve()
    }

    private func fits(_ byteCount: Int) -> Bool {
        if HeldBytes.isShort(byteCount) {
            if held.short == 0 || held.short + byteCount <= keptForShort { return true }
            return longWaiters.isEmpty && held.byteCount + byteCount <= limit
        }
        // What short ones hold beyond their part is taken from what is for all.
        return held.long + byteCount <= limit - max(0, held.short - keptForShort) || held.long == 0 && held.short <= keptForShort
    }

    /// A loop, not a recursion: a grant may release at once.
    private func serve() {
        if isGranting { return }
        isGranting = true
        defer { isGranting = false }
        while let next = nextGranted() {
            waitingByteCount -= next.byteCount
            held.add(next.byteCount)
            if !next.grant() { held.subtract(HeldBytes(next.byteCount)) }
        }
    }

    private func nextGranted() -> Waiter? {
        if let next = shortWaiters.first, fits(next.byteCount) { return shortWaiters.removeFirst() }
        if let next = longWaiters.first, fits(next.byteCount) { return longWaiters.removeFirst() }
        return nil
    }
}

/// What one connection may hold of a budget that it shares with others. Who waits for the connection's own part waits out of the
/// others' way, so that a peer which takes no answers, or sends no data, holds up itself before it holds up anybody else.
package final class BudgetShare {
    /// What all connections have together.
    package let whole: DataBudget
    private let own: DataBudget
    /// What the connection's requests wait for.
    package private(set) var waitingByteCount = 0

    /// - Parameter limit: of the connection alone; at most that of the whole counts.
    package init(of whole: DataBudget, limit: Int) {
        self.whole = whole
        own = DataBudget(limit: min(limit, whole.limit))
    }

    /// True while another connection waits for what this one may be holding.
    package var isContended: Bool { whole.waitingByteCount > 0 }

    /// Takes the bytes if there is room now and nobody of the same length waits.
    package func reserve(_ byteCount: Int) -> Bool {
        guard own.reserve(byteCount) else { return false }
        if whole.reserve(byteCount) { return true }
        own.release(byteCount)
        return false
    }

    /// Takes the bytes when there is room. `grant` runs then, and returns false when they are no longer wanted.
    package func wait(for byteCount: Int, grant: @escaping () -> Bool) {
        waitingByteCount += byteCount
        own.wait(for: byteCount) { [self] in
            whole.wait(for: byteCount) { [self] in
                waitingByteCount -= byteCount
                if grant() { return true }
                own.release(byteCount)
                return false
            }
            return true
        }
    }

    /// Gives the bytes of one request back.
    package func release(_ byteCount: Int) { release(HeldBytes(byteCount)) }

    /// Gives the bytes of several requests back.
    package func release(_ bytes: HeldBytes) {
        own.release(bytes)
        whole.release(bytes)
    }
}
