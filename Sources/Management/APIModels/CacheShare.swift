/// A part of the cache that only some volumes use.
public struct CachePartition: Codable, Sendable, Equatable {
    /// What the part outside of all partitions is called in tables and metrics: no partition gets that name.
    public static let sharedName = "shared"

    public var name: String
    /// The size, as it was set.
    public var sizeBytes: UInt64
    /// What is used of it, in whole segments.
    public var heldBytes: UInt64

    public init(name: String, sizeBytes: UInt64, heldBytes: UInt64) {
        self.name = name
        self.sizeBytes = sizeBytes
        self.heldBytes = heldBytes
    }
}

/// The body of `PUT /v1/cache/partitions/{name}`.
public struct CachePartitionSize: Codable, Sendable, Equatable {
    public var sizeBytes: UInt64

    public init(sizeBytes: UInt64) { self.sizeBytes = sizeBytes }
}

/// What one volume may have of the cache, and has, as `GET /v1/volumes/{name}/cache` shows it.
public struct CacheShare: Codable, Sendable, Equatable {
    /// A range of the volume that stays in the cache once it is there.
    public struct Pin: Codable, Sendable, Equatable {
        public var startBytes: UInt64
        public var sizeBytes: UInt64

        public init(startBytes: UInt64, sizeBytes: UInt64) {
            self.startBytes = startBytes
            self.sizeBytes = sizeBytes
        }
    }

    public var volume: String
    /// The partition that it is in; nil for the shared one.
    public var partition: String?
    /// So much of its partition no other volume takes from it.
    public var guaranteedBytes: UInt64
    /// More it never has; nil for as much as there is.
    public var mostBytes: UInt64?
    public var pins: [Pin]
    /// How much is pinned, and how much of that is in the cache.
    public var pinnedBytes: UInt64
    public var pinnedHeldBytes: UInt64
    /// How much of its blocks is in the cache.
    public var heldBytes: UInt64

    public init(
        volume: String, partition: String? = nil, guaranteedBytes: UInt64 = 0, mostBytes: UInt64? = nil, pins: [Pin] = [],
        pinnedBytes: UInt64 = 0, pinnedHeldBytes: UInt64 = 0, heldBytes: UInt64 = 0
    ) {
        self.volume = volume
        self.partition = partition
        self.guaranteedBytes = guaranteedBytes
        self.mostBytes = mostBytes
        self.pins = pins
        self.pinnedBytes = pinnedBytes
        self.pinnedHeldBytes = pinnedHeldBytes
        self.heldBytes = heldBytes
    }
}

/// The body of `PATCH /v1/volumes/{name}/cache`: what is left out stays.
public struct CacheShareChange: Codable, Sendable, Equatable {
    /// The partition that the volume is to use; empty for the shared one.
    public var partition: String?
    /// 0 for no guarantee.
    public var guaranteedBytes: UInt64?
    /// 0 for as much as there is.
    public var mostBytes: UInt64?
    /// Ranges to pin, and ranges that are pinned no more; the latter first.
    public var pin: [CacheShare.Pin]?
    public var unpin: [CacheShare.Pin]?

    public init(
        partition: String? = nil, guaranteedBytes: UInt64? = nil, mostBytes: UInt64? = nil, pin: [CacheShare.Pin]? = nil,
        unpin: [CacheShare.Pin]? = nil
    ) {
        self.partition = partition
        self.guaranteedBytes = guaranteedBytes
        self.mostBytes = mostBytes
        self.pin = pin
        self.unpin = unpin
    }
}
