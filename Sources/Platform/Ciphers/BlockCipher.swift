import CLibCrypto
import NIOCore

/// The 12-byte nonce of AES-GCM: a counter of eight bytes and one of four, both big-endian.
///
/// It must never repeat under one key. Our formats give each key a random salt and count below it.
public struct CipherNonce: Hashable, Sendable {
    let sequence: UInt64
    let index: UInt32

    public init(sequence: UInt64, index: UInt32) {
        self.sequence = sequence
        self.index = index
    }
}

/// What a sealed text is bound to besides its key: up to five numbers that say where it belongs.
public struct CipherContext: Sendable {
    let words: (UInt64, UInt64, UInt64, UInt64, UInt64)

    public init(_ first: UInt64, _ second: UInt64, _ third: UInt64, _ fourth: UInt64, _ fifth: UInt64) {
        words = (first.bigEndian, second.bigEndian, third.bigEndian, fourth.bigEndian, fifth.bigEndian)
    }

    /// Lends the numbers as 40 bytes, big-endian.
    @inline(__always)
    func withBytes<Result>(_ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        withUnsafeBytes(of: words) { body($0) }
    }
}

/// AES-256-GCM under one key. A sealed text is the ciphertext, as long as the plaintext, and a tag of 16 bytes.
///
/// The two OpenSSL contexts, with the key's schedule, are kept for the life of the object, so that a
/// block costs no allocation. Not thread-safe: it belongs to one event loop.
public final class BlockCipher {
    /// The length of the tag behind each ciphertext.
    public static let tagByteCount = 16

    private let key: SecretKey
    private var sealing: OpaquePointer?
    private var opening: OpaquePointer?

    public init(key: SecretKey) {
        self.key = key
    }

    /// A cipher under the same key for several threads.
    public func shared() -> SharedBlockCipher { SharedBlockCipher(key: key) }

    deinit {
        // Both calls wipe what they free, and take nil.
        EVP_CIPHER_CTX_free(sealing)
        EVP_CIPHER_CTX_free(opening)
    }

    // MARK: Sealing

    /// Seals `plaintext` into `destination`, which has room for it and the tag. They may start at the same byte.
    /// - Returns: false when OpenSSL refused, which no input brings about; then the destination holds nothing of use.
    public func seal(
        _ plaintext: UnsafeRawBufferPointer, nonce: CipherNonce, context: CipherContext,
        into destination: UnsafeMutableRawBufferPointer
    ) -> Bool {
        context.withBytes { seal(plaintext, nonce: nonce, authenticating: $0, into: destination) }
    }

