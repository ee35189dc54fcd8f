import Blocks
import NIOCore

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

// The model: what the initiator has written, in the order in which the volume was called.
//
// Each write has a number. Its sectors carry a stamp of (sector, number), so any sector that comes
// back tells which write it is from; zero is the origin. The initiator never has two writes in
// flight on one sector, so the order of calls is the order of each sector's values. What is on the disk
// before anybody writes counts as writes too, the first ones, and is stamped alike.

/// One write of the initiator.
private struct RecordedWrite {
    let number: UInt64
    let range: SectorRange
    let isZeroes: Bool
    /// When it was issued and acknowledged, in the order of the world; of what was never acknowledged the latter is nil.
    let issuedAt: UInt64
    var acknowledgedAt: UInt64?
    var isAcknowledged: Bool { acknowledgedAt != nil }
}

/// The bytes of a stamped sector: 32 times (pattern and sector, write number), both big-endian.
///
/// Volumes of different patterns never hold equal sectors but zeroes; those of the same pattern may.
struct Stamp {
    let pattern: UInt64

    private func place(_ sector: UInt64) -> UInt64 { (pattern << 32 | sector).bigEndian }

    func data(_ range: SectorRange, write: UInt64) -> ByteBuffer {
        var data = ByteBuffer()
        data.writeWithUnsafeMutableBytes(minimumWritableBytes: range.byteCount) { bytes in
            for (index, sector) in (range.start..<range.end).enumerated() {
                let start = index * BlockGeometry.sectorBytes
                for offset in stride(from: start, to: start + BlockGeometry.sectorBytes, by: 16) {
                    bytes.storeBytes(of: place(sector), toByteOffset: offset, as: UInt64.self)
                    bytes.storeBytes(of: write.bigEndian, toByteOffset: offset + 8, as: UInt64.self)
                }
            }
            return range.byteCount
        }
        return data
    }

    /// The number of the write that each sector of `range` is from: 0 for zeroes. Nil when one is no whole stamp.
    func writes(in data: ByteBuffer, range: SectorRange) -> [UInt64]? {
        data.withUnsafeReadableBytes { writes(in: $0, range: range) }
    }

    /// The same of bytes that are in no buffer.
    func writes(in bytes: UnsafeRawBufferPointer, range: SectorRange) -> [UInt64]? {
        guard bytes.count == range.byteCount else { return nil }
        var writes: [UInt64] = []
        guard let first = bytes.baseAddress else { return writes }
        writes.reserveCapacity(Int(range.count))
        for (index, sector) in (range.start..<range.end).enumerated() {
            let start = index * BlockGeometry.sectorBytes
            let write = bytes.loadUnaligned(fromByteOffset: start + 8, as: UInt64.self)
            // All 16 bytes are those 16 before them.
            guard bytes.loadUnaligned(fromByteOffset: start, as: UInt64.self) == (write == 0 ? 0 : place(sector)),
                memcmp(first + start, first + start + 16, BlockGeometry.sectorBytes - 16) == 0
            else { return nil }
            writes.append(UInt64(bigEndian: write))
        }
        return writes
    }
}

/// For each sector the numbers of its writes, which ascend; each entry leads to the one before it.
private struct SectorWrites {
    private struct Entry {
        let number: UInt64
        /// The entry before it, of the same sector; negative when there is none.
        let previous: Int32
    }

    private var entries: [Entry] = []
    private var newest: [Int32]

    init(sectorCount: UInt64) { newest = [Int32](repeating: -1, count: Int(sectorCount)) }

    mutating func append(_ number: UInt64, to sector: UInt64) {
        entries.append(Entry(number: number, previous: newest[Int(sector)]))
        newest[Int(sector)] = Int32(entries.count - 1)
    }

    /// The newest of the sector's writes that is wanted.
    @inline(__always)
    func last(of sector: UInt64, where isWanted: (UInt64) -> Bool) -> UInt64? {
        var place = newest[Int(sector)]
        while place >= 0 {
            let entry = entries[Int(place)]
            if isWanted(entry.number) { return entry.number }
            place = entry.previous
        }
        return nil
    }

    mutating func removeAll(after number: UInt64, of sector: UInt64) {
        while newest[Int(sector)] >= 0, entries[Int(newest[Int(sector)])].number > number {
            newest[Int(sector)] = entries[Int(newest[Int(sector)])].previous
        }
    }
}

