import Crypto
import Foundation
import SwiftASN1
import X509

/// The private key of an edge (P-256), which stays where it was made.
public struct EdgeKey: Sendable {
    let key: P256.Signing.PrivateKey

    /// A new key.
    public init() { key = P256.Signing.PrivateKey() }

    /// Parses a key in PEM.
    public init(pem: String) throws(PairingError) {
        do { key = try P256.Signing.PrivateKey(pemRepresentation: pem) } catch {
            throw .badCertificate("the private key: \(error)")
        }
    }

    /// The PEM form. Write it with mode 0600 only.
    public var pem: String { key.pemRepresentation }

    /// A signing request in PEM, by which the authority makes a certificate for this key.
    public func signingRequest(edge: String) throws(PairingError) -> String {
        guard EdgeIdentifier.isValid(edge) else { throw .badEdgeIdentifier(edge) }
        do {
            let request = try CertificateSigningRequest(
                version: .v1, subject: DistinguishedName { CommonName(edge) }, privateKey: Certificate.PrivateKey(key),
                attributes: CertificateSigningRequest.Attributes(), signatureAlgorithm: .ecdsaWithSHA256)
            return try request.serializeAsPEM().pemString
        } catch { throw .badRequest("\(error)") }
    }

    /// True when the certificate is for this key.
    public func belongs(to certificate: EdgeCertificate) -> Bool {
        P256.Signing.PublicKey(certificate.certificate.publicKey)?.rawRepresentation == key.publicKey.rawRepresentation
    }
}
