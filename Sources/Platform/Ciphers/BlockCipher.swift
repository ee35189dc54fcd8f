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

    /// Lends the nonce as 12 bytes.
    @inline(__always)
    func withBytes<Result>(_ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        let words = (
            UInt32(truncatingIfNeeded: sequence >> 32).bigEndian, UInt32(truncatingIfNeeded: sequence).bigEndian, index.bigEndian
        )
        return withUnsafeBytes(of: words) { body($0) }
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
/// Intel's multi-buffer library does it where the processor is one for it, OpenSSL elsewhere: what they write is the same. The key
/// is expanded once for the life of the object, so that a block costs no allocation. Not thread-safe: it belongs to one event loop.
public final class BlockCipher {
    /// The length of the tag behind each ciphertext.
    public static let tagByteCount = 16

    /// What does the work. Both make the same of the same, and a switch between two classes costs a data path nothing.
    enum Implementation {
        case multiBuffer(MultiBufferCipher)
        case openSSL(OpenSSLCipher)
    }

    let implementation: Implementation

    public convenience init(key: SecretKey) {
        if Self.usesMultiBuffer, let cipher = MultiBufferCipher(key: key) {
            self.init(.multiBuffer(cipher))
        } else {
            self.init(.openSSL(OpenSSLCipher(key: key)))
        }
    }

    init(_ implementation: Implementation) {
        self.implementation = implementation
    }

    /// A cipher under the same key for several threads.
    public func shared() -> SharedBlockCipher { SharedBlockCipher(self) }

    /// Goes on under another key of 32 bytes; false when the library refuses. Nobody else may have the cipher meanwhile, nor what `shared` gave.
    func take(_ key: UnsafeRawBufferPointer) -> Bool {
        guard key.count == SecretKey.byteCount else { return false }
        switch implementation {
        case .multiBuffer(let cipher): return cipher.take(key)
        case .openSSL(let cipher): return cipher.take(key)
        }
    }

    // MARK: Sealing

    /// Seals `plaintext` into `destination`, which has room for it and the tag. They may start at the same byte.
    /// - Returns: false when the library refused, which no input brings about; then the destination holds nothing of use.
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
            plaintext.count <= Int(Int32.max), data.count <= Int(Int32.max)
        else { return false }
        let tag = output + plaintext.count
        return nonce.withBytes { nonce in
            switch implementation {
            case .multiBuffer(let cipher): cipher.seal(plaintext, nonce: nonce, authenticating: data, into: output, tag: tag)
            case .openSSL(let cipher): cipher.seal(plaintext, nonce: nonce, authenticating: data, into: output, tag: tag)
            }
        }
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
            let tag = sealed.baseAddress.map({ $0 + byteCount })
        else { return false }
        let text = UnsafeRawBufferPointer(rebasing: sealed[..<byteCount])
        let output = destination.baseAddress
        let opened = nonce.withBytes { nonce in
            switch implementation {
            case .multiBuffer(let cipher): cipher.open(text, nonce: nonce, authenticating: data, into: output, tag: tag)
            case .openSSL(let cipher): cipher.open(text, nonce: nonce, authenticating: data, into: output, tag: tag)
            }
        }
        // GCM decrypts before it knows; nobody may see what it found.
        if !opened, byteCount > 0 { OPENSSL_cleanse(output, byteCount) }
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
}
