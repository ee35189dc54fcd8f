import Blocks
import Checksums
import NIOCore

// Blocks of disks in memory, each content once.
//
//     places     disk and block ──► slot            many places may have one slot; zeroes need none
//     slots      a row of blocks of 4 KiB; each knows its places, and whether it was asked for since the hand passed
//     contents   checksum ──► slot                  finds an equal block; the bytes decide
//
// A block is taken in when it is read for the second time (`RecentReads`). The cloud edges keep what they read, so that most blocks are read
// once here, and of those nothing is copied: what somebody asks for again is what others will ask for too. When there is no room, a hand goes
// around the slots and takes the first that was not asked for since it came by last (CLOCK, Corbató 1968).

/// A cache of what is read from disks again and again, of all disks of an edge. Lives on one event loop.
public final class ReadCache {
    /// Counters since the start, in blocks, and what is there now.
    public struct Statistics: Equatable, Sendable {
        /// Blocks of reads that were answered from here, and of those that went to the disk.
        public var foundBlocks: UInt64 = 0
        public var missedBlocks: UInt64 = 0
        /// Blocks that were equal to one that was here.
        public var sharedBlocks: UInt64 = 0
        /// Contents that left for want of room.
        public var evictedBlocks: UInt64 = 0
        /// The bytes of the contents that are here, and of the blocks that have them.
        public var usedBytes = 0
        public var standForBytes = 0
    }

    private struct Place: Hashable {
        let disk: UInt32
        let block: UInt64
    }

    private struct Slot {
        var checksum: UInt32 = 0
        /// None when it is free.
        var places: [Place] = []
        var wasAskedFor = false
    }

    /// How many places there may be for each slot; more are made room for like contents. Of zeroes there may be as many as slots.
    private static var placesPerSlot: Int { 8 }
    /// How many places one content may have; the next equal block has a slot of its own.
    static var placesPerSlotMax: Int { 256 }
    /// How many slots the hand passes over for one block before it takes any.
    static var passedOverMax: Int { 64 }
    /// Memory is taken in pieces of so many blocks.
    private static var blocksPerChunk: Int { 256 }
    /// What a block takes in the tables, in bytes: a slot and its checksum, eight places with their entries, and eight blocks that were read lately.
    private static var tableBytesPerBlock: Int { 600 }
    /// How many blocks are remembered that were read lately, for each that may be kept.
    private static var recentPerBlock: Int { 8 }
    /// What stands for a slot at places of zeroes.
    private static var zeroes: Int { -1 }

    /// The counters.
    public var statistics: Statistics {
        var result = counters
        result.usedBytes = (slots.count - freeSlots.count) * BlockGeometry.blockBytes
        result.standForBytes = places.count * BlockGeometry.blockBytes
        return result
    }

    private let slotCountMax: Int
    private var slots: [Slot] = []
    private var freeSlots: [Int] = []
    private var chunks: [ByteBuffer] = []
    private var hand = 0
    private var places: [Place: Int] = [:]
    private var zeroPlaces = 0
    /// How many of the places are each disk's.
    private var placeCounts: [UInt32: Int] = [:]
    private var contents: [UInt32: Int] = [:]
    private var recent: RecentReads
    private var counters = Statistics()
    private var diskCount: UInt32 = 0
    /// The slots of the read that is being answered.
    private var found: [Int] = []

    /// A cache that takes up to `byteCount` bytes, its tables among them, as it fills.
    public init(byteCount: Int) {
        slotCountMax = byteCount / (BlockGeometry.blockBytes + Self.tableBytesPerBlock)
        recent = RecentReads(count: slotCountMax * Self.recentPerBlock)
    }

    /// A number for a disk, until `removeDisk`.
    func addDisk() -> UInt32 {
        diskCount &+= 1
        return diskCount
    }

    /// Lets go of all that is here of a disk.
    func removeDisk(_ disk: UInt32) { remove(disk, SectorRange(from: 0, to: .max)) }

    /// What is here of `range`, if all of it is.
    func read(_ disk: UInt32, _ range: SectorRange) -> ByteBuffer? {
        let blocks = range.blocks
        guard !places.isEmpty else {
            counters.missedBlocks &+= UInt64(blocks.count)
            return nil
        }
        found.removeAll(keepingCapacity: true)
        for block in blocks {
            guard let slot = places[Place(disk: disk, block: block)] else {
                counters.missedBlocks &+= UInt64(blocks.count)
                return nil
            }
            if slot != Self.zeroes { slots[slot].wasAskedFor = true }
            found.append(slot)
        }
        counters.foundBlocks &+= UInt64(blocks.count)
        var buffer = ByteBufferAllocator().buffer(capacity: found.count * BlockGeometry.blockBytes)
        for slot in found {
            if slot == Self.zeroes {
                buffer.writeRepeatingByte(0, count: BlockGeometry.blockBytes)
            } else if let bytes = content(of: slot) {
                buffer.writeImmutableBuffer(bytes)
            }
        }
        buffer.moveReaderIndex(forwardBy: Int(range.start % BlockGeometry.sectorsPerBlock) * BlockGeometry.sectorBytes)
        return buffer.readSlice(length: range.byteCount)
    }

