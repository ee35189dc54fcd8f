import EdgeConfiguration
import Files
import Foundation
import Pairing
import Testing

@testable import EdgeServices

/// What a cloud edge keeps of its pairing.
@Suite struct CloudIdentityTests {
    private let path = FileManager.default.temporaryDirectory.appendingPathComponent("causeway-identity-\(UUID().uuidString)").path

    private func identity(joinedAt address: NetworkAddress?, serial: String) throws -> CloudIdentity {
        let reply = JoinReply(
            edge: "cloud-1", certificate: "certificate \(serial)", authority: "authority", onPremEdge: "home", addresses: ["0.0.0.0:7481"])
        return CloudIdentity(reply: reply, name: "mail", key: EdgeKey(), joinedAt: address)
    }

    /// The address that worked says more than what home believes of itself.
    @Test func theAddressThatWorkedComesFirst() throws {
        let reached = try NetworkAddress(parsing: "home.example:7481")
        #expect(try identity(joinedAt: reached, serial: "1").addresses == ["home.example:7481", "0.0.0.0:7481"])
        #expect(try identity(joinedAt: nil, serial: "1").addresses == ["0.0.0.0:7481"])
    }

    /// A crash between the files of a renewal leaves the pair that there was, or the new one, and never half of each.
    @Test func aRenewalIsWholeOrNotThere() throws {
        let directory = try OpenDirectory(path, create: true)
        defer { try? FileManager.default.removeItem(atPath: path) }
        let first = try identity(joinedAt: nil, serial: "1")
        try first.save(in: directory)
        let renewed = first.renewed(certificate: "certificate 2", key: EdgeKey())
        for name in ["identity.key", "identity.pem", "authority.pem"] {
            try directory.replaceFile(name, with: Array("torn".utf8))
            let loaded = try #require(try CloudIdentity.load(in: directory))
            #expect(loaded.credentials.certificateChainPEM == "certificate 1")
            #expect(loaded.credentials.privateKeyPEM == first.credentials.privateKeyPEM)
        }
        try renewed.save(in: directory)
        let loaded = try #require(try CloudIdentity.load(in: directory))
        #expect(loaded.credentials.certificateChainPEM == "certificate 2")
        #expect(loaded.credentials.privateKeyPEM == renewed.credentials.privateKeyPEM)
        #expect(loaded.edge == "cloud-1" && loaded.name == "mail" && loaded.onPremEdge == "home")
    }

    /// What an earlier version has kept has no credentials in its record.
    @Test func anEarlierVersionsFilesAreRead() throws {
        let directory = try OpenDirectory(path, create: true)
        defer { try? FileManager.default.removeItem(atPath: path) }
        try identity(joinedAt: nil, serial: "1").save(in: directory)
        let record = #"{"edge":"cloud-1","name":"mail","onPremEdge":"home","addresses":["h:1"]}"#
        try directory.replaceFile("identity.json", with: Array(record.utf8))
        let loaded = try #require(try CloudIdentity.load(in: directory))
        #expect(loaded.credentials.certificateChainPEM == "certificate 1" && loaded.addresses == ["h:1"])
    }
}
