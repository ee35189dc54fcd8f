import Blocks

// How a cache is divided. One mechanism serves partitions, shares and pins: each is a promise in segments to a pool (CacheQueues.swift).
//
//     a partition with a size     a pool for its volumes, which gets so many segments and never has more
//     a volume with a share       a pool of its own in its partition: at least the guarantee, at most the maximum
//     pinned ranges               a promise to the pool of their volume, a third larger than they are, so that what is written anew has room
//
// A division that fits is one in which all promises can be kept at once: in each partition they leave a few segments for all other
// blocks, and so do the partitions in the cache.

/// How the room of a cache is given to volumes.
public struct CacheDivision: Equatable, Sendable {
    /// No pin ends behind this many blocks: there are no such volumes.
    public static let blocksMax = CacheFormat.blocksMax

    /// What one volume may have.
    public struct Share: Equatable, Sendable {
        /// The partition that it is in; nil is the shared one.
        public var partition: String?
        /// So much of the partition no other volume takes from it, in bytes of the cache; 0 for nothing.
        public var guaranteedBytes: UInt64 = 0
        /// More it never has, in bytes of the cache; nil for as much as there is.
        public var bytesMax: UInt64?
        /// Ranges of blocks that stay once they are here.
        public var pins: [Range<UInt64>] = []

        public init() {}

        /// True when the volume is treated as one is of which nobody said anything.
        public var isEmpty: Bool { self == Share() }

        /// The blocks that are pinned, each counted once.
        public var pinnedBlocks: UInt64 {
            pinnedRanges.reduce(0) { $0 + ($1.upperBound - $1.lowerBound) }
        }

        /// Adds a range to those that stay.
        public mutating func pin(_ blocks: Range<UInt64>) {
            pins.append(blocks)
            pins = pinnedRanges
        }

        /// Takes a range out of those that stay.
        public mutating func unpin(_ blocks: Range<UInt64>) {
            pins = pinnedRanges.flatMap { pin in
                [
                    pin.lowerBound..<max(pin.lowerBound, min(pin.upperBound, blocks.lowerBound)),
                    min(pin.upperBound, max(pin.lowerBound, blocks.upperBound))..<pin.upperBound,
                ]
                .filter { !$0.isEmpty }
            }
            pins = pinnedRanges
        }

        /// The pins in ascending order, those joined that touch one another.
        var pinnedRanges: [Range<UInt64>] {
            var ranges: [Range<UInt64>] = []
            for pin in pins.sorted(by: { $0.lowerBound < $1.lowerBound }) {
                if let last = ranges.last, pin.lowerBound <= last.upperBound {
                    ranges[ranges.count - 1] = last.lowerBound..<max(last.upperBound, pin.upperBound)
                } else {
                    ranges.append(pin)
                }
            }
            return ranges
        }
    }

    /// Partitions and shares that a cache may have together, the shared partition among them.
    public static let poolsMax = 64
    /// Ranges that one volume may have pinned.
    public static let pinsMax = 256
    /// For three blocks that are pinned, four are promised: pinned blocks that are written anew leave gaps, and these are closed one segment
    /// at a time.
    static let promisedQuartersOfPins: UInt64 = 4

    /// The dedicated partitions and their sizes in bytes of the cache.
    public var partitions: [String: UInt64] = [:]
    public var shares: [VolumeIdentifier: Share] = [:]

    public init() {}
}

/// Why a cache can't be divided in some way.
public enum CacheDivisionError: Error, Equatable, Sendable {
    case noPartition(String)
    case partitionTooSmall(String, bytesNeeded: UInt64)
    /// More partitions and shares than there may be.
    case tooManyPools(max: Int)
    case tooManyPins(VolumeIdentifier, max: Int)
    /// A pinned range is empty, or can't be on a disk.
    case badPin(VolumeIdentifier)
    case maximumTooSmall(VolumeIdentifier, bytesNeeded: UInt64)
    case guaranteeOverMaximum(VolumeIdentifier)
    /// What a volume has pinned must leave a quarter of its maximum to what is written anew.
    case pinsOverMaximum(VolumeIdentifier, pinnedBytes: UInt64, pinnedBytesMax: UInt64)
    /// The guarantees and pins in a partition, nil for the shared one, are more than it can keep besides what it needs to work with.
    case tooMuchPromised(partition: String?, promisedBytes: UInt64, promisedBytesMax: UInt64)
    /// The partitions are more than the cache can have besides the shared one.
    case partitionsTooLarge(bytes: UInt64, bytesMax: UInt64)
}

