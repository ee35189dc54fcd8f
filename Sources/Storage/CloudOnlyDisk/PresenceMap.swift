import Blocks

// Which sectors a cloud-only disk holds, in memory:
//
//     pages   [ 0: all data │ 7: two bits for each of 1,024 sectors │ ... ]      a page of 512 KiB that never held anything is not there
//
// A page whose sectors are all alike takes 85 bytes at most, another one 290 more: at most 0.75 GiB for each TiB that a machine has
// written sector by sector, and 170 MiB where it has written all of it.

/// What a cloud-only disk holds of a sector.
enum SectorState: Equatable {
    case absent
    case data
    case zeroes
}

/// The states of 1,024 sectors.
struct PresencePage: Equatable {
    static let sectorCount: UInt64 = 1_024
    /// 64-bit words of a page: one bit for each sector that has data, then one for each that is zeroes.
    static let wordCount = 32
    private static let planeWords = 16

    private enum Content: Equatable {
        case alike(SectorState)
        case mixed([UInt64])
    }

    private var content: Content
    /// Which of its two slots in the file holds the page as `epoch` left it, or is being written with that.
    var slot = 0
    /// The epoch that changed it last; 0 for none.
    private(set) var epoch: PointNumber = 0

    /// A page without sectors.
    init() { content = .alike(.absent) }

    /// The page of these words, which `epoch` changed last; nil when they are not as many, or say two things of one sector.
    init?(words: [UInt64], epoch: PointNumber) {
        guard words.count == Self.wordCount, (0..<Self.planeWords).allSatisfy({ words[$0] & words[$0 + Self.planeWords] == 0 }) else {
            return nil
        }
        content = .mixed(words)
        self.epoch = epoch
        simplify()
    }

    /// An epoch changes the page. What the one before left keeps its slot; also when the epoch is drained again.
    mutating func stamp(_ epoch: PointNumber) {
        if epoch != self.epoch { slot ^= 1 }
        self.epoch = epoch
    }

    var isEmpty: Bool { content == .alike(.absent) }

    var words: [UInt64] {
        switch content {
        case .mixed(let words): words
        case .alike(let state):
            (0..<Self.wordCount).map { index in
                state == .data && index < Self.planeWords || state == .zeroes && index >= Self.planeWords ? .max : 0
            }
        }
    }

    /// How many sectors of the page, counted from its first, it holds.
    func heldSectors(in range: Range<UInt64>) -> UInt64 {
        switch content {
        case .alike(let state): state == .absent ? 0 : UInt64(range.count)
        case .mixed(let words):
            (0..<Self.planeWords).reduce(0) { sum, index in
                let held = (words[index] | words[index + Self.planeWords]) & Self.mask(index, range)
                return sum + UInt64(held.nonzeroBitCount)
            }
        }
    }

    func state(of sector: UInt64) -> SectorState {
        switch content {
        case .alike(let state): return state
        case .mixed(let words):
            let (index, bit) = (Int(sector / 64), UInt64(1) << (sector % 64))
            return words[index] & bit != 0 ? .data : words[index + Self.planeWords] & bit != 0 ? .zeroes : .absent
        }
    }

    /// All sectors are in this state; nil when they differ.
    var common: SectorState? { if case .alike(let state) = content { state } else { nil } }

    /// Gives sectors of the page a state.
    mutating func set(_ range: Range<UInt64>, _ state: SectorState) {
        if UInt64(range.count) == Self.sectorCount {
            content = .alike(state)
            return
        }
        var words = self.words
        for index in 0..<Self.planeWords {
            let mask = Self.mask(index, range)
            words[index] = state == .data ? words[index] | mask : words[index] & ~mask
            words[index + Self.planeWords] =
                state == .zeroes ? words[index + Self.planeWords] | mask : words[index + Self.planeWords] & ~mask
        }
        content = .mixed(words)
        simplify()
    }

    /// The bits of word `index` that stand for sectors of `range`.
    private static func mask(_ index: Int, _ range: Range<UInt64>) -> UInt64 {
        let first = UInt64(index) * 64
        let (low, high) = (max(range.lowerBound, first), min(range.upperBound, first + 64))
        guard low < high else { return 0 }
        let count = high - low
        return (count == 64 ? .max : (1 << count) - 1) << (low - first)
    }

    private mutating func simplify() {
        guard case .mixed(let words) = content else { return }
        if words[..<Self.planeWords].allSatisfy({ $0 == .max }) {
            content = .alike(.data)
        } else if words[Self.planeWords...].allSatisfy({ $0 == .max }) {
            content = .alike(.zeroes)
        } else if words.allSatisfy({ $0 == 0 }) {
            content = .alike(.absent)
        }
    }
}

/// The states of all sectors of a disk.
struct PresenceMap {
    /// Up to so many pages are looked up one by one; a request has fewer.
    private static let pagesLookedUp = 64

    private(set) var pages: [UInt64: PresencePage] = [:]
    /// All pages together.
    private(set) var root = PresenceRoot(epochSum: 0, heldSectors: 0)
    private var pagesEnd: UInt64 = 0

    var isEmpty: Bool { root.heldSectors == 0 }

