import Blocks
import Ciphers
import NIOCore

/// Which of a cache's queues a segment is in.
enum CacheQueue: CaseIterable {
    /// Blocks that came lately.
    case small
    /// Blocks that were asked for again.
    case main
    /// Blocks that are to stay.
    case pinned

    /// How it stands in a record. Pinned segments are found by the blocks that they have, for what is pinned may change while nobody has the
    /// cache open.
    var recorded: UInt8 { self == .small ? 0 : 1 }

    init?(recorded: UInt8) {
        switch recorded {
        case 0: self = .small
        case 1: self = .main
        default: return nil
        }
    }
}

/// A block in one leaf, and its slot.
struct CachePlace: Equatable {
    static let byteCount = 6
    var offset: UInt16
    var slot: CacheSlot
}

/// One change of what a cache knows. The order of records is the order of the changes; a later one counts over an earlier.
enum CacheRecord: Equatable {
    /// A salt under which blocks are sealed from now on, and its number.
    case salt(number: UInt32, [UInt8])
    /// A volume, and the short name by which the other records know it.
    case volume(ordinal: UInt32, VolumeIdentifier)
    /// The volume is gone, with all its blocks.
    case volumeRemoved(ordinal: UInt32)
    /// The cache has everything of the volume's points up to this one.
    case current(ordinal: UInt32, through: PointNumber)
    /// A segment begins to take blocks.
    case opened(segment: UInt32, sequence: UInt64, salt: UInt32, CacheQueue)
    /// A segment is full, and its owners are in the file.
    case closed(segment: UInt32)
    /// Nothing in a segment counts any more.
    case freed(segment: UInt32)
    /// Blocks that are in slots that follow one another.
    case data(ordinal: UInt32, block: UInt64, count: UInt32, slot: CacheSlot)
    /// Blocks that are in slots here and there: each by how far it is behind `block`.
    case places(ordinal: UInt32, block: UInt64, [CachePlace])
    /// Blocks that hold zeroes.
    case zeroes(ordinal: UInt32, Range<UInt64>)
    /// Blocks of which the cache knows no more.
    case removed(ordinal: UInt32, Range<UInt64>)
    /// The volume's blocks are sealed under this generation of its key from now on.
    case keyGeneration(ordinal: UInt32, KeyGeneration)

    /// A block of a volume is a shared one: where that is, and what it is known by.
    case shared(ordinal: UInt32, block: UInt64, slot: CacheSlot, SharedIdentity)

    /// What hides of a volume in a fragment which blocks its records speak of: this generation of its key.
    case veil(ordinal: UInt32, KeyGeneration)

    enum Kind: UInt8 {
        case salt = 1
        case volume, volumeRemoved, current, opened, closed, freed, data, places, zeroes, removed, keyGeneration, veil, shared

        /// What follows the head of a record: bytes that are not hidden, and bytes that a volume's veil hides.
        func bodyByteCounts(placeCount: Int) -> (open: Int, hidden: Int) {
            switch self {
            case .salt: (CacheFormat.saltBytes, 0)
            case .volume: (16, 0)
            case .volumeRemoved, .closed, .freed: (0, 0)
            case .current, .keyGeneration, .veil: (8, 0)
            case .opened: (13, 0)
            case .data, .zeroes, .removed: (0, 16)
            case .shared: (0, 12 + SharedIdentity.byteCount)
            case .places: (2, 8 + placeCount * CachePlace.byteCount)
            }
        }
    }

    /// The kind, and the short name of the volume or the segment.
    static let headByteCount = 5
    /// What `data` takes, and what `veil` does.
    static let dataByteCount = headByteCount + 16
    static let veilByteCount = headByteCount + 8
    /// No record takes more bytes.
    static let byteCountMax = 15 + CacheLeaf.blockCount * CachePlace.byteCount

