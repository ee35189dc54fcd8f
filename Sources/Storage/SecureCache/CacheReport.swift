import Blocks
import Ciphers

/// What is wrong with a file of a cache.
public struct CacheDamage: Equatable, Sendable {
    /// The name of the file of records; nil for the file of the blocks.
    public let file: String?
    /// Where in the file, in bytes.
    public let offset: UInt64
    /// What is wrong, for people.
    public let text: String
}

/// A block that is not what its volume put into the cache.
public struct CacheBlockDamage: Equatable, Sendable {
    /// How it is not.
    public enum Kind: String, CaseIterable, Codable, Sendable {
        /// Bytes have changed.
        case corrupt
        /// A part of it was never written.
        case torn
        /// It is another block of the same segment.
        case misplaced
        /// Nothing was ever written there, or the file has become shorter.
        case missing
        /// The device does not give it.
        case unreadable
    }

    public let kind: Kind
    /// Where in the file of the blocks, in bytes.
    public let offset: UInt64
    public let volume: VolumeIdentifier
    public let block: UInt64
}

/// What a cache was found to hold by somebody who only looked.
public struct CacheReport: Equatable, Sendable {
    /// A file of records.
    public struct RecordFile: Equatable, Sendable {
        /// What it is worth.
        public enum State: String, Codable, Sendable {
            /// All of it counts that is to count.
            case whole
            /// The end is not whole, as a crash leaves it; what is before it counts.
            case torn
            /// A checkpoint that was never completed, or a file that was never begun: as a crash leaves it.
            case unfinished
            /// What no crash of the program leaves.
            case damaged
            /// It counts no more, or not yet; the next start removes it.
            case unused
        }

        public let name: String
        public internal(set) var state: State
        /// Parts that were sealed at once, and can be read; and the bytes up to their end.
        public let fragmentCount: Int
        public let byteCount: UInt64
    }

    /// What the records say of a volume, and what was found of that.
    public struct Volume: Equatable, Sendable {
        public let identifier: VolumeIdentifier
        /// The generation of the key that its blocks are under.
        public let keyGeneration: KeyGeneration
        /// The cache has everything of the volume's points up to this one.
        public let current: PointNumber
        /// Its key is not at hand: which blocks the cache has of it is hidden, and what is counted here is not all.
        public let isHidden: Bool
        /// Blocks with data, and blocks that are known to be zeroes.
        public let blockCount: UInt64
        public let zeroBlockCount: UInt64
        /// Of the blocks with data: those that are what the volume put there; those that are not; and those that a run that ended had not
        /// written yet.
        public internal(set) var authentic: UInt64 = 0
        public internal(set) var damaged: UInt64 = 0
        public internal(set) var unwritten: UInt64 = 0
    }

    /// The version of the format, and the length of a segment.
    public internal(set) var version: UInt16
    public internal(set) var segmentBytes: Int
    /// How large the file or device of the blocks is.
    public internal(set) var byteCount: UInt64
    /// Files of records, oldest first.
    public internal(set) var recordFiles: [RecordFile] = []
    /// Why the records tell nothing: a daemon begins without blocks. Nil when they do.
    public internal(set) var loss: String?
    public internal(set) var volumes: [Volume] = []
    /// Segments with blocks, and those of them whose owners can't be read.
    public internal(set) var segmentCount = 0
    public internal(set) var segmentsWithoutOwners = 0
    /// Blocks that are not what was written, by what is wrong with them.
    public internal(set) var counts: [CacheBlockDamage.Kind: UInt64] = [:]
    /// The first of them, and the first of all else that is wrong: at most `damagesMax` each.
    public internal(set) var blockDamages: [CacheBlockDamage] = []
    public internal(set) var damages: [CacheDamage] = []
    /// How many are listed.
    public static let damagesMax = 100

    /// True when nothing is wrong but what a crash leaves.
    public var isWhole: Bool { loss == nil && damages.isEmpty && counts.isEmpty }

    mutating func note(_ damage: CacheDamage) {
        if damages.count < Self.damagesMax { damages.append(damage) }
    }

    mutating func note(_ damage: CacheBlockDamage) {
        counts[damage.kind, default: 0] += 1
        if blockDamages.count < Self.damagesMax { blockDamages.append(damage) }
    }
}

/// Why a cache can't be verified.
public enum CacheVerificationError: Error, Equatable, Sendable {
    /// The file does not begin as that of a cache's blocks.
    case noCache
    /// The format is of a version that this one does not know.
    case version(UInt16)
    /// There are no records, so nobody knows what the segments hold.
    case noRecords(segmentCount: Int)
    /// There are records, and none of the keys opens one.
    case wrongKey
    /// The file system or the device failed.
    case file(StorageFileError)
}
