import Blocks
import DequeModule
import NIOCore

// The table of fetches: blocks that are on their way from home (R4).
//
// A fetch is a run of blocks with the reads that wait for it. A read that misses a block joins the
// fetch that brings it, if there is one, so nothing crosses twice.
//
// A fetch may hold bytes older than a point that home received after it had answered. The log
// overlays such a point's sectors until it is released; from then on nobody may join the fetch, and
// what it brings must not enter the cache. `close(overlapping:)` marks that.

/// One run of blocks on its way.
final class Fetch {
    /// The number under which home is asked; a new one each time it is asked anew, so that late answers to an old question count nothing.
    fileprivate(set) var identifier: UInt64
    let blocks: Range<UInt64>
    /// What is asked of home: the blocks, cut at the end of the disk.
    let range: SectorRange
    let startedAt: NIODeadline
    /// A long sequential read, which short ones may overtake.
    let isBulk: Bool
    var data: ByteBuffer
    /// The blocks that have not come yet, a bit each from the first on.
    fileprivate(set) var missing: UInt32
    var waiters: [(operation: ReadOperation, piece: SectorRange)] = []
    /// False from the moment when home may know newer bytes: no more joining, no caching.
    var isOpen = true
    var isSent = false
    /// Those of them in whose place home has named blocks that should be here, a bit each.
    fileprivate var referred: UInt32 = 0

    init(identifier: UInt64, blocks: Range<UInt64>, sectorCount: UInt64, isBulk: Bool, now: NIODeadline) {
        self.identifier = identifier
        self.blocks = blocks
        self.isBulk = isBulk
        startedAt = now
        let whole = SectorRange(
            from: blocks.lowerBound * BlockGeometry.sectorsPerBlock, to: blocks.upperBound * BlockGeometry.sectorsPerBlock)
        range = whole.intersection(SectorRange(from: 0, to: sectorCount))
        data = ByteBufferAllocator().buffer(capacity: whole.byteCount)
        data.writeRepeatingByte(0, count: whole.byteCount)
        missing = Self.bits(of: 0..<blocks.count)
    }

    /// The bits of some of its blocks. There are at most as many as bits.
    fileprivate static func bits(of blocks: Range<Int>) -> UInt32 {
        UInt32(truncatingIfNeeded: (UInt64(1) << blocks.upperBound) - (UInt64(1) << blocks.lowerBound))
    }

    /// The bits of the blocks that a piece of an answer brings; nil for a piece that does not fit in, is not of whole blocks, or brings what is here already.
    fileprivate func missingBits(at offset: UInt32, byteCount: Int) -> UInt32? {
        guard isSent, byteCount > 0, let offset = Int(exactly: offset), offset % BlockGeometry.blockBytes == 0,
            offset + byteCount <= range.byteCount, byteCount % BlockGeometry.blockBytes == 0 || offset + byteCount == range.byteCount
        else { return nil }
        let first = offset / BlockGeometry.blockBytes
        let bits = Self.bits(of: first..<first + (byteCount + BlockGeometry.blockBytes - 1) / BlockGeometry.blockBytes)
        return missing & bits == bits ? bits : nil
    }
}

/// Bytes of a fetch that home is asked for once more, because the blocks that it has named instead are not here.
struct PlainQuestion {
    let fetch: UInt64
    let range: SectorRange
    let offset: UInt32
}

/// The fetches of one volume.
struct FetchTable {
    /// The longest run that one fetch asks for: 128 KiB.
    static let fetchBlocksMax: UInt64 = 32
    /// How much may be asked of home at once; what is beyond waits in the table, short reads first.
    static let bytesInFlightMax = 16 << 20

