import Crypto
import Files
import Foundation
import Testing
import X509

@testable import Pairing

@Suite struct CertificateAuthorityTests {
    private let now = Date(timeIntervalSince1970: 1_800_000_000)

    @Test func issuesCertificatesThatSayWhoseTheyAre() throws {
        let authority = try CertificateAuthority(name: "home", now: now)
        let key = EdgeKey()
        let issued = try authority.issue(
            signingRequestPEM: try key.signingRequest(edge: "frankfurt-1"), edge: "frankfurt-1", role: .cloud,
            validitySeconds: 3600, now: now)
        let certificate = try EdgeCertificate(pem: issued.pem)
        #expect(certificate == issued)
        #expect(try EdgeCertificate(der: issued.der) == issued)
        #expect(certificate.edgeIdentifier == "frankfurt-1")
        #expect(certificate.role == .cloud)
        #expect(certificate.notAfter == now + 3600)
        #expect(key.belongs(to: certificate))
        #expect(!EdgeKey().belongs(to: certificate))
        #expect(certificate.isIssued(by: authority.certificate, at: now))
        #expect(!certificate.isIssued(by: authority.certificate, at: now + 3601))
        #expect(!certificate.isIssued(by: try CertificateAuthority(name: "home", now: now).certificate, at: now))
        #expect(try certificate.certificate.extensions.extendedKeyUsage?.contains(.clientAuth) == true)
        #expect(certificate.isForServers)
        #expect(certificate.fingerprint.description.count == 64)
        let server = try authority.issue(key: EdgeKey(), edge: "home", role: .onprem, now: now)
        #expect(server.role == .onprem)
        #expect(server.serial != certificate.serial)
        #expect(server.serial.count >= 38)
        // Home may dial, too.
        #expect(try server.certificate.extensions.extendedKeyUsage?.contains(.clientAuth) == true && server.isForServers)
        // An edge's life ends with its authority's.
        let long = try authority.issue(key: EdgeKey(), edge: "home", role: .onprem, validitySeconds: 1e9, now: now)
        #expect(long.notAfter == authority.certificate.notAfter)
    }

    @Test func comesBackFromItsFiles() throws {
        let path = NSTemporaryDirectory() + "causeway-pairing-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: path) }
        let directory = try OpenDirectory(path, create: true)
        let first = try CertificateAuthority.load(in: directory, name: "home")
        let second = try CertificateAuthority.load(in: directory, name: "home")
        #expect(first.fingerprint == second.fingerprint)
        #expect(first.keyPEM == second.keyPEM)
        #expect(try directory.open(CertificateAuthority.keyFileName).information().permissions == 0o600)
        try directory.remove(CertificateAuthority.keyFileName)
        #expect(throws: PairingError.self) { try CertificateAuthority.load(in: directory, name: "home") }
        try directory.replaceFile(CertificateAuthority.keyFileName, with: Array(EdgeKey().pem.utf8))
        #expect(throws: PairingError.self) { try CertificateAuthority.load(in: directory, name: "home") }
    }

