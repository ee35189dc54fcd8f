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

    /// Writes the code of `message` under `key` to `code`, which has `byteCount` bytes.
    static func authenticate(
        _ message: UnsafeRawBufferPointer, key: UnsafeRawBufferPointer, into code: UnsafeMutableRawBufferPointer
    ) throws(CipherError) {
        var length: UInt32 = 0
        guard code.count == byteCount,
            HMAC(
                EVP_sha256(), key.baseAddress, Int32(clamping: key.count), message.bytes, message.count,
                code.baseAddress?.assumingMemoryBound(to: UInt8.self), &length) != nil,
            length == UInt32(byteCount)
        else { throw .unavailable("HMAC") }
    }

    /// The code of `message` under `key`.
    public static func authenticationCode(
        of message: UnsafeRawBufferPointer, key: UnsafeRawBufferPointer
    ) throws(CipherError) -> [UInt8] {
        var code = [UInt8](repeating: 0, count: byteCount)
        let result = code.withUnsafeMutableBytes { code in
            Result { () throws(CipherError) in try authenticate(message, key: key, into: code) }
        }
        try result.get()
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

    /// The same code where it is a secret itself.
    public static func key(of message: [UInt8], key: SecretKey) throws(CipherError) -> SecretKey {
        try SecretKey { destination throws(CipherError) in
            let result = message.withUnsafeBytes { message in
                key.withUnsafeBytes { key in
                    Result { () throws(CipherError) in try authenticate(message, key: key, into: destination) }
                }
            }
            try result.get()
        }
    }
}
