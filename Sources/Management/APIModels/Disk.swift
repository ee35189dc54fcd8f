/// Storage that an on-prem edge owns: an item of `GET /v1/disks`.
public struct Disk: Codable, Sendable, Equatable {
    /// What lies at the path.
    public enum Kind: String, Codable, Sendable, CaseIterable {
        case file, blockDevice
    }

    /// Whether the disk can be used.
    public enum State: String, Codable, Sendable, CaseIterable {
        /// Free to become a volume.
        case available
        /// Open behind the volume in `usedBy`.
        case inUse
        /// Nothing lies at the path.
        case missing
        /// Another process holds it.
        case locked
        /// It cannot be opened or read: `message` says why.
        case failed
    }

    public var name: String
    /// Absolute path on the on-prem edge.
    public var path: String
    public var kind: Kind
    public var sizeBytes: UInt64
    public var state: State
    /// True when volumes of it refuse writes.
    public var readOnly: Bool
    /// The volume that uses it.
    public var usedBy: String?
    /// What is wrong and what to do; nil when all is well.
    public var message: String?

    public init(
        name: String, path: String, kind: Kind, sizeBytes: UInt64, state: State, readOnly: Bool = false, usedBy: String? = nil,
        message: String? = nil
    ) {
        self.name = name
        self.path = path
        self.kind = kind
        self.sizeBytes = sizeBytes
        self.state = state
        self.readOnly = readOnly
        self.usedBy = usedBy
        self.message = message
    }
}

/// The body of `POST /v1/disks`.
public struct DiskCreate: Codable, Sendable, Equatable {
    public var name: String
    /// Absolute path on the on-prem edge.
    public var path: String
    /// Refuse writes to volumes of it; false when left out.
    public var readOnly: Bool?

    public init(name: String, path: String, readOnly: Bool? = nil) {
        self.name = name
        self.path = path
        self.readOnly = readOnly
    }
}

/// The body of `PATCH /v1/disks/{name}`.
public struct DiskChange: Codable, Sendable, Equatable {
    /// The size that a file is to have, a multiple of 512 and not less than it has. What is new reads as zeroes.
    public var sizeBytes: UInt64

    public init(sizeBytes: UInt64) { self.sizeBytes = sizeBytes }
}
