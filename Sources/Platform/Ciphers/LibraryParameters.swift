import CLibCrypto

// What an algorithm of the library is told, by names. A parameter keeps the address of its name, and of its value: a string of ours would
// be gone by the time that the library looks, so names are static strings.

extension OSSL_PARAM {
    /// Says that an algorithm is to use SHA-256.
    static var sha256: OSSL_PARAM {
        OSSL_PARAM_construct_utf8_string(address(of: "digest"), UnsafeMutablePointer(mutating: address(of: "SHA256")), 0)
    }

    /// Bytes that the library reads, under a name of its own; they are lent as long as the parameter is used.
    static func bytes(_ bytes: UnsafeRawBufferPointer, as name: StaticString) -> OSSL_PARAM {
        OSSL_PARAM_construct_octet_string(address(of: name), UnsafeMutableRawPointer(mutating: bytes.baseAddress), bytes.count)
    }

    private static func address(of text: StaticString) -> UnsafePointer<CChar> {
        UnsafeRawPointer(text.utf8Start).assumingMemoryBound(to: CChar.self)
    }
}
