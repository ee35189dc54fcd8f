/// The units in which Causeway addresses a disk.
public enum BlockGeometry {
    /// The unit of addressing, in bytes.
    public static let sectorBytes = 512
    /// The unit of caching, signatures and maps, in bytes.
    public static let blockBytes = 4096
    /// Sectors in one block.
    public static let sectorsPerBlock: UInt64 = 8
}

/// A run of sectors of one disk: `start ..< start + count`.
///
/// A range is made by checked arithmetic, so its end never overflows; whether it lies inside a
/// disk is for the owner of the disk to say.
public struct SectorRange: Hashable, Sendable, CustomStringConvertible {
    /// The first sector.
    public let start: UInt64
    /// How many sectors.
    public let count: UInt64

    /// The first sector behind the range.
    public var end: UInt64 { start &+ count }
    /// True when the range holds no sector.
    public var isEmpty: Bool { count == 0 }
    /// The length in bytes. Ranges that come from outside are bounded by a disk's size before this is asked.
    public var byteCount: Int { Int(clamping: count.multipliedReportingOverflow(by: UInt64(BlockGeometry.sectorBytes)).partialValue) }
    /// The position of the first byte on the disk.
    public var byteOffset: UInt64 { start &* UInt64(BlockGeometry.sectorBytes) }

    /// A range, or nil when its end does not fit in 64 bits of bytes.
    public init?(start: UInt64, count: UInt64) {
        let (end, overflow) = start.addingReportingOverflow(count)
        if overflow || end > UInt64(Int64.max) / UInt64(BlockGeometry.sectorBytes) { return nil }
        self.start = start
        self.count = count
    }

    /// A range between two sectors of ranges that exist already; an `end` below `start` gives an empty range.
    public init(from start: UInt64, to end: UInt64) {
        self.start = start
        self.count = end > start ? end - start : 0
    }

    /// The sectors of one block.
    public init(block: UInt64) {
        self.init(from: block &* BlockGeometry.sectorsPerBlock, to: (block &+ 1) &* BlockGeometry.sectorsPerBlock)
    }

    /// True when the two ranges share a sector.
    public func overlaps(_ other: SectorRange) -> Bool {
        start < other.end && other.start < end
    }

    /// True when every sector of `other` is in this range.
    public func contains(_ other: SectorRange) -> Bool {
        other.start >= start && other.end <= end
    }

    /// The sectors that both ranges hold; empty when they share none.
    public func intersection(_ other: SectorRange) -> SectorRange {
        SectorRange(from: max(start, other.start), to: min(end, other.end))
    }

    /// The blocks that hold at least one sector of the range.
    public var blocks: Range<UInt64> {
        if isEmpty { return (start / BlockGeometry.sectorsPerBlock)..<(start / BlockGeometry.sectorsPerBlock) }
        return (start / BlockGeometry.sectorsPerBlock)..<((end - 1) / BlockGeometry.sectorsPerBlock + 1)
    }

    /// The blocks whose every sector is in the range.
    public var wholeBlocks: Range<UInt64> {
        let first = (start + BlockGeometry.sectorsPerBlock - 1) / BlockGeometry.sectorsPerBlock
        let last = end / BlockGeometry.sectorsPerBlock
        return first..<max(first, last)
    }

    public var description: String { "sectors \(start)..<\(end)" }
}
