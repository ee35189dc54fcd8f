import CLibCrypto

// A secret for whoever has one private key, as HPKE makes it (RFC 9180): base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, export only.
//
//     sender: ephemeral pair ──agreement with the recipient's public key──► shared secret ──key schedule──► exporter secret ──► key
//         └──► encapsulation: the ephemeral public key                          ▲
//     recipient: private key ──agreement with the encapsulation──► the same ────┘
//
// The common libraries for this hand secrets out in ordinary memory and leave what they computed on the way there. Here every
// intermediate secret is a `SecretKey`; what is put together to be hashed is wiped. Who sends is not proved: that is the channel's business.

/// Secrets that cross a channel to one recipient without being in any of its buffers.
public enum KeyEncapsulation {
    /// A new key, and what the recipient needs to find it too; nil when `publicKey` is none.
    /// - Parameters:
    ///   - information: what both sides know of the occasion: with other information the recipient finds another key.
    ///   - purpose: what the key is for.
    public static func encapsulate(
        to publicKey: [UInt8], information: [UInt8], purpose: String
    ) throws(CipherError) -> (encapsulation: [UInt8], key: SecretKey)? {
        let ephemeral = try AgreementKey()
        guard let agreed = try ephemeral.sharedSecret(with: publicKey) else { return nil }
        let key = try export(
            agreed, encapsulation: ephemeral.publicKey, recipient: publicKey, information: information, purpose: purpose)
        return (ephemeral.publicKey, key)
    }

    /// The key that was encapsulated; nil when `encapsulation` is none. One that was made for another recipient or occasion gives a key
    /// that nobody else has: what is wrapped by the right one does not open with it.
    public static func decapsulate(
        _ encapsulation: [UInt8], by recipient: AgreementKey, information: [UInt8], purpose: String
    ) throws(CipherError) -> SecretKey? {
        guard let agreed = try recipient.sharedSecret(with: encapsulation) else { return nil }
        return try export(
            agreed, encapsulation: encapsulation, recipient: recipient.publicKey, information: information, purpose: purpose)
    }

    /// From the result of the agreement to the exported key: sections 4.1, 5.1 and 5.3.
    private static func export(
        _ agreed: SecretKey, encapsulation: [UInt8], recipient: [UInt8], information: [UInt8], purpose: String
    ) throws(CipherError) -> SecretKey {
        let extracted = try LabeledHKDF.encapsulation.extract("eae_prk", salt: nil, input: agreed)
        let shared = try LabeledHKDF.encapsulation.expand("shared_secret", extracted, information: encapsulation + recipient)
        let suite = LabeledHKDF.suite
        let modeBase: [UInt8] = [0]
        let context = try modeBase + suite.hash("psk_id_hash", of: []) + suite.hash("info_hash", of: information)
        let secret = try suite.extract("secret", salt: shared, input: nil)
        let exporter = try suite.expand("exp", secret, information: context)
        return try suite.expand("sec", exporter, information: Array(purpose.utf8))
    }
}

/// LabeledExtract and LabeledExpand of RFC 9180, section 4. All that is expanded here has the length of one digest.
private struct LabeledHKDF {
    /// "KEM" and 0x0020, which is DHKEM(X25519, HKDF-SHA256).
    static let encapsulation = LabeledHKDF(identifier: Array("KEM".utf8) + [0x00, 0x20])
    /// "HPKE", the same, 0x0001 (HKDF-SHA256) and 0xFFFF (export only).
    static let suite = LabeledHKDF(identifier: Array("HPKE".utf8) + [0x00, 0x20, 0x00, 0x01, 0xFF, 0xFF])

    let identifier: [UInt8]

    private func labelled(_ label: String) -> [UInt8] { Array("HPKE-v1".utf8) + identifier + Array(label.utf8) }

    func extract(_ label: String, salt: SecretKey?, input: SecretKey?) throws(CipherError) -> SecretKey {
        let prefix = labelled(label)
        return try SecretKey { destination throws(CipherError) in
            let result = withUnsafeTemporaryAllocation(byteCount: prefix.count + SecretKey.byteCount, alignment: 1) { message in
                defer { OPENSSL_cleanse(message.baseAddress, message.count) }
                message.copyBytes(from: prefix)
                input?.withUnsafeBytes { UnsafeMutableRawBufferPointer(rebasing: message[prefix.count...]).copyMemory(from: $0) }
                let used = UnsafeRawBufferPointer(rebasing: message[..<(prefix.count + (input == nil ? 0 : SecretKey.byteCount))])
                return Result { () throws(CipherError) in
                    guard let salt else {
                        return try HMACSHA256.authenticate(used, key: UnsafeRawBufferPointer(start: nil, count: 0), into: destination)
                    }
                    try salt.withUnsafeBytes { key throws(CipherError) in try HMACSHA256.authenticate(used, key: key, into: destination) }
                }
            }
            try result.get()
        }
    }

    /// An extract of what is no secret.
    func hash(_ label: String, of input: [UInt8]) throws(CipherError) -> [UInt8] {
        let message = labelled(label) + input
        let result = message.withUnsafeBytes { message in
            Result { () throws(CipherError) in
                try HMACSHA256.authenticationCode(of: message, key: UnsafeRawBufferPointer(start: nil, count: 0))
            }
        }
        return try result.get()
    }

    func expand(_ label: String, _ key: SecretKey, information: [UInt8]) throws(CipherError) -> SecretKey {
        // The length, the label, and the number of the only block.
        let message = [0, UInt8(SecretKey.byteCount)] + labelled(label) + information + [1]
        return try HMACSHA256.key(of: message, key: key)
    }
}
