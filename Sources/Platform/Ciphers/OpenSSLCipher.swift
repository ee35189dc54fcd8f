import CLibCrypto

/// AES-256-GCM under one key, by OpenSSL.
///
/// The two contexts, with the key's schedule, are made when they are first needed and kept for the life of the object, so that a
/// block costs no allocation. Not thread-safe.
final class OpenSSLCipher {
    let key: SecretKey
    private var sealing: OpaquePointer?
    private var opening: OpaquePointer?

    init(key: SecretKey) {
        self.key = key
    }

    deinit {
        // Both calls wipe what they free, and take nil.
        EVP_CIPHER_CTX_free(sealing)
        EVP_CIPHER_CTX_free(opening)
    }

    /// Puts another key in the place of this one, which `key` names no more.
    func take(_ key: UnsafeRawBufferPointer) -> Bool {
        guard let sealing = sealingContext(), let opening = openingContext() else { return false }
        return EVP_EncryptInit_ex(sealing, nil, nil, key.bytes, nil) == 1 && EVP_DecryptInit_ex(opening, nil, nil, key.bytes, nil) == 1
    }

    /// Encrypts `text` to `output`, which may be where the text is, and writes its tag. False when OpenSSL refused.
    func seal(
        _ text: UnsafeRawBufferPointer, nonce: UnsafeRawBufferPointer, authenticating data: UnsafeRawBufferPointer,
        into output: UnsafeMutableRawPointer, tag: UnsafeMutableRawPointer
    ) -> Bool {
        guard let cipher = sealingContext() else { return false }
        var length: Int32 = 0
        return EVP_EncryptInit_ex(cipher, nil, nil, nil, nonce.bytes) == 1
            && EVP_EncryptUpdate(cipher, nil, &length, data.bytes, Int32(data.count)) == 1
            && (text.isEmpty
                || EVP_EncryptUpdate(cipher, output.assumingMemoryBound(to: UInt8.self), &length, text.bytes, Int32(text.count)) == 1)
            && EVP_EncryptFinal_ex(cipher, tag.assumingMemoryBound(to: UInt8.self), &length) == 1
            && EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_AEAD_GET_TAG, Int32(BlockCipher.tagByteCount), tag) == 1
    }

    /// Decrypts `text` to `output`, which may be where the text is; false when its tag is another.
    func open(
        _ text: UnsafeRawBufferPointer, nonce: UnsafeRawBufferPointer, authenticating data: UnsafeRawBufferPointer,
        into output: UnsafeMutableRawPointer?, tag: UnsafeRawPointer
    ) -> Bool {
        guard let cipher = openingContext() else { return false }
        var length: Int32 = 0
        // Where the plaintext is empty OpenSSL wants somewhere to point all the same.
        var nothing: UInt8 = 0
        return withUnsafeMutablePointer(to: &nothing) { nothing in
            let output = output?.assumingMemoryBound(to: UInt8.self) ?? nothing
            return EVP_DecryptInit_ex(cipher, nil, nil, nil, nonce.bytes) == 1
                && EVP_CIPHER_CTX_ctrl(
                    cipher, EVP_CTRL_AEAD_SET_TAG, Int32(BlockCipher.tagByteCount), UnsafeMutableRawPointer(mutating: tag)) == 1
                && EVP_DecryptUpdate(cipher, nil, &length, data.bytes, Int32(data.count)) == 1
                && (text.isEmpty || EVP_DecryptUpdate(cipher, output, &length, text.bytes, Int32(text.count)) == 1)
                && EVP_DecryptFinal_ex(cipher, output + text.count, &length) == 1
        }
    }

    // MARK: Contexts

    private func sealingContext() -> OpaquePointer? {
        if let sealing { return sealing }
        sealing = makeContext { EVP_EncryptInit_ex($0, EVP_aes_256_gcm(), nil, $1, nil) }
        return sealing
    }

    private func openingContext() -> OpaquePointer? {
        if let opening { return opening }
        opening = makeContext { EVP_DecryptInit_ex($0, EVP_aes_256_gcm(), nil, $1, nil) }
        return opening
    }

    private func makeContext(_ initialise: (OpaquePointer, UnsafePointer<UInt8>?) -> Int32) -> OpaquePointer? {
        guard let cipher = EVP_CIPHER_CTX_new() else { return nil }
        // The length of the nonce is 12 bytes unless it is set otherwise.
        guard key.withUnsafeBytes({ initialise(cipher, $0.bytes) }) == 1 else {
            EVP_CIPHER_CTX_free(cipher)
            return nil
        }
        return cipher
    }
}

extension UnsafeRawBufferPointer {
    /// The first byte, as C wants it.
    var bytes: UnsafePointer<UInt8>? { baseAddress?.assumingMemoryBound(to: UInt8.self) }
}
