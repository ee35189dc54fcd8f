import CLibCrypto

/// HKDF with SHA-256 (RFC 5869).
public enum HKDF {
    /// Fills `output` with key material made from `input`, `salt` and `info`.
    public static func derive(
        input: UnsafeRawBufferPointer, salt: [UInt8], info: [UInt8], into output: UnsafeMutableRawBufferPointer
    ) throws(CipherError) {
        guard let context = EVP_PKEY_CTX_new_id(EVP_PKEY_HKDF, nil) else { throw .unavailable("EVP_PKEY_CTX_new_id") }
        // It wipes its copy of the input.
        defer { EVP_PKEY_CTX_free(context) }
        var byteCount = output.count
        let derived =
            EVP_PKEY_derive_init(context) == 1 && EVP_PKEY_CTX_set_hkdf_md(context, EVP_sha256()) == 1
            && EVP_PKEY_CTX_set1_hkdf_salt(context, salt, Int32(clamping: salt.count)) == 1
            && EVP_PKEY_CTX_set1_hkdf_key(
                context, input.baseAddress?.assumingMemoryBound(to: UInt8.self), Int32(clamping: input.count)) == 1
            && EVP_PKEY_CTX_add1_hkdf_info(context, info, Int32(clamping: info.count)) == 1
            && EVP_PKEY_derive(context, output.baseAddress?.assumingMemoryBound(to: UInt8.self), &byteCount) == 1
        guard derived, byteCount == output.count else { throw .unavailable("HKDF") }
    }
}

/// HMAC with SHA-256 (RFC 2104).
public enum HMACSHA256 {
    /// The length of an authentication code.
    public static let byteCount = 32

    /// The code of `message` under `key`.
    public static func authenticationCode(
        of message: UnsafeRawBufferPointer, key: UnsafeRawBufferPointer
    ) throws(CipherError) -> [UInt8] {
        var code = [UInt8](repeating: 0, count: byteCount)
        var length: UInt32 = 0
        let result = code.withUnsafeMutableBufferPointer { code in
            HMAC(
                EVP_sha256(), key.baseAddress, Int32(clamping: key.count),
                message.baseAddress?.assumingMemoryBound(to: UInt8.self), message.count, code.baseAddress, &length)
        }
        guard result != nil, length == UInt32(byteCount) else { throw .unavailable("HMAC") }
        return code
    }

    /// The code of `message` under a secret key.
    public static func authenticationCode(of message: [UInt8], key: SecretKey) throws(CipherError) -> [UInt8] {
        let result = message.withUnsafeBytes { message in
            key.withUnsafeBytes { key in
                Result { () throws(CipherError) in try authenticationCode(of: message, key: key) }
            }
        }
        return try result.get()
    }
}