extension CacheDivision {
    /// True when it promises nothing that the other one does not promise, and no more of anything.
    func promisesNoMore(than other: CacheDivision) -> Bool {
        partitions.allSatisfy { name, byteCount in other.partitions[name].map { byteCount <= $0 } ?? false }
            && shares.allSatisfy { volume, share in
                let before = other.shares[volume] ?? Share()
                return (share.partition == nil || (share.partition == before.partition && partitions[share.partition ?? ""] != nil))
                    && share.guaranteedBytes <= before.guaranteedBytes
                    && share.pinnedRanges.allSatisfy { range in
                        before.pinnedRanges.contains { $0.lowerBound <= range.lowerBound && range.upperBound <= $0.upperBound }
                    }
            }
    }
}

/// Whose room a pool is.
enum CachePoolKey: Hashable {
    /// All volumes of a partition without a share; nil for the shared one.
    case partition(String?)
    case volume(VolumeIdentifier)
}

/// A division in segments, which fits.
struct CachePlan: Equatable {
    struct Pool: Equatable {
        let key: CachePoolKey
        var bounds: CachePoolBounds
    }

    /// The sizes of the partitions; the first is the shared one.
    private(set) var partitions = [Int.max]
    private(set) var partitionNumbers: [String: Int] = [:]
    /// The first is the shared partition's.
    private(set) var pools = [Pool(key: .partition(nil), bounds: CachePoolBounds())]
    private(set) var keys: [VolumeIdentifier: CachePoolKey] = [:]
    private(set) var pins: [VolumeIdentifier: [Range<UInt64>]] = [:]
    /// What of the division is not kept; nil when all is.
    private(set) var loosening: CacheLoosening?
    var isLoosened: Bool { loosening != nil }

    init() {}

    /// - Parameter geometry: that of the cache, with as many segments as it has to give.
    init(_ division: CacheDivision, _ geometry: CacheGeometry) throws(CacheDivisionError) {
        try addPartitions(division, geometry)
        for (volume, share) in division.shares.sorted(by: { ($0.key.high, $0.key.low) < ($1.key.high, $1.key.low) }) {
            try add(share, of: volume, geometry)
        }
        let count = pools.count
        if count > CacheDivision.poolsMax { throw .tooManyPools(max: CacheDivision.poolsMax) }
        try checkPromises(division, geometry)
    }

    /// The division, or as much of it as fits: see CacheDivision+Loosening.swift.
    init(loosening division: CacheDivision, _ geometry: CacheGeometry) {
        if let plan = try? CachePlan(division, geometry) {
            self = plan
            return
        }
        var left = division.loosened(for: geometry)
        if let plan = try? CachePlan(left, geometry) { self = plan } else { left = CacheDivision() }
        loosening = CacheLoosening(of: division, kept: left)
    }

    private mutating func addPartitions(_ division: CacheDivision, _ geometry: CacheGeometry) throws(CacheDivisionError) {
        for (name, byteCount) in division.partitions.sorted(by: { $0.key < $1.key }) {
            let segments = Self.segments(byteCount, geometry, .up)
            guard segments >= CacheFormat.segmentsMin else {
                throw .partitionTooSmall(name, bytesNeeded: Self.bytes(CacheFormat.segmentsMin, geometry))
            }
            partitionNumbers[name] = partitions.count
            pools.append(Pool(key: .partition(name), bounds: CachePoolBounds(partition: partitions.count)))
            partitions.append(segments)
        }
    }

