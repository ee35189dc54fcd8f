import Blocks

/// Where the pieces of a complete point are, and which sectors they cover.
struct PointIndex {
    let point: PointNumber
    let pieces: [PointPiece]
    /// The covered sectors: sorted, and joined where they touch and are alike. Where pieces overlap, they count as data.
    let covered: [AllocationExtent]
    /// True when pieces overlap, so that the order in which they are applied counts.
    let hasOverlaps: Bool
    /// True when the pieces ascend and do not overlap, as a volume sends them.
    private let isAscending: Bool

    init(point: PointNumber, pieces: [PointPiece]) {
        self.point = point
        self.pieces = pieces
        var extents = pieces.map { AllocationExtent(range: $0.range, allocation: $0.dataOffset == nil ? .deallocated : .mapped) }
        var isSorted = true
        for index in extents.indices.dropFirst() where extents[index].range.start < extents[index - 1].range.start {
            isSorted = false
            break
        }
        if !isSorted { extents.sort { $0.range.start < $1.range.start } }
        var joined: [AllocationExtent] = []
        var overlaps = false
        for extent in extents {
            guard let last = joined.last, extent.range.start <= last.range.end,
                extent.range.start < last.range.end || extent.allocation == last.allocation
            else {
                joined.append(extent)
                continue
            }
            let isOverlapping = extent.range.start < last.range.end
            overlaps = overlaps || isOverlapping
            joined[joined.count - 1] = AllocationExtent(
                range: SectorRange(from: last.range.start, to: max(last.range.end, extent.range.end)),
                allocation: isOverlapping ? .mapped : last.allocation)
        }
        covered = joined
        hasOverlaps = overlaps
        isAscending = isSorted && !overlaps
    }

    /// The pieces that touch `range`, in their order.
    func pieces(touching range: SectorRange) -> [PointPiece] {
        guard isAscending else { return pieces.filter { $0.range.overlaps(range) } }
        var low = 0
        var high = pieces.count
        while low < high {
            let middle = (low + high) / 2
            if pieces[middle].range.end <= range.start { low = middle + 1 } else { high = middle }
        }
        return Array(pieces[low...].prefix { $0.range.start < range.end })
    }

    /// True when the point changes a sector of `range`.
    func overlaps(_ range: SectorRange) -> Bool {
        // It is the only one that has to be looked at.
        let first = firstCovered(endingAfter: range.start)
        return first < covered.count && covered[first].range.overlaps(range)
    }

    /// What the point makes of the sectors of `range`: runs that it covers, clipped to it, ascending, at most `limit`.
    func covered(in range: SectorRange, limit: Int) -> [AllocationExtent] {
        covered[firstCovered(endingAfter: range.start)...].prefix { $0.range.start < range.end }.prefix(limit).map {
            AllocationExtent(range: $0.range.intersection(range), allocation: $0.allocation)
        }
    }

    private func firstCovered(endingAfter sector: UInt64) -> Int {
        var low = 0
        var high = covered.count
        while low < high {
            let middle = (low + high) / 2
            if covered[middle].range.end <= sector { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
