import Blocks
import NIOCore

/// A question that home is asked: what of a range has storage.
final class AllocationQuery {
    /// The number under which home is asked; a new one each time it is asked anew.
    fileprivate(set) var identifier: UInt64
    /// What is asked.
    let asked: SectorRange
    /// What the log held over it when the question came.
    let overlay: AllocationOverlay
    /// The volume's count of reasons to forget answers when the question came.
    let epoch: UInt64
    let startedAt: NIODeadline
    let completion: (Result<[AllocationExtent], BlockDeviceError>) -> Void
    fileprivate(set) var isSent = false

    fileprivate init(
        identifier: UInt64, asked: SectorRange, overlay: AllocationOverlay, epoch: UInt64, startedAt: NIODeadline,
        completion: @escaping (Result<[AllocationExtent], BlockDeviceError>) -> Void
    ) {
        self.identifier = identifier
        self.asked = asked
        self.overlay = overlay
        self.epoch = epoch
        self.startedAt = startedAt
        self.completion = completion
    }
}

/// The questions of one volume that wait for home, in the order in which they came.
struct AllocationQueryTable {
    /// Questions at once; one more is refused.
    static let queriesMax = 64

    private var queries: [AllocationQuery] = []
    private var nextIdentifier: UInt64

    /// Questions are numbered upwards from `firstIdentifier`.
    init(firstIdentifier: UInt64) { nextIdentifier = firstIdentifier }

    var isEmpty: Bool { queries.isEmpty }
    var isFull: Bool { queries.count >= Self.queriesMax }
    /// The oldest question that was not sent.
    var nextToSend: AllocationQuery? { queries.first { !$0.isSent } }

    /// A new question, which waits to be sent.
    mutating func add(
        _ asked: SectorRange, _ overlay: AllocationOverlay, epoch: UInt64, now: NIODeadline,
        completion: @escaping (Result<[AllocationExtent], BlockDeviceError>) -> Void
    ) {
        queries.append(
            AllocationQuery(
                identifier: nextIdentifier, asked: asked, overlay: overlay, epoch: epoch, startedAt: now, completion: completion))
        nextIdentifier &+= 1
    }

    mutating func markSent(_ query: AllocationQuery) { query.isSent = true }

    /// Takes out the question of that number; nil when there is none.
    mutating func remove(identifier: UInt64) -> AllocationQuery? {
        queries.firstIndex { $0.identifier == identifier && $0.isSent }.map { queries.remove(at: $0) }
    }

    /// Takes out every question that began before `deadline`.
    mutating func removeAll(startedBefore deadline: NIODeadline) -> [AllocationQuery] {
        let expired = queries.filter { $0.startedAt < deadline }
        queries.removeAll { $0.startedAt < deadline }
        return expired
    }

    /// Home is asked anew: the session was lost, or the volume was opened again within it.
    mutating func restart() {
        for query in queries {
            query.identifier = nextIdentifier
            nextIdentifier &+= 1
            query.isSent = false
        }
    }
}
