import CLibCrypto

/// HKDF with SHA-256 (RFC 5869).
public enum HKDF {
    /// Fills `output` with key material made from `input`, `salt` and `info`.
    public static func derive(
        input: UnsafeRawBufferPointer, salt: [UInt8], info: [UInt8], into output: UnsafeMutableRawBufferPointer
    ) throws(CipherError) {
        guard let algorithm, let context = EVP_KDF_CTX_new(algorithm) else { throw .unavailable("EVP_KDF_CTX_new") }
        // It wipes its copies of what it was given.
        defer { EVP_KDF_CTX_free(context) }
        let isDerived = salt.withUnsafeBytes { salt in
            info.withUnsafeBytes { info in
                let parameters: [OSSL_PARAM] = [
                    .sha256, .bytes(input, as: "key"), .bytes(salt, as: "salt"), .bytes(info, as: "info"), OSSL_PARAM_construct_end(),
                ]
                let place = output.baseAddress?.assumingMemoryBound(to: UInt8.self)
                return EVP_KDF_derive(context, place, output.count, parameters) == 1
            }
        }
        guard isDerived else { throw .unavailable("HKDF") }
    }

    /// Looked up once: a look-up costs more than a derivation. Unsafe says only that a pointer is no promise; the library counts who uses
    /// it, and never changes it.
    nonisolated(unsafe) private static let algorithm = EVP_KDF_fetch(nil, OSSL_KDF_NAME_HKDF, nil)
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
