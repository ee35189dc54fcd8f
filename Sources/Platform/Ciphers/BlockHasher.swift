import CLibCrypto

/// SHA-256 of many blocks, without an allocation and without a search for the function at each. Not thread-safe.
public final class BlockHasher {
    private let context: OpaquePointer
    private let function: OpaquePointer

    /// Nil when the library refuses.
    public init?() {
        guard let function = EVP_MD_fetch(nil, "SHA256", nil) else { return nil }
        guard let context = EVP_MD_CTX_new() else {
            EVP_MD_free(function)
            return nil
        }
        (self.context, self.function) = (context, function)
    }

    deinit {
        EVP_MD_CTX_free(context)
        EVP_MD_free(function)
    }

    /// The digest of `bytes` as four numbers, big-endian; nil when the library refuses.
    public func hash(_ bytes: UnsafeRawBufferPointer) -> (UInt64, UInt64, UInt64, UInt64)? {
        var digest: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
        let isDone = withUnsafeMutableBytes(of: &digest) { digest in
            var count: UInt32 = 0
            return EVP_DigestInit_ex2(context, function, nil) == 1 && EVP_DigestUpdate(context, bytes.baseAddress, bytes.count) == 1
                && EVP_DigestFinal_ex(context, digest.baseAddress?.assumingMemoryBound(to: UInt8.self), &count) == 1
                && Int(count) == digest.count
        }
        guard isDone else { return nil }
        return (UInt64(bigEndian: digest.0), UInt64(bigEndian: digest.1), UInt64(bigEndian: digest.2), UInt64(bigEndian: digest.3))
    }
}
