import Blocks
import DequeModule

// Which segment goes when room is needed, and which of its blocks stay. This is S3-FIFO (Yang et al., SOSP 2023) over
// segments, which are freed whole:
//
//     new blocks ──► small queue ──── asked for since ────► main queue ◄─┐ asked for since: once more
//                        │                                    │  └───────┘
//                        └── not: leaves, its name is kept    └── not: leaves
//                            as a ghost; a block that comes back while its name is there goes to the main queue
//
// A scan passes through the small queue and leaves without having driven out what is used. Behind a guest's page cache the
// second read of a block comes late, so nearly as many ghosts as blocks are kept where memory allows it, at one byte each. Being
// taken for a ghost by mistake, as one new block in some twenty is, does no harm and a little good: it lets a part of a cycle
// stay that is too long for the cache. Benchmarks/cache has the numbers.
//
// A cache that is divided has several pools, each with its two queues: one for all volumes of a partition, and one for each volume with a
// share of its own. Every segment is one pool's, so that what a pool has is a count of segments. Which one goes:
//
//     a pool has come to its ceiling, or a partition to its size ─► one of its own
//     the cache has little room                                  ─► one of those pools that have more than their floor, as if they were one
//                                                                   cache with two queues, whose oldest segments go first
//
// So a cache that is not divided works as if there were no pools, and what one pool may have and does not use, the others use. A pinned
// block is in a third queue, of which nothing goes but segments that have come to hold few blocks: those are gathered in others.

/// What a pool may have, in segments.
struct CachePoolBounds: Equatable {
    /// The partition that it is in; 0 is the shared one.
    var partition = 0
    /// Nobody else takes of so many.
    var floor = 0
    /// It never takes more.
    var ceiling = Int.max
}

/// The closed segments of volumes that share their room, oldest first.
struct CachePool {
    var bounds = CachePoolBounds()
    fileprivate(set) var small: Deque<Int> = []
    fileprivate(set) var main: Deque<Int> = []
    /// Segments with blocks that are to stay.
    fileprivate(set) var pinned: Deque<Int> = []
    /// Segments that take blocks.
    fileprivate(set) var openCount = 0
    /// Segments that it gave because it had come to its ceiling, or its partition to its size.
    fileprivate(set) var countAtCeiling: UInt64 = 0

    /// What counts against its bounds.
    var segmentCount: Int { small.count + main.count + pinned.count + openCount }

    subscript(queue: CacheQueue) -> Deque<Int> {
        get {
            switch queue {
            case .small: small
            case .main: main
            case .pinned: pinned
            }
        }
        set {
            switch queue {
            case .small: small = newValue
            case .main: main = newValue
            case .pinned: pinned = newValue
            }
        }
    }

    fileprivate mutating func remove(_ segment: Int) {
        for queue in CacheQueue.allCases { self[queue].removeAll { $0 == segment } }
    }
}

/// A segment that is to be freed.
struct CacheVictim: Equatable {
    var segment: Int
    var queue: CacheQueue
    var pool: Int
}

/// The queues of a cache's closed segments.
struct CacheQueues {
    /// The small queue's share of the segments, in percent.
    static let smallPercent = 5
    /// A pinned segment that has no more of its blocks than this share, in eighths, is gathered: of those that somebody has pinned.
    static let sparseEighths = 7

    /// All volumes that have no share of their own in the shared partition are in the first.
    private(set) var pools = [CachePool()]
    /// How large each partition is, in segments; the shared one has what is left.
    private(set) var partitions = [Int.max]
    /// While the cache becomes smaller, segments from this one on are in no queue but among those that leave.
    private(set) var end = Int.max
    private(set) var behindEnd: Deque<CacheVictim> = []
    private let sparseCount: Int32

    /// - Parameter slotCount: how many blocks a segment has.
    init(slotCount: Int) { sparseCount = Int32(slotCount * Self.sparseEighths / 8) }

    var isEmpty: Bool { behindEnd.isEmpty && pools.allSatisfy { $0.segmentCount == $0.openCount } }

    /// All segments that are in one.
    var all: [Int] { pools.flatMap { $0.small + $0.main + $0.pinned } + behindEnd.map(\.segment) }

    // MARK: Segments

    /// Empties all queues.
    mutating func removeAll() {
        for pool in pools.indices { for queue in CacheQueue.allCases { pools[pool][queue] = [] } }
    }

