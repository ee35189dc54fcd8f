import Crypto
import Foundation
import SwiftASN1
import X509

/// The two sides of a link.
public enum EdgeRole: String, Codable, Sendable, CaseIterable {
    /// Owns the disks, and is the authority.
    case onprem
    /// Serves the volumes.
    case cloud
}

/// A certificate of an edge or of the authority, and what it says.
public struct EdgeCertificate: Sendable, Equatable {
    /// The certificate itself.
    public let certificate: Certificate
    /// Its DER form.
    public let der: [UInt8]

    init(_ certificate: Certificate) throws(PairingError) {
        do {
            var serializer = DER.Serializer()
            try serializer.serialize(certificate)
            der = serializer.serializedBytes
        } catch { throw .badCertificate("\(error)") }
        self.certificate = certificate
    }

    /// Parses a certificate in DER, as a TLS library hands it out.
    public init(der: [UInt8]) throws(PairingError) {
        do {
            certificate = try Certificate(derEncoded: der)
        } catch { throw .badCertificate("\(error)") }
        self.der = der
    }

    /// Parses a certificate in PEM.
    public init(pem: String) throws(PairingError) {
        let certificate: Certificate
        do { certificate = try Certificate(pemEncoded: pem) } catch { throw .badCertificate("\(error)") }
        try self.init(certificate)
    }

    /// The PEM form.
    public var pem: String { PEMDocument(type: Certificate.defaultPEMDiscriminator, derBytes: der).pemString }
    /// The SHA-256 of the DER form.
    public var fingerprint: Fingerprint { Fingerprint(ofDER: der) }
    /// The serial number in hexadecimal digits, as it is stored for revocation.
    public var serial: String { hexadecimal(certificate.serialNumber.bytes) }
    /// The last moment at which it is good.
    public var notAfter: Date { certificate.notValidAfter }
    /// The first moment at which it is good.
    public var notBefore: Date { certificate.notValidBefore }

    /// True when who dials believes it too: those of earlier versions were for one side of TLS only.
    public var isForServers: Bool { (try? certificate.extensions.extendedKeyUsage)?.contains(.serverAuth) == true }

    /// The edge that the certificate is for; nil when it is for none.
    public var edgeIdentifier: String? { names(after: Self.edgePrefix) }
    /// The role of that edge.
    public var role: EdgeRole? { names(after: Self.rolePrefix).flatMap { EdgeRole(rawValue: $0) } }

    /// True when the authority has signed this certificate and `date` lies in its time.
    public func isIssued(by authority: EdgeCertificate, at date: Date) -> Bool {
        certificate.issuer == authority.certificate.subject && notBefore <= date && date <= notAfter
            && authority.certificate.publicKey.isValidSignature(certificate.signature, for: certificate)
    }

    static let edgePrefix = "causeway:edge/"
    static let rolePrefix = "causeway:role/"

    /// The one name in the subject alternative names with that prefix; nil when there are several, which none of ours has.
    private func names(after prefix: String) -> String? {
        guard let names = try? certificate.extensions.subjectAlternativeNames else { return nil }
        let found = names.compactMap { name -> String? in
            guard case .uniformResourceIdentifier(let text) = name, text.hasPrefix(prefix) else { return nil }
            return String(text.dropFirst(prefix.count))
        }
        return found.count == 1 ? found[0] : nil
    }
}

/// What an edge is called in certificates and in the API.
public enum EdgeIdentifier {
    /// True for 1 to 64 of the characters a-z, A-Z, 0-9, dot, hyphen and underscore.
    public static func isValid(_ text: String) -> Bool {
        (1...64).contains(text.utf8.count)
            && text.utf8.allSatisfy {
                switch $0 {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "-"), UInt8(ascii: "_"):
                    true
                default: false
                }
            }
    }
}
