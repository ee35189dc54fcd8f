// Which sectors of a disk have storage of their own.
//
// Layers answer for each other: what a layer above holds (unsent writes over a journal, a journal
// over a disk) is put over what the layer below says. "Mapped" is always a right answer, because
// mapped sectors may hold zeroes too; "deallocated" promises that the sectors read as zeroes.

/// Whether sectors have storage of their own (the provisioning status of SBC-3, 4.7.4).
public enum Allocation: Sendable, ExtentValue {
    /// They hold bytes, maybe zeroes.
    case mapped
    /// They hold nothing, and read as zeroes.
    case deallocated

    public func dropping(sectors: UInt64) -> Allocation { self }
}

/// A run of sectors of one allocation.
public struct AllocationExtent: Equatable, Sendable {
    /// The sectors; never empty.
    public let range: SectorRange
    /// What they have.
    public let allocation: Allocation

    public init(range: SectorRange, allocation: Allocation) {
        self.range = range
        self.allocation = allocation
    }
}

/// Consecutive extents, joined where they are alike, up to a limit. What does not fit any more is left out, and so is
/// everything behind it.
public struct AllocationExtents {
    /// The extents of one answer of a device; what is behind them is for the next question.
    public static let answerMax = 512

    /// What was gathered: ascending, without gaps.
    public private(set) var extents: [AllocationExtent] = []
    /// True when something was left out.
    public private(set) var isFull = false
    private let extentsMax: Int

    public init(extentsMax: Int = Self.answerMax) { self.extentsMax = max(1, extentsMax) }

    /// Adds the run that follows what is there; an empty one changes nothing.
    public mutating func append(_ range: SectorRange, _ allocation: Allocation) {
        if range.isEmpty || isFull { return }
        if let last = extents.last, last.allocation == allocation {
            extents[extents.count - 1] = AllocationExtent(
                range: SectorRange(from: last.range.start, to: range.end), allocation: allocation)
        } else if extents.count < extentsMax {
            extents.append(AllocationExtent(range: range, allocation: allocation))
        } else {
            isFull = true
        }
    }
}

/// What a layer holds over the one below it.
public struct AllocationOverlay {
    private var map = ExtentMap<Allocation>()

    public init() {}

    /// The sectors are in this layer, whatever was said of them before.
    public mutating func insert(_ range: SectorRange, _ allocation: Allocation) { map.insert(range, allocation) }

    /// The answer where nothing is known of the layer below: all that this one does not hold may hold data.
    public func overMapped(_ range: SectorRange) -> [AllocationExtent] {
        merged(over: [AllocationExtent(range: range, allocation: .mapped)])
    }

    /// The answer of both layers, where `lower` is that of the one below: consecutive extents.
    public func merged(over lower: [AllocationExtent], extentsMax: Int = AllocationExtents.answerMax) -> [AllocationExtent] {
        var merged = AllocationExtents(extentsMax: extentsMax)
        for extent in lower {
            if merged.isFull { break }
            var position = extent.range.start
            map.forEach(in: extent.range) { upper in
                merged.append(SectorRange(from: position, to: upper.range.start), extent.allocation)
                merged.append(upper.range, upper.value)
                position = upper.range.end
            }
            merged.append(SectorRange(from: position, to: extent.range.end), extent.allocation)
        }
        return merged.extents
    }
}
