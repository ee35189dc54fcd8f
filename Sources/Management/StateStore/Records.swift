import Foundation
import GRDB

/// An edge that was paired, or this one.
public struct EdgeRecord: Codable, Equatable, Sendable, FetchableRecord, PersistableRecord {
    public static let databaseTableName = "edge"
    public var id: String
    public var name: String
    /// "onprem" or "cloud".
    public var role: String
    /// The serial number of its certificate in hexadecimal digits.
    public var certificateSerial: String
    public var createdAt: Date
    /// Set when the edge is no longer let in.
    public var revokedAt: Date?
    public var lastSeen: Date?
    /// Where it is dialled, as HOST:PORT; nil when it dials.
    public var address: String?

    public init(id: String, name: String, role: String, certificateSerial: String, createdAt: Date = Date()) {
        self.id = id
        self.name = name
        self.role = role
        self.certificateSerial = certificateSerial
        self.createdAt = createdAt
    }
}

/// A pairing token that was given out, known by the hash of its secret.
public struct PairingTokenRecord: Codable, Equatable, Sendable, FetchableRecord, PersistableRecord {
    public static let databaseTableName = "pairingToken"
    public var hash: String
    public var expires: Date
    public var used: Bool
    /// Where the edge that it is for is dialled, as HOST:PORT; nil when that edge dials.
    public var address: String?

    public init(hash: String, expires: Date, used: Bool = false, address: String? = nil) {
        self.address = address
        self.hash = hash
        self.expires = expires
        self.used = used
    }
}

/// A TCP service that is reached over the link to an edge.
public struct TunnelRecord: Codable, Equatable, Sendable, FetchableRecord, PersistableRecord {
    public static let databaseTableName = "tunnel"
    public var name: String
    /// The identifier of the cloud edge.
    public var edge: String
    /// Home listens, and the cloud edge connects; else it is the other way round.
    public var isToCloud: Bool
    /// HOST:PORT where connections are taken, and of the service.
    public var listen: String
    public var connect: String
    /// Its bytes go behind everything else.
    public var isBulk: Bool
    /// The networks from which clients may come, one a line.
    public var allow: String

    public init(name: String, edge: String, isToCloud: Bool, listen: String, connect: String, isBulk: Bool, allow: String) {
        self.name = name
        self.edge = edge
        self.isToCloud = isToCloud
        self.listen = listen
        self.connect = connect
        self.isBulk = isBulk
        self.allow = allow
    }
}

/// A disk that was made known by the API.
public struct DiskRecord: Codable, Equatable, Sendable, FetchableRecord, PersistableRecord {
    public static let databaseTableName = "disk"
    public var name: String
    public var path: String
    /// Its volumes are write protected.
    public var isReadOnly: Bool

    public init(name: String, path: String, isReadOnly: Bool = false) {
        self.name = name
        self.path = path
        self.isReadOnly = isReadOnly
    }
}

/// Where a volume stands.
public enum VolumeState: String, Codable, Sendable {
    /// An edge has the lease on its disk.
    case attached
    /// No edge has: the disk is at home, and nothing of it is elsewhere.
    case detached
}

/// An iSCSI target: what the volumes of one machine share.
public struct TargetRecord: Codable, Equatable, Sendable, FetchableRecord, PersistableRecord {
    public static let databaseTableName = "target"
    public var name: String
    /// Its iSCSI name.
    public var iqn: String
    public var chapUser: String
    public var chapSecret: String
    public var mutualChapUser: String?
    public var mutualChapSecret: String?
    /// The initiators that may use the target, one name a line; empty for all that know the secret.
    public var allowedInitiators: String

    public init(
        name: String, iqn: String, chapUser: String, chapSecret: String, mutualChapUser: String? = nil, mutualChapSecret: String? = nil,
        allowedInitiators: [String] = []
    ) {
        self.name = name
        self.iqn = iqn
        self.chapUser = chapUser
        self.chapSecret = chapSecret
        self.mutualChapUser = mutualChapUser
        self.mutualChapSecret = mutualChapSecret
        self.allowedInitiators = allowedInitiators.joined(separator: "\n")
    }
}

