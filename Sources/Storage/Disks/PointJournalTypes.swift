import Blocks

/// How far the points of a volume have come at home.
public struct PointPosition: Hashable, Sendable {
    /// The last point that is durable in the journal; 0 when there is none.
    public var received: PointNumber
    /// The last point that is durable on the disk; 0 when there is none.
    public var applied: PointNumber

    public init(received: PointNumber, applied: PointNumber) {
        self.received = received
        self.applied = applied
    }
}

/// The answer to an announced point.
public enum PointAdmission: Equatable, Sendable {
    /// Its pieces may come.
    case accepted
    /// It is in the journal already: say "received" again and ignore the pieces.
    case alreadyReceived
}

/// Why the journal did not do what it was asked.
public enum PointJournalError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The generation is not the lease's: another writer has taken over, or there is no lease.
    case fenced(lease: LeaseGeneration?, offered: LeaseGeneration)
    /// The number is not the one that follows the last received point.
    case outOfSequence(expected: PointNumber, offered: PointNumber)
    /// No point has been begun.
    case notBegun
    /// What arrived is not what was announced; the point may be sent again.
    case damaged(String)
    /// The journal has no room; the point may be sent again later.
    case noSpace(String)
    /// A limit of the journal is reached; trying again after the next applied point helps.
    case busy(String)
    /// A range that is not on the disk, or a read that is too large.
    case outOfRange(SectorRange)
    /// The disk failed.
    case disk(String)
    /// A file of the journal failed.
    case journal(String)
    /// The journal's files hold something that no crash can leave.
    case corrupt(String)
    /// The point is not one of those that are kept.
    case notKept(PointNumber)
    /// The disk is not as the last applied point left it: it is another one, or was changed. With points that wait to be applied,
    /// nothing is taken over either.
    case foreignDisk(applied: PointNumber, isReceivedWaiting: Bool)
    /// The journal has been closed.
    case closed

    public var description: String {
        switch self {
        case .fenced(let lease?, let offered): "generation \(offered) is fenced: the lease has generation \(lease)"
        case .fenced(nil, let offered): "generation \(offered) is fenced: nobody has a lease"
        case .outOfSequence(let expected, let offered): "point \(offered) was offered where point \(expected) follows"
        case .notBegun: "no point has been begun"
        case .damaged(let text): "the point arrived damaged: \(text)"
        case .noSpace(let text): "the point journal has no room: \(text)"
        case .busy(let text): "the point journal is busy: \(text)"
        case .outOfRange(let range): "\(range) can't be reached on this disk"
        case .disk(let text): "the disk failed: \(text)"
        case .journal(let text): "the point journal failed: \(text)"
        case .corrupt(let text): "the point journal is damaged: \(text)"
        case .notKept(let point): "point \(point) is not kept"
        case .foreignDisk(let applied, let isReceivedWaiting):
            "what is there now is not what "
                + (applied == 0 ? "was there when the volume was attached" : "point \(applied) left there")
                + ": it is another disk, an older copy, or was changed while no daemon held it"
                + (isReceivedWaiting ? "; points that home has received wait in the journal for the right one" : "")
        case .closed: "the point journal is closed"
        }
    }
}

/// The limits of a journal. What happens at each is said beside it.
public struct PointJournalLimits: Sendable {
    /// Points that are received and not applied; at the limit a new one is refused as `busy`.
    public var pointsQueuedMax = 8
    /// Points that are received while the first of them is held for its group; at the limit a new one is refused as `busy`.
    public var pointsHeldMax = 64
    /// Pieces of one point; one more refuses the point as `noSpace`. A piece takes about 32 bytes of memory until it is applied.
    public var piecesPerPointMax = 1 << 20
    /// Pieces of all received points; at the limit a new point is refused as `busy`.
    public var piecesQueuedMax = 2 << 20
    /// The data of one piece in bytes; a larger one refuses the point as `damaged`.
    public var pieceBytesMax = 4 << 20
    /// Bytes that have arrived and are not in the file yet; at the limit `isBusy` is true, at the double the point is
    /// refused.
    public var receiveBufferBytesMax = 8 << 20
    /// Pieces are gathered until a write to the journal has this size.
    public var writeBytes = 1 << 20
    /// Writes to the point file in flight; more wait.
    public var journalWritesInFlightMax = 4
    /// Bytes that are read from the journal at a time when a point is applied.
    public var applyBatchBytes = 1 << 20
    /// Writes to the disk in flight while a point is applied; more wait.
    public var diskWritesInFlightMax = 16
    /// Reads of the disk in flight; more wait.
    public var readsInFlightMax = 64
    /// Reads that wait for a point or for a place; at the limit a read is refused as `busy`.
    public var readsQueuedMax = 4096
    /// Questions for the disk's allocation in flight; one more is refused as `busy`.
    public var allocationsInFlightMax = 16
    /// Views of past points that are open; one more is refused as `busy`.
    public var viewsMax = 4
    /// Points that lie over a view, each an open file, and their pieces, each about 32 bytes of memory; at the limit a view is refused, or
    /// ends, as `busy`.
    public var layersPerViewMax = 1_024
    public var piecesPerViewMax = 2 << 20
    /// The size of one read in bytes; a larger one is refused as `outOfRange`.
    public var readBytesMax = 16 << 20

    public init() {}
}

/// Whether a journal works.
public enum PointJournalState: Equatable, Sendable {
    /// Reapplying what a crash left; nothing is taken yet.
    case recovering
    case open
    /// It stopped, and is tried again by opening it anew. What was received is still there.
    case failed(PointJournalError)
    case closed
}
