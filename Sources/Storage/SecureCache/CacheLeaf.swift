// A leaf says in which slots 512 consecutive blocks are. A cache of a tebibyte has 268 million blocks and a gibibyte of memory
// for its index, so a leaf takes one of two forms, whichever it has come to:
//
//     runs      up to 16 runs of blocks that lie in consecutive slots, as blocks do that came together:
//               header, then for each run two words: first block and length, first slot
//     ranked    a bit for each block that is here, and the slots of those in order, each in as few bits as
//               the cache's number of slots needs: header, 16 words of bits, packed slots, one word of slack
//
// A cache may get another size: a ranked leaf says in its header how many bits it has for a slot, and is made anew, by itself, when a
// slot comes that needs more.
//
// A full leaf of a cache of a tebibyte takes 3.7 bytes for each block, one of a single run 0.1.

/// A place for a block in the cache: the number of a slot, counted over all segments.
typealias CacheSlot = UInt32

/// The slots of 512 consecutive blocks.
struct CacheLeaf {
    /// Blocks in a leaf.
    static let blockCount = 512
    /// Runs that a leaf has before it is ranked instead.
    static let runsMax = 16
    private static let rankedForm: UInt32 = 1 << 31
    private static let bitmapWords = blockCount / 32
    private static let valuesStart = 1 + bitmapWords
    /// Packed slots for which a ranked leaf makes room at a time.
    private static let growth = 32

    /// Empty, or a header with the number of runs or of slots and, when it is ranked, the bits of a slot; and what the form says.
    private var words: [UInt32] = []

    /// The memory that it takes, in bytes.
    var byteCount: Int { words.capacity == 0 ? 0 : words.capacity * 4 + 48 }
    var isEmpty: Bool { count(of: words) == 0 }

    private var isRanked: Bool { !words.isEmpty && words[0] & Self.rankedForm != 0 }
    private func count(of words: [UInt32]) -> Int { words.isEmpty ? 0 : Int(words[0] & 0xffff) }
    /// Bits that a slot takes in a leaf that is ranked.
    private var width: Int { Int(words[0] >> 16 & 0x3f) }

    // MARK: Asking

    /// The slot of a block; nil when it has none.
    func slot(at offset: Int) -> CacheSlot? {
        if words.isEmpty { return nil }
        if isRanked {
            guard hasBit(offset) else { return nil }
            return value(rank(offset))
        }
        var index = 1
        while index < 1 + 2 * Int(words[0]) {
            let run = Run(words[index], words[index + 1])
            if offset < run.first { return nil }
            if offset < run.end { return run.slot + UInt32(offset - run.first) }
            index += 2
        }
        return nil
    }

    /// Calls `body` with each block that is here and its slot, ascending.
    func forEach(_ body: (Int, CacheSlot) -> Void) {
        if words.isEmpty { return }
        if isRanked {
            var index = 0
            for word in 0..<Self.bitmapWords {
                var bits = words[1 + word]
                while bits != 0 {
                    body(word * 32 + bits.trailingZeroBitCount, value(index))
                    bits &= bits - 1
                    index += 1
                }
            }
        } else {
            for index in 0..<Int(words[0]) {
                let run = run(index)
                for number in 0..<run.count { body(run.first + number, run.slot + UInt32(number)) }
            }
        }
    }

    // MARK: Changing

    /// Gives a block a slot.
    /// - Parameter width: the bits that any slot of the cache takes.
    /// - Returns: the slot that it had.
    mutating func set(_ offset: Int, to slot: CacheSlot, width: Int) -> CacheSlot? {
        if !isRanked {
            let previous = self.slot(at: offset)
            if previous == slot { return slot }
            if previous != nil { _ = remove(offset, width: width) }
            if !isRanked {
                if insertRun(offset, slot) { return previous }
                rank(width: width)
            }
            setRanked(offset, slot, width)
            return previous
        }
        if hasBit(offset) {
            if slot >> UInt32(self.width) != 0 { rank(width: width) }
            let index = rank(offset)
            let previous = value(index)
            setValue(index, slot)
            return previous
        }
        setRanked(offset, slot, width)
        return nil
    }

