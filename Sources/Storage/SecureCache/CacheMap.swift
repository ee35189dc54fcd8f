/// In which slots the blocks of one volume are.
///
/// Leaves of 512 blocks hang on chunks of 512 leaves, a gibibyte of the volume each, which are made as they are needed.
struct CacheMap {
    private final class Chunk {
        var leaves = [CacheLeaf](repeating: CacheLeaf(), count: CacheMap.leavesPerChunk)
        /// Leaves with blocks.
        var used = 0
    }

    static let leavesPerChunk = 512
    private static let chunkBytes = leavesPerChunk * 8 + 64

    /// Bits that the number of a slot takes. It may become less when all slots are known to need no more.
    var width: Int
    private var chunks: [UInt64: Chunk] = [:]
    /// Blocks with a slot.
    private(set) var count: UInt64 = 0
    /// The memory that it takes, in bytes.
    private(set) var byteCount = 0

    init(width: Int) { self.width = width }

    /// The slot of a block; nil when it has none.
    func slot(of block: UInt64) -> CacheSlot? {
        guard let chunk = chunks[Self.chunk(of: block)] else { return nil }
        return chunk.leaves[Self.leaf(of: block)].slot(at: Self.offset(of: block))
    }

    /// Gives a block a slot.
    /// - Returns: the slot that it had.
    mutating func set(_ block: UInt64, to slot: CacheSlot) -> CacheSlot? {
        let number = Self.chunk(of: block)
        let chunk: Chunk
        if let known = chunks[number] {
            chunk = known
        } else {
            chunk = Chunk()
            chunks[number] = chunk
            byteCount += Self.chunkBytes
        }
        let leaf = Self.leaf(of: block)
        let before = chunk.leaves[leaf].byteCount
        let previous = chunk.leaves[leaf].set(Self.offset(of: block), to: slot, width: width)
        if before == 0 { chunk.used += 1 }
        byteCount += chunk.leaves[leaf].byteCount - before
        if previous == nil { count += 1 }
        return previous
    }

    /// Takes the slot of a block away, and returns it.
    mutating func remove(_ block: UInt64) -> CacheSlot? {
        let number = Self.chunk(of: block)
        guard let chunk = chunks[number] else { return nil }
        let leaf = Self.leaf(of: block)
        let before = chunk.leaves[leaf].byteCount
        guard let previous = chunk.leaves[leaf].remove(Self.offset(of: block), width: width) else { return nil }
        count -= 1
        byteCount += chunk.leaves[leaf].byteCount - before
        if chunk.leaves[leaf].isEmpty {
            chunk.used -= 1
            if chunk.used == 0 {
                chunks[number] = nil
                byteCount -= Self.chunkBytes
            }
        }
        return previous
    }

    /// Takes the slots of all blocks of a range away, and says of which blocks and which they were. What is not there costs next to nothing, and a leaf
    /// that lies in the range goes whole.
    mutating func remove(_ range: Range<UInt64>, removed: (UInt64, CacheSlot) -> Void) {
        let (count, byteCount) = (count, byteCount)
        var (blocksRemoved, bytesRemoved): (UInt64, Int) = (0, 0)
        forEachLeaf(in: range) { number, chunk, leaf, part in
            let before = chunk.leaves[leaf].byteCount
            let start = Self.start(ofLeaf: leaf, inChunk: number)
            if part.count == CacheLeaf.blockCount {
                chunk.leaves[leaf].forEach { offset, slot in
                    blocksRemoved += 1
                    removed(start + UInt64(offset), slot)
                }
                chunk.leaves[leaf] = CacheLeaf()
            } else {
                // From the end, so that the slots behind a block have not far to move.
                for offset in part.reversed() {
                    guard let slot = chunk.leaves[leaf].remove(offset, width: width) else { continue }
                    blocksRemoved += 1
                    removed(start + UInt64(offset), slot)
                }
            }
            bytesRemoved += before - chunk.leaves[leaf].byteCount
            if chunk.leaves[leaf].isEmpty { chunk.used -= 1 }
            if chunk.used == 0 {
                chunks[number] = nil
                bytesRemoved += Self.chunkBytes
            }
            return true
        }
        self.count = count - blocksRemoved
        self.byteCount = byteCount - bytesRemoved
    }

