import NIOSSL

/// What an edge proves itself with, and whom it believes.
public struct LinkCredentials: Sendable {
    /// The edge's certificate, and intermediate ones if there are any, in PEM.
    public var certificateChainPEM: String
    /// The edge's private key in PEM.
    public var privateKeyPEM: String
    /// The certificate of the authority that both edges' certificates come from, in PEM.
    public var authorityPEM: String

    public init(certificateChainPEM: String, privateKeyPEM: String, authorityPEM: String) {
        self.certificateChainPEM = certificateChainPEM
        self.privateKeyPEM = privateKeyPEM
        self.authorityPEM = authorityPEM
    }
}

/// The application protocols (ALPN) on a link's port.
enum LinkApplicationProtocol {
    static let link = "causeway-link/1"
    static let join = "causeway-join/1"
}

/// A peer's certificate, which was verified against the authority.
public struct PeerCertificate: Sendable {
    /// The certificate in DER, for whoever looks closer.
    public let der: [UInt8]
    /// The serial number, big-endian.
    public let serialNumber: [UInt8]
}

/// Who a peer is, as the owner of the link names it.
public struct PeerIdentity: Hashable, Sendable, CustomStringConvertible {
    public let name: String

    public init(_ name: String) { self.name = name }

    public var description: String { name }
}

extension LinkCredentials {
    private var authorities: [NIOSSLCertificate] {
        get throws { try NIOSSLCertificate.fromPEMBytes(Array(authorityPEM.utf8)) }
    }

    private func configure(_ configuration: inout TLSConfiguration) {
        configuration.minimumTLSVersion = .tlsv13
    }

    /// TLS for the side that dials.
    func clientContext() throws -> NIOSSLContext { try NIOSSLContext(configuration: try clientConfiguration()) }

    func clientConfiguration() throws -> TLSConfiguration {
        var configuration = TLSConfiguration.makeClientConfiguration()
        configure(&configuration)
        configuration.trustRoots = .certificates(try authorities)
        // The authority is ours alone and an edge may move, so it is its role that is checked and not its address.
        configuration.certificateVerification = .noHostnameVerification
        configuration.certificateChain = try NIOSSLCertificate.fromPEMBytes(Array(certificateChainPEM.utf8)).map {
            .certificate($0)
        }
        configuration.privateKey = .privateKey(try NIOSSLPrivateKey(bytes: Array(privateKeyPEM.utf8), format: .pem))
        configuration.applicationProtocols = [LinkApplicationProtocol.link]
        return configuration
    }

    /// TLS for the side that listens. An edge that joins has no certificate, so having one is checked after the handshake.
    /// - Parameter answersJoins: edges may come that have no certificate yet; otherwise nobody comes in without one.
    func serverContext(answersJoins: Bool) throws -> NIOSSLContext {
        let roots = try authorities
        var chain = try NIOSSLCertificate.fromPEMBytes(Array(certificateChainPEM.utf8))
        // The authority goes along, so that a joining edge can compare it with the fingerprint in its token.
        for root in roots where !chain.contains(root) { chain.append(root) }
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: chain.map { .certificate($0) },
            privateKey: .privateKey(try NIOSSLPrivateKey(bytes: Array(privateKeyPEM.utf8), format: .pem)))
        configure(&configuration)
        configuration.trustRoots = .certificates(roots)
        configuration.certificateVerification = answersJoins ? .optionalVerification : .noHostnameVerification
        configuration.applicationProtocols = [LinkApplicationProtocol.link] + (answersJoins ? [LinkApplicationProtocol.join] : [])
        return try NIOSSLContext(configuration: configuration)
    }
}

extension PeerCertificate {
    init?(_ certificate: NIOSSLCertificate?) {
        guard let certificate, let der = try? certificate.toDERBytes() else { return nil }
        self.der = der
        self.serialNumber = certificate.serialNumber
    }
}
