/// A disk as it is served to a machine at another edge: an item of `GET /v1/volumes`.
public struct Volume: Codable, Sendable, Equatable {
    /// Where a volume is in its life.
    public enum State: String, Codable, Sendable, CaseIterable {
        /// Known, served nowhere.
        case detached
        case attaching
        /// Served, with the link up.
        case serving
        /// Served from the cache and the write log; what is not cached fails or waits.
        case linkDown
        /// Served for reads; writes wait because the write log has no room.
        case full
        /// A newer lease exists elsewhere; this edge must not serve it again.
        case fenced
        /// Stopped by an error that `message` names.
        case stopped
        case detaching
    }

    /// Where a machine finds the volume.
    public struct Target: Codable, Sendable, Equatable {
        /// What volumes of the same target name; nil at an edge that is not told.
        public var name: String?
        /// The iSCSI qualified name.
        public var iqn: String
        public var logicalUnit: Int
        /// `host:port` of each portal.
        public var portals: [String]
        /// The user that the initiator logs in as; nil when the target asks for none.
        public var chapUser: String?
        /// True when the target proves itself to the initiator as well. JSON key: `mutual`.
        public var mutual: Bool

        public init(
            name: String? = nil, iqn: String, logicalUnit: Int = 0, portals: [String] = [], chapUser: String? = nil, mutual: Bool = false
        ) {
            self.name = name
            self.iqn = iqn
            self.logicalUnit = logicalUnit
            self.portals = portals
            self.chapUser = chapUser
            self.mutual = mutual
        }
    }

    /// The newest consistency points, by number; zero means none yet.
    public struct Points: Codable, Sendable, Equatable {
        /// Sealed at the cloud edge.
        public var lastSealed: UInt64
        /// Durable at the on-prem edge, in its journal.
        public var received: UInt64
        /// On the disk.
        public var applied: UInt64
        /// At home: whether the writers were at rest for the applied point, and what it is called; nil where nobody said anything of it.
        public var appliedConsistency: Bracket.Consistency?
        public var appliedLabel: String?

        public init(
            lastSealed: UInt64 = 0, received: UInt64 = 0, applied: UInt64 = 0, appliedConsistency: Bracket.Consistency? = nil,
            appliedLabel: String? = nil
        ) {
            self.lastSealed = lastSealed
            self.received = received
            self.applied = applied
            self.appliedConsistency = appliedConsistency
            self.appliedLabel = appliedLabel
        }
    }

    /// Acknowledged writes that the on-prem edge does not have yet: what a lost cloud edge would lose.
    public struct Unsent: Codable, Sendable, Equatable {
        public var bytes: UInt64
        /// Sealed points that were not received yet.
        public var points: Int
        /// Age of the oldest unsent write, in seconds; nil when there is none.
        public var oldestSeconds: Double?

        public init(bytes: UInt64 = 0, points: Int = 0, oldestSeconds: Double? = nil) {
            self.bytes = bytes
            self.points = points
            self.oldestSeconds = oldestSeconds
        }
    }

    /// The log of what is unsent, on the cloud edge's disk. From 75 % of its size on writers are slowed; in a full one they wait.
    public struct WriteLog: Codable, Sendable, Equatable {
        /// What it takes on disk; or eight times `indexBytes`, when that is more.
        public var usedBytes: UInt64
        /// What its index takes of memory; nil from an edge that does not tell.
        public var indexBytes: UInt64?
        /// What it may take.
        public var sizeBytes: UInt64
        /// True when the size was set for this volume, and is not the edge's own.
        public var isOwnSize: Bool
        /// How long until it is full if all goes on as in the last minutes; nil while it does not fill.
        public var fullInSeconds: Double?
        /// Writes that had to wait because it was full or nearly so, since the edge opened the volume.
        public var waitedWrites: UInt64
        /// How long they waited, all together.
        public var waitSeconds: Double