    /// Notes that a segment takes blocks for a pool.
    mutating func opened(in pool: Int) { pools[pool].openCount += 1 }

    /// Notes that it takes no more.
    mutating func closed(in pool: Int) { pools[pool].openCount -= 1 }

    /// Adds a segment that takes no more blocks.
    mutating func append(_ segment: Int, to queue: CacheQueue, of pool: Int) {
        if segment >= end {
            behindEnd.append(CacheVictim(segment: segment, queue: queue, pool: pool))
        } else {
            pools[pool][queue].append(segment)
        }
    }

    /// Takes a segment out that can't be used, wherever it is.
    mutating func remove(_ segment: Int) {
        for pool in pools.indices { pools[pool].remove(segment) }
        behindEnd.removeAll { $0.segment == segment }
    }

    // MARK: Bounds

    /// Gives the pools other bounds, and the partitions other sizes.
    mutating func setBounds(_ bounds: [CachePoolBounds], partitions: [Int]) {
        self.partitions = partitions
        for (pool, bounds) in bounds.enumerated() {
            if pool == pools.count { pools.append(CachePool()) }
            pools[pool].bounds = bounds
        }
    }

    /// Gives all that a pool has to another one, the oldest first.
    /// - Returns: the segments.
    mutating func merge(_ pool: Int, into other: Int, _ segments: [CacheSegment]) -> [Int] {
        let merged = pools[pool]
        for queue in CacheQueue.allCases where !merged[queue].isEmpty {
            pools[other][queue] = Deque((merged[queue] + pools[other][queue]).sorted { segments[$0].sequence < segments[$1].sequence })
        }
        pools[other].openCount += merged.openCount
        for index in behindEnd.indices where behindEnd[index].pool == pool { behindEnd[index].pool = other }
        pools[pool] = CachePool()
        let behind = behindEnd.filter { $0.pool == other }.map(\.segment)
        return Array(merged.small) + Array(merged.main) + Array(merged.pinned) + behind
    }

    /// Has all blocks of a pool looked at that were to stay: some are not any more.
    mutating func unpin(_ pool: Int) {
        pools[pool].main.prepend(contentsOf: pools[pool].pinned)
        pools[pool].pinned = []
    }

    /// How many segments a pool or partition of so many keeps free ahead of need.
    private static func ahead(_ segmentCount: Int) -> Int { max(1, min(8, segmentCount / 16)) }

    private func count(ofPartition partition: Int) -> Int {
        pools.reduce(0) { $1.bounds.partition == partition ? $0 + $1.segmentCount : $0 }
    }

    /// True when a pool may have one more segment.
    func mayOpen(in pool: Int) -> Bool {
        let bounds = pools[pool].bounds
        if pools[pool].segmentCount >= bounds.ceiling { return false }
        return bounds.partition == 0 || count(ofPartition: bounds.partition) < partitions[bounds.partition]
    }

    func partition(ofPool pool: Int) -> Int { pools[pool].bounds.partition }

    // MARK: The end

    /// Parts the segments at another end. One that comes back before the end is the next of its queue, as it was to leave anyway.
    mutating func setEnd(_ newEnd: Int) {
        end = newEnd
        let behind = behindEnd
        behindEnd = []
        for victim in behind.reversed() where victim.segment < newEnd { pools[victim.pool][victim.queue].prepend(victim.segment) }
        for pool in pools.indices {
            for queue in CacheQueue.allCases {
                behindEnd += pools[pool][queue].filter { $0 >= newEnd }.map { CacheVictim(segment: $0, queue: queue, pool: pool) }
            }
            for queue in CacheQueue.allCases { pools[pool][queue].removeAll { $0 >= newEnd } }
        }
        behindEnd += behind.filter { $0.segment >= newEnd }
    }

    /// Takes out a segment behind the end; nil when there is none.
    mutating func takeBehindEnd() -> CacheVictim? { behindEnd.popFirst() }

    // MARK: Victims

