import CLibCrypto

/// A hash function of OpenSSL's, for protocols that name it.
public enum MessageDigest: Sendable {
    /// MD5, which protects nothing any more but is what CHAP began with.
    case md5
    case sha256

    /// The digest of `bytes`: 16 bytes for MD5, 32 for SHA-256. Nil when OpenSSL refuses the function, as in FIPS mode.
    public func hash(_ bytes: [UInt8]) -> [UInt8]? {
        var digest = [UInt8](repeating: 0, count: Int(EVP_MAX_MD_SIZE))
        var count: UInt32 = 0
        guard EVP_Digest(bytes, bytes.count, &digest, &count, function, nil) == 1 else { return nil }
        return Array(digest.prefix(Int(count)))
    }

    /// The digest of a secret with something before it and behind it, which are never put together in ordinary memory.
    public func hash(_ before: [UInt8], _ secret: SecretText, _ behind: [UInt8]) -> [UInt8]? {
        guard let context = EVP_MD_CTX_new() else { return nil }
        // It wipes what it had of the secret.
        defer { EVP_MD_CTX_free(context) }
        var digest = [UInt8](repeating: 0, count: Int(EVP_MAX_MD_SIZE))
        var count: UInt32 = 0
        let isDone =
            EVP_DigestInit_ex(context, function, nil) == 1 && EVP_DigestUpdate(context, before, before.count) == 1
            && secret.withUnsafeBytes { EVP_DigestUpdate(context, $0.baseAddress, $0.count) } == 1
            && EVP_DigestUpdate(context, behind, behind.count) == 1 && EVP_DigestFinal_ex(context, &digest, &count) == 1
        return isDone ? Array(digest.prefix(Int(count))) : nil
    }

    private var function: OpaquePointer? {
        switch self {
        case .md5: EVP_md5()
        case .sha256: EVP_sha256()
        }
    }
}
