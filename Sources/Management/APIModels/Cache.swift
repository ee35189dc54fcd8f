/// The cache of a cloud edge, as `GET /v1/cache` shows it.
public struct EdgeCache: Codable, Sendable, Equatable {
    /// Whether it does its work.
    public enum State: String, Codable, Sendable, CaseIterable {
        /// It is opened as soon as home has sent its key.
        case waiting
        case running
        /// Its file system has no room for all of it: it goes on with less.
        case bounded
        /// It is being emptied behind the end that it gets.
        case resizing
        /// Its disk takes no writes: it serves what it has, and is tried again.
        case degraded
        /// It can't be opened or read: the edge serves without a cache, and tries again.
        case unusable
    }

    /// The file or block device.
    public var path: String
    public var state: State
    /// What is wrong; nil when nothing is.
    public var message: String?
    /// The size in force, and the size that it is coming to; the same when nothing changes.
    public var sizeBytes: UInt64
    public var wantedSizeBytes: UInt64
    /// True when the size was set here, false when it is the configuration's.
    public var isOwnSize: Bool
    /// What is behind the end that it gets, and has not left yet.
    public var bytesToEmpty: UInt64
    /// Blocks of 4 KiB that volumes have here, those of zeroes apart: one that is stored once for several places counts for each.
    public var blocks: UInt64
    /// The same in bytes; and how many bytes it is with each block counted once, which is the room that it takes.
    public var heldBytes: UInt64
    public var storedBytes: UInt64
    /// Blocks of several volumes, or of several places of one, that are there once; and how many places that is.
    public var sharedBlocks: UInt64
    public var sharedReferences: UInt64
    /// Since the edge started: blocks that were served, reads that missed, blocks that made room and those of them that were kept, and
    /// blocks that were damaged.
    public var hits: UInt64
    public var misses: UInt64
    public var evicted: UInt64
    public var moved: UInt64
    public var corrupt: UInt64
    /// The memory of the index.
    public var indexBytes: UInt64
    /// The parts that only some volumes use, by name; nil while they are not known, because home has not sent the key or what was kept of them
    /// can't be read.
    public var partitions: [CachePartition]?
    /// True when the cache has too little room for what was said of partitions, shares and pins, and keeps only a part.
    public var isLoosened: Bool

    public init(
        path: String, state: State, message: String? = nil, sizeBytes: UInt64 = 0, wantedSizeBytes: UInt64 = 0, isOwnSize: Bool = false,
        bytesToEmpty: UInt64 = 0, blocks: UInt64 = 0, sharedBlocks: UInt64 = 0, sharedReferences: UInt64 = 0, heldBytes: UInt64 = 0,
        storedBytes: UInt64 = 0, hits: UInt64 = 0, misses: UInt64 = 0, evicted: UInt64 = 0, moved: UInt64 = 0,
        corrupt: UInt64 = 0, indexBytes: UInt64 = 0, partitions: [CachePartition]? = nil, isLoosened: Bool = false
    ) {
        self.path = path
        self.state = state
        self.message = message
        self.sizeBytes = sizeBytes
        self.wantedSizeBytes = wantedSizeBytes
        self.isOwnSize = isOwnSize
        self.bytesToEmpty = bytesToEmpty
        self.blocks = blocks
        self.sharedBlocks = sharedBlocks
        self.sharedReferences = sharedReferences
        self.heldBytes = heldBytes
        self.storedBytes = storedBytes
        self.hits = hits
        self.misses = misses
        self.evicted = evicted
        self.moved = moved
        self.corrupt = corrupt
        self.indexBytes = indexBytes
        self.partitions = partitions
        self.isLoosened = isLoosened
    }
}

/// The body of `PATCH /v1/cache`.
public struct CacheChange: Codable, Sendable, Equatable {
    /// The size, from 16 MiB to 4 TiB; 0 for what the configuration says. It stays when it is left out.
    public var sizeBytes: UInt64?

    public init(sizeBytes: UInt64? = nil) { self.sizeBytes = sizeBytes }
}
