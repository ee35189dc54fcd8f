/// The body of `POST /v1/volumes`.
public struct VolumeCreate: Codable, Sendable, Equatable {
    /// The names and secrets of CHAP (RFC 7143, section 12.1).
    public struct Chap: Codable, Sendable, Equatable {
        /// The user that the initiator logs in as.
        public var user: String
        /// 12 to 255 bytes.
        public var secret: String
        /// The user that the target proves to be; asks for mutual CHAP together with `mutualSecret`.
        public var mutualUser: String?
        /// 12 to 255 bytes, other than `secret`.
        public var mutualSecret: String?

        public init(user: String, secret: String, mutualUser: String? = nil, mutualSecret: String? = nil) {
            self.user = user
            self.secret = secret
            self.mutualUser = mutualUser
            self.mutualSecret = mutualSecret
        }
    }

    public var name: String
    /// The name of the disk.
    public var disk: String
    /// The identifier or name of the cloud edge; may be left out when only one is paired.
    public var edge: String?
    /// The target, which volumes of one machine share; one of its own, called like the volume, when left out.
    public var target: String?
    /// The logical unit number there; the lowest free one when left out.
    public var logicalUnit: Int?
    /// Generated when left out. A target that is there has them already.
    public var chap: Chap?
    /// Initiator names that may log in; everyone with the secret when left out. A target that is there has them already.
    public var allowedInitiators: [String]?
    /// The edge's default when left out.
    public var policy: Volume.Policy?
    /// No past points are kept when left out.
    public var keeping: Volume.Keeping?
    /// No limits when left out.
    public var limits: Volume.Limits?
    /// Machines may only read it; false when left out.
    public var readOnly: Bool?
    /// Machines may eject its medium and load it, as that of a drive for images; false when left out.
    public var removable: Bool?
    /// Serve it at once; true when left out.
    public var attach: Bool?

    public init(
        name: String, disk: String, edge: String? = nil, target: String? = nil, logicalUnit: Int? = nil, chap: Chap? = nil,
        allowedInitiators: [String]? = nil, policy: Volume.Policy? = nil, keeping: Volume.Keeping? = nil, limits: Volume.Limits? = nil,
        readOnly: Bool? = nil, removable: Bool? = nil, attach: Bool? = nil
    ) {
        self.name = name
        self.disk = disk
        self.edge = edge
        self.target = target
        self.logicalUnit = logicalUnit
        self.chap = chap
        self.allowedInitiators = allowedInitiators
        self.policy = policy
        self.keeping = keeping
        self.limits = limits
        self.readOnly = readOnly
        self.removable = removable
        self.attach = attach
    }
}

/// The body of `PATCH /v1/volumes/{name}`: what is left out stays as it is.
public struct VolumeChange: Codable, Sendable, Equatable {
    /// When points are sealed.
    public var policy: Volume.Policy?
    /// How many past points are kept at home. With fewer than before the oldest go at once.
    public var keeping: Volume.Keeping?
    /// The limits from now on, all of them: what is missing in here is not limited. An empty object lifts them.
    public var limits: Volume.Limits?
    /// Machines may only read it.
    public var readOnly: Bool?
    /// How large its write log may grow at the cloud edge that serves it; 0 for that edge's own size. The one thing that a cloud
    /// edge changes by itself too: it is needed most while home can't be reached.
    public var writeLogSizeBytes: UInt64?

    public init(
        policy: Volume.Policy? = nil, keeping: Volume.Keeping? = nil, limits: Volume.Limits? = nil, readOnly: Bool? = nil,
        writeLogSizeBytes: UInt64? = nil
    ) {
        self.policy = policy
        self.keeping = keeping
        self.limits = limits
        self.readOnly = readOnly
        self.writeLogSizeBytes = writeLogSizeBytes
    }
}

/// The body of `POST /v1/volumes/{name}/attach`; the body itself may be left out.
public struct AttachRequest: Codable, Sendable, Equatable {
    /// The identifier or name of the cloud edge; the only paired one when left out.
    public var edge: String?

    public init(edge: String? = nil) {
        self.edge = edge
    }
}

/// How a machine logs in to a volume: `GET /v1/volumes/{name}/credentials`. With the recovery keys
/// it is the only answer that holds secrets of a volume.
public struct VolumeCredentials: Codable, Sendable, Equatable {
    public var user: String
    public var secret: String
    public var mutualUser: String?
    public var mutualSecret: String?
    /// libiscsi's form: `iscsi://user%secret@host:port/iqn/lun`; nil while no edge serves the volume.
    public var url: String?

    public init(user: String, secret: String, mutualUser: String? = nil, mutualSecret: String? = nil, url: String? = nil) {
        self.user = user
        self.secret = secret
        self.mutualUser = mutualUser
        self.mutualSecret = mutualSecret
        self.url = url
    }
}

/// The answer of `POST /v1/volumes/{name}/seal`.
public struct SealResult: Codable, Sendable, Equatable {
    /// How far a point has come.
    public enum State: String, Codable, Sendable, CaseIterable, Comparable {
        /// Closed in the cloud edge's write log.
        case sealed
        /// Durable in the on-prem edge's journal.
        case received
        /// On the disk.
        case applied

        public static func < (left: State, right: State) -> Bool {
            left.order < right.order
        }

        private var order: Int {
            switch self {
            case .sealed: 0
            case .received: 1
            case .applied: 2
            }
        }
    }

    /// The volume's name.
    public var volume: String
    /// The number of the point that holds every write acknowledged before the request.
    public var point: UInt64
    /// How far the point had come when the answer was made.
    public var state: State

    public init(volume: String, point: UInt64, state: State) {
        self.volume = volume
        self.point = point
        self.state = state
    }
}

/// The body of `POST /v1/volumes/{name}/detach`; the body itself may be left out.
public struct DetachRequest: Codable, Sendable, Equatable {
    /// Detach although writes are unsent or the cloud edge does not answer, and lose them; false when left out.
    public var force: Bool?
    /// The past point that the disk goes back to once the volume is detached; all that came later is gone. Of a volume only.
    public var toPoint: UInt64?

    public init(force: Bool? = nil, toPoint: UInt64? = nil) {
        self.force = force
        self.toPoint = toPoint
    }
}

/// The answer of `POST /v1/volumes/{name}/detach`.
public struct DetachResult: Codable, Sendable, Equatable {
    /// The volume's name.
    public var volume: String
    /// Acknowledged writes that were given up, in bytes: zero unless forced; nil when forced and not known.
    public var unsentBytes: UInt64?
    /// True when the detach did not wait for the writes.
    public var forced: Bool
    /// Points that home has received beyond the group's last common one: kept, and not on the disk. Nil for none.
    public var heldPoints: UInt64?
    /// The point that the disk is at; nil where nobody knows.
    public var point: UInt64?

    public init(volume: String, unsentBytes: UInt64?, forced: Bool = false, heldPoints: UInt64? = nil, point: UInt64? = nil) {
        self.heldPoints = heldPoints
        self.point = point
        self.volume = volume
        self.unsentBytes = unsentBytes
        self.forced = forced
    }
}