    private var fetches: [UInt64: Fetch] = [:]
    private var openFetchByBlock: [UInt64: Fetch] = [:]
    /// Long fetches of blocks that a short one fetches too: they are not joined there, and are closed like the others.
    private var overtakenByBlock: [UInt64: Fetch] = [:]
    private var waitingShort: [Fetch] = []
    private var waitingBulk: [Fetch] = []
    private var nextIdentifier: UInt64
    private(set) var bytesInFlight = 0
    /// Each block in flight is asked for so at most once, when home is done with what it was asked first: it has no more reads to do than without.
    private var plainQuestions = Deque<PlainQuestion>()

    /// Fetches are numbered upwards from `firstIdentifier`.
    init(firstIdentifier: UInt64) { nextIdentifier = firstIdentifier }

    var isEmpty: Bool { fetches.isEmpty }
    var count: Int { fetches.count }

    /// The fetch that a read which misses `block` joins. A short read does not join a long one's: that stands in a queue
    /// behind the rest of its stream, and a few blocks that cross twice cost less than the wait.
    func fetch(of block: UInt64, fitFor isBulk: Bool) -> Fetch? {
        openFetchByBlock[block].flatMap { $0.isBulk && !isBulk ? nil : $0 }
    }

    /// A new fetch, which waits to be sent.
    mutating func start(blocks: Range<UInt64>, sectorCount: UInt64, isBulk: Bool, now: NIODeadline) -> Fetch {
        let fetch = Fetch(identifier: nextIdentifier, blocks: blocks, sectorCount: sectorCount, isBulk: isBulk, now: now)
        nextIdentifier &+= 1
        fetches[fetch.identifier] = fetch
        for block in blocks {
            guard let overtaken = openFetchByBlock.updateValue(fetch, forKey: block) else { continue }
            // The table remembers one; an older one is closed at once, to be safe.
            if let older = overtakenByBlock.updateValue(overtaken, forKey: block), older !== overtaken { close(older) }
        }
        if isBulk { waitingBulk.append(fetch) } else { waitingShort.append(fetch) }
        return fetch
    }

    /// The next fetch to send, if the limit leaves room for it.
    func nextToSend() -> Fetch? {
        guard let fetch = waitingShort.first ?? waitingBulk.first else { return nil }
        if bytesInFlight > 0, bytesInFlight + fetch.range.byteCount > Self.bytesInFlightMax { return nil }
        return fetch
    }

    /// `fetch`, which `nextToSend` returned, was taken by the link.
    mutating func markSent(_ fetch: Fetch) {
        if waitingShort.first === fetch { waitingShort.removeFirst() } else if waitingBulk.first === fetch { waitingBulk.removeFirst() }
        fetch.isSent = true
        bytesInFlight += fetch.range.byteCount
    }

    /// A piece of an answer. Returns the fetch when it is complete and out of the table.
    mutating func receive(identifier: UInt64, offset: UInt32, data: ByteBuffer?, byteCount: Int) -> Fetch? {
        guard let fetch = fetches[identifier], let bits = fetch.missingBits(at: offset, byteCount: byteCount) else { return nil }
        if let data { fetch.data.setBuffer(data, at: Int(offset)) }
        fetch.missing &= ~bits
        if fetch.missing != 0 { return nil }
        remove(fetch)
        return fetch
    }

    /// Home has named blocks in the place of an answer's bytes; false when that is not what a fetch waits for.
    func beginReferences(of identifier: UInt64, offset: UInt32, blockCount: Int) -> Bool {
        let byteCount = blockCount * BlockGeometry.blockBytes
        guard let fetch = fetches[identifier], let bits = fetch.missingBits(at: offset, byteCount: byteCount), fetch.referred & bits == 0
        else { return false }
        fetch.referred |= bits
        return true
    }

    /// The blocks that home has named for a part of a fetch are not here.
    mutating func askPlainly(of identifier: UInt64, offset: UInt32, blockCount: Int) {
        guard let fetch = fetches[identifier] else { return }
        let start = fetch.range.start + UInt64(offset) / UInt64(BlockGeometry.sectorBytes)
        let range = SectorRange(from: start, to: start + UInt64(blockCount) * BlockGeometry.sectorsPerBlock)
        plainQuestions.append(PlainQuestion(fetch: identifier, range: range, offset: offset))
    }

