/// Which writes of a volume go home, and what it holds of those that do not.
public struct VolumeRegions: Codable, Sendable, Equatable {
    /// Where writes go.
    public enum Policy: String, Codable, Sendable, CaseIterable {
        /// Home, with the volume's points.
        case onPrem = "onprem"
        /// To the cloud edge's own disk, and nowhere else.
        case cloudOnly = "cloud-only"
    }

    /// Who has made a region.
    public enum Origin: String, Codable, Sendable, CaseIterable {
        case `operator`
        /// The analysis of an image.
        case found
    }

    /// A range of the volume with a policy of its own.
    public struct Region: Codable, Sendable, Equatable {
        /// Where it begins on the disk, and how long it is, in bytes.
        public var startBytes: UInt64
        public var sizeBytes: UInt64
        public var policy: Policy
        public var origin: Origin
        /// The bytes of it that only the cloud edge has.
        public var cloudOnlyBytes: UInt64

        public init(startBytes: UInt64, sizeBytes: UInt64, policy: Policy, origin: Origin, cloudOnlyBytes: UInt64) {
            self.startBytes = startBytes
            self.sizeBytes = sizeBytes
            self.policy = policy
            self.origin = origin
            self.cloudOnlyBytes = cloudOnlyBytes
        }
    }

    /// The name of the volume.
    public var volume: String
    /// Where writes go that are in no region.
    public var defaultPolicy: Policy
    /// In the order of their starts.
    public var regions: [Region]
    /// How many regions the volume may have.
    public var regionsMax: Int
    /// The bytes that only the cloud edge has, in all of the volume.
    public var cloudOnlyBytes: UInt64
    /// Cloud-only writes are being brought home.
    public var imaging: Bool

    public init(
        volume: String, defaultPolicy: Policy, regions: [Region], regionsMax: Int, cloudOnlyBytes: UInt64, imaging: Bool
    ) {
        self.volume = volume
        self.defaultPolicy = defaultPolicy
        self.regions = regions
        self.regionsMax = regionsMax
        self.cloudOnlyBytes = cloudOnlyBytes
        self.imaging = imaging
    }
}

/// The body of `PATCH /v1/volumes/{name}/regions`: what is to change of one range.
public struct RegionChange: Codable, Sendable, Equatable {
    /// The policy that a range is to have.
    public enum Policy: String, Codable, Sendable, CaseIterable {
        case onPrem = "onprem"
        case cloudOnly = "cloud-only"
        /// That of the volume: the range is in no region any more.
        case `default`
    }

    /// What becomes of the cloud-only writes that are in the range.
    public enum Writes: String, Codable, Sendable, CaseIterable {
        /// They go home, as ordinary writes.
        case image
        /// They are forgotten: what home has shows again.
        case discard
        /// They stay at the cloud edge.
        case keep
    }

    /// Where the range begins, and how long it is, in bytes; the whole volume, and its default policy, when both are left out.
    public var startBytes: UInt64?
    public var sizeBytes: UInt64?
    /// As it is when left out.
    public var policy: Policy?
    /// Kept when left out, but brought home from a range that is made on-prem.
    public var writes: Writes?
    /// Who says so; the operator when left out.
    public var origin: VolumeRegions.Origin?

    public init(
        startBytes: UInt64? = nil, sizeBytes: UInt64? = nil, policy: Policy? = nil, writes: Writes? = nil,
        origin: VolumeRegions.Origin? = nil
    ) {
        self.startBytes = startBytes
        self.sizeBytes = sizeBytes
        self.policy = policy
        self.writes = writes
        self.origin = origin
    }
}
