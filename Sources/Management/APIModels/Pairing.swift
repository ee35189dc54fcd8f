import Foundation

/// The body of `POST /v1/pairing/tokens` (on-prem); the body itself may be left out.
public struct PairingTokenCreate: Codable, Sendable, Equatable {
    /// How long the token may be used, in seconds, from 1 to 604,800; 15 minutes when left out.
    public var validSeconds: Int?
    /// `host:port` of the cloud edge's link, when the on-prem edge is to dial it; left out when the cloud edge dials.
    public var connect: String?

    public init(validSeconds: Int? = nil, connect: String? = nil) {
        self.validSeconds = validSeconds
        self.connect = connect
    }
}

/// A token that lets one cloud edge join, once.
public struct PairingToken: Codable, Sendable, Equatable {
    public var token: String
    public var expiresAt: Date

    public init(token: String, expiresAt: Date) {
        self.token = token
        self.expiresAt = expiresAt
    }
}

/// The body of `POST /v1/pairing/join` (cloud).
public struct JoinRequestBody: Codable, Sendable, Equatable {
    /// What `POST /v1/pairing/tokens` answered at the on-prem edge.
    public var token: String
    /// The name to be known by there; the configured name when left out.
    public var name: String?
    /// `host:port` of the on-prem edge's link; the configured one, or the token's own, when left out.
    public var connect: String?

    public init(token: String, name: String? = nil, connect: String? = nil) {
        self.token = token
        self.name = name
        self.connect = connect
    }
}

/// A bearer token for this API, as it is named to operators: never with its value.
public struct APIToken: Codable, Sendable, Equatable {
    public var name: String
    /// The first eight hexadecimal digits of its SHA-256.
    public var fingerprint: String
    public var createdAt: Date?

    public init(name: String, fingerprint: String, createdAt: Date? = nil) {
        self.name = name
        self.fingerprint = fingerprint
        self.createdAt = createdAt
    }
}
