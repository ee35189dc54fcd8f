import EdgeConfiguration
import Files
import Foundation
import Link
import Pairing

/// What a cloud edge keeps of its pairing: its key, its certificate, the authority that it trusts, and where home is.
struct CloudIdentity: Sendable {
    /// The part that is no PEM.
    private struct Record: Codable {
        var edge: String
        var name: String
        var onPremEdge: String
        var addresses: [String]
        /// Key, certificate and authority, so that a renewal changes all of them at once. Missing in what earlier versions have kept: they
        /// are in files of their own then, which are written still.
        var credentials: Credentials?
    }

    private struct Credentials: Codable {
        var key: String
        var certificate: String
        var authority: String
    }

    let edge: String
    let name: String
    let onPremEdge: String
    let addresses: [String]
    let credentials: LinkCredentials

    private static let recordName = "identity.json"
    private static let certificateName = "identity.pem"
    private static let keyName = "identity.key"
    private static let authorityName = "authority.pem"
    private static let roomName = "identity.room"
    private static let fileBytesMax = 64 << 10

    /// - Parameter address: where home was reached, which says more than what it believes of itself: it may listen at a wildcard, behind
    ///   another address.
    init(reply: JoinReply, name: String, key: EdgeKey, joinedAt address: NetworkAddress?) {
        edge = reply.edge
        self.name = name
        onPremEdge = reply.onPremEdge
        let reached = address.map { ["\($0)"] } ?? []
        addresses = reached + reply.addresses.filter { !reached.contains($0) }
        credentials = LinkCredentials(
            certificateChainPEM: reply.certificate, privateKeyPEM: key.pem, authorityPEM: reply.authority)
    }

    /// The same identity with a new certificate for a new key.
    func renewed(certificate: String, key: EdgeKey) -> CloudIdentity {
        CloudIdentity(
            record: Record(edge: edge, name: name, onPremEdge: onPremEdge, addresses: addresses),
            credentials: LinkCredentials(
                certificateChainPEM: certificate, privateKeyPEM: key.pem, authorityPEM: credentials.authorityPEM))
    }

    /// True when home may dial this edge: certificates of earlier versions are not for that.
    var isForServers: Bool { (try? EdgeCertificate(pem: credentials.certificateChainPEM))?.isForServers == true }

    /// True when less than a third of the certificate's time is left.
    func needsRenewal(now: Date = Date()) -> Bool {
        guard let certificate = try? EdgeCertificate(pem: credentials.certificateChainPEM) else { return false }
        let whole = certificate.notAfter.timeIntervalSince(certificate.notBefore)
        return certificate.notAfter.timeIntervalSince(now) < whole / 3
    }

    /// The identity in the state directory; nil when this edge was never paired.
    ///
    /// The record is written last, so that one without the others is damage, and said to be.
    static func load(in directory: OpenDirectory) throws -> CloudIdentity? {
        let bytes: [UInt8]
        do {
            bytes = try directory.readFile(recordName, byteCountMax: fileBytesMax)
        } catch {
            if error.isNotFound { return nil }
            throw error
        }
        let record = try JSONDecoder().decode(Record.self, from: Data(bytes))
        if let kept = record.credentials {
            return CloudIdentity(
                record: record,
                credentials: LinkCredentials(
                    certificateChainPEM: kept.certificate, privateKeyPEM: kept.key, authorityPEM: kept.authority))
        }
        let text = { (name: String) throws in String(decoding: try directory.readFile(name, byteCountMax: fileBytesMax), as: UTF8.self) }
        return CloudIdentity(
            record: record,
            credentials: LinkCredentials(
                certificateChainPEM: try text(certificateName), privateKeyPEM: try text(keyName), authorityPEM: try text(authorityName)))
    }

    private init(record: Record, credentials: LinkCredentials) {
        edge = record.edge
        name = record.name
        onPremEdge = record.onPremEdge
        addresses = record.addresses
        self.credentials = credentials
    }

    /// Fails when there is no room for an identity: writes as much as one takes, and removes it again.
    static func checkRoom(in directory: OpenDirectory) throws {
        do {
            try directory.replaceFile(roomName, with: [UInt8](repeating: 0xff, count: fileBytesMax))
            try directory.remove(roomName)
        } catch {
            try? directory.remove(roomName)
            throw error
        }
    }

    func save(in directory: OpenDirectory) throws {
        try directory.replaceFile(Self.keyName, with: Array(credentials.privateKeyPEM.utf8))
        try directory.replaceFile(Self.certificateName, with: Array(credentials.certificateChainPEM.utf8))
        try directory.replaceFile(Self.authorityName, with: Array(credentials.authorityPEM.utf8))
        let kept = Credentials(
            key: credentials.privateKeyPEM, certificate: credentials.certificateChainPEM, authority: credentials.authorityPEM)
        let record = Record(edge: edge, name: name, onPremEdge: onPremEdge, addresses: addresses, credentials: kept)
        try directory.replaceFile(Self.recordName, with: Array(try JSONEncoder().encode(record)))
    }
}