/// A volume: a disk as an edge serves it.
public struct VolumeRecord: Codable, Equatable, Sendable, FetchableRecord, PersistableRecord {
    public static let databaseTableName = "volume"
    public var name: String
    /// The identifier of the attachment, 32 hexadecimal digits.
    public var identifier: String
    /// The name of its disk.
    public var disk: String
    /// The edge that serves it; nil when it is detached.
    public var edge: String?
    public var state: VolumeState
    /// The name of its target.
    public var target: String
    /// Its logical unit number there.
    public var logicalUnit: Int
    /// The generation of its lease.
    public var generation: UInt64
    /// The write log at the cloud edge, once that has said which.
    public var logIdentifier: String?
    /// Policy: a point is sealed when the oldest write in it is this old; 0 when the volume follows its edge.
    public var recoveryPointObjectiveSeconds: Double
    /// Policy: a point is sealed when it has this many bytes.
    public var sealBytes: Int64
    /// Policy: how many past points of the disk are kept, and what they may take in bytes; 0 for none.
    public var keptPoints: UInt64 = 0
    public var keptBytes: UInt64 = 0
    /// Machines may read it only.
    public var isReadOnly = false
    /// Machines may eject its medium and load it.
    public var isRemovable = false
    /// The size of its disk in sectors that its edge has been told in this attachment; 0 for none. The disk may grow, not shrink.
    public var sectorCount: UInt64 = 0
    /// Limits, each nil for none.
    public var operationsPerSecond: UInt64?
    public var burstOperations: UInt64?
    public var bytesPerSecond: UInt64?
    public var burstBytes: UInt64?
    /// The name of its group; nil for none.
    public var volumeGroup: String?
    /// The last point on the disk when the last attachment ended; 0 when that is not known.
    public var closedPoint: UInt64 = 0

    public init(
        name: String, identifier: String, disk: String, target: String, logicalUnit: Int = 0,
        recoveryPointObjectiveSeconds: Double, sealBytes: Int64
    ) {
        self.name = name
        self.identifier = identifier
        self.disk = disk
        self.target = target
        self.logicalUnit = logicalUnit
        self.recoveryPointObjectiveSeconds = recoveryPointObjectiveSeconds
        self.sealBytes = sealBytes
        state = .detached
        generation = 0
    }
}

/// One generation of a volume's data key, for its attachment of now or its last one.
public struct DataKeyRecord: Codable, Equatable, Sendable, FetchableRecord, PersistableRecord {
    public static let databaseTableName = "dataKey"
    /// The name of the volume.
    public var volume: String
    /// The identifier of the attachment.
    public var identifier: String
    /// 1 for the first key of an attachment.
    public var generation: UInt64
    /// Wrapped by the edge's master key for this attachment and generation; nil when it was destroyed.
    public var wrappedKey: Data?
    public var madeAt: Date
    public var destroyedAt: Date?

    public init(volume: String, identifier: String, generation: UInt64, wrappedKey: Data, madeAt: Date) {
        self.volume = volume
        self.identifier = identifier
        self.generation = generation
        self.wrappedKey = wrappedKey
        self.madeAt = madeAt
    }
}

/// Volumes of one machine that have their points together.
public struct GroupRecord: Codable, Equatable, Sendable, FetchableRecord, PersistableRecord {
    public static let databaseTableName = "volumeGroup"
    public var name: String
    /// 32 hexadecimal digits.
    public var identifier: String
    /// Policy: a point is sealed when the oldest write in it is this old.
    public var recoveryPointObjectiveSeconds: Double
    /// Policy: a point is sealed when it has this many bytes of all volumes.
    public var sealBytes: Int64
    /// The number of the last point that was known when a journal that knew it went.
    public var lastPoint: Int64 = 0

    public init(name: String, identifier: String, recoveryPointObjectiveSeconds: Double, sealBytes: Int64) {
        self.name = name
        self.identifier = identifier
        self.recoveryPointObjectiveSeconds = recoveryPointObjectiveSeconds
        self.sealBytes = sealBytes
    }
}

/// A token of the HTTP API, known by its hash.
public struct APITokenRecord: Codable, Equatable, Sendable, FetchableRecord, PersistableRecord {
    public static let databaseTableName = "apiToken"
    public var hash: String
    public var name: String
    public var role: String

    public init(hash: String, name: String, role: String) {
        self.hash = hash
        self.name = name
        self.role = role
    }
}

/// Something that happened.
public struct EventRecord: Codable, Equatable, Sendable, FetchableRecord {
    /// Grows with each event, and is never used again.
    public var sequence: Int64
    public var time: Date
    /// What kind of thing: `volume.attached`, `link.lost`.
    public var kind: String
    /// What it happened to.
    public var subject: String
    public var message: String
}
