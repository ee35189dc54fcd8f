import Blocks
import Ciphers
import NIOCore

/// Where a block is: a segment's place in the ring, and a slot there.
struct CacheLocation: Equatable {
    let segment: UInt32
    let slot: UInt32
}

/// The segment that says that a run of blocks holds zeroes.
struct ZeroMark: ExtentValue {
    let segment: UInt32
    func dropping(sectors: UInt64) -> ZeroMark { self }
}

/// What the cache knows of one volume.
final class CacheVolume {
    let identifier: VolumeIdentifier
    /// A short name for the volume, never used again in this run.
    let ordinal: UInt32
    /// nil until the volume is attached: then its blocks are known, and cannot be read.
    var key: SecretKey? {
        didSet { (ciphers, sharedCiphers) = ([:], [:]) }
    }
    private(set) var blocks: [UInt64: CacheLocation] = [:]
    private(set) var zeroes = ExtentMap<ZeroMark>()
    /// The ciphers of this volume's blocks, by the number of the salt.
    private var ciphers: [Int: BlockCipher] = [:]
    /// The same for the threads of the pool.
    private var sharedCiphers: [Int: SharedBlockCipher] = [:]

    init(identifier: VolumeIdentifier, ordinal: UInt32) {
        self.identifier = identifier
        self.ordinal = ordinal
    }

    // MARK: Asking

    func location(of block: UInt64) -> CacheLocation? { blocks[block] }
    func isZero(_ block: UInt64) -> Bool { !zeroes.isEmpty && zeroes.overlaps(SectorRange(block: block)) }
    func contains(_ block: UInt64) -> Bool { blocks[block] != nil || isZero(block) }

    /// True when at least one block of the range is known.
    func containsAny(of range: Range<UInt64>) -> Bool {
        if !zeroes.isEmpty, zeroes.overlaps(range.sectors) { return true }
        if blocks.isEmpty { return false }
        if UInt64(blocks.count) < range.upperBound - range.lowerBound { return blocks.keys.contains { range.contains($0) } }
        return range.contains { blocks[$0] != nil }
    }

    // MARK: Changing

    /// Makes `location` the place of a block, whatever it had before.
    func set(_ block: UInt64, to location: CacheLocation) {
        blocks[block] = location
        if isZero(block) { zeroes.remove(SectorRange(block: block)) }
    }

    /// Makes a run of blocks zeroes, whatever they had before.
    func setZeroes(_ range: Range<UInt64>, segment: UInt32) {
        removeData(in: range)
        zeroes.insert(range.sectors, ZeroMark(segment: segment))
    }

    /// Forgets a run of blocks.
    func remove(_ range: Range<UInt64>) {
        removeData(in: range)
        if !zeroes.isEmpty { zeroes.remove(range.sectors) }
    }

    /// Forgets a block if it is where `location` says.
    func remove(_ block: UInt64, at location: CacheLocation) -> Bool {
        guard blocks[block] == location else { return false }
        blocks[block] = nil
        return true
    }

    /// Forgets zeroes in a run of blocks as far as `segment` says them.
    func removeZeroes(in range: Range<UInt64>, segment: UInt32) {
        for extent in zeroes.extents(in: range.sectors) where extent.value.segment == segment { zeroes.remove(extent.range) }
    }

    private func removeData(in range: Range<UInt64>) {
        if blocks.isEmpty { return }
        if UInt64(blocks.count) < range.upperBound - range.lowerBound {
            for block in blocks.keys.filter({ range.contains($0) }) { blocks[block] = nil }
        } else {
            for block in range { blocks[block] = nil }
        }
    }

    /// The blocks of a range that have data here, ascending.
    func dataBlocks(in range: Range<UInt64>) -> [UInt64] {
        if UInt64(blocks.count) < range.upperBound - range.lowerBound {
            return blocks.keys.filter { range.contains($0) }.sorted()
        }
        return range.filter { blocks[$0] != nil }
    }

    // MARK: Ciphers

    /// The cipher of this volume's blocks under one salt; nil while there is no key.
    func cipher(salt: Int, of salts: CacheSalts) -> BlockCipher? {
        if let cipher = ciphers[salt] { return cipher }
        guard let key, let derived = try? key.derive(salt: salts[salt], purpose: CacheFormat.blockPurpose) else { return nil }
        let cipher = BlockCipher(key: derived)
        ciphers[salt] = cipher
        return cipher
    }

