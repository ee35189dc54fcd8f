import Blocks

/// Why the cache could not do what it was asked.
public enum CacheError: Error, Equatable, Sendable {
    /// The file system or the device failed.
    case file(StorageFileError)
    /// The cache needs at least this many bytes.
    case tooSmall(bytesNeeded: UInt64)
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

/// The bounds of a cache, and what happens at each.
public struct CacheLimits: Sendable {
    /// Bytes of blocks in memory that were not written yet. Beyond it an insertion is dropped, and what
    /// the cache held for its blocks is forgotten.
    public var unwrittenBytesMax: Int
    /// The unit of eviction. A cache that was made with another one starts cold.
    public var segmentBytes: Int
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
    /// Blocks that were inserted, and those of them that were dropped at a limit.
    public var inserted: UInt64 = 0
    public var dropped: UInt64 = 0
    /// Segments that a restart found damaged or out of their row, and skipped.
    public var segmentsSkipped: UInt64 = 0
    /// Reads and writes that the device failed.
    public var readErrors: UInt64 = 0
    public var writeErrors: UInt64 = 0
    /// The size of the cache, and bytes in memory that were not written yet.
    public var byteCount: UInt64 = 0
    public var unwrittenBytes: Int = 0
    /// True while the device takes no writes; the cache still serves what it has.
    public var isDegraded = false

    public init() {}
}
