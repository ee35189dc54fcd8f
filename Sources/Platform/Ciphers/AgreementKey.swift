import CLibCrypto

/// A pair of X25519 keys (RFC 7748) of one party to a key agreement.
///
/// The private key lies where all secrets lie. OpenSSL has a copy of it while it computes, and wipes that.
public struct AgreementKey: Sendable {
    /// The length of a public key.
    public static let publicKeyByteCount = 32

    private let privateKey: SecretKey
    /// What the other party is told.
    public let publicKey: [UInt8]

    /// A new pair.
    public init() throws(CipherError) { try self.init(privateKey: .random()) }

    /// The pair of a private key, which may be any 32 bytes.
    public init(privateKey: SecretKey) throws(CipherError) {
        guard let pair = Self.pair(privateKey) else { throw .unavailable("X25519") }
        defer { EVP_PKEY_free(pair) }
        var bytes = [UInt8](repeating: 0, count: Self.publicKeyByteCount)
        var byteCount = bytes.count
        guard EVP_PKEY_get_raw_public_key(pair, &bytes, &byteCount) == 1, byteCount == bytes.count else {
            throw .unavailable("EVP_PKEY_get_raw_public_key")
        }
        self.privateKey = privateKey
        publicKey = bytes
    }

    /// What only the two parties know; nil when the other one's is no public key, or one with which everybody would know it.
    func sharedSecret(with other: [UInt8]) throws(CipherError) -> SecretKey? {
        guard let pair = Self.pair(privateKey) else { throw .unavailable("X25519") }
        defer { EVP_PKEY_free(pair) }
        guard other.count == Self.publicKeyByteCount, let peer = EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, nil, other, other.count)
        else { return nil }
        defer { EVP_PKEY_free(peer) }
        guard let context = EVP_PKEY_CTX_new(pair, nil) else { throw .unavailable("EVP_PKEY_CTX_new") }
        defer { EVP_PKEY_CTX_free(context) }
        guard EVP_PKEY_derive_init(context) == 1 else { throw .unavailable("EVP_PKEY_derive_init") }
        var isAgreed = false
        let secret = try SecretKey { destination throws(CipherError) in
            var byteCount = destination.count
            // OpenSSL refuses a result of zeroes, as RFC 7748 wants it: that is what points of small order give.
            isAgreed =
                EVP_PKEY_derive_set_peer(context, peer) == 1
                && EVP_PKEY_derive(context, destination.baseAddress?.assumingMemoryBound(to: UInt8.self), &byteCount) == 1
                && byteCount == destination.count
        }
        return isAgreed ? secret : nil
    }

    private static func pair(_ privateKey: SecretKey) -> OpaquePointer? {
        privateKey.withUnsafeBytes { EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, nil, $0.bytes, $0.count) }
    }
}
