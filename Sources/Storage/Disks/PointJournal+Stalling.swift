import Blocks
import NIOCore

// A disk without room: a sparse file on a file system that is full.
//
//     applying ──the disk takes no more──► stalled: all points wait, reads see them laid over the disk
//         ▲                                   │
//         └────────────── retry ──────────────┘
//
// Such a disk can be read as ever, and the journal has what it lacks; so reads go on, and points are received as long as the journal may hold
// them. The point of which the disk has a part is whole in the journal, and laid over that part reads as it should: applying it again is
// applying it once. A journal that is opened does not stall: it opens at a point, or not at all.

extension PointJournal {
    /// Why no point is put on the disk for now: it has no room. Nil while nothing is in the way.
    public var stallReason: PointJournalError? { stall }

    /// True when the point is not applied for now, and a read must not wait for it.
    func isHeld(_ received: ReceivedPoint<Directory.File>) -> Bool { stall != nil || isHeldForGroup(received) }

    /// The disk has no room for the rest of the point that is being applied.
    func stall(_ reason: PointJournalError) {
        partialPoint = applying?.received.index.point
        applying = nil
        stall = reason
        // Whoever waits for the disk itself hears of it, and those who read need wait no more.
        let waiters = appliedWaiters
        appliedWaiters = []
        readsReady.append(contentsOf: readsBlocked)
        readsBlocked = []
        for waiter in waiters { waiter.completion(.failure(reason)) }
        startReads()
        finishCloseIfIdle()
    }

    /// Tries again to put on the disk what it had no room for. The owner calls it about once a second.
    public func retryStalled() {
        guard stall != nil, state == .open else { return }
        stall = nil
        startApplying()
    }
}
