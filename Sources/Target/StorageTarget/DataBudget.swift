import DequeModule

/// How many bytes of data the server may hold for one direction, and who waits for room, first come first served.
///
/// A request that is larger than the whole budget is granted when nothing else is held, so that it is served too.
package final class DataBudget {
    package let limit: Int
    package private(set) var heldByteCount = 0
    /// What the waiting ones want.
    package private(set) var waitingByteCount = 0
    private var waiters: Deque<Waiter> = []
    private var isGranting = false

    private struct Waiter {
        let byteCount: Int
        let grant: () -> Bool
    }

    package init(limit: Int) { self.limit = limit }

    /// Takes the bytes if there is room now and nobody waits.
    package func reserve(_ byteCount: Int) -> Bool {
        guard waiters.isEmpty, fits(byteCount) else { return false }
        heldByteCount += byteCount
        return true
    }

    /// Takes the bytes when there is room. `grant` runs then, and returns false when they are no longer wanted.
    package func wait(for byteCount: Int, grant: @escaping () -> Bool) {
        waiters.append(Waiter(byteCount: byteCount, grant: grant))
        waitingByteCount += byteCount
        serve()
    }

    /// Gives bytes back.
    package func release(_ byteCount: Int) {
        heldByteCount -= byteCount
        serve()
    }

    private func fits(_ byteCount: Int) -> Bool { heldByteCount == 0 || heldByteCount + byteCount <= limit }

    /// A loop, not a recursion: a grant may release at once.
    private func serve() {
        if isGranting { return }
        isGranting = true
        defer { isGranting = false }
        while let next = waiters.first, fits(next.byteCount) {
            waiters.removeFirst()
            waitingByteCount -= next.byteCount
            heldByteCount += next.byteCount
            if !next.grant() { heldByteCount -= next.byteCount }
        }
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

    /// Takes the bytes if there is room now and nobody waits.
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

    /// Gives bytes back.
    package func release(_ byteCount: Int) {
        own.release(byteCount)
        whole.release(byteCount)
    }
}
