import Blocks

// A cache that can't be opened has no blocks and takes none. It stands in until the device answers: then another one is opened, which
// knows what it knew before, and takes over. What changed meanwhile must not be read from it as it was, so the one that stands in
// notes which blocks that is.

/// What changed of one volume while the cache stood in for one that could not be opened.
struct MissedChanges {
    /// The point through which the cache had to be current when the volume was opened.
    var required: PointNumber = 0
    private(set) var ranges = ExtentMap<ZeroMark>()
    /// More ranges than are kept: any block may have changed.
    private(set) var isEverything = false

    mutating func add(_ blocks: Range<UInt64>, rangesMax: Int) {
        if isEverything { return }
        ranges.insert(blocks.sectors, ZeroMark())
        if ranges.count > rangesMax { giveUp() }
    }

    /// Keeps no ranges any more: any block may have changed.
    mutating func giveUp() {
        isEverything = true
        ranges = ExtentMap()
    }
}

extension SecureCache {
    /// True for a cache that could not be opened: it only stands in for one.
    public var isUnusable: Bool { unusable != nil }

    /// Notes that blocks changed which the cache behind the failure may have as they were.
    func noteMissed(_ identifier: VolumeIdentifier, _ blocks: Range<UInt64>) {
        guard let volume = index[identifier] else { return }
        missedRanges -= volume.missed.ranges.count
        volume.missed.add(blocks, rangesMax: limits.zeroExtentsMax)
        missedRanges += volume.missed.ranges.count
        if missedRanges <= limits.missedRangesMax { return }
        for volume in index.volumes.values where !volume.missed.ranges.isEmpty { volume.missed.giveUp() }
        missedRanges = 0
    }

    /// Takes the place of a cache that could not be opened, whose volumes it gets. In the same turn of the event loop their owners go on
    /// with this one.
    public func takeOver(from standIn: SecureCache) {
        // Those of volumes that have left meanwhile.
        for identifier in division.shares.keys where standIn.division.shares[identifier] == nil { forgetShare(of: identifier) }
        for volume in standIn.index.volumes.values {
            guard let key = volume.key else { continue }
            let identifier = volume.identifier
            attach(volume: identifier, key: key, generation: volume.keyGeneration)
            require(identifier, through: volume.missed.required)
            if volume.missed.isEverything { invalidate(identifier, blocks: 0..<CacheFormat.blocksMax) }
            volume.missed.ranges.forEach { invalidate(identifier, blocks: $0.range.blocks) }
            setCurrent(identifier, through: volume.current)
        }
    }
}