    @Test func refusesWhatIsNotARequest() throws {
        let authority = try CertificateAuthority(name: "home", now: now)
        #expect(throws: PairingError.badEdgeIdentifier("a/b")) {
            try authority.issue(key: EdgeKey(), edge: "a/b", role: .cloud)
        }
        #expect(throws: PairingError.badEdgeIdentifier("")) { try EdgeKey().signingRequest(edge: "") }
        #expect(throws: PairingError.self) { try authority.issue(signingRequestPEM: "hello", edge: "e", role: .cloud) }
        let wrongKind = try CertificateSigningRequest(
            version: .v1, subject: DistinguishedName { CommonName("e") },
            privateKey: Certificate.PrivateKey(P384.Signing.PrivateKey()), attributes: .init(),
            signatureAlgorithm: .ecdsaWithSHA384
        ).serializeAsPEM().pemString
        #expect(throws: PairingError.badRequest("its key is not a P-256 key")) {
            try authority.issue(signingRequestPEM: wrongKind, edge: "e", role: .cloud)
        }
        let edge = try authority.issue(key: EdgeKey(), edge: "e", role: .cloud)
        #expect(throws: PairingError.self) { try CertificateAuthority(certificatePEM: edge.pem, keyPEM: EdgeKey().pem) }
        #expect(authority.certificate.edgeIdentifier == nil)
    }

    /// Certificates arrive from a network: damaged ones give errors and nothing worse.
    @Test func damagedCertificatesDoNoHarm() throws {
        let authority = try CertificateAuthority(name: "home", now: now)
        let good = try authority.issue(key: EdgeKey(), edge: "edge", role: .cloud, now: now)
        var random = SplitMix(state: 11)
        for _ in 0..<2000 {
            var der = good.der
            for _ in 0...Int(random.next() % 3) {
                let at = Int(random.next() % UInt64(der.count))
                if random.next() % 8 == 0 {
                    der.removeLast(min(der.count - 1, at))
                } else {
                    der[at] ^= UInt8(1 << (random.next() % 8))
                }
            }
            guard der != good.der, let damaged = try? EdgeCertificate(der: der) else { continue }
            _ = damaged.edgeIdentifier
            #expect(!damaged.isIssued(by: authority.certificate, at: now))
        }
    }
}

@Suite struct PairingTokenTests {
    private let expires = Date(timeIntervalSince1970: 1_800_000_000)

    private func token() throws -> PairingToken {
        try PairingToken(
            authority: Fingerprint(ofDER: [1, 2, 3]), addresses: ["home.example.org:3261", "[2001:db8::1]:3261"],
            expires: expires + 0.5)
    }

    @Test func comesBackFromItsText() throws {
        let token = try token()
        #expect(token.text.hasPrefix("cwp1."))
        #expect(try PairingToken(text: " \(token.text)\n") == token)
        #expect(token.expires == expires)
        #expect(try self.token().secret != token.secret)
        try token.checkExpiry(now: expires - 1)
        #expect(throws: PairingError.tokenExpired) { try token.checkExpiry(now: expires) }
        let request = JoinRequest(token: token, name: "e", signingRequest: "", softwareVersion: "1")
        #expect(request.secretHash == token.secretHash)
        let decoded = try JSONDecoder().decode(JoinRequest.self, from: JSONEncoder().encode(request))
        #expect(decoded == request)
        #expect(!token.secretHash.contains(request.secret))
    }

    @Test func withoutAnAddressHomeDials() throws {
        let token = try PairingToken(authority: Fingerprint(ofDER: [1]), addresses: [], expires: expires)
        #expect(try PairingToken(text: token.text) == token)
        #expect(token.homeDials)
        #expect(try !self.token().homeDials)
    }

    @Test func damagedTextsAreRefused() throws {
        let good = try token().text
        var random = SplitMix(state: 3)
        for _ in 0..<5000 {
            var bytes = Array(good.utf8)
            switch random.next() % 3 {
            case 0: bytes.removeLast(1 + Int(random.next() % UInt64(bytes.count - 1)))
            case 1: bytes[Int(random.next() % UInt64(bytes.count))] = UInt8(truncatingIfNeeded: random.next())
            default: bytes.insert(UInt8(ascii: "A"), at: Int(random.next() % UInt64(bytes.count)))
            }
            let text = String(decoding: bytes, as: UTF8.self)
            if text.trimmingCharacters(in: .whitespacesAndNewlines) == good { continue }
            // Unused bits of the last digit are the only change that may pass.
            if let parsed = try? PairingToken(text: text) { #expect(parsed.text == good) }
        }
        #expect(throws: PairingError.self) { try PairingToken(text: String(repeating: "A", count: 100_000)) }
        #expect(throws: PairingError.self) {
            let many = [String](repeating: "a:1", count: PairingToken.addressesMax + 1)
            return try PairingToken(authority: Fingerprint(ofDER: []), addresses: many, expires: expires)
        }
    }
}

struct SplitMix {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = (state ^ (state >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return mixed ^ (mixed >> 31)
    }
}