    /// Takes the slot of a block away, and returns it.
    mutating func remove(_ offset: Int, width: Int) -> CacheSlot? {
        guard let slot = slot(at: offset) else { return nil }
        if isRanked { removeRanked(offset) } else { removeFromRun(offset, width) }
        let left = count(of: words)
        if left == 0 { words = [] } else if isRanked, left <= Self.runsMax / 2 { unrank() }
        return slot
    }

    // MARK: Runs

    private struct Run {
        var first: Int
        var count: Int
        var slot: CacheSlot
        var end: Int { first + count }

        init(_ place: UInt32, _ slot: UInt32) {
            first = Int(place & 0xffff)
            count = Int(place >> 16)
            self.slot = slot
        }

        var place: UInt32 { UInt32(first) | UInt32(count) << 16 }
    }

    private func run(_ index: Int) -> Run { Run(words[1 + 2 * index], words[2 + 2 * index]) }

    private mutating func put(_ run: Run, at index: Int) {
        words[1 + 2 * index] = run.place
        words[2 + 2 * index] = run.slot
    }

    /// Adds a block that has no slot yet: to a run that it continues, or as one of its own. False when there are too many.
    private mutating func insertRun(_ offset: Int, _ slot: CacheSlot) -> Bool {
        if words.isEmpty { reserve(3) }
        let runCount = Int(words[0])
        var index = 0
        while index < runCount, run(index).first < offset { index += 1 }
        let single = Run(UInt32(offset) | 1 << 16, slot)
        if index > 0 {
            var before = run(index - 1)
            if before.end == offset, before.slot &+ UInt32(before.count) == slot {
                before.count += 1
                put(before, at: index - 1)
                if index < runCount, run(index).first == before.end, run(index).slot == slot &+ 1 {
                    before.count += run(index).count
                    put(before, at: index - 1)
                    removeRun(index)
                }
                return true
            }
        }
        if index < runCount {
            var after = run(index)
            if after.first == offset + 1, after.slot == slot &+ 1 {
                after = Run(UInt32(offset) | UInt32(after.count + 1) << 16, slot)
                put(after, at: index)
                return true
            }
        }
        guard runCount < Self.runsMax else { return false }
        reserve(3 + 2 * runCount)
        words.insert(contentsOf: [single.place, single.slot], at: 1 + 2 * index)
        words[0] += 1
        return true
    }

    private mutating func removeRun(_ index: Int) {
        words.removeSubrange(1 + 2 * index...2 + 2 * index)
        words[0] -= 1
    }

    private mutating func removeFromRun(_ offset: Int, _ width: Int) {
        var index = 0
        while run(index).end <= offset { index += 1 }
        var whole = run(index)
        if whole.count == 1 { return removeRun(index) }
        if offset == whole.first {
            whole.first += 1
            whole.slot += 1
            whole.count -= 1
            return put(whole, at: index)
        }
        if offset == whole.end - 1 {
            whole.count -= 1
            return put(whole, at: index)
        }
        guard Int(words[0]) < Self.runsMax else {
            rank(width: width)
            return removeRanked(offset)
        }
        var right = whole
        right.slot += UInt32(offset + 1 - whole.first)
        right.count = whole.end - offset - 1
        right.first = offset + 1
        whole.count = offset - whole.first
        put(whole, at: index)
        reserve(3 + 2 * Int(words[0]))
        words.insert(contentsOf: [right.place, right.slot], at: 3 + 2 * index)
        words[0] += 1
    }

    /// Makes room for `count` words and no more: an array would double.
    private mutating func reserve(_ count: Int) {
        if words.capacity >= count, !words.isEmpty { return }
        var grown: [UInt32] = []
        grown.reserveCapacity(count)
        grown.append(contentsOf: words)
        if grown.isEmpty { grown.append(0) }
        words = grown
    }

    // MARK: Ranks