    func encode(into buffer: inout ByteBuffer) {
        switch self {
        case .salt(let number, let salt):
            buffer.writeMultipleIntegers(Kind.salt.rawValue, number)
            buffer.writeBytes(salt)
        case .volume(let ordinal, let identifier):
            buffer.writeMultipleIntegers(Kind.volume.rawValue, ordinal, identifier.high, identifier.low)
        case .volumeRemoved(let ordinal): buffer.writeMultipleIntegers(Kind.volumeRemoved.rawValue, ordinal)
        case .current(let ordinal, let point): buffer.writeMultipleIntegers(Kind.current.rawValue, ordinal, point)
        case .opened(let segment, let sequence, let salt, let queue):
            buffer.writeMultipleIntegers(Kind.opened.rawValue, segment, sequence, salt, queue.recorded)
        case .closed(let segment): buffer.writeMultipleIntegers(Kind.closed.rawValue, segment)
        case .freed(let segment): buffer.writeMultipleIntegers(Kind.freed.rawValue, segment)
        case .data(let ordinal, let block, let count, let slot):
            buffer.writeMultipleIntegers(Kind.data.rawValue, ordinal, block, count, slot)
        case .places(let ordinal, let block, let places):
            buffer.writeMultipleIntegers(Kind.places.rawValue, ordinal, UInt16(clamping: places.count), block)
            for place in places { buffer.writeMultipleIntegers(place.offset, place.slot) }
        case .zeroes(let ordinal, let blocks):
            buffer.writeMultipleIntegers(Kind.zeroes.rawValue, ordinal, blocks.lowerBound, blocks.upperBound)
        case .removed(let ordinal, let blocks):
            buffer.writeMultipleIntegers(Kind.removed.rawValue, ordinal, blocks.lowerBound, blocks.upperBound)
        case .keyGeneration(let ordinal, let generation):
            buffer.writeMultipleIntegers(Kind.keyGeneration.rawValue, ordinal, generation)
        case .shared(let ordinal, let block, let slot, let identity):
            buffer.writeMultipleIntegers(Kind.shared.rawValue, ordinal, block, slot)
            buffer.writeMultipleIntegers(identity.signature.high, identity.signature.low, identity.nameHigh, identity.nameLow)
        case .veil(let ordinal, let generation): buffer.writeMultipleIntegers(Kind.veil.rawValue, ordinal, generation)
        }
    }

    /// Reads one record; nil for what breaks a rule.
    init?(from buffer: inout ByteBuffer) {
        guard let value = buffer.readInteger(as: UInt8.self), let kind = Kind(rawValue: value),
            let first = buffer.readInteger(as: UInt32.self), let record = Self.read(kind, first, &buffer)
        else { return nil }
        self = record
    }

    private static func read(_ kind: Kind, _ first: UInt32, _ buffer: inout ByteBuffer) -> CacheRecord? {
        switch kind {
        case .salt: buffer.readBytes(length: CacheFormat.saltBytes).map { .salt(number: first, $0) }
        case .volume:
            buffer.readMultipleIntegers(as: (UInt64, UInt64).self).map {
                .volume(ordinal: first, VolumeIdentifier(high: $0, low: $1))
            }
        case .volumeRemoved: .volumeRemoved(ordinal: first)
        case .current: buffer.readInteger(as: PointNumber.self).map { .current(ordinal: first, through: $0) }
        case .opened: opened(first, &buffer)
        case .closed: .closed(segment: first)
        case .freed: .freed(segment: first)
        case .data: data(first, &buffer)
        case .places: places(first, &buffer)
        case .zeroes: range(&buffer).map { .zeroes(ordinal: first, $0) }
        case .removed: range(&buffer).map { .removed(ordinal: first, $0) }
        case .keyGeneration: buffer.readInteger(as: KeyGeneration.self).map { .keyGeneration(ordinal: first, $0) }
        case .shared: shared(first, &buffer)
        case .veil: buffer.readInteger(as: KeyGeneration.self).map { .veil(ordinal: first, $0) }
        }
    }

