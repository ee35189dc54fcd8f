import CLibCrypto

/// HMAC with SHA-256 of many messages under one key, without an allocation for a message. Not thread-safe.
public final class MessageAuthenticator {
    private let context: OpaquePointer
    /// The first message takes the key; the others begin where it was taken.
    private var hasKey = false
    private let key: SecretKey

    /// Nil when the library refuses.
    public init?(key: SecretKey) {
        guard let algorithm = EVP_MAC_fetch(nil, "HMAC", nil) else { return nil }
        // The context keeps it.
        defer { EVP_MAC_free(algorithm) }
        guard let context = EVP_MAC_CTX_new(algorithm) else { return nil }
        self.context = context
        self.key = key
    }

    // It wipes what it frees.
    deinit { EVP_MAC_CTX_free(context) }

    /// The first 16 bytes of a message's code, as two numbers, big-endian; nil when the library refuses.
    public func shortCode(of message: UnsafeRawBufferPointer) -> (high: UInt64, low: UInt64)? {
        guard begin() else { return nil }
        var code: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
        let isDone = withUnsafeMutableBytes(of: &code) { code in
            var length = 0
            return EVP_MAC_update(context, message.bytes, message.count) == 1
                && EVP_MAC_final(context, code.baseAddress?.assumingMemoryBound(to: UInt8.self), &length, code.count) == 1
                && length == code.count
        }
        return isDone ? (UInt64(bigEndian: code.0), UInt64(bigEndian: code.1)) : nil
    }

    private func begin() -> Bool {
        if hasKey { return EVP_MAC_init(context, nil, 0, nil) == 1 }
        let parameters: [OSSL_PARAM] = [.sha256, OSSL_PARAM_construct_end()]
        hasKey = key.withUnsafeBytes { EVP_MAC_init(context, $0.bytes, $0.count, parameters) == 1 }
        return hasKey
    }
}
