import Blocks
import Ciphers

/// Why the cache could not do what it was asked.
public enum CacheError: Error, Equatable, Sendable {
    /// The file system or the device failed.
    case file(StorageFileError)
    /// The cache needs at least this many bytes.
    case tooSmall(bytesNeeded: UInt64)
    /// The device that the cache is on has no more than this many bytes.
    case tooLarge(bytesMax: UInt64)
    /// The cache can't be divided in that way, or not with that size.
    case division(CacheDivisionError)
    /// The cipher refused to work; the text names the call.
    case cipher(String)
    /// The cache was closed.
    case closed
}

/// A read that the cache could not serve whole.
public struct CacheMiss: Error, Equatable, Sendable {
    /// The first block that was missing or could not be read.
    public let block: UInt64
}

/// What opens a cache.
public struct CacheKeys {
    /// The key that seals the cache's own records, and gives those of shared blocks.
    public var cache: SecretKey
    /// The key of a volume of a generation. Of a volume without one the cache knows nothing any more once it is open.
    public var volume: (VolumeIdentifier, KeyGeneration) -> SecretKey?

    public init(cache: SecretKey, volume: @escaping (VolumeIdentifier, KeyGeneration) -> SecretKey?) {
        self.cache = cache
        self.volume = volume
    }
}

/// The bounds of a cache, and what happens at each.
public struct CacheLimits: Sendable {
    /// Bytes of blocks in memory that were not written yet. Beyond it an insertion is dropped, and what
    /// the cache held for its blocks is forgotten.
    public var unwrittenBytesMax: Int
    /// The unit of eviction, at most; a small cache has smaller ones. A cache keeps the one that it was made with.
    public var segmentBytes: Int
    /// Records of changes that were not written yet. Beyond it they are dropped, and the cache that a crash would find knows
    /// nothing.
    public var recordBytesMax = 8 << 20
    /// The journal's size, or a checkpoint's, whichever is more: at that size a new checkpoint is written.
    public var journalBytes = 16 << 20
    /// Records are sealed together up to this many bytes; at least so many that the longest record fits.
    public var fragmentBytesMax = CacheFragments.recordBytesMax
    /// Runs of zeroes that are known of one volume. Beyond it such runs are not kept.
    public var zeroExtentsMax = 1 << 18
    /// Ranges that are noted of all volumes together while the cache can't be opened. Beyond it all is forgotten of those volumes that
    /// have some.
    public var missedRangesMax = 1 << 20
    /// The memory of the index is at most this share of the cache's size, and this where that is little. Beyond it the names of
    /// blocks that left are forgotten, then blocks leave.
    static let cacheBytesPerIndexByte: UInt64 = 1024
    static let indexBytesMin = 16 << 20

    /// The memory that the index of a cache may take.
    func indexBytesMax(cacheBytes: UInt64) -> Int { max(Self.indexBytesMin, Int(clamping: cacheBytes / Self.cacheBytesPerIndexByte)) }
    /// Of that memory at least so much is for signatures of blocks that came lately: beyond it the coldest are forgotten, and blocks that are
    /// equal to them are stored once more.
    static let indexBytesPerSignatureByte = 16
    /// And at least so much for what is known of shared blocks: beyond it no more blocks are shared.
    static let indexBytesPerSharedByte = 4
    /// What one block takes besides by its place, its use and the name that it leaves, where blocks do not lie alone.
    private static let indexBytesPerBlock: UInt64 = 5
    /// What the signature of each block would take, in buckets of which few overflow.
    private static let signatureBytesPerBlock: UInt64 = 100

    /// What no block can take of the memory: much in a small cache, in which all equal blocks can be found.
    private func spareIndexBytes(cacheBytes: UInt64) -> Int {
        let blocks = Int(clamping: cacheBytes / UInt64(CacheFormat.blockBytes) * Self.indexBytesPerBlock)
        return max(0, indexBytesMax(cacheBytes: cacheBytes) - blocks)
    }