    /// Turns runs into ranks, or ranks into ones of another width.
    private mutating func rank(width: Int) {
        var slots: [(Int, CacheSlot)] = []
        forEach { slots.append(($0, $1)) }
        words = Self.ranked(capacity: slots.count + Self.growth, width: width)
        for (index, (offset, slot)) in slots.enumerated() {
            words[1 + offset / 32] |= 1 << UInt32(offset % 32)
            setValue(index, slot)
        }
        words[0] |= UInt32(slots.count)
    }

    /// Turns the ranks of few blocks back into runs.
    private mutating func unrank() {
        var slots: [(Int, CacheSlot)] = []
        forEach { slots.append(($0, $1)) }
        words = []
        for (offset, slot) in slots { _ = insertRun(offset, slot) }
    }

    private static func ranked(capacity: Int, width: Int) -> [UInt32] {
        let count = valuesStart + (min(capacity, blockCount) * width + 31) / 32 + 1
        var words: [UInt32] = []
        words.reserveCapacity(count)
        words.append(contentsOf: repeatElement(0, count: count))
        words[0] = rankedForm | UInt32(width) << 16
        return words
    }

    private func hasBit(_ offset: Int) -> Bool { words[1 + offset / 32] >> UInt32(offset % 32) & 1 == 1 }

    /// How many blocks before this one are here.
    private func rank(_ offset: Int) -> Int {
        var rank = 0
        for word in 0..<offset / 32 { rank += words[1 + word].nonzeroBitCount }
        return rank + (words[1 + offset / 32] & (1 << UInt32(offset % 32) - 1)).nonzeroBitCount
    }

    private func value(_ index: Int) -> CacheSlot {
        let width = self.width
        let bit = index * width
        let word = Self.valuesStart + bit >> 5
        let pair = UInt64(words[word]) | UInt64(words[word + 1]) << 32
        return UInt32(truncatingIfNeeded: pair >> UInt64(bit & 31) & (1 << UInt64(width) - 1))
    }

    private mutating func setValue(_ index: Int, _ slot: CacheSlot) {
        let width = self.width
        let bit = index * width
        let word = Self.valuesStart + bit >> 5
        let mask: UInt64 = (1 << UInt64(width) - 1) << UInt64(bit & 31)
        let pair = (UInt64(words[word]) | UInt64(words[word + 1]) << 32) & ~mask | UInt64(slot) << UInt64(bit & 31)
        words[word] = UInt32(truncatingIfNeeded: pair)
        words[word + 1] = UInt32(truncatingIfNeeded: pair >> 32)
    }

    private mutating func setRanked(_ offset: Int, _ slot: CacheSlot, _ width: Int) {
        let count = self.count(of: words)
        let capacity = (words.count - Self.valuesStart - 1) * 32 / self.width
        if slot >> UInt32(self.width) != 0 || (count == capacity && width != self.width) {
            rank(width: width)
        } else if count == capacity {
            var grown = Self.ranked(capacity: count + Self.growth, width: width)
            for index in 0..<words.count { grown[index] = words[index] }
            words = grown
        }
        let index = rank(offset)
        var moving = count
        while moving > index {
            setValue(moving, value(moving - 1))
            moving -= 1
        }
        setValue(index, slot)
        words[1 + offset / 32] |= 1 << UInt32(offset % 32)
        words[0] += 1
    }

    private mutating func removeRanked(_ offset: Int) {
        let (count, width) = (self.count(of: words), self.width)
        for index in rank(offset)..<count - 1 { setValue(index, value(index + 1)) }
        words[1 + offset / 32] &= ~(1 << UInt32(offset % 32))
        words[0] -= 1
        // Give room back as it was made, but keep some for what comes.
        let capacity = (words.count - Self.valuesStart - 1) * 32 / width
        if capacity - (count - 1) >= 2 * Self.growth {
            var shrunk = Self.ranked(capacity: count - 1 + Self.growth, width: width)
            for index in 0..<shrunk.count - 1 { shrunk[index] = words[index] }
            words = shrunk
        }
    }
}
