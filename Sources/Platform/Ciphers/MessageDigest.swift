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

    private var function: OpaquePointer? {
        switch self {
        case .md5: EVP_md5()
        case .sha256: EVP_sha256()
        }
    }
}