    /// True when a block of a range has a slot.
    func containsAny(of range: Range<UInt64>) -> Bool {
        var isFound = false
        forEachLeaf(in: range) { _, chunk, leaf, part in
            isFound = part.count == CacheLeaf.blockCount || part.contains { chunk.leaves[leaf].slot(at: $0) != nil }
            return !isFound
        }
        return isFound
    }

    /// How many blocks of a range have a slot.
    func count(in range: Range<UInt64>) -> UInt64 {
        var count = 0
        forEachLeaf(in: range) { _, chunk, leaf, part in
            chunk.leaves[leaf].forEach { offset, _ in if part.contains(offset) { count += 1 } }
            return true
        }
        return UInt64(count)
    }

    /// Calls `body` with each leaf that has blocks and meets a range, ascending, and with the part of the leaf that lies in it, as long
    /// as it answers true.
    private func forEachLeaf(in range: Range<UInt64>, _ body: (UInt64, Chunk, Int, Range<Int>) -> Bool) {
        guard !range.isEmpty, count > 0 else { return }
        let wanted = Self.chunk(of: range.lowerBound)...Self.chunk(of: range.upperBound - 1)
        let numbers = wanted.count <= chunks.count ? wanted.filter { chunks[$0] != nil } : chunks.keys.filter(wanted.contains).sorted()
        for number in numbers {
            guard let chunk = chunks[number] else { continue }
            let first = number == wanted.lowerBound ? Self.leaf(of: range.lowerBound) : 0
            let last = number == wanted.upperBound ? Self.leaf(of: range.upperBound - 1) : Self.leavesPerChunk - 1
            for leaf in first...last where !chunk.leaves[leaf].isEmpty {
                let start = Self.start(ofLeaf: leaf, inChunk: number)
                let from = range.lowerBound > start ? Int(range.lowerBound - start) : 0
                let to = min(range.upperBound - start, UInt64(CacheLeaf.blockCount))
                if !body(number, chunk, leaf, from..<Int(to)) { return }
            }
        }
    }

    /// Calls `body` with each block that has a slot, in no order.
    func forEach(_ body: (UInt64, CacheSlot) -> Void) {
        for (number, chunk) in chunks {
            for leaf in 0..<Self.leavesPerChunk where !chunk.leaves[leaf].isEmpty {
                // A copy, so that who is called may change the map.
                let (content, start) = (chunk.leaves[leaf], Self.start(ofLeaf: leaf, inChunk: number))
                content.forEach { body(start + UInt64($0), $1) }
            }
        }
    }

    /// The chunks that exist, ascending.
    var chunkNumbers: [UInt64] { chunks.keys.sorted() }

    /// What a leaf says, in as few bytes as the two kinds of records allow.
    /// - Parameter identity: of the shared block in a slot, which has a record of its own; nil for others.
    func records(
        ofLeaf leaf: Int, inChunk number: UInt64, ordinal: UInt32, identity: (CacheSlot) -> SharedIdentity? = { _ in nil }
    ) -> [CacheRecord] {
        let start = Self.start(ofLeaf: leaf, inChunk: number)
        var places: [CachePlace] = []
        var runs: [CacheRecord] = []
        var shared: [CacheRecord] = []
        chunks[number]?.leaves[leaf].forEach { offset, slot in
            let block = start + UInt64(offset)
            if let identity = identity(slot) {
                shared.append(.shared(ordinal: ordinal, block: block, slot: slot, identity))
                return
            }
            places.append(CachePlace(offset: UInt16(offset), slot: slot))
            let record = CacheRecord.data(ordinal: ordinal, block: block, count: 1, slot: slot)
            if let joined = runs.last?.joined(with: record) { runs[runs.count - 1] = joined } else { runs.append(record) }
        }
        if runs.count * CacheRecord.dataByteCount <= places.count * CachePlace.byteCount { return shared + runs }
        return shared + [.places(ordinal: ordinal, block: start, places)]
    }

    private static func start(ofLeaf leaf: Int, inChunk number: UInt64) -> UInt64 {
        (number * UInt64(leavesPerChunk) + UInt64(leaf)) * UInt64(CacheLeaf.blockCount)
    }
    private static func chunk(of block: UInt64) -> UInt64 { block / UInt64(leavesPerChunk * CacheLeaf.blockCount) }
    private static func leaf(of block: UInt64) -> Int { Int(block / UInt64(CacheLeaf.blockCount) % UInt64(leavesPerChunk)) }
    private static func offset(of block: UInt64) -> Int { Int(block % UInt64(CacheLeaf.blockCount)) }
}
