/// Volumes of one machine that have their points together, as `GET /v1/groups` shows it.
public struct VolumeGroup: Codable, Sendable, Equatable {
    /// Where one volume stands in the last point of the group.
    public struct Member: Codable, Sendable, Equatable {
        /// The volume's name.
        public var volume: String
        /// The volume's own point in the group's last point; nil when it has no part in it.
        public var point: UInt64?
        /// The volume's last point that is durable at home, and the last on the disk.
        public var received: UInt64
        public var applied: UInt64

        public init(volume: String, point: UInt64?, received: UInt64, applied: UInt64) {
            self.volume = volume
            self.point = point
            self.received = received
            self.applied = applied
        }
    }

    /// How long the cloud edge took no other command while it made the points.
    public struct Cut: Codable, Sendable, Equatable {
        public var count: UInt64
        public var lastSeconds: Double
        public var longestSeconds: Double

        public init(count: UInt64, lastSeconds: Double, longestSeconds: Double) {
            self.count = count
            self.lastSeconds = lastSeconds
            self.longestSeconds = longestSeconds
        }
    }

    public var name: String
    /// Random and permanent, in hexadecimal.
    public var identifier: String
    /// The number of the last point: at a cloud edge of what is sealed there, at home of what all disks have gone to.
    public var point: UInt64
    /// True when every volume that is attached is on its part of the point, at home.
    public var applied: Bool
    public var members: [Member]
    public var policy: Volume.Policy
    /// Nil where nobody knows.
    public var cut: Cut?

    public init(
        name: String, identifier: String, point: UInt64 = 0, applied: Bool = true, members: [Member], policy: Volume.Policy,
        cut: Cut? = nil
    ) {
        self.name = name
        self.identifier = identifier
        self.point = point
        self.applied = applied
        self.members = members
        self.policy = policy
        self.cut = cut
    }
}

/// The body of `POST /v1/groups`.
public struct GroupCreate: Codable, Sendable, Equatable {
    public var name: String
    /// The names of its volumes.
    public var volumes: [String]
    /// When points are sealed; a point each 5 s or 64 MiB when left out.
    public var policy: Volume.Policy?

    public init(name: String, volumes: [String], policy: Volume.Policy? = nil) {
        self.name = name
        self.volumes = volumes
        self.policy = policy
    }
}

/// The body of `PATCH /v1/groups/{name}`: what is left out stays as it is.
public struct GroupChange: Codable, Sendable, Equatable {
    /// The names of all its volumes from now on.
    public var volumes: [String]?
    public var policy: Volume.Policy?

    public init(volumes: [String]? = nil, policy: Volume.Policy? = nil) {
        self.volumes = volumes
        self.policy = policy
    }
}

/// The answer of `POST /v1/groups/{name}/detach`, whose body is a `DetachRequest`.
public struct GroupDetachResult: Codable, Sendable, Equatable {
    /// The group's name.
    public var group: String
    /// What became of each volume that was attached.
    public var volumes: [DetachResult]
    /// True when the detach did not wait for the writes: the disks are at the last point that they have in common.
    public var forced: Bool

    public init(group: String, volumes: [DetachResult], forced: Bool) {
        self.group = group
        self.volumes = volumes
        self.forced = forced
    }
}

/// The answer of `POST /v1/groups/{name}/seal`.
public struct GroupSealResult: Codable, Sendable, Equatable {
    /// One volume's part.
    public struct Member: Codable, Sendable, Equatable {
        public var volume: String
        public var point: UInt64

        public init(volume: String, point: UInt64) {
            self.volume = volume
            self.point = point
        }
    }

    /// The group's name.
    public var group: String
    /// The number of the point that holds every write to any of the volumes that was acknowledged before the request.
    public var point: UInt64
    public var members: [Member]
    /// How far all of it had come when the answer was made.
    public var state: SealResult.State

    public init(group: String, point: UInt64, members: [Member], state: SealResult.State) {
        self.group = group
        self.point = point
        self.members = members
        self.state = state
    }
}