        public init(
            usedBytes: UInt64 = 0, sizeBytes: UInt64 = 0, isOwnSize: Bool = false, fullInSeconds: Double? = nil, waitedWrites: UInt64 = 0,
            waitSeconds: Double = 0, indexBytes: UInt64? = nil
        ) {
            self.usedBytes = usedBytes
            self.indexBytes = indexBytes
            self.sizeBytes = sizeBytes
            self.isOwnSize = isOwnSize
            self.fullInSeconds = fullInSeconds
            self.waitedWrites = waitedWrites
            self.waitSeconds = waitSeconds
        }

        /// How full it is, in percent.
        public var usedPercent: Double { sizeBytes == 0 ? 0 : Double(usedBytes) / Double(sizeBytes) * 100 }
    }

    /// What the cloud edge's cache holds of the volume, and how it served since the edge started.
    public struct Cache: Codable, Sendable, Equatable {
        /// Blocks of 4 KiB.
        public var blocks: UInt64
        public var bytes: UInt64
        /// Blocks read that were there.
        public var hits: UInt64
        /// Blocks read that had to be fetched.
        public var misses: UInt64
        /// Blocks found damaged and fetched again.
        public var corrupt: UInt64

        public init(blocks: UInt64 = 0, bytes: UInt64 = 0, hits: UInt64 = 0, misses: UInt64 = 0, corrupt: UInt64 = 0) {
            self.blocks = blocks
            self.bytes = bytes
            self.hits = hits
            self.misses = misses
            self.corrupt = corrupt
        }
    }

    /// When points are sealed.
    public struct Policy: Codable, Sendable, Equatable {
        /// At least this often while there are writes, in seconds.
        public var recoveryPointObjectiveSeconds: Double
        /// As soon as this much was written.
        public var sealBytes: UInt64

        public init(recoveryPointObjectiveSeconds: Double = 5, sealBytes: UInt64 = 64 << 20) {
            self.recoveryPointObjectiveSeconds = recoveryPointObjectiveSeconds
            self.sealBytes = sealBytes
        }
    }

    /// How many of the points that the disk was at are kept at home.
    public struct Keeping: Codable, Sendable, Equatable {
        /// The most that may be kept: each is a file.
        public static let pointsMax: UInt64 = 1_000

        /// How many before the one that the disk is at; 0 for none.
        public var points: UInt64
        /// What they may take in the on-prem edge's state directory; beyond it the oldest go.
        public var bytes: UInt64

        public init(points: UInt64, bytes: UInt64 = 32 << 30) {
            self.points = points
            self.bytes = bytes
        }
    }

    /// How much machines may ask of a volume. What is nil is not limited; a burst is what a volume that was quiet may do at once,
    /// a tenth of a second's worth when it is nil.
    public struct Limits: Codable, Sendable, Equatable {
        /// Reads, writes and unmaps, whatever their size.
        public var operationsPerSecond: UInt64?
        public var burstOperations: UInt64?
        /// Bytes read and written.
        public var bytesPerSecond: UInt64?
        public var burstBytes: UInt64?

        public init(
            operationsPerSecond: UInt64? = nil, burstOperations: UInt64? = nil, bytesPerSecond: UInt64? = nil, burstBytes: UInt64? = nil
        ) {
            self.operationsPerSecond = operationsPerSecond
            self.burstOperations = burstOperations
            self.bytesPerSecond = bytesPerSecond
            self.burstBytes = burstBytes
        }

        /// True when nothing is limited.
        public var isEmpty: Bool { self == Limits() }
    }

    /// What the limits did since the cloud edge opened the volume.
    public struct Throttle: Codable, Sendable, Equatable {
        /// Operations that had to wait.
        public var operations: UInt64
        /// How long they waited, all together.
        public var waitSeconds: Double
        /// Operations among them that waited too long, and that the machine was told to repeat.
        public var refused: UInt64
        /// Operations that wait now.
        public var waiting: Int

        public init(operations: UInt64 = 0, waitSeconds: Double = 0, refused: UInt64 = 0, waiting: Int = 0) {
            self.operations = operations
            self.waitSeconds = waitSeconds
            self.refused = refused
            self.waiting = waiting
        }
    }

