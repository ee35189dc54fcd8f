import NBD
import NIOCore
import NIOSSL
import SwiftASN1
import X509

// Who may use an export. NBD has no login of its own, so there are three kinds of clients:
//
//   from this machine                         as the policy says for loopback: plain is enough, unless TLS is required
//   from elsewhere, with TLS                  if the server's TLS lets it in: with a client authority, by its certificate
//   from elsewhere, plain                     only with `allowsPlain`
//
// An export may besides name the clients that may use it. Only a certificate proves a name.

/// The server's certificate, and whom it believes.
public struct NetworkBlockTLS: Sendable {
    let context: NIOSSLContext

    /// - Parameters:
    ///   - certificateChainPEM: the certificate, and intermediate ones if there are any.
    ///   - privateKeyPEM: its key.
    ///   - clientAuthorityPEM: the authority of the certificates that clients must show; nil asks for none.
    public init(certificateChainPEM: String, privateKeyPEM: String, clientAuthorityPEM: String?) throws {
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: try NIOSSLCertificate.fromPEMBytes(Array(certificateChainPEM.utf8)).map { .certificate($0) },
            privateKey: .privateKey(try NIOSSLPrivateKey(bytes: Array(privateKeyPEM.utf8), format: .pem)))
        // The protocol's own minimum (doc/proto.md, TLS versions).
        configuration.minimumTLSVersion = .tlsv12
        if let clientAuthorityPEM {
            configuration.trustRoots = .certificates(try NIOSSLCertificate.fromPEMBytes(Array(clientAuthorityPEM.utf8)))
            // A client's address says nothing of who it is; its certificate does.
            configuration.certificateVerification = .noHostnameVerification
        }
        context = try NIOSSLContext(configuration: configuration)
    }
}

/// How clients come in.
public struct NetworkBlockSecurity: Sendable {
    /// Nil when TLS is not offered.
    public var tls: NetworkBlockTLS?
    /// TLS is demanded of every client.
    public var requiresTLS: Bool
    /// Clients of other machines may go without TLS.
    public var allowsPlain: Bool

    public init(tls: NetworkBlockTLS? = nil, requiresTLS: Bool = false, allowsPlain: Bool = false) {
        self.tls = tls
        self.requiresTLS = requiresTLS
        self.allowsPlain = allowsPlain
    }

    /// What the handshake offers a client; nil when it has no way in.
    func mode(for client: NetworkBlockClient) -> NBDSecurity? {
        let mayBePlain = !requiresTLS && (client.isLocal || allowsPlain)
        guard tls != nil else { return mayBePlain ? .plain : nil }
        return mayBePlain ? .optional : .required
    }
}

/// What the server knows of a client.
struct NetworkBlockClient {
    /// True when it comes from this machine.
    let isLocal: Bool
    /// The names in its certificate, which was verified.
    var names: Set<String> = []

    init(address: SocketAddress?) {
        let host = address?.ipAddress ?? ""
        isLocal = host == "::1" || host.hasPrefix("127.") || host.hasPrefix("::ffff:127.")
    }

    /// Takes the names of a certificate: the common name, and the subject alternative names of kind DNS and URI.
    mutating func identify(by certificate: NIOSSLCertificate?) {
        guard let certificate, let der = try? certificate.toDERBytes(), let parsed = try? Certificate(derEncoded: der) else { return }
        for part in parsed.subject {
            for attribute in part where attribute.type == .RDNAttributeType.commonName {
                names.insert(String(describing: attribute.value))
            }
        }
        guard let alternatives = try? parsed.extensions.subjectAlternativeNames else { return }
        for alternative in alternatives {
            switch alternative {
            case .dnsName(let name), .uniformResourceIdentifier(let name): names.insert(name)
            default: break
            }
        }
    }

    func mayUse(_ allowed: Set<String>?) -> Bool {
        guard let allowed else { return true }
        return !allowed.isDisjoint(with: names.map { $0.lowercased() })
    }
}