    /// The next question for bytes themselves that somebody still waits for.
    mutating func nextPlainQuestion() -> PlainQuestion? {
        while let question = plainQuestions.first {
            if fetches[question.fetch] != nil { return question }
            plainQuestions.removeFirst()
        }
        return nil
    }

    /// The question that `nextPlainQuestion` returned was taken by the link.
    mutating func plainQuestionWasSent() { plainQuestions.removeFirst() }

    /// Takes a fetch out of the table; nil when there is none of that identifier.
    mutating func remove(identifier: UInt64) -> Fetch? {
        guard let fetch = fetches[identifier] else { return nil }
        remove(fetch)
        return fetch
    }

    /// Home may know newer bytes of `range` than the fetches in flight bring.
    mutating func close(overlapping range: SectorRange) {
        if isPlanted(.cachesStaleFetch) { return }
        if openFetchByBlock.isEmpty, overtakenByBlock.isEmpty { return }
        let blocks = range.blocks
        if blocks.count > openFetchByBlock.count + overtakenByBlock.count {
            // A machine may unmap a whole disk at once.
            let overlapping = fetches.values.filter { $0.blocks.overlaps(blocks) }
            return overlapping.sorted { $0.identifier < $1.identifier }.forEach { close($0) }
        }
        for block in blocks {
            if let fetch = openFetchByBlock[block] { close(fetch) }
            if let fetch = overtakenByBlock[block] { close(fetch) }
        }
    }

    /// Takes out every fetch that began before `deadline`.
    mutating func removeAll(startedBefore deadline: NIODeadline) -> [Fetch] {
        let expired = fetches.values.filter { $0.startedAt < deadline }.sorted { $0.identifier < $1.identifier }
        for fetch in expired { remove(fetch) }
        return expired
    }

    /// Home is asked anew for every fetch: the session was lost, or the volume was opened again within it.
    ///
    /// Answers to the old questions may still be on their way, so each fetch gets a new number, and what it had received is void.
    mutating func restart() {
        let all = fetches.values.sorted { $0.identifier < $1.identifier }
        fetches = [:]
        for fetch in all {
            fetch.identifier = nextIdentifier
            nextIdentifier &+= 1
            fetches[fetch.identifier] = fetch
            fetch.data.clear()
            fetch.data.writeRepeatingByte(0, count: Int(fetch.blocks.upperBound - fetch.blocks.lowerBound) * BlockGeometry.blockBytes)
        }
        waitingShort = all.filter { !$0.isBulk }
        waitingBulk = all.filter { $0.isBulk }
        bytesInFlight = 0
        plainQuestions.removeAll()
        for fetch in all {
            fetch.isSent = false
            fetch.referred = 0
            fetch.missing = Fetch.bits(of: 0..<fetch.blocks.count)
        }
    }

    private mutating func close(_ fetch: Fetch) {
        fetch.isOpen = false
        for block in fetch.blocks {
            if openFetchByBlock[block] === fetch { openFetchByBlock[block] = nil }
            if overtakenByBlock[block] === fetch { overtakenByBlock[block] = nil }
        }
    }

    private mutating func remove(_ fetch: Fetch) {
        close(fetch.isOpen, of: fetch)
        fetches[fetch.identifier] = nil
        if fetch.isSent {
            bytesInFlight -= fetch.range.byteCount
        } else {
            waitingShort.removeAll { $0 === fetch }
            waitingBulk.removeAll { $0 === fetch }
        }
    }

    /// Removes the block entries of `fetch` but keeps whether its bytes may be cached.
    private mutating func close(_ wasOpen: Bool, of fetch: Fetch) {
        close(fetch)
        fetch.isOpen = wasOpen
    }
}