/// The writes to one volume, and what may be read back.
final class WriteHistory {
    let sectorCount: UInt64
    let stamp: Stamp
    private var writes: [RecordedWrite] = []
    private var bySector: SectorWrites
    /// Every write up to here must survive a crash of the cloud edge.
    private(set) var flushedThrough: UInt64 = 0
    /// Every write up to here must be there when the cloud edge is up again.
    private(set) var mustSurviveThrough: UInt64 = 0
    private(set) var lastNumber: UInt64 = 0
    /// Counts for all edges that the volume ever had, so that a number tells who has written.
    private let counter: Counter

    private final class Counter {
        var last: UInt64 = 0
    }

    /// What happens in a world, in its order: over all its volumes.
    final class Order {
        private var last: UInt64 = 0

        func next() -> UInt64 {
            last += 1
            return last
        }
    }

    private let order: Order

    init(sectorCount: UInt64, pattern: UInt64, order: Order) {
        self.sectorCount = sectorCount
        self.order = order
        stamp = Stamp(pattern: pattern)
        bySector = SectorWrites(sectorCount: sectorCount)
        counter = Counter()
    }

    /// The history of the next edge, which begins with what the disk shows: the writes up to `number`.
    init(continuing old: WriteHistory, through number: UInt64) {
        sectorCount = old.sectorCount
        stamp = old.stamp
        counter = old.counter
        order = old.order
        writes = old.writes
        bySector = old.bySector
        lastNumber = number
        forget(after: number)
        flushed(through: number)
        mustSurvive(through: number)
    }

    /// Adds what was on the disk from the beginning. Called before any write.
    /// - Returns: the bytes of the disk.
    func addOrigin(_ ranges: [SectorRange]) -> [UInt8] {
        var content = [UInt8](repeating: 0, count: Int(sectorCount) * BlockGeometry.sectorBytes)
        for range in ranges {
            let number = record(range, isZeroes: false)
            acknowledge(number)
            flushed(through: number)
            mustSurvive(through: number)
            let start = Int(range.byteOffset)
            content.replaceSubrange(start..<start + range.byteCount, with: stamp.data(range, write: number).readableBytesView)
        }
        return content
    }

    func record(_ range: SectorRange, isZeroes: Bool) -> UInt64 {
        counter.last += 1
        lastNumber = counter.last
        writes.append(RecordedWrite(number: lastNumber, range: range, isZeroes: isZeroes, issuedAt: order.next()))
        for sector in range.start..<range.end { bySector.append(lastNumber, to: sector) }
        return lastNumber
    }

    func acknowledge(_ number: UInt64) {
        guard let index = index(of: number) else { return }
        writes[index].acknowledgedAt = order.next()
    }

    func flushed(through number: UInt64) { flushedThrough = max(flushedThrough, number) }

    /// The cloud edge has crashed: it must come back with no less than this.
    func mustSurvive(through number: UInt64) { mustSurviveThrough = number }

    /// The last acknowledged write to each sector.
    var lastAcknowledgedNumbers: [UInt64] { (0..<sectorCount).map { lastAcknowledged($0) } }

    /// After a crash each sector shows one of its writes, not older than `floors`: those behind it are lost.
    /// - Returns: the first sector that shows what it must not.
    func forgetLost(showing stamps: [UInt64], floors: [UInt64]) -> Int? {
        for (sector, stamp) in stamps.enumerated() {
            guard admits(stamp: stamp, sector: UInt64(sector), notOlderThan: floors[sector]) else { return sector }
            // Of zeroes the last counts: a write that can't be told from one that is there is not lost.
            let kept = stamp != 0 ? stamp : bySector.last(of: UInt64(sector)) { isZeroes($0) } ?? 0
            bySector.removeAll(after: kept, of: UInt64(sector))
        }
        let now = order.next()
        for index in writes.indices where !writes[index].isAcknowledged { writes[index].acknowledgedAt = now }
        return nil
    }

    /// True when one of the writes has this number.
    func contains(_ number: UInt64) -> Bool { index(of: number) != nil }

    func isZeroes(_ number: UInt64) -> Bool { index(of: number).map { writes[$0].isZeroes } ?? false }

    /// The number of the last write to `sector` among the writes up to `number`; 0 for none.
    func lastWrite(to sector: UInt64, through number: UInt64) -> UInt64 {
        bySector.last(of: sector) { $0 <= number } ?? 0
    }

