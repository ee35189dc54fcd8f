import Blocks
import Ciphers
import NIOCore

/// That something holds for a run of blocks, as that they are zeroes.
struct ZeroMark: ExtentValue {
    func dropping(sectors: UInt64) -> ZeroMark { self }
}

/// What the cache knows of one volume.
final class CacheVolume {
    let identifier: VolumeIdentifier
    /// A short name for the volume, never used again in this cache.
    let ordinal: UInt32
    /// The generation of the key that its blocks are sealed under.
    var keyGeneration: KeyGeneration = 1
    /// Somebody may read and write it. Before, its blocks are known only.
    var isAttached = false
    /// nil for a volume of which nothing is known yet.
    var key: SecretKey? {
        didSet { (ciphers, sharedCiphers) = ([:], [:]) }
    }
    var map: CacheMap
    var zeroes = ExtentMap<ZeroMark>()
    /// The pool that new blocks come into.
    var pool = 0
    /// Blocks that are to stay once they are here.
    var pins = ExtentMap<ZeroMark>()
    /// The cache has everything of the volume's points up to this one.
    var current: PointNumber = 0
    /// The last journal or checkpoint with a record of a shared block that this volume has or had; nil when there is none.
    var sharedRecordsIn: UInt64?
    /// What changed while the cache could not be opened.
    var missed = MissedChanges()
    /// The ciphers of this volume's blocks, by the number of the salt.
    private var ciphers: [Int: BlockCipher] = [:]
    /// The same for the threads of the pool.
    private var sharedCiphers: [Int: SharedBlockCipher] = [:]

    init(identifier: VolumeIdentifier, ordinal: UInt32, slotWidth: Int) {
        self.identifier = identifier
        self.ordinal = ordinal
        map = CacheMap(width: slotWidth)
    }

    func isPinned(_ block: UInt64) -> Bool { !pins.isEmpty && pins.overlaps(SectorRange(block: block)) }
    func isZero(_ block: UInt64) -> Bool { !zeroes.isEmpty && zeroes.overlaps(SectorRange(block: block)) }
    func contains(_ block: UInt64) -> Bool { map.slot(of: block) != nil || isZero(block) }

    /// True when at least one block of the range is known.
    func containsAny(of range: Range<UInt64>) -> Bool {
        if !zeroes.isEmpty, zeroes.overlaps(range.sectors) { return true }
        if range.count == 1 { return map.slot(of: range.lowerBound) != nil }
        return map.containsAny(of: range)
    }

    // MARK: Ciphers

    /// The cipher of this volume's blocks under one salt; nil while there is no key.
    func cipher(salt: Int, of salts: CacheSalts) -> BlockCipher? {
        if let cipher = ciphers[salt] { return cipher }
        guard let key, let salt = salts[salt] else { return nil }
        guard let derived = try? key.derive(salt: salt.bytes, purpose: CacheFormat.blockPurpose) else { return nil }
        let cipher = BlockCipher(key: derived)
        ciphers[salt.number] = cipher
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
    private var salts: [Int: [UInt8]] = [:]

    subscript(number: Int) -> (number: Int, bytes: [UInt8])? { salts[number].map { (number, $0) } }
    var all: [(number: Int, bytes: [UInt8])] { salts.sorted { $0.key < $1.key }.map { ($0.key, $0.value) } }
    var nextNumber: Int { (salts.keys.max() ?? -1) + 1 }

    mutating func add(_ salt: [UInt8], number: Int) { salts[number] = salt }
    /// Forgets the salts that no segment was written under.
    mutating func keep(_ used: Set<Int>) { salts = salts.filter { used.contains($0.key) } }
}

/// Which blocks are where. Of each volume that it knows blocks of it has the key.
struct CacheIndex {
    /// Bits that the number of a slot takes.
    var slotWidth: Int {
        didSet { for volume in volumes.values { volume.map.width = slotWidth } }
    }
    private(set) var volumes: [VolumeIdentifier: CacheVolume] = [:]
    private var byOrdinal: [UInt32: CacheVolume] = [:]
    private var nextOrdinal: UInt32 = 0