    /// The same cipher, for any thread.
    func sharedCipher(salt: Int, of salts: CacheSalts) -> SharedBlockCipher? {
        if let cipher = sharedCiphers[salt] { return cipher }
        guard let cipher = cipher(salt: salt, of: salts)?.shared() else { return nil }
        sharedCiphers[salt] = cipher
        return cipher
    }
}

/// The salts that segments of this cache were written under: one for each run of the program.
struct CacheSalts {
    private var salts: [[UInt8]] = []
    private var numbers: [[UInt8]: Int] = [:]

    subscript(number: Int) -> [UInt8] { salts[number] }

    /// The number of a salt that is known.
    func number(of salt: [UInt8]) -> Int? { numbers[salt] }

    /// The number of a salt, which becomes known.
    mutating func add(_ salt: [UInt8]) -> Int {
        if let number = numbers[salt] { return number }
        salts.append(salt)
        numbers[salt] = salts.count - 1
        return salts.count - 1
    }
}

/// Which blocks are where. In this first form a hash table for each volume; the cache sees no more of it than this.
struct CacheIndex {
    private(set) var volumes: [VolumeIdentifier: CacheVolume] = [:]
    /// By ordinal; nil for volumes that are gone.
    private var byOrdinal: [CacheVolume?] = []

    subscript(identifier: VolumeIdentifier) -> CacheVolume? { volumes[identifier] }
    subscript(ordinal ordinal: UInt32) -> CacheVolume? {
        Int(ordinal) < byOrdinal.count ? byOrdinal[Int(ordinal)] : nil
    }

    /// The volume of that name, made when it is not known.
    mutating func volume(_ identifier: VolumeIdentifier) -> CacheVolume {
        if let volume = volumes[identifier] { return volume }
        let volume = CacheVolume(identifier: identifier, ordinal: UInt32(byOrdinal.count))
        volumes[identifier] = volume
        byOrdinal.append(volume)
        return volume
    }

    /// Forgets a volume and all its blocks.
    mutating func remove(_ identifier: VolumeIdentifier) {
        guard let volume = volumes.removeValue(forKey: identifier) else { return }
        byOrdinal[Int(volume.ordinal)] = nil
    }

    var blockCount: UInt64 { volumes.values.reduce(0) { $0 + UInt64($1.blocks.count) } }
}

extension Range<UInt64> {
    /// The sectors of a run of blocks.
    var sectors: SectorRange {
        SectorRange(from: lowerBound * BlockGeometry.sectorsPerBlock, to: upperBound * BlockGeometry.sectorsPerBlock)
    }
}

/// One place in the ring, and what is there.
final class CacheSegment {
    let position: Int
    /// 0 while nothing there counts.
    var sequence: UInt64 = 0
    /// The number of the salt that it was written under.
    var salt = 0
    /// For each used slot, the block that was put there: what eviction must look up.
    var slots: [(volume: UInt32, block: UInt64)] = []
    /// The same for runs of zeroes.
    var zeroes: [(volume: UInt32, blocks: Range<UInt64>)] = []
    /// What is not durable yet of the segment.
    var pending: PendingSegment?
    /// The whole place was written once, so its room is there; or the file system had no room for it.
    var hasRoom = false
    var isUnusable = false

    init(position: Int) { self.position = position }

    func clear() {
        sequence = 0
        slots = []
        zeroes = []
        pending = nil
    }
}

/// A segment on its way to the file.
final class PendingSegment {
    let segment: CacheSegment
    let sequence: UInt64
    /// Nothing older counts any more, as soon as this segment is durable.
    var isBarrier: Bool
    /// The plaintext of slots that were not written; nil for those that were.
    var buffers: [ByteBuffer?] = []
    /// How many slots were sealed, and how many were written.
    var sealedSlots = 0
    var writtenSlots = 0
    var entries: [CacheEntry] = []
    /// Entries up to here never change again.
    var fixedEntries = 0
    var emittedEntries = 0
    var durableEntries = 0
    var fragments = 0
    var tableOffset = 0
    var isHeaderWritten = false
    var isHeaderDurable = false
    var isClosed = false
    /// What the sync that is being prepared covers.
    var goal: (slots: Int, entries: Int)?

    init(segment: CacheSegment, sequence: UInt64, isBarrier: Bool) {
        self.segment = segment
        self.sequence = sequence
        self.isBarrier = isBarrier
    }

    /// True while something of the segment would be lost in a crash.
    var isDirty: Bool { !isHeaderDurable || durableEntries < entries.count }
}