    private mutating func add(
        _ share: CacheDivision.Share, of volume: VolumeIdentifier, _ geometry: CacheGeometry
    ) throws(CacheDivisionError) {
        var partition = 0
        if let name = share.partition {
            guard let number = partitionNumbers[name] else { throw .noPartition(name) }
            partition = number
        }
        if share.pins.count > CacheDivision.pinsMax { throw .tooManyPins(volume, max: CacheDivision.pinsMax) }
        if share.pins.contains(where: { $0.isEmpty || $0.upperBound > CacheFormat.blocksMax }) { throw .badPin(volume) }
        pins[volume] = share.pinnedRanges
        let pinned = Self.segments(pinning: share.pinnedBlocks, geometry)
        guard share.guaranteedBytes > 0 || share.bytesMax != nil else {
            keys[volume] = .partition(share.partition)
            if let index = pools.firstIndex(where: { $0.key == .partition(share.partition) }) { pools[index].bounds.floor += pinned }
            return
        }
        let guaranteed = Self.segments(share.guaranteedBytes, geometry, .up)
        let ceiling = share.bytesMax.map { Self.segments($0, geometry, .down) } ?? .max
        if ceiling < CacheFormat.segmentsMin {
            throw .maximumTooSmall(volume, bytesNeeded: Self.bytes(CacheFormat.segmentsMin, geometry))
        }
        if guaranteed > ceiling { throw .guaranteeOverMaximum(volume) }
        if pinned > ceiling {
            throw .pinsOverMaximum(
                volume, pinnedBytes: share.pinnedBlocks * UInt64(BlockGeometry.blockBytes),
                pinnedBytesMax: Self.pinnedBlocks(in: ceiling, geometry) * UInt64(BlockGeometry.blockBytes))
        }
        keys[volume] = .volume(volume)
        pools.append(
            Pool(
                key: .volume(volume),
                bounds: CachePoolBounds(partition: partition, floor: max(guaranteed, pinned), ceiling: ceiling)))
    }

    /// Each partition has to keep its promises and some segments to work with, and so has the cache.
    private func checkPromises(_ division: CacheDivision, _ geometry: CacheGeometry) throws(CacheDivisionError) {
        if partitions.count == 1, pools.allSatisfy({ $0.bounds.floor == 0 }) { return }
        let free = CacheGeometry.reserve(segmentCount: geometry.segmentCount)
        let dedicated = partitions.dropFirst().reduce(0, +)
        let left = geometry.segmentCount - free - CacheFormat.segmentsMin - dedicated
        if left < 0 {
            throw .partitionsTooLarge(bytes: Self.bytes(dedicated, geometry), bytesMax: Self.bytes(max(0, left + dedicated), geometry))
        }
        let names: [String?] = [nil] + partitionNumbers.sorted { $0.value < $1.value }.map(\.key)
        for (number, name) in names.enumerated() {
            let promised = pools.reduce(0) { $1.bounds.partition == number ? $0 + $1.bounds.floor : $0 }
            let promisedMax = number == 0 ? left : partitions[number] - CacheFormat.segmentsMin
            if promised > max(0, promisedMax) {
                throw .tooMuchPromised(
                    partition: name, promisedBytes: Self.bytes(promised, geometry), promisedBytesMax: Self.bytes(promisedMax, geometry))
            }
        }
    }

    // MARK: Segments and bytes

    static func segments(_ byteCount: UInt64, _ geometry: CacheGeometry, _ rule: FloatingPointRoundingRule) -> Int {
        let (whole, rest) = byteCount.quotientAndRemainder(dividingBy: UInt64(geometry.segmentBytes))
        return min(Int(clamping: whole), CacheFormat.slotsMax) + (rule == .up && rest > 0 ? 1 : 0)
    }

    /// Segments that are promised for pinned blocks.
    static func segments(pinning blocks: UInt64, _ geometry: CacheGeometry) -> Int {
        let promised = (min(blocks, UInt64(CacheFormat.slotsMax)) * CacheDivision.promisedQuartersOfPins + 2) / 3
        return (Int(promised) + geometry.slotCount - 1) / geometry.slotCount
    }

    /// Blocks that can be pinned for which so many segments are promised.
    static func pinnedBlocks(in segments: Int, _ geometry: CacheGeometry) -> UInt64 {
        UInt64(segments) * UInt64(geometry.slotCount) * 3 / CacheDivision.promisedQuartersOfPins
    }

    static func bytes(_ segments: Int, _ geometry: CacheGeometry) -> UInt64 { UInt64(segments) * UInt64(geometry.segmentBytes) }
}