    init(slotWidth: Int) { self.slotWidth = slotWidth }

    subscript(identifier: VolumeIdentifier) -> CacheVolume? { volumes[identifier] }
    subscript(ordinal ordinal: UInt32) -> CacheVolume? { byOrdinal[ordinal] }

    /// The key that hides what records say of a volume's blocks.
    func key(of ordinal: UInt32) -> (generation: KeyGeneration, key: SecretKey)? {
        byOrdinal[ordinal].flatMap { volume in volume.key.map { (volume.keyGeneration, $0) } }
    }

    /// Makes a volume, under a new short name or under the one that a record gives it.
    mutating func add(_ identifier: VolumeIdentifier, ordinal: UInt32? = nil) -> CacheVolume {
        let volume = CacheVolume(identifier: identifier, ordinal: ordinal ?? nextOrdinal, slotWidth: slotWidth)
        nextOrdinal = max(nextOrdinal, volume.ordinal &+ 1)
        volumes[identifier] = volume
        byOrdinal[volume.ordinal] = volume
        return volume
    }

    /// Forgets a volume.
    mutating func remove(_ identifier: VolumeIdentifier) {
        guard let volume = volumes.removeValue(forKey: identifier) else { return }
        byOrdinal[volume.ordinal] = nil
    }

    var blockCount: UInt64 { volumes.values.reduce(0) { $0 + $1.map.count } }
    /// The memory that the maps take, in bytes.
    var byteCount: Int { volumes.values.reduce(0) { $0 + $1.map.byteCount + $1.zeroes.count * CacheIndex.zeroExtentBytes } }
    /// What a run of zeroes takes in memory.
    static let zeroExtentBytes = 48
}

extension Range<UInt64> {
    /// The sectors of a run of blocks.
    var sectors: SectorRange {
        SectorRange(from: lowerBound * BlockGeometry.sectorsPerBlock, to: upperBound * BlockGeometry.sectorsPerBlock)
    }
}

/// One segment, and what is there.
struct CacheSegment {
    enum State: UInt8 {
        case free
        /// It takes blocks.
        case open
        /// It is full; its owners are in the file, or in memory.
        case closed
        /// Nothing in it counts any more, as soon as that is durable.
        case leaving
        /// The file system had no room for it; it is tried again by and by.
        case withoutRoom
    }

    var state = State.free
    var queue = CacheQueue.small
    /// Whose it is: the number of one of the queues' pools.
    var pool: UInt8 = 0
    /// The file has all its bytes: it was full once.
    var hasRoom = false
    /// The file has it, or is to have it.
    var isInFile: Bool { hasRoom || [.open, .closed, .leaving].contains(state) }
    /// 0 while nothing there counts.
    var sequence: UInt64 = 0
    /// The number of the salt that it was written under.
    var salt: UInt32 = 0
    /// Slots with blocks that count; one that is shared counts once.
    var liveCount: Int32 = 0
    /// Slots with shared blocks.
    var sharedCount: Int32 = 0
    /// Those of them that nobody has pinned any more, in a segment of pinned blocks.
    var adriftCount: Int32 = 0
}

/// A segment on its way to the file.
final class FillingSegment {
    let segment: Int
    let sequence: UInt64
    var queue: CacheQueue
    /// Whose it is.
    var pool: Int
    var owners: [CacheOwner] = []
    /// The plaintext of slots that were not written; nil for those that were.
    var buffers: [ByteBuffer?] = []
    /// How many slots were sealed, and how many were written.
    var sealedSlots = 0
    var writtenSlots = 0
    /// No more blocks are taken.
    var isFull = false

    init(segment: Int, sequence: UInt64, queue: CacheQueue, pool: Int) {
        self.segment = segment
        self.sequence = sequence
        self.queue = queue
        self.pool = pool
    }
}
