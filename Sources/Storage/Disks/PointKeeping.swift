import Blocks
import DequeModule
import NIOCore

// Points that a disk had can be kept, to be looked at, or gone back to. For each point there is an undo file then, which is whole and
// durable before the first byte of the point reaches the disk, and holds what was there:
//
//     disk at 7   undo-7   undo-6   undo-5           a view of 4: the disk, and over it what 7, 6 and 5 have overwritten, 5 last
//                                                    back to 4: undo 7, then 6, then 5
//
// From `PositionRecord.keptFrom` on each point has such a file, so that one without it that recovery finds received was not begun to
// be applied, and one with it may have been: that file counts, and is not made again. Files are removed oldest first.
//
// Keeping gives way to points: where an undo file can't be made, for want of room or because the disk can't be read there, the points
// before it are given up, and the point is applied.

/// How many of the points that a disk had are kept.
public struct PointKeeping: Equatable, Sendable {
    /// A disk keeps no more points than this, whatever is asked for: each is a file that opening looks at.
    public static let pointsLimit = 1_000

    /// How many points before the one on the disk are kept; 0 for none. With one more the oldest goes.
    public var pointsMax: Int
    /// What their undo files may take, in bytes; beyond it the oldest go.
    public var bytesMax: UInt64

    public init(pointsMax: Int, bytesMax: UInt64) {
        self.pointsMax = min(max(0, pointsMax), Self.pointsLimit)
        self.bytesMax = bytesMax
    }

    /// Nothing is kept.
    public static let none = PointKeeping(pointsMax: 0, bytesMax: 0)
}

/// A point that the disk has left, and that can be looked at or gone back to.
public struct PastPoint: Equatable, Sendable {
    public let point: PointNumber
    /// Until when the disk was at it, in milliseconds since 1970.
    public let leftAtMilliseconds: UInt64
    /// What it carried besides its bytes; nil for nothing.
    public let attributes: PointAttributes?
    /// What is kept for it and for no later point, in bytes.
    public let byteCount: UInt64
}

/// The undo file of one point.
struct UndoFile: Equatable {
    let point: PointNumber
    let byteCount: UInt64
    let leftAtMilliseconds: UInt64
    /// What the point before carried.
    let attributes: PointAttributes?
}

/// An undo file that views read. It is closed when the last of them is gone.
final class OpenUndo<File: StorageFile> {
    let received: ReceivedPoint<File>
    /// The size of the disk when the point was about to be applied.
    let sectorCount: UInt64

    init(_ received: ReceivedPoint<File>, sectorCount: UInt64) {
        self.received = received
        self.sectorCount = sectorCount
    }

    deinit { received.file.close() }
}

/// An undo file in the making.
final class UndoCapture<File: StorageFile> {
    /// How much of the disk is read at once, in sectors; more is asked for its allocation first, so that holes are not read.
    static var chunkSectors: UInt64 { 2_048 }
    /// Reads of one batch.
    static var readsMax: Int { 16 }

    /// What is next.
    enum Step {
        /// These runs, to be read or known to be zeroes.
        case take([AllocationExtent])
        /// The disk has to say what of this range it holds.
        case ask(SectorRange)
        case end
    }

    let writer: IncomingPoint<File>
    private let extents: [AllocationExtent]
    private var nextExtent = 0
    /// What of the extent before `nextExtent` has not been asked for.
    private var unasked: SectorRange?
    private var pending = Deque<AllocationExtent>()
    var byteCount: UInt64 = 0

    init(header: PointHeader, extents: [AllocationExtent]) {
        writer = IncomingPoint(header: header)
        self.extents = extents
    }

    /// Takes what is next, at most `bytesMax` of it unless one run is longer.
    func next(bytesMax: Int) -> Step {
        var taken: [AllocationExtent] = []
        var bytes = 0
        while taken.count < Self.readsMax {
            if let first = pending.first {
                let isHole = first.allocation == .deallocated
                let end = isHole ? first.range.end : min(first.range.end, first.range.start + Self.chunkSectors)
                let run = SectorRange(from: first.range.start, to: end)
                if !isHole {
                    if !taken.isEmpty, bytes + run.byteCount > bytesMax { break }
                    bytes += run.byteCount
                }
                pending.removeFirst()
                if end < first.range.end {
                    pending.prepend(AllocationExtent(range: SectorRange(from: end, to: first.range.end), allocation: .mapped))
                }
                taken.append(AllocationExtent(range: run, allocation: first.allocation))
            } else if let unasked {
                // The answer has to wait for its turn: runs go into the file in ascending order.
                if taken.isEmpty { return .ask(unasked) }
                break
            } else if nextExtent < extents.count {
                let range = extents[nextExtent].range
                nextExtent += 1
                if range.count <= Self.chunkSectors {
                    pending.append(AllocationExtent(range: range, allocation: .mapped))
                } else {
                    unasked = range
                }
            } else {
                break
            }
        }
        return taken.isEmpty ? .end : .take(taken)
    }

    /// What the disk says of the range that it was asked for.
    func answered(_ answer: [AllocationExtent]) {
        guard let asked = unasked else { return }
        var position = asked.start
        for extent in answer {
            let part = extent.range.intersection(asked)
            guard part.start == position, !part.isEmpty else { break }
            pending.append(AllocationExtent(range: part, allocation: extent.allocation))
            position = part.end
        }
        // An answer that says nothing: then the bytes do.
        if position == asked.start {
            pending.append(AllocationExtent(range: asked, allocation: .mapped))
            position = asked.end
        }
        unasked = position < asked.end ? SectorRange(from: position, to: asked.end) : nil
    }
}