    func signatureBytesMax(cacheBytes: UInt64) -> Int {
        if !sharesBlocks { return 0 }
        let wanted = Int(clamping: cacheBytes / UInt64(CacheFormat.blockBytes) * Self.signatureBytesPerBlock)
        let least = signatureBytesMin(cacheBytes: cacheBytes)
        return min(max(wanted, CacheFormat.segmentBytesMin), max(least, spareIndexBytes(cacheBytes: cacheBytes) / 2))
    }

    /// What signatures have when the rest of the index needs its memory.
    func signatureBytesMin(cacheBytes: UInt64) -> Int {
        sharesBlocks ? indexBytesMax(cacheBytes: cacheBytes) / Self.indexBytesPerSignatureByte : 0
    }

    func sharedBytesMax(cacheBytes: UInt64) -> Int {
        max(indexBytesMax(cacheBytes: cacheBytes) / Self.indexBytesPerSharedByte, spareIndexBytes(cacheBytes: cacheBytes) / 2)
    }

    /// Blocks that come in are looked at for being equal to others, which takes a hash of each. Without it those that are shared stay so.
    public var sharesBlocks = false

    /// The size of the device that the blocks are on, beyond which the cache is not resized; nil for a file, which grows and is cut with
    /// the cache.
    public var deviceBytes: UInt64?
    /// Unwritten blocks are written when they are this many bytes, or when somebody synchronises.
    public var writeBytes: Int

    public init(unwrittenBytesMax: Int = 32 << 20, segmentBytes: Int = 4 << 20, writeBytes: Int = 256 << 10) {
        self.unwrittenBytesMax = max(unwrittenBytesMax, BlockGeometry.blockBytes)
        self.segmentBytes = min(max(segmentBytes, 64 << 10), 64 << 20) / 4096 * 4096
        self.writeBytes = max(writeBytes, BlockGeometry.blockBytes)
    }
}

/// What a cache has done and holds, for the owner to show.
public struct CacheStatistics: Equatable, Sendable {
    /// Blocks with data that can be served, those of volumes without a key among them.
    public var blocksHeld: UInt64 = 0
    /// Blocks that were served, and blocks that a read found missing.
    public var hits: UInt64 = 0
    public var misses: UInt64 = 0
    /// Blocks that were not what had been written, and were forgotten.
    public var corrupt: UInt64 = 0
    /// Blocks that made room for others.
    public var evicted: UInt64 = 0
    /// Blocks that were inserted, those of them that were zeroes and took no slot, and blocks that were dropped at a limit.
    public var inserted: UInt64 = 0
    public var zeroes: UInt64 = 0
    public var dropped: UInt64 = 0
    /// Of those that were inserted: blocks that others had already, and share. And how many blocks are shared now, by how many.
    public var shared: UInt64 = 0
    public var sharedBlocks: UInt64 = 0
    public var sharedReferences: UInt64 = 0
    /// Blocks that made room and were written again, because they had been asked for.
    public var moved: UInt64 = 0
    /// Times that a restart found records damaged or missing, and began without blocks.
    public var segmentsSkipped: UInt64 = 0
    /// Times that a volume's blocks were forgotten because the cache was older than the volume.
    public var stale: UInt64 = 0
    /// The memory of the index.
    public var indexBytes = 0
    /// Reads and writes that the device failed.
    public var readErrors: UInt64 = 0
    public var writeErrors: UInt64 = 0
    /// The size of the cache, and bytes in memory that were not written yet.
    public var byteCount: UInt64 = 0
    /// The size that it is coming to, and how much behind that end is still to be emptied.
    public var byteCountWanted: UInt64 = 0
    public var bytesToEmpty: UInt64 = 0
    /// How much of the cache the file system has no room for.
    public var bytesWithoutRoom: UInt64 = 0
    public var unwrittenBytes: Int = 0
    /// True while the device takes no writes; the cache still serves what it has.
    public var isDegraded = false

    public init() {}
}
