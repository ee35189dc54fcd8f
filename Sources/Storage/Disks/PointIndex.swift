import Blocks

/// Where the pieces of a complete point are, and which sectors they cover.
struct PointIndex {
    let point: PointNumber
    let pieces: [PointPiece]
    /// The covered sectors: sorted, and joined where they touch.
    private let covered: [SectorRange]
    /// True when pieces overlap, so that the order in which they are applied counts.
    let hasOverlaps: Bool

    init(point: PointNumber, pieces: [PointPiece]) {
        self.point = point
        self.pieces = pieces
        var ranges = pieces.map(\.range)
        var isSorted = true
        for index in ranges.indices.dropFirst() where ranges[index].start < ranges[index - 1].start {
            isSorted = false
            break
        }
        if !isSorted { ranges.sort { $0.start < $1.start } }
        var joined: [SectorRange] = []
        var overlaps = false
        for range in ranges {
            guard let last = joined.last, range.start <= last.end else {
                joined.append(range)
                continue
            }
            overlaps = overlaps || range.start < last.end
            joined[joined.count - 1] = SectorRange(from: last.start, to: max(last.end, range.end))
        }
        covered = joined
        hasOverlaps = overlaps
    }

    /// True when the point changes a sector of `range`.
    func overlaps(_ range: SectorRange) -> Bool {
        // The first covered run that ends behind the start of `range` is the only one that has to be looked at.
        var low = 0
        var high = covered.count
        while low < high {
            let middle = (low + high) / 2
            if covered[middle].end <= range.start { low = middle + 1 } else { high = middle }
        }
        return low < covered.count && covered[low].overlaps(range)
    }
}