    /// The last acknowledged write to `sector`.
    func lastAcknowledged(_ sector: UInt64) -> UInt64 {
        bySector.last(of: sector) { number in index(of: number).map { writes[$0].isAcknowledged } ?? false } ?? 0
    }

    /// The stamp that a sector must show when `number` is the last write to it: a write of zeroes shows none.
    func visibleStamp(of number: UInt64) -> UInt64 { isZeroes(number) ? 0 : number }

    /// What each sector must show when everything has come home.
    var lastStamps: [UInt64] { (0..<sectorCount).map { visibleStamp(of: lastWrite(to: $0, through: lastNumber)) } }

    /// The writes that a value of `sector` can be from, newer or as new as `floor`. Zero fits the origin and each write of zeroes.
    func admits(stamp: UInt64, sector: UInt64, notOlderThan floor: UInt64) -> Bool {
        if stamp != 0 { return stamp >= floor && bySector.last(of: sector) { $0 <= stamp } == stamp }
        return floor == 0 || bySector.last(of: sector) { $0 < floor || isZeroes($0) }.map { $0 >= floor } ?? false
    }

    /// The last write such that it and all before it were acknowledged or are older than one that was.
    var lastAcknowledgedNumber: UInt64 { writes.last { $0.isAcknowledged }?.number ?? 0 }

    /// The end of a prefix of the writes that shows exactly `stamps` in the first sectors, and ends at `floor` or behind it, or nil.
    func prefix(showing stamps: [UInt64], notBefore floor: UInt64) -> UInt64? {
        // Writes of zeroes leave no stamp, so the prefix may end behind the newest stamp, and several may look alike. Those in a row can't be
        // told from one another, ever, and the last of them counts. Behind one that looks otherwise there may be more: too much to say of a disk
        // that goes from one to the next.
        var found: UInt64?
        var candidate = max(floor, stamps.max() ?? 0)
        while candidate <= lastNumber {
            if shows(stamps, through: candidate) { found = candidate } else if found != nil { break }
            candidate += 1
        }
        return found
    }

    /// The end of the longest prefix that shows `stamps`, at `floor` or behind it, or nil: a write that can't be told from one that is there is
    /// not lost. What comes after hides the same either way.
    func longestPrefix(showing stamps: [UInt64], notBefore floor: UInt64) -> UInt64? {
        let first = max(floor, stamps.max() ?? 0)
        return first > lastNumber ? nil : (first...lastNumber).last { shows(stamps, through: $0) }
    }

    /// Whether the writes up to `number` leave exactly `stamps` in the first sectors.
    private func shows(_ stamps: [UInt64], through number: UInt64) -> Bool {
        stamps.indices.allSatisfy { visibleStamp(of: lastWrite(to: UInt64($0), through: number)) == stamps[$0] }
    }

    /// A disk that shows `stamps`, as a part of a cut: when the last write was issued that it holds for sure, and when the first was
    /// acknowledged that it lacks for sure. Nil when it shows no prefix of the writes.
    func cut(showing stamps: [UInt64]) -> (lastIssued: UInt64, firstMissing: UInt64)? {
        // Writes of zeroes leave several prefixes that look alike.
        let candidates = (stamps.max() ?? 0)...max(stamps.max() ?? 0, lastNumber)
        guard let longest = candidates.last(where: { shows(stamps, through: $0) }),
            let shortest = candidates.first(where: { shows(stamps, through: $0) })
        else { return nil }
        let lastIssued = writes.filter { $0.number <= shortest }.map(\.issuedAt).max() ?? 0
        let firstMissing = writes.filter { $0.number > longest }.compactMap(\.acknowledgedAt).min() ?? .max
        return (lastIssued, firstMissing)
    }

    /// A crash has lost every write behind `number`. What is left counts as acknowledged: it was read.
    func forget(after number: UInt64) {
        writes.removeAll { $0.number > number }
        for sector in 0..<sectorCount { bySector.removeAll(after: number, of: sector) }
        let now = order.next()
        for index in writes.indices where !writes[index].isAcknowledged { writes[index].acknowledgedAt = now }
    }

    private func index(of number: UInt64) -> Int? {
        // Numbers ascend, and only a crash removes some.
        var low = 0
        var high = writes.count
        while low < high {
            let middle = (low + high) / 2
            if writes[middle].number < number { low = middle + 1 } else { high = middle }
        }
        return low < writes.count && writes[low].number == number ? low : nil
    }
}
