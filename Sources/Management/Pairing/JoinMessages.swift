import Foundation

/// What a cloud edge sends to be taken in, over a TLS connection whose server has shown the authority of the token.
public struct JoinRequest: Codable, Equatable, Sendable {
    /// The token's secret, in base64 for URLs.
    public var secret: String
    /// How the edge wants to be called.
    public var name: String
    /// A signing request in PEM for the key that the edge has made.
    public var signingRequest: String
    /// The version of the program, for the on-prem edge's list.
    public var softwareVersion: String

    public init(token: PairingToken, name: String, signingRequest: String, softwareVersion: String) {
        secret = Base64URL.encode(token.secret)
        self.name = name
        self.signingRequest = signingRequest
        self.softwareVersion = softwareVersion
    }

    /// The hash by which the token is found in the state store; nil when the secret is none.
    public var secretHash: String? {
        guard let bytes = Base64URL.decode(secret), bytes.count == PairingToken.secretBytes else { return nil }
        return PairingToken.hash(ofSecret: bytes)
    }
}

/// The answer to an edge that was taken in.
public struct JoinReply: Codable, Equatable, Sendable {
    /// The identifier that the edge has from now on.
    public var edge: String
    /// Its certificate in PEM.
    public var certificate: String
    /// The authority's certificate in PEM: the only one that the edge trusts for its link.
    public var authority: String
    /// The identifier of the on-prem edge.
    public var onPremEdge: String
    /// Where the on-prem edge listens for the link, as HOST:PORT.
    public var addresses: [String]

    public init(edge: String, certificate: String, authority: String, onPremEdge: String, addresses: [String]) {
        self.edge = edge
        self.certificate = certificate
        self.authority = authority
        self.onPremEdge = onPremEdge
        self.addresses = addresses
    }
}