    /// Seals `plaintext` bound to any bytes.
    public func seal(
        _ plaintext: UnsafeRawBufferPointer, nonce: CipherNonce, authenticating data: UnsafeRawBufferPointer,
        into destination: UnsafeMutableRawBufferPointer
    ) -> Bool {
        guard destination.count >= plaintext.count + Self.tagByteCount, let output = destination.baseAddress,
            plaintext.count <= Int(Int32.max), data.count <= Int(Int32.max), let cipher = sealingContext()
        else { return false }
        let tag = output + plaintext.count
        var length: Int32 = 0
        return start(cipher, nonce: nonce) { EVP_EncryptInit_ex(cipher, nil, nil, nil, $0) }
            && EVP_EncryptUpdate(cipher, nil, &length, data.bytes, Int32(data.count)) == 1
            && (plaintext.isEmpty
                || EVP_EncryptUpdate(
                    cipher, output.assumingMemoryBound(to: UInt8.self), &length, plaintext.bytes, Int32(plaintext.count)) == 1)
            && EVP_EncryptFinal_ex(cipher, tag.assumingMemoryBound(to: UInt8.self), &length) == 1
            && EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_AEAD_GET_TAG, Int32(Self.tagByteCount), tag) == 1
    }

    /// Seals `plaintext` and appends the result to `buffer`.
    public func seal(
        _ plaintext: UnsafeRawBufferPointer, nonce: CipherNonce, context: CipherContext, appendingTo buffer: inout ByteBuffer
    ) -> Bool {
        let byteCount = plaintext.count + Self.tagByteCount
        var sealed = false
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: byteCount) { destination in
            sealed = seal(
                plaintext, nonce: nonce, context: context,
                into: UnsafeMutableRawBufferPointer(rebasing: destination[..<byteCount]))
            return sealed ? byteCount : 0
        }
        return sealed
    }

    // MARK: Opening

    /// Opens `sealed` (ciphertext and tag) into `destination`, which has room for the plaintext. They may start at the same byte.
    /// - Returns: false when the text is not what was sealed under this key, nonce and context; then the
    ///   destination was wiped.
    public func open(
        _ sealed: UnsafeRawBufferPointer, nonce: CipherNonce, context: CipherContext,
        into destination: UnsafeMutableRawBufferPointer
    ) -> Bool {
        context.withBytes { open(sealed, nonce: nonce, authenticating: $0, into: destination) }
    }

    /// Opens a text that was sealed bound to any bytes.
    public func open(
        _ sealed: UnsafeRawBufferPointer, nonce: CipherNonce, authenticating data: UnsafeRawBufferPointer,
        into destination: UnsafeMutableRawBufferPointer
    ) -> Bool {
        let byteCount = sealed.count - Self.tagByteCount
        guard byteCount >= 0, destination.count >= byteCount, byteCount <= Int(Int32.max), data.count <= Int(Int32.max),
            let input = sealed.baseAddress, let cipher = openingContext()
        else { return false }
        var length: Int32 = 0
        // Where the plaintext is empty OpenSSL wants somewhere to point all the same.
        var nothing: UInt8 = 0
        let opened = withUnsafeMutablePointer(to: &nothing) { nothing in
            let output = destination.baseAddress?.assumingMemoryBound(to: UInt8.self) ?? nothing
            return start(cipher, nonce: nonce) { EVP_DecryptInit_ex(cipher, nil, nil, nil, $0) }
                && EVP_CIPHER_CTX_ctrl(
                    cipher, EVP_CTRL_AEAD_SET_TAG, Int32(Self.tagByteCount), UnsafeMutableRawPointer(mutating: input + byteCount))
                    == 1
                && EVP_DecryptUpdate(cipher, nil, &length, data.bytes, Int32(data.count)) == 1
                && (byteCount == 0 || EVP_DecryptUpdate(cipher, output, &length, sealed.bytes, Int32(byteCount)) == 1)
                && EVP_DecryptFinal_ex(cipher, output + byteCount, &length) == 1
        }
        // GCM decrypts before it knows; nobody may see what it found.
        if !opened, byteCount > 0 { OPENSSL_cleanse(destination.baseAddress, byteCount) }
        return opened
    }

    /// Opens `sealed` and appends the plaintext to `buffer`; false leaves the buffer as it was.
    public func open(
        _ sealed: UnsafeRawBufferPointer, nonce: CipherNonce, context: CipherContext, appendingTo buffer: inout ByteBuffer
    ) -> Bool {
        let byteCount = sealed.count - Self.tagByteCount
        guard byteCount >= 0 else { return false }
        var opened = false
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: byteCount) { destination in
            opened = open(sealed, nonce: nonce, context: context, into: destination)
            return opened ? byteCount : 0
        }
        return opened
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

    @inline(__always)
    private func start(_ cipher: OpaquePointer, nonce: CipherNonce, _ initialise: (UnsafePointer<UInt8>?) -> Int32) -> Bool {
        let words = (
            UInt32(truncatingIfNeeded: nonce.sequence >> 32).bigEndian, UInt32(truncatingIfNeeded: nonce.sequence).bigEndian,
            nonce.index.bigEndian
        )
        return withUnsafeBytes(of: words) { initialise($0.bytes) } == 1
    }
}

extension UnsafeRawBufferPointer {
    /// The first byte, as C wants it.
    fileprivate var bytes: UnsafePointer<UInt8>? { baseAddress?.assumingMemoryBound(to: UInt8.self) }
}
