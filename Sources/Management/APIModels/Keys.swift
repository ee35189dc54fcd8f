import Foundation

/// One generation of a volume's data key: an item of `GET /v1/keys`. The key itself is in no answer but those of recovery keys.
public struct DataKey: Codable, Sendable, Equatable {
    /// Where a key is in its life.
    public enum State: String, Codable, Sendable, CaseIterable {
        /// What is written is sealed under it.
        case active
        /// A newer one is there; something is still sealed under this one at the cloud edge.
        case retiring
        /// It is nowhere any more, and what was sealed under it can't be opened.
        case destroyed
    }

    /// The volume's name.
    public var volume: String
    /// The identifier of the attachment, under which a cloud edge knows the volume.
    public var identifier: String
    /// 1 for the first key of an attachment; each rotation makes the next.
    public var generation: UInt64
    public var state: State
    public var madeAt: Date
    public var destroyedAt: Date?

    public init(volume: String, identifier: String, generation: UInt64, state: State, madeAt: Date, destroyedAt: Date? = nil) {
        self.volume = volume
        self.identifier = identifier
        self.generation = generation
        self.state = state
        self.madeAt = madeAt
        self.destroyedAt = destroyedAt
    }
}

/// The key that wraps all others of an on-prem edge: the answer of `GET /v1/keys/master` and of `POST /v1/keys/master/rotate`.
public struct MasterKeyInfo: Codable, Sendable, Equatable {
    /// Nil for one that was made before that was noted.
    public var madeAt: Date?
    /// How many data keys it wraps.
    public var wrappedKeys: Int

    public init(madeAt: Date?, wrappedKeys: Int) {
        self.madeAt = madeAt
        self.wrappedKeys = wrappedKeys
    }
}

/// The answer of `POST /v1/volumes/{name}/rotate-key`.
public struct KeyRotation: Codable, Sendable, Equatable {
    /// The volume's name.
    public var volume: String
    /// The generation of the new key.
    public var generation: UInt64
    /// True when the cloud edge seals what is written under it; else it does so as soon as it is told.
    public var inForce: Bool

    public init(volume: String, generation: UInt64, inForce: Bool) {
        self.volume = volume
        self.generation = generation
        self.inForce = inForce
    }
}

/// The body of `POST /v1/volumes/{name}/shred`; the body itself may be left out.
public struct ShredRequest: Codable, Sendable, Equatable {
    /// Shred although writes are not home or the cloud edge does not answer, and lose them; false when left out.
    public var force: Bool?

    public init(force: Bool? = nil) { self.force = force }
}

/// The answer of `POST /v1/volumes/{name}/shred`.
public struct ShredResult: Codable, Sendable, Equatable {
    /// The volume's name.
    public var volume: String
    /// The generations that were destroyed now; none when there was nothing left to destroy.
    public var destroyedGenerations: [UInt64]
    /// True when the cloud edge has let go of its copies; nil when no edge served the volume. One that could not be told has them in
    /// memory until it hears of it or ends.
    public var edgeTold: Bool?
    /// Acknowledged writes that were given up, in bytes: zero unless forced; nil when forced and not known.
    public var unsentBytes: UInt64?

    public init(volume: String, destroyedGenerations: [UInt64], edgeTold: Bool?, unsentBytes: UInt64?) {
        self.volume = volume
        self.destroyedGenerations = destroyedGenerations
        self.edgeTold = edgeTold
        self.unsentBytes = unsentBytes
    }
}
