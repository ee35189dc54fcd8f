import Blocks

// What the cache remembers of blocks besides where they are: which were asked for, and the names of some that have left. CacheQueues.swift
// says what for.

/// Words in pages that are made when something is first put there, so that a table of any size gets another one at once.
struct CachePages {
    private static let wordsPerPage = 512
    /// What a page takes besides its words: its place in the row, and the head of an array.
    private static let pageOverhead = 40

    private var pages: [[UInt64]] = []
    private(set) var count = 0

    init(count: Int) { resize(to: count) }

    /// The memory that it takes once all pages are made.
    var byteCount: Int { Self.byteCount(of: count) }

    /// The memory that so many words take.
    static func byteCount(of count: Int) -> Int { count * 8 + pageCount(of: count) * pageOverhead }

    private static func pageCount(of count: Int) -> Int { (count + wordsPerPage - 1) / wordsPerPage }

    subscript(index: Int) -> UInt64 {
        get {
            let page = index / Self.wordsPerPage
            return pages[page].isEmpty ? 0 : pages[page][index % Self.wordsPerPage]
        }
        set {
            let page = index / Self.wordsPerPage
            if pages[page].isEmpty {
                if newValue == 0 { return }
                pages[page] = Array(repeating: 0, count: Self.wordsPerPage)
            }
            pages[page][index % Self.wordsPerPage] = newValue
        }
    }

    /// Ends it elsewhere. Words that come back in may have any value.
    mutating func resize(to newCount: Int) {
        count = newCount
        let pagesWanted = Self.pageCount(of: newCount)
        if pagesWanted < pages.count {
            pages.removeLast(pages.count - pagesWanted)
        } else {
            pages.append(contentsOf: repeatElement([], count: pagesWanted - pages.count))
        }
    }

    /// Gives the memory of the pages back that lie in a range whole. Their words are zero then.
    mutating func clear(_ range: Range<Int>) {
        let first = Self.pageCount(of: range.lowerBound)
        for page in first..<max(first, range.upperBound / Self.wordsPerPage) where !pages[page].isEmpty { pages[page] = [] }
    }
}

/// Which blocks of a cache were asked for since they came, or since they were written again: a bit a slot.
struct CacheUses {
    private var words: CachePages

    init(slotCount: Int) { words = CachePages(count: (slotCount + 63) / 64) }

    var byteCount: Int { words.byteCount }

    subscript(slot: CacheSlot) -> Bool {
        get { words[Int(slot >> 6)] >> UInt64(slot & 63) & 1 != 0 }
        set {
            let bit: UInt64 = 1 << UInt64(slot & 63)
            if newValue { words[Int(slot >> 6)] |= bit } else { words[Int(slot >> 6)] &= ~bit }
        }
    }

    mutating func resize(slotCount: Int) { words.resize(to: (slotCount + 63) / 64) }
}

/// The names of blocks that left the small queue a while ago: a byte each, in buckets of eight, of which each forgets its oldest.
///
/// Where memory is short the table is halved, a step at a time, because a gibibyte takes a second: two neighbours become one, from
/// the first on. Meanwhile the first buckets are those of the smaller table, and those behind the ones that they were made of are still
/// the larger one's.
struct CacheGhosts {
    /// How many names there are: one new block in some twenty bears one that its bucket has by chance.
    private static let nameCount: UInt64 = 160
    /// The table is halved so often at most.
    static let halvingsMax = 3
    /// Buckets that a step makes.
    static let stepBuckets = 1 << 14

    /// In each, the youngest name in the lowest byte; zero is no name.
    private var buckets: CachePages
    private(set) var halvings = 0
    /// How many buckets of the smaller table there are; nil when none is in the making.
    private var halvedBuckets: Int?

    /// - Parameter entries: how many names are remembered.
    init(entries: Int) { buckets = CachePages(count: Self.bucketCount(entries: entries, halvings: 0)) }

    /// How many names a cache of so many blocks remembers.
    static func entries(slotCount: Int) -> Int { slotCount / 10 * 9 }

    private static func bucketCount(entries: Int, halvings: Int) -> Int {
        (0..<halvings).reduce(max(1, (entries + 7) / 8)) { count, _ in half(of: count) }
    }

    private static func half(of count: Int) -> Int { (count + 1) / 2 }

    /// The memory that it takes; while it is halved, what it will take.
    var byteCount: Int { halvedBuckets == nil ? buckets.byteCount : CachePages.byteCount(of: Self.half(of: buckets.count)) }

    /// Remembers so many names from now on, or as much less as it was halved. Those that it has stand for other blocks then, which is no more
    /// harm than any mistake, until they have made place.
    mutating func resize(entries: Int) {
        halvedBuckets = nil
        buckets.resize(to: Self.bucketCount(entries: entries, halvings: halvings))
    }

    private func place(_ ordinal: UInt32, _ block: UInt64) -> (bucket: Int, name: UInt8) {
        // The finaliser of SplitMix64.
        var mixed = block &+ UInt64(ordinal) &* 0x9e37_79b9_7f4a_7c15
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        mixed ^= mixed >> 31
        // The bucket comes from the high bits, so that two neighbours become one when the table is halved.
        var bucket = Int(mixed.multipliedFullWidth(by: UInt64(buckets.count)).high)
        if let halvedBuckets, bucket / 2 < halvedBuckets { bucket /= 2 }
        return (bucket, UInt8(mixed % Self.nameCount) + 1)
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

    /// Begins to give half of the memory back, and with it the older half of the names; false when that was done often enough, or is still
    /// being done.
    mutating func halve() -> Bool {
        guard halvedBuckets == nil, halvings < Self.halvingsMax, buckets.count > 1 else { return false }
        halvings += 1
        halvedBuckets = 0
        goOnHalving()
        return true
    }

    /// Takes the next step of a halving, if there is one.
    mutating func goOnHalving() {
        guard let start = halvedBuckets else { return }
        let half = Self.half(of: buckets.count)
        let end = min(half, start + Self.stepBuckets)
        for index in start..<end {
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
        if end == half {
            halvedBuckets = nil
            buckets.resize(to: half)
        } else {
            halvedBuckets = end
            // What is behind the smaller table, and was taken.
            if 2 * end > half { buckets.clear(max(half, 2 * start)..<2 * end) }
        }
    }
}