    /// What machines asked for since the edge started. JSON key: `io`.
    public struct IO: Codable, Sendable, Equatable {
        public var readBytes: UInt64
        public var writtenBytes: UInt64
        /// Commands.
        public var reads: UInt64
        public var writes: UInt64
        /// Bytes of points that were prepared for the link, before compression and de-duplication; anew what a lost session has to send again.
        public var sentBytes: UInt64

        public init(readBytes: UInt64 = 0, writtenBytes: UInt64 = 0, reads: UInt64 = 0, writes: UInt64 = 0, sentBytes: UInt64 = 0) {
            self.readBytes = readBytes
            self.writtenBytes = writtenBytes
            self.reads = reads
            self.writes = writes
            self.sentBytes = sentBytes
        }
    }

    /// The name the operator gave. A cloud edge shows it only while it knows it from the link; else the identifier.
    public var name: String
    /// Random and new with each attach, in hexadecimal.
    public var identifier: String
    /// The name of the disk; nil on an edge that is not told.
    public var disk: String?
    /// The identifier of the cloud edge that serves it; nil while detached.
    public var edge: String?
    public var state: State
    /// What is wrong and what to do; nil when all is well.
    public var message: String?
    public var sizeBytes: UInt64
    /// Nil until an edge served it.
    public var target: Target?
    /// The libiscsi URL without the secret; `GET /v1/volumes/{name}/credentials` has the whole one.
    public var url: String?
    /// Where an NBD client finds the volume, like `nbd://127.0.0.1:10809/mail`; nil when its edge does not serve NBD.
    public var nbdURL: String?
    /// The generation of the lease: grows with each attach.
    public var generation: UInt64
    public var points: Points
    /// What is not durable at home; nil at home when the cloud edge can't be asked.
    public var unsent: Unsent?
    /// Where what is unsent is kept; nil where nobody knows.
    public var writeLog: WriteLog?
    /// Nil at an edge that has no cache of it.
    public var cache: Cache?
    /// Bytes that only the cloud edge has, and that don't go home; nil when the volume has no cloud-only disk.
    public var cloudOnlyBytes: UInt64?
    public var policy: Policy
    /// How many past points are kept at home; nil when none are, and where nobody knows.
    public var keeping: Keeping?
    /// Nil when nothing is limited.
    public var limits: Limits?
    /// Nil where nobody knows.
    public var throttle: Throttle?
    /// True when machines may only read it; nil on an edge that does not know.
    public var readOnly: Bool?
    /// True when machines may eject the medium and load it.
    public var removable: Bool?
    public var io: IO

    public init(
        name: String, identifier: String, disk: String? = nil, edge: String? = nil, state: State, message: String? = nil,
        sizeBytes: UInt64, target: Target? = nil, url: String? = nil, nbdURL: String? = nil, generation: UInt64 = 0,
        points: Points = Points(), unsent: Unsent? = nil, writeLog: WriteLog? = nil, cache: Cache? = nil, cloudOnlyBytes: UInt64? = nil,
        policy: Policy = Policy(), keeping: Keeping? = nil, limits: Limits? = nil,
        throttle: Throttle? = nil,
        readOnly: Bool? = nil, removable: Bool? = nil, io: IO = IO()
    ) {
        self.name = name
        self.identifier = identifier
        self.disk = disk
        self.edge = edge
        self.state = state
        self.message = message
        self.sizeBytes = sizeBytes
        self.target = target
        self.url = url
        self.nbdURL = nbdURL
        self.generation = generation
        self.points = points
        self.unsent = unsent
        self.writeLog = writeLog
        self.cache = cache
        self.cloudOnlyBytes = cloudOnlyBytes
        self.policy = policy
        self.keeping = keeping
        self.limits = limits
        self.throttle = throttle
        self.readOnly = readOnly
        self.removable = removable
        self.io = io
    }
}
