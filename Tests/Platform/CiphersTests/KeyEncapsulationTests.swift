import Crypto
import Foundation
import Testing

@testable import Ciphers

/// The agreement on a key, against the standard's own numbers and against another implementation.
@Suite struct KeyEncapsulationTests {
    private static let information = Array("home\0edge".utf8)

    private func bytes(_ hexadecimal: String) -> [UInt8] {
        let digits = hexadecimal.compactMap(\.hexDigitValue)
        return stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
    }

    private func bytes(_ key: SecretKey?) -> [UInt8]? { key?.withUnsafeBytes { Array($0) } }

    /// RFC 9180, appendix A.7.1: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, export only, base mode.
    @Test func isWhatTheStandardComputes() throws {
        let recipient = try AgreementKey(
            privateKey: SecretKey(bytes("33d196c830a12f9ac65d6e565a590d80f04ee9b19c83c87f2c170d972a812848")))
        #expect(recipient.publicKey == bytes("194141ca6c3c3beb4792cd97ba0ea1faff09d98435012345766ee33aae2d7664"))
        let encapsulation = bytes("e5e8f9bfff6c2f29791fc351d2c25ce1299aa5eaca78a757c0b4fb4bcd830918")
        let information = bytes("4f6465206f6e2061204772656369616e2055726e")
        for (purpose, value) in [
            ("", "7a36221bd56d50fb51ee65edfd98d06a23c4dc87085aa5866cb7087244bd2a36"),
            ("\0", "d5535b87099c6c3ce80dc112a2671c6ec8e811a2f284f948cec6dd1708ee33f0"),
            ("TestContext", "ffaabc85a776136ca0c378e5d084c9140ab552b78f039d2e8775f26efff4c70e"),
        ] {
            let key = try KeyEncapsulation.decapsulate(encapsulation, by: recipient, information: information, purpose: purpose)
            #expect(bytes(key) == bytes(value), "\(purpose)")
        }
    }

    @Test func anotherImplementationFindsTheSame() throws {
        let suite = HPKE.Ciphersuite(kem: .Curve25519_HKDF_SHA256, kdf: .HKDF_SHA256, aead: .exportOnly)
        let theirs = Curve25519.KeyAgreement.PrivateKey()
        let made = try #require(
            try KeyEncapsulation.encapsulate(
                to: Array(theirs.publicKey.rawRepresentation), information: Self.information, purpose: "a purpose"))
        let recipient = try HPKE.Recipient(
            privateKey: theirs, ciphersuite: suite, info: Data(Self.information), encapsulatedKey: Data(made.encapsulation))
        let found = try recipient.exportSecret(context: Data("a purpose".utf8), outputByteCount: 32)
        #expect(bytes(made.key) == found.withUnsafeBytes { Array($0) })

        let ours = try AgreementKey()
        let sender = try HPKE.Sender(
            recipientKey: Curve25519.KeyAgreement.PublicKey(rawRepresentation: ours.publicKey), ciphersuite: suite,
            info: Data(Self.information))
        let sent = try sender.exportSecret(context: Data("a purpose".utf8), outputByteCount: 32)
        let opened = try KeyEncapsulation.decapsulate(
            Array(sender.encapsulatedKey), by: ours, information: Self.information, purpose: "a purpose")
        #expect(bytes(opened) == sent.withUnsafeBytes { Array($0) })
    }

    @Test func isForOneRecipientOneOccasionAndOnePurpose() throws {
        let recipient = try AgreementKey()
        let made = try #require(
            try KeyEncapsulation.encapsulate(to: recipient.publicKey, information: Self.information, purpose: "a"))
        func found(_ key: AgreementKey, _ information: [UInt8], _ purpose: String) throws -> [UInt8]? {
            bytes(try KeyEncapsulation.decapsulate(made.encapsulation, by: key, information: information, purpose: purpose))
        }
        #expect(try found(recipient, Self.information, "a") == bytes(made.key))
        #expect(try found(recipient, Self.information, "b") != bytes(made.key))
        #expect(try found(recipient, Array("home\0other".utf8), "a") != bytes(made.key))
        #expect(try found(AgreementKey(), Self.information, "a") != bytes(made.key))
        let again = try #require(
            try KeyEncapsulation.encapsulate(to: recipient.publicKey, information: Self.information, purpose: "a"))
        #expect(bytes(again.key) != bytes(made.key), "each is made anew")
    }

    /// Points of small order would give a secret that everybody knows.
    @Test func whatIsNoPublicKeyIsRefused() throws {
        let key = try AgreementKey()
        let one: [UInt8] = [1] + [UInt8](repeating: 0, count: 31)
        for other in [[], [UInt8](repeating: 9, count: 31), [UInt8](repeating: 9, count: 33), [UInt8](repeating: 0, count: 32), one] {
            #expect(try key.sharedSecret(with: other) == nil)
            #expect(try KeyEncapsulation.encapsulate(to: other, information: [], purpose: "") == nil)
            #expect(try KeyEncapsulation.decapsulate(other, by: key, information: [], purpose: "") == nil)
        }
    }
}
