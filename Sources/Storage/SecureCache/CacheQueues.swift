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
// second read of a block comes late, so as many ghosts as blocks are kept where memory allows it, at one byte each. Being
// taken for a ghost by mistake, as one new block in some forty is, does no harm and a little good: it lets a part of a cycle
// stay that is too long for the cache. Benchmarks/cache has the numbers.

/// The queues of a cache's closed segments, oldest first.
struct CacheQueues {
    /// The small queue's share of the segments, in percent.
    static let smallPercent = 5

    private(set) var small: Deque<Int> = []
    private(set) var main: Deque<Int> = []

    /// Adds a segment that is full.
    mutating func append(_ segment: Int, to queue: CacheQueue) {
        if queue == .small { small.append(segment) } else { main.append(segment) }
    }

    /// Takes a segment out that can't be used, wherever it is.
    mutating func remove(_ segment: Int) {
        small.removeAll { $0 == segment }
        main.removeAll { $0 == segment }
    }

    /// Takes out the segment that is to be freed next; nil when there is none.
    mutating func takeVictim(segmentCount: Int) -> (segment: Int, queue: CacheQueue)? {
        let smallMax = max(1, segmentCount * Self.smallPercent / 100)
        if small.count >= smallMax || main.isEmpty { if let first = small.popFirst() { return (first, .small) } }
        return main.popFirst().map { ($0, .main) }
    }
}

/// Which blocks of a cache were asked for since they came, or since they were written again: a bit a slot.
struct CacheUses {
    private var words: [UInt64]

    init(slotCount: Int) { words = Array(repeating: 0, count: (slotCount + 63) / 64) }

    var byteCount: Int { words.count * 8 }

    subscript(slot: CacheSlot) -> Bool {
        get { words[Int(slot >> 6)] >> UInt64(slot & 63) & 1 != 0 }
        set {
            let bit: UInt64 = 1 << UInt64(slot & 63)
            if newValue { words[Int(slot >> 6)] |= bit } else { words[Int(slot >> 6)] &= ~bit }
        }
    }
}

/// The names of blocks that left the small queue a while ago: a byte each, in buckets of eight, of which each forgets its oldest.
struct CacheGhosts {
    /// The table is halved so often at most.
    static let halvingsMax = 3

    /// In each, the youngest name in the lowest byte; zero is no name.
    private var buckets: [UInt64]
    private var halvings = 0

    /// - Parameter entries: how many names are remembered.
    init(entries: Int) { buckets = Array(repeating: 0, count: max(1, (entries + 7) / 8)) }

    var byteCount: Int { buckets.count * 8 }

    private func place(_ ordinal: UInt32, _ block: UInt64) -> (bucket: Int, name: UInt8) {
        // The finaliser of SplitMix64.
        var mixed = block &+ UInt64(ordinal) &* 0x9e37_79b9_7f4a_7c15
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        mixed ^= mixed >> 31
        // The bucket comes from the high bits, so that two neighbours become one when the table is halved.
        return (Int(mixed.multipliedFullWidth(by: UInt64(buckets.count)).high), UInt8(mixed % 255) + 1)
    }

    /// Remembers a block that leaves.
    mutating func insert(_ ordinal: UInt32, _ block: UInt64) {
        let (bucket, name) = place(ordinal, block)
        buckets[bucket] = buckets[bucket] << 8 | UInt64(name)
    }

    /// True when the block left a while ago; it is forgotten then.
    mutating func take(_ ordinal: UInt32, _ block: UInt64) -> Bool {
        let (bucket, name) = place(ordinal, block)
        let names = buckets[bucket]
        for shift in stride(from: UInt64(0), to: 64, by: 8) where UInt8(truncatingIfNeeded: names >> shift) == name {
            let younger: UInt64 = names & ((1 << shift) - 1)
            buckets[bucket] = (names >> (shift + 8)) << shift | younger
            return true
        }
        return false
    }

    /// Gives half of the memory back, and with it the older half of the names; false when that was done often enough.
    mutating func halve() -> Bool {
        guard halvings < Self.halvingsMax, buckets.count > 1 else { return false }
        halvings += 1
        let half = (buckets.count + 1) / 2
        for index in 0..<half {
            // The younger half of each, in turns.
            let first = buckets[2 * index]
            let second = 2 * index + 1 < buckets.count ? buckets[2 * index + 1] : 0
            var names: UInt64 = 0
            for shift in stride(from: UInt64(0), to: 32, by: 8) {
                names |= (first >> shift & 0xff) << (2 * shift)
                names |= (second >> shift & 0xff) << (2 * shift + 8)
            }
            buckets[index] = names
        }
        buckets = Array(buckets[..<half])
        return true
    }
}
