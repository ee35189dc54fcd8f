import Crypto
import Files
import Foundation
import SwiftASN1
import X509

/// The authority of an on-prem edge: it vouches for the edges that were paired with it, and for nothing else.
public struct CertificateAuthority: Sendable {
    /// The names of its files in the state directory.
    public static let certificateFileName = "authority.pem"
    public static let keyFileName = "authority.key"
    /// How long the authority is good: ten years.
    public static let validitySeconds: TimeInterval = 10 * 365 * 86_400
    /// How long the certificate of an edge is good when nothing else is said: a year.
    public static let edgeValiditySeconds: TimeInterval = 365 * 86_400
    /// Certificates are good a little before they are made: clocks differ.
    private static let clockSkewSeconds: TimeInterval = 300

    /// The self-signed certificate.
    public let certificate: EdgeCertificate
    private let key: EdgeKey

    /// The SHA-256 of the authority's certificate.
    public var fingerprint: Fingerprint { certificate.fingerprint }
    /// The certificate and the key in PEM. The key is to be written with mode 0600 only.
    public var certificatePEM: String { certificate.pem }
    public var keyPEM: String { key.pem }

    /// Makes a new authority.
    public init(name: String, now: Date = Date()) throws(PairingError) {
        key = EdgeKey()
        do {
            let subject = try DistinguishedName {
                OrganizationName("Causeway")
                CommonName("Causeway authority of \(name)")
            }
            let publicKey = Certificate.PublicKey(key.key.publicKey)
            let certificate = try Certificate(
                version: .v3, serialNumber: Certificate.SerialNumber(), publicKey: publicKey,
                notValidBefore: now - Self.clockSkewSeconds, notValidAfter: now + Self.validitySeconds, issuer: subject,
                subject: subject, signatureAlgorithm: .ecdsaWithSHA256,
                extensions: Certificate.Extensions {
                    Critical(BasicConstraints.isCertificateAuthority(maxPathLength: 0))
                    Critical(KeyUsage(keyCertSign: true, cRLSign: true))
                    SubjectKeyIdentifier(hash: publicKey)
                }, issuerPrivateKey: Certificate.PrivateKey(key.key))
            self.certificate = try EdgeCertificate(certificate)
        } catch let error as PairingError {
            throw error
        } catch { throw .authority("\(error)") }
    }

    /// The authority that was written down before.
    public init(certificatePEM: String, keyPEM: String) throws(PairingError) {
        certificate = try EdgeCertificate(pem: certificatePEM)
        key = try EdgeKey(pem: keyPEM)
        guard key.belongs(to: certificate) else { throw .authority("the key does not belong to the certificate") }
        guard case .isCertificateAuthority? = try? certificate.certificate.extensions.basicConstraints else {
            throw .authority("the certificate is not one of an authority")
        }
    }

    /// Reads the authority from the state directory, or makes it there on the first start.
    ///
    /// The key is written before the certificate: a certificate without its key is never left behind, and a key alone,
    /// which a crash can leave, has signed nothing yet and is replaced.
    public static func load(in directory: OpenDirectory, name: String, now: Date = Date()) throws(PairingError) -> Self {
        do {
            if let certificate = try read(directory, certificateFileName) {
                guard let key = try read(directory, keyFileName) else {
                    throw PairingError.authority(
                        "\(directory.path)/\(keyFileName) is missing: restore it from a backup of the state directory")
                }
                return try CertificateAuthority(certificatePEM: certificate, keyPEM: key)
            }
            let fresh = try CertificateAuthority(name: name, now: now)
            try directory.replaceFile(keyFileName, with: Array(fresh.keyPEM.utf8), permissions: 0o600)
            try directory.replaceFile(certificateFileName, with: Array(fresh.certificatePEM.utf8), permissions: 0o644)
            return fresh
        } catch let error as PairingError {
            throw error
        } catch { throw .authority("\(error)") }
    }

    private static func read(_ directory: OpenDirectory, _ name: String) throws -> String? {
        do {
            return String(decoding: try directory.readFile(name, byteCountMax: 64 << 10), as: UTF8.self)
        } catch  where error.isNotFound { return nil }
    }

    /// Makes a certificate for an edge whose signing request is in PEM, for either side of TLS. The name in the request is not looked at;
    /// `edge` counts.
    public func issue(
        signingRequestPEM: String, edge: String, role: EdgeRole, validitySeconds: TimeInterval = edgeValiditySeconds,
        now: Date = Date()
    ) throws(PairingError) -> EdgeCertificate {
        let request: CertificateSigningRequest
        do { request = try CertificateSigningRequest(pemEncoded: signingRequestPEM) } catch { throw .badRequest("\(error)") }
        guard request.publicKey.isValidSignature(request.signature, for: request) else {
            throw .badRequest("its signature does not fit its key")
        }
        guard let publicKey = P256.Signing.PublicKey(request.publicKey) else { throw .badRequest("its key is not a P-256 key") }
        return try issue(publicKey: publicKey, edge: edge, role: role, validitySeconds: validitySeconds, now: now)
    }

    /// Makes a certificate for an edge's key that is at hand, as the on-prem edge's own is.
    public func issue(
        key: EdgeKey, edge: String, role: EdgeRole, validitySeconds: TimeInterval = edgeValiditySeconds, now: Date = Date()
    ) throws(PairingError) -> EdgeCertificate {
        try issue(publicKey: key.key.publicKey, edge: edge, role: role, validitySeconds: validitySeconds, now: now)
    }

    private func issue(
        publicKey: P256.Signing.PublicKey, edge: String, role: EdgeRole, validitySeconds: TimeInterval, now: Date
    ) throws(PairingError) -> EdgeCertificate {
        guard EdgeIdentifier.isValid(edge) else { throw .badEdgeIdentifier(edge) }
        do {
            let edgeKey = Certificate.PublicKey(publicKey)
            let notAfter = min(now + validitySeconds, certificate.notAfter)
            let issued = try Certificate(
                version: .v3, serialNumber: Certificate.SerialNumber(), publicKey: edgeKey,
                notValidBefore: now - Self.clockSkewSeconds, notValidAfter: notAfter,
                issuer: certificate.certificate.subject, subject: DistinguishedName { CommonName(edge) },
                signatureAlgorithm: .ecdsaWithSHA256,
                extensions: Certificate.Extensions {
                    Critical(BasicConstraints.notCertificateAuthority)
                    Critical(KeyUsage(digitalSignature: true))
                    // Either side may be the one that dials; who a peer is, its names say.
                    try ExtendedKeyUsage([.serverAuth, .clientAuth])
                    SubjectAlternativeNames([
                        .uniformResourceIdentifier(EdgeCertificate.edgePrefix + edge),
                        .uniformResourceIdentifier(EdgeCertificate.rolePrefix + role.rawValue),
                    ])
                    SubjectKeyIdentifier(hash: edgeKey)
                    AuthorityKeyIdentifier(
                        keyIdentifier: SubjectKeyIdentifier(hash: certificate.certificate.publicKey).keyIdentifier)
                }, issuerPrivateKey: Certificate.PrivateKey(key.key))
            return try EdgeCertificate(issued)
        } catch let error as PairingError {
            throw error
        } catch { throw .authority("\(error)") }
    }
}