    /// Takes a page as it stands in the file.
    mutating func restore(_ page: PresencePage, number: UInt64) { replace(number, page) }

    private mutating func replace(_ number: UInt64, _ page: PresencePage) {
        let (whole, old) = (0..<PresencePage.sectorCount, pages.updateValue(page, forKey: number))
        root.epochSum = root.epochSum &+ page.epoch &- (old?.epoch ?? 0)
        root.heldSectors = root.heldSectors &+ page.heldSectors(in: whole) &- (old?.heldSectors(in: whole) ?? 0)
        pagesEnd = max(pagesEnd, number + 1)
    }

    /// The pages that lie at least partly in a range.
    static func pages(in range: SectorRange) -> Range<UInt64> {
        if range.isEmpty { return 0..<0 }
        return range.start / PresencePage.sectorCount..<(range.end - 1) / PresencePage.sectorCount + 1
    }

    /// The sectors of page `number` that lie in a range, counted from the page's first.
    private static func part(of range: SectorRange, page number: UInt64) -> Range<UInt64> {
        let first = number * PresencePage.sectorCount
        let low = max(range.start, first) - first
        return low..<max(low, min(range.end - first, PresencePage.sectorCount))
    }

    /// Pages of a range in which something is held, ascending, without a look at each page of a range that has more than there are.
    /// - Parameter epoch: also those that this epoch has changed, whatever they hold.
    func heldPages(in range: SectorRange, orChangedBy epoch: PointNumber? = nil) -> [UInt64] {
        let numbers = Self.pages(in: range)
        let counts = { (page: PresencePage) in !page.isEmpty || page.epoch == epoch }
        if numbers.count <= pages.count { return numbers.filter { pages[$0].map(counts) ?? false } }
        return pages.lazy.filter { numbers.contains($0.key) && counts($0.value) }.map(\.key).sorted()
    }

    /// Everything from the first to the last page of a range in which something is held; nil for nothing.
    func heldSpan(in range: SectorRange) -> SectorRange? {
        let numbers = Self.pages(in: range)
        let isHeld = { (number: UInt64) in pages[number]?.isEmpty == false }
        let ends: (UInt64, UInt64)?
        if numbers.count <= pages.count {
            ends = numbers.first(where: isHeld).flatMap { first in numbers.last(where: isHeld).map { (first, $0) } }
        } else {
            ends = pages.reduce(nil) { ends, page in
                guard numbers.contains(page.key), !page.value.isEmpty else { return ends }
                return (min(ends?.0 ?? page.key, page.key), max(ends?.1 ?? page.key, page.key))
            }
        }
        return ends.map {
            range.intersection(SectorRange(from: $0 * PresencePage.sectorCount, to: ($1 + 1) * PresencePage.sectorCount))
        }
    }

    /// Gives the sectors of page `number` that lie in these ranges their states, as `epoch` does.
    /// - Returns: the page as it is now.
    mutating func change(_ number: UInt64, _ changes: some Sequence<(range: SectorRange, state: SectorState)>, epoch: PointNumber)
        -> PresencePage
    {
        var page = pages[number] ?? PresencePage()
        for (range, state) in changes { page.set(Self.part(of: range, page: number), state) }
        page.stamp(epoch)
        replace(number, page)
        return page
    }

    /// True when at least one sector of the range is held.
    func holds(overlapping range: SectorRange) -> Bool {
        if isEmpty { return false }
        let numbers = Self.pages(in: range)
        if numbers.count > Self.pagesLookedUp { return heldSectors(in: range) > 0 }
        return numbers.contains {
            pages[$0].map { [part = Self.part(of: range, page: $0)] in $0.heldSectors(in: part) > 0 } ?? false
        }
    }

    /// How many sectors of the range are held.
    func heldSectors(in range: SectorRange) -> UInt64 {
        // Most of the disk is what all of it holds without the rest: whoever asks for the whole waits for no look at each page.
        let rest = SectorRange(from: range.end, to: max(range.end, pagesEnd * PresencePage.sectorCount))
        if range.start == 0, rest.count < range.count { return root.heldSectors - heldOneByOne(in: rest) }
        return heldOneByOne(in: range)
    }

    private func heldOneByOne(in range: SectorRange) -> UInt64 {
        heldPages(in: range).reduce(0) { $0 + (pages[$1]?.heldSectors(in: Self.part(of: range, page: $1)) ?? 0) }
    }

    /// Visits the held runs of a range in ascending order, each of one state, as long as `body` wants more.
    func visitRuns(in range: SectorRange, _ body: (SectorRange, SectorState) -> Bool) {
        if isEmpty || range.isEmpty { return }
        for number in heldPages(in: range) {
            guard let page = pages[number] else { continue }
            let (first, part) = (number * PresencePage.sectorCount, Self.part(of: range, page: number))
            if let state = page.common {
                if !body(SectorRange(from: first + part.lowerBound, to: first + part.upperBound), state) { return }
                continue
            }
            var start = part.lowerBound
            while start < part.upperBound {
                let state = page.state(of: start)
                var end = start + 1
                while end < part.upperBound, page.state(of: end) == state { end += 1 }
                if state != .absent, !body(SectorRange(from: first + start, to: first + end), state) { return }
                start = end
            }
        }
    }
}
