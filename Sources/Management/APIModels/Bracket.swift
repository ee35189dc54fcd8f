/// The body of `POST /v1/volumes/{name}/bracket` and of its like for groups; it may be left out.
public struct BracketCreate: Codable, Sendable, Equatable {
    /// What the point is to be called, at most 64 bytes.
    public var label: String?
    /// When the bracket ends by itself; `usualTimeoutSeconds` when left out.
    public var timeoutSeconds: Int?

    /// How long a bracket stays open when nobody says, and at most.
    public static let usualTimeoutSeconds = 30
    public static let longestTimeoutSeconds = 600

    public init(label: String? = nil, timeoutSeconds: Int? = nil) {
        self.label = label
        self.timeoutSeconds = timeoutSeconds
    }
}

/// A bracket round the seal of a volume or group.
public struct Bracket: Codable, Sendable, Equatable {
    public enum State: String, Codable, Sendable, CaseIterable {
        /// Bring the writers to rest, then seal.
        case open
        case sealing
        case sealed
        /// It has ended without a point.
        case ended
    }

    /// What whoever opens a disk at a point may expect of it.
    public enum Consistency: String, Codable, Sendable, CaseIterable {
        /// What a machine finds whose power was cut.
        case crash
        /// The writers were at rest.
        case application
    }

    /// The name of the volume or group.
    public var name: String
    public var state: State
    public var label: String
    /// The number of the point, of the volume or of the group; nil before there is one.
    public var point: UInt64?
    /// Crash when the time was over before the seal.
    public var consistency: Consistency?
    /// What is left of an open one, in seconds.
    public var remainingSeconds: Double?
    /// Why there is no point.
    public var message: String?

    public init(
        name: String, state: State, label: String = "", point: UInt64? = nil, consistency: Consistency? = nil,
        remainingSeconds: Double? = nil, message: String? = nil
    ) {
        self.name = name
        self.state = state
        self.label = label
        self.point = point
        self.consistency = consistency
        self.remainingSeconds = remainingSeconds
        self.message = message
    }
}

/// What a bracket is round.
public struct BracketSubject: Codable, Sendable, Hashable {
    public enum Kind: String, Codable, Sendable { case volume, group }

    public var kind: Kind
    public var name: String

    public init(kind: Kind, name: String) {
        self.kind = kind
        self.name = name
    }
}
