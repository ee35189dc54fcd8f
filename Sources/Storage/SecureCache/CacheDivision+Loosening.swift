import Blocks

// A division that does not fit loses as little as it must: the cache may have become smaller, be made anew with longer segments, or share
// its file system with others. In this order:
//
//     maxima and partitions of fewer segments than a pool works with    get so many
//     partitions that the cache has no room for                         become smaller, each in proportion
//     guarantees in a partition, the smallest first                     as long as there is room; the last one gets what is left
//     then pins in a partition, the shortest first                      likewise
//
// A partition for which there is not even that is not there, and its volumes are in the shared one.

/// What a cache does not keep of its division, because it has too little room or too long segments.
public struct CacheLoosening: Equatable, Sendable {
    /// Partitions that have another size, or are not there.
    public var partitions = 0
    /// Volumes of which less is guaranteed, and volumes with another maximum.
    public var guarantees = 0
    public var maxima = 0
    /// Pinned blocks that may leave.
    public var pinnedBlocks: UInt64 = 0

    public init() {}

    /// - Parameter kept: what is left of a division.
    init(of division: CacheDivision, kept: CacheDivision) {
        partitions = division.partitions.count { kept.partitions[$0.key] != $0.value }
        for (volume, share) in division.shares {
            let left = kept.shares[volume] ?? CacheDivision.Share()
            if left.guaranteedBytes < share.guaranteedBytes { guarantees += 1 }
            if left.bytesMax != share.bytesMax { maxima += 1 }
            let (wanted, pinned) = (share.pinnedBlocks, left.pinnedBlocks)
            pinnedBlocks &+= wanted - min(wanted, pinned)
        }
    }
}

extension CacheDivision {
    /// As much of it as a cache can keep.
    func loosened(for geometry: CacheGeometry) -> CacheDivision {
        Loosening(self, geometry).kept
    }
}

/// On the way from a division to what is left of it.
private struct Loosening {
    /// What somebody is promised, at the cost of a partition.
    private struct Promise {
        var volume: VolumeIdentifier
        /// What is pinned of it, or the guarantee when that is nil.
        var pin: Range<UInt64>?
        /// Segments, or blocks that are pinned.
        var size: UInt64
    }

    private let geometry: CacheGeometry
    private(set) var kept: CacheDivision
    /// Segments that may be promised in each partition.
    private var left: [String?: Int] = [:]
    /// What each volume has of these, and what of it is pinned.
    private var floors: [VolumeIdentifier: Int] = [:]
    private var pinned: [VolumeIdentifier: UInt64] = [:]

    init(_ division: CacheDivision, _ geometry: CacheGeometry) {
        self.geometry = geometry
        kept = division
        fitPartitions()
        for volume in kept.shares.keys { fitShare(of: volume) }
        let guarantees = kept.shares.map { Promise(volume: $0, pin: nil, size: UInt64(guaranteed($1))) }
        let pins = kept.shares.flatMap { volume, share in
            share.pinnedRanges.map { Promise(volume: volume, pin: $0, size: UInt64($0.count)) }
        }
        for volume in kept.shares.keys {
            kept.shares[volume]?.guaranteedBytes = 0
            kept.shares[volume]?.pins = []
        }
        for promise in sorted(guarantees) + sorted(pins) { keep(promise) }
    }

    private func sorted(_ promises: [Promise]) -> [Promise] {
        promises.sorted {
            ($0.size, $0.volume.high, $0.volume.low, $0.pin?.lowerBound ?? 0) < (
                $1.size, $1.volume.high, $1.volume.low, $1.pin?.lowerBound ?? 0
            )
        }
    }

    // MARK: Sizes

    private mutating func fitPartitions() {
        let workingMin = CacheFormat.segmentsMin
        let room = max(0, geometry.segmentCount - CacheGeometry.reserve(segmentCount: geometry.segmentCount) - workingMin)
        var sizes = kept.partitions.mapValues { max(workingMin, CachePlan.segments($0, geometry, .up)) }
        // The smallest first: each gets its part of what those before it have left.
        var (unshared, wanted) = (room, sizes.values.reduce(0, +))
        for (name, size) in sizes.sorted(by: { ($0.value, $0.key) < ($1.value, $1.key) }) {
            let part = wanted <= unshared ? size : max(workingMin, Int(Double(size) * Double(unshared) / Double(wanted)))
            wanted -= size
            sizes[name] = part <= unshared ? part : nil
            if part <= unshared { unshared -= part }
        }
        for (name, byteCount) in kept.partitions {
            guard let size = sizes[name] else {
                kept.partitions[name] = nil
                continue
            }
            if size != CachePlan.segments(byteCount, geometry, .up) { kept.partitions[name] = CachePlan.bytes(size, geometry) }
            left[name] = size - workingMin
        }
        left[nil] = unshared
    }

    private mutating func fitShare(of volume: VolumeIdentifier) {
        guard var share = kept.shares[volume] else { return }
        if let name = share.partition, kept.partitions[name] == nil { share.partition = nil }
        if let byteCount = share.bytesMax, CachePlan.segments(byteCount, geometry, .down) < CacheFormat.segmentsMin {
            share.bytesMax = CachePlan.bytes(CacheFormat.segmentsMin, geometry)
        }
        share.pins = Array(share.pins.filter { !$0.isEmpty && $0.upperBound <= CacheFormat.blocksMax }.prefix(CacheDivision.pinsMax))
        kept.shares[volume] = share
    }

    private func ceiling(_ share: CacheDivision.Share) -> Int {
        share.bytesMax.map { CachePlan.segments($0, geometry, .down) } ?? .max
    }

    private func guaranteed(_ share: CacheDivision.Share) -> Int {
        min(CachePlan.segments(share.guaranteedBytes, geometry, .up), ceiling(share))
    }

    // MARK: Promises

    /// Promises it, or as much of it as there is room for.
    private mutating func keep(_ promise: Promise) {
        guard promise.size > 0, var share = kept.shares[promise.volume], let room = left[share.partition] else { return }
        let floor = floors[promise.volume] ?? 0
        if let pin = promise.pin {
            // What the volume has been promised is its own, whatever for.
            let before = pinned[promise.volume] ?? 0
            let segmentsMax = min(ceiling(share), floor + room)
            let blocksMax = CachePlan.pinnedBlocks(in: segmentsMax, geometry)
            let blocks = min(promise.size, blocksMax - min(before, blocksMax))
            guard blocks > 0 else { return }
            share.pins.append(pin.lowerBound..<pin.lowerBound + blocks)
            pinned[promise.volume] = before + blocks
            raise(promise.volume, to: max(floor, CachePlan.segments(pinning: before + blocks, geometry)), share)
        } else {
            let segments = min(Int(clamping: promise.size), room)
            share.guaranteedBytes = CachePlan.bytes(segments, geometry)
            raise(promise.volume, to: segments, share)
        }
    }

    private mutating func raise(_ volume: VolumeIdentifier, to floor: Int, _ share: CacheDivision.Share) {
        left[share.partition, default: 0] -= floor - (floors[volume] ?? 0)
        floors[volume] = floor
        kept.shares[volume] = share
    }
}
