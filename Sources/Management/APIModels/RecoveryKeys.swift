import Foundation

/// What it takes to read a cloud edge's state without the on-prem edge: the answer of `POST /v1/volumes/{name}/recovery-key` and of
/// `POST /v1/recovery-keys`, and the file that `causeway recover` reads. Who has it can read the volumes' unsent writes.
public struct RecoveryKeys: Codable, Sendable, Equatable {
    /// The form that this program writes, and the newest that it reads.
    public static let currentVersion = 2

    /// One generation of the key of a volume, as it is attached now or was last.
    public struct VolumeKey: Codable, Sendable, Equatable, CustomStringConvertible {
        /// The volume's name.
        public var volume: String
        /// The identifier of its attachment, under which a cloud edge knows it.
        public var identifier: String
        /// The name of its disk.
        public var disk: String
        /// The size of the disk in sectors of 512 bytes; 0 when the disk could not be asked.
        public var sectorCount: UInt64
        /// Which of the volume's keys this is; nil in version 1, which knew one: generation 1.
        public var generation: UInt64?
        /// 32 bytes, in base64.
        public var dataKey: Data

        public init(volume: String, identifier: String, disk: String, sectorCount: UInt64, generation: UInt64? = nil, dataKey: Data) {
            self.volume = volume
            self.identifier = identifier
            self.disk = disk
            self.sectorCount = sectorCount
            self.generation = generation
            self.dataKey = dataKey
        }

        public var description: String { "the key of volume \(volume)" }
    }

    /// The key of a cloud edge's cache tables, without which the blocks in it can't be found.
    public struct CacheKey: Codable, Sendable, Equatable, CustomStringConvertible {
        /// The cloud edge's identifier.
        public var edge: String
        /// 32 bytes, in base64.
        public var key: Data

        public init(edge: String, key: Data) {
            self.edge = edge
            self.key = key
        }

        public var description: String { "the cache key of edge \(edge)" }
    }

    /// The version of this form.
    public var version: Int
    /// When the keys were exported. A volume that was attached again since, or whose key was rotated, has another key.
    public var exportedAt: Date
    /// The identifier of the on-prem edge that they come from.
    public var onPremEdge: String
    public var volumes: [VolumeKey]
    /// Only in an export of the whole edge.
    public var caches: [CacheKey]

    public init(
        version: Int = RecoveryKeys.currentVersion, exportedAt: Date, onPremEdge: String, volumes: [VolumeKey], caches: [CacheKey] = []
    ) {
        self.version = version
        self.exportedAt = exportedAt
        self.onPremEdge = onPremEdge
        self.volumes = volumes
        self.caches = caches
    }
}
