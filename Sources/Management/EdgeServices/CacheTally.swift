import Blocks

/// What volumes have read of the cache since this edge started: of all partitions together, and of each. Volumes come and go, and change their
/// partitions; none of these numbers becomes smaller by that.
///
/// A volume is to be counted before it goes and before it changes its partition. What it read since it was counted last belongs to the partition
/// that is named then.
struct CacheTally: Equatable {
    /// Blocks that reads found here, and blocks that they had to fetch.
    struct Counts: Equatable {
        var hits: UInt64 = 0
        var misses: UInt64 = 0

        fileprivate static func += (left: inout Counts, right: Counts) {
            left.hits &+= right.hits
            left.misses &+= right.misses
        }
    }

    private(set) var total = Counts()
    /// By the names of partitions; nil is the shared one.
    private var partitions: [String?: Counts] = [:]
    /// What volumes had read when they were counted last.
    private var counted: [VolumeIdentifier: Counts] = [:]

    subscript(partition: String?) -> Counts { partitions[partition] ?? Counts() }

    /// Counts what a volume has read in a partition, of which `now` is all since it was opened.
    mutating func count(_ volume: VolumeIdentifier, in partition: String?, _ now: Counts) {
        let before = counted[volume] ?? Counts()
        let fresh = Counts(hits: now.hits - min(before.hits, now.hits), misses: now.misses - min(before.misses, now.misses))
        counted[volume] = now
        total += fresh
        partitions[partition, default: Counts()] += fresh
    }

    /// Forgets a volume that is served no more: should it come again, it begins with nothing.
    mutating func forget(_ volume: VolumeIdentifier) { counted[volume] = nil }

    /// Forgets partitions that are no more.
    mutating func keepPartitions(_ isKept: (String) -> Bool) {
        partitions = partitions.filter { $0.key.map(isKept) ?? true }
    }
}