    private static func opened(_ segment: UInt32, _ buffer: inout ByteBuffer) -> CacheRecord? {
        guard let (sequence, salt, queue) = buffer.readMultipleIntegers(as: (UInt64, UInt32, UInt8).self), sequence < .max - 1,
            let queue = CacheQueue(recorded: queue)
        else { return nil }
        return .opened(segment: segment, sequence: sequence, salt: salt, queue)
    }

    private static func data(_ ordinal: UInt32, _ buffer: inout ByteBuffer) -> CacheRecord? {
        guard let (block, count, slot) = buffer.readMultipleIntegers(as: (UInt64, UInt32, UInt32).self), count > 0,
            block < CacheFormat.blocksMax, UInt64(count) <= CacheFormat.blocksMax - block,
            UInt64(slot) + UInt64(count) <= UInt64(CacheFormat.slotsMax)
        else { return nil }
        return .data(ordinal: ordinal, block: block, count: count, slot: slot)
    }

    private static func places(_ ordinal: UInt32, _ buffer: inout ByteBuffer) -> CacheRecord? {
        guard let (count, block) = buffer.readMultipleIntegers(as: (UInt16, UInt64).self), count > 0, count <= CacheLeaf.blockCount,
            block <= CacheFormat.blocksMax - UInt64(CacheLeaf.blockCount)
        else { return nil }
        var places: [CachePlace] = []
        places.reserveCapacity(Int(count))
        for _ in 0..<count {
            guard let (offset, slot) = buffer.readMultipleIntegers(as: (UInt16, UInt32).self), offset < CacheLeaf.blockCount,
                slot < CacheFormat.slotsMax
            else { return nil }
            places.append(CachePlace(offset: offset, slot: slot))
        }
        return .places(ordinal: ordinal, block: block, places)
    }

    private static func shared(_ ordinal: UInt32, _ buffer: inout ByteBuffer) -> CacheRecord? {
        guard let (block, slot) = buffer.readMultipleIntegers(as: (UInt64, UInt32).self),
            let (high, low, nameHigh, nameLow) = buffer.readMultipleIntegers(as: (UInt64, UInt64, UInt64, UInt32).self),
            block < CacheFormat.blocksMax, slot < CacheFormat.slotsMax
        else { return nil }
        let identity = SharedIdentity(signature: BlockSignature(high: high, low: low), nameHigh: nameHigh, nameLow: nameLow)
        return .shared(ordinal: ordinal, block: block, slot: slot, identity)
    }

    private static func range(_ buffer: inout ByteBuffer) -> Range<UInt64>? {
        guard let (start, end) = buffer.readMultipleIntegers(as: (UInt64, UInt64).self), start < end, end <= CacheFormat.blocksMax
        else { return nil }
        return start..<end
    }

    /// This record and the next as one, when they say the same of blocks that follow one another.
    func joined(with next: CacheRecord) -> CacheRecord? {
        switch (self, next) {
        case (.data(let volume, let block, let count, let slot), .data(let nextVolume, let nextBlock, let nextCount, let nextSlot)):
            guard volume == nextVolume, block + UInt64(count) == nextBlock, slot + count == nextSlot, count < 1 << 16 else { return nil }
            return .data(ordinal: volume, block: block, count: count + nextCount, slot: slot)
        case (.removed(let volume, let blocks), .removed(let nextVolume, let nextBlocks)):
            guard volume == nextVolume, blocks.upperBound == nextBlocks.lowerBound else { return nil }
            return .removed(ordinal: volume, blocks.lowerBound..<nextBlocks.upperBound)
        case (.zeroes(let volume, let blocks), .zeroes(let nextVolume, let nextBlocks)):
            guard volume == nextVolume, blocks.upperBound == nextBlocks.lowerBound else { return nil }
            return .zeroes(ordinal: volume, blocks.lowerBound..<nextBlocks.upperBound)
        default: return nil
        }
    }
}
