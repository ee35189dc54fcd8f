/// Why pairing failed.
public enum PairingError: Error, Equatable, Sendable, CustomStringConvertible {
    /// A name that can't stand in a certificate.
    case badEdgeIdentifier(String)
    /// The text is no token: cut off, mistyped, or of another version.
    case badToken(String)
    case tokenExpired
    /// Bytes that are not the certificate, key or request they should be.
    case badCertificate(String)
    /// A signing request whose signature does not fit its key, or with another kind of key than P-256.
    case badRequest(String)
    /// The certificate authority's files.
    case authority(String)

    public var description: String {
        switch self {
        case .badEdgeIdentifier(let name):
            "\"\(name)\" can't name an edge: use 1 to 64 of the characters a-z, A-Z, 0-9, dot, hyphen and underscore"
        case .badToken(let text): "this is not a pairing token: \(text): copy the whole line that `causeway pair` printed"
        case .tokenExpired: "the pairing token has expired: make a new one with `causeway pair` at the on-prem edge"
        case .badCertificate(let text): "bad certificate: \(text)"
        case .badRequest(let text): "bad signing request: \(text)"
        case .authority(let text): "the certificate authority can't be used: \(text)"
        }
    }
}