    /// Takes in what was read: of the blocks that lie in `range` whole those that were read before.
    func note(_ disk: UInt32, _ range: SectorRange, _ data: ByteBuffer) {
        guard slotCountMax > 0 else { return }
        for block in range.wholeBlocks where recent.note(disk: disk, block: block) {
            let offset = Int(block * BlockGeometry.sectorsPerBlock - range.start) * BlockGeometry.sectorBytes
            guard let bytes = data.getSlice(at: data.readerIndex + offset, length: BlockGeometry.blockBytes) else { return }
            insert(Place(disk: disk, block: block), bytes)
        }
    }

    /// Lets go of the blocks that `range` touches.
    func remove(_ disk: UInt32, _ range: SectorRange) {
        guard let count = placeCounts[disk] else { return }
        let blocks = range.blocks
        if blocks.count <= count {
            for block in blocks { remove(Place(disk: disk, block: block)) }
        } else {
            for place in places.keys.filter({ $0.disk == disk && blocks.contains($0.block) }) { remove(place) }
        }
    }

    // MARK: Slots

    private func insert(_ place: Place, _ bytes: ByteBuffer) {
        guard places[place] == nil else { return }
        if bytes.isAllZeroes {
            if zeroPlaces < slotCountMax { add(place, Self.zeroes) }
            return
        }
        while places.count - zeroPlaces >= Self.placesPerSlot * slotCountMax { evict() }
        let checksum = CRC32C.checksum(of: bytes)
        if let slot = contents[checksum], slots[slot].places.count < Self.placesPerSlotMax, content(of: slot) == bytes {
            counters.sharedBlocks &+= 1
            slots[slot].places.append(place)
            return add(place, slot)
        }
        let slot = freeSlot()
        chunks[slot / Self.blocksPerChunk].setBuffer(bytes, at: slot % Self.blocksPerChunk * BlockGeometry.blockBytes)
        slots[slot] = Slot(checksum: checksum, places: [place])
        add(place, slot)
        contents[checksum] = slot
    }

    private func add(_ place: Place, _ slot: Int) {
        places[place] = slot
        placeCounts[place.disk, default: 0] += 1
        if slot == Self.zeroes { zeroPlaces += 1 }
    }

    /// Takes a place out of the table; nil when it is not there.
    private func drop(_ place: Place) -> Int? {
        guard let slot = places.removeValue(forKey: place) else { return nil }
        let left = (placeCounts[place.disk] ?? 1) - 1
        placeCounts[place.disk] = left == 0 ? nil : left
        if slot == Self.zeroes { zeroPlaces -= 1 }
        return slot
    }

    private func content(of slot: Int) -> ByteBuffer? {
        chunks[slot / Self.blocksPerChunk].getSlice(
            at: slot % Self.blocksPerChunk * BlockGeometry.blockBytes, length: BlockGeometry.blockBytes)
    }

    private func remove(_ place: Place) {
        guard let slot = drop(place), slot != Self.zeroes else { return }
        if let index = slots[slot].places.firstIndex(of: place) { slots[slot].places.remove(at: index) }
        if slots[slot].places.isEmpty { free(slot) }
    }

    private func free(_ slot: Int) {
        for place in slots[slot].places { _ = drop(place) }
        if contents[slots[slot].checksum] == slot { contents[slots[slot].checksum] = nil }
        slots[slot] = Slot()
        freeSlots.append(slot)
    }

    /// A slot that nobody has: a new one while there may be more, else one that is taken from what is here.
    private func freeSlot() -> Int {
        if freeSlots.isEmpty, slots.count == slotCountMax { evict() }
        if let slot = freeSlots.popLast() { return slot }
        if slots.count % Self.blocksPerChunk == 0 {
            let blockCount = min(Self.blocksPerChunk, slotCountMax - slots.count)
            chunks.append(ByteBuffer(repeating: 0, count: blockCount * BlockGeometry.blockBytes))
        }
        slots.append(Slot())
        return slots.count - 1
    }

    /// Frees the slot under the hand, or the next one that was not asked for. There is one that is not free.
    private func evict() {
        var passedOver = 0
        while slots[hand].places.isEmpty || slots[hand].wasAskedFor && passedOver < Self.passedOverMax {
            if slots[hand].wasAskedFor { passedOver += 1 }
            slots[hand].wasAskedFor = false
            hand = (hand + 1) % slots.count
        }
        counters.evictedBlocks &+= 1
        free(hand)
        hand = (hand + 1) % slots.count
    }
}