    /// Takes out the segment of a pool or a partition that is next to give one because it has come to its bounds; nil when none has.
    mutating func takeAtCeiling(_ segments: [CacheSegment]) -> CacheVictim? {
        for pool in pools.indices where pools[pool].bounds.ceiling < .max {
            let ceiling = pools[pool].bounds.ceiling
            guard pools[pool].segmentCount > ceiling - Self.ahead(ceiling) else { continue }
            if let victim = take(from: [pool], segmentCount: ceiling, segments) { return counted(victim) }
        }
        for partition in partitions.indices.dropFirst() {
            let size = partitions[partition]
            guard count(ofPartition: partition) > size - Self.ahead(size) else { continue }
            let members = pools.indices.filter { pools[$0].bounds.partition == partition }
            let victim =
                take(from: members.filter { pools[$0].segmentCount > pools[$0].bounds.floor }, segmentCount: size, segments)
                ?? take(from: members, segmentCount: size, segments)
            if let victim { return counted(victim) }
        }
        return nil
    }

    private mutating func counted(_ victim: CacheVictim) -> CacheVictim {
        pools[victim.pool].countAtCeiling += 1
        return victim
    }

    /// Takes out the segment that is to be freed next when the cache has little room; nil when there is none.
    mutating func takeVictim(segmentCount: Int, _ segments: [CacheSegment]) -> CacheVictim? {
        if pools.count == 1 { return take(from: [0], segmentCount: segmentCount, segments) }
        // What holds nothing is taken from anybody.
        for pool in pools.indices { if let dead = takeDead(pool, segments) { return dead } }
        let givers = pools.indices.filter {
            let (pool, partition) = (pools[$0], pools[$0].bounds.partition)
            return pool.segmentCount > pool.bounds.floor && (partition == 0 || count(ofPartition: partition) > partitions[partition])
        }
        let kept = pools.indices.reduce(0) { givers.contains($1) ? $0 : $0 + pools[$1].segmentCount }
        // Where the file system has less room than was promised, the shared partition gives first.
        return take(from: givers, segmentCount: segmentCount - kept, segments)
            ?? take(from: pools.indices.filter { pools[$0].bounds.partition == 0 }, segmentCount: segmentCount, segments)
            ?? take(from: Array(pools.indices), segmentCount: segmentCount, segments)
    }

    /// Takes out the next segment of some pools, as if they were one.
    private mutating func take(from members: [Int], segmentCount: Int, _ segments: [CacheSegment]) -> CacheVictim? {
        for pool in members { if let sparse = takeSparse(pool, segments, among: 1) ?? takeDead(pool, segments) { return sparse } }
        let smallMax = max(1, segmentCount * Self.smallPercent / 100)
        let smallCount = members.reduce(0) { $0 + pools[$1].small.count }
        let main = oldest(.main, members, segments)
        if smallCount >= smallMax || main == nil, let pool = oldest(.small, members, segments) { return takeFirst(.small, pool) }
        if let main { return takeFirst(.main, main) }
        for pool in members { if let sparse = takeSparse(pool, segments, among: pools[pool].pinned.count) { return sparse } }
        return nil
    }

    /// Takes out the oldest segment of a queue if it has no blocks any more: that of a volume that has gone.
    private mutating func takeDead(_ pool: Int, _ segments: [CacheSegment]) -> CacheVictim? {
        for queue in [CacheQueue.small, .main] {
            if let first = pools[pool][queue].first, segments[first].liveCount == 0 { return takeFirst(queue, pool) }
        }
        return nil
    }

    private mutating func takeFirst(_ queue: CacheQueue, _ pool: Int) -> CacheVictim? {
        pools[pool][queue].popFirst().map { CacheVictim(segment: $0, queue: queue, pool: pool) }
    }

    /// The pool whose oldest segment in a queue is the oldest of all.
    private func oldest(_ queue: CacheQueue, _ members: [Int], _ segments: [CacheSegment]) -> Int? {
        let withSome = members.filter { !pools[$0][queue].isEmpty }
        if withSome.count < 2 { return withSome.first }
        return withSome.min { segments[pools[$0][queue][0]].sequence < segments[pools[$1][queue][0]].sequence }
    }

    /// True when a segment with so many blocks is gathered with others.
    func isSparse(_ blockCount: Int32) -> Bool { blockCount <= sparseCount }

    /// Takes out a pinned segment that has few blocks, if one of the next `count` is such a one. The others go to the end of their row.
    private mutating func takeSparse(_ pool: Int, _ segments: [CacheSegment], among count: Int) -> CacheVictim? {
        for _ in 0..<count {
            guard let first = pools[pool].pinned.popFirst() else { return nil }
            if isSparse(segments[first].liveCount - segments[first].adriftCount) {
                return CacheVictim(segment: first, queue: .pinned, pool: pool)
            }
            pools[pool].pinned.append(first)
        }
        return nil
    }
}
