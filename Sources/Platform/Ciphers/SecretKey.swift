import CLibCrypto
import CPlatform

/// Why a cipher could not be used.
public enum CipherError: Error, Equatable, Sendable {
    /// A key has 32 bytes, and this had another number.
    case wrongKeyLength(Int)
    /// A secret text has at most `SecretText.byteCountMax` bytes, and this had more.
    case wrongTextLength(Int)
    /// OpenSSL refused a call, or there was no memory; the text names the call.
    case unavailable(String)
}

/// A key of 32 bytes in locked memory, which is left out of core files and wiped at the end.
///
/// Sendable although it holds a pointer: the bytes are written in the initialiser only, before any
/// other thread can know the object, and are wiped in the deinitialiser only, when none does.
public final class SecretKey: @unchecked Sendable, CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    /// The length of every key.
    public static let byteCount = Int(CAUSEWAY_SECRET_BYTES)

    private let bytes: UnsafeMutableRawPointer

    /// Fills a new key by `fill`, which gets exactly 32 bytes to write.
    init(filling fill: (UnsafeMutableRawBufferPointer) throws(CipherError) -> Void) throws(CipherError) {
        guard let bytes = causeway_secret_allocate(Self.byteCount) else { throw .unavailable("no memory for a key") }
        do throws(CipherError) {
            try fill(UnsafeMutableRawBufferPointer(start: bytes, count: Self.byteCount))
        } catch {
            causeway_secret_free(bytes)
            throw error
        }
        self.bytes = bytes
    }

    /// A copy of 32 bytes. The caller wipes its own.
    public convenience init(copying source: UnsafeRawBufferPointer) throws(CipherError) {
        guard source.count == Self.byteCount else { throw .wrongKeyLength(source.count) }
        try self.init { destination throws(CipherError) in destination.copyMemory(from: source) }
    }

    /// A copy of 32 bytes of an array.
    public convenience init(_ source: [UInt8]) throws(CipherError) {
        guard source.count == Self.byteCount else { throw .wrongKeyLength(source.count) }
        try self.init { destination throws(CipherError) in destination.copyBytes(from: source) }
    }

    /// A new key from OpenSSL's generator.
    public static func random() throws(CipherError) -> SecretKey {
        try SecretKey { destination throws(CipherError) in
            let base = destination.baseAddress?.assumingMemoryBound(to: UInt8.self)
            guard RAND_priv_bytes(base, Int32(byteCount)) == 1 else { throw .unavailable("RAND_priv_bytes") }
        }
    }

    deinit {
        OPENSSL_cleanse(bytes, Self.byteCount)
        causeway_secret_free(bytes)
    }

    /// Lends the bytes; they must not be kept.
    public func withUnsafeBytes<Result, Failure: Error>(
        _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try body(UnsafeRawBufferPointer(start: bytes, count: Self.byteCount))
    }

    /// True when both keys are the same bytes. It takes as long whether they are or not.
    public func hasSameBytes(as other: SecretKey) -> Bool { CRYPTO_memcmp(bytes, other.bytes, Self.byteCount) == 0 }

    /// The key for one purpose and one salt: HKDF-SHA256 (RFC 5869) with this key as input.
    public func derive(salt: [UInt8], purpose: String) throws(CipherError) -> SecretKey {
        try SecretKey { destination throws(CipherError) in
            try withUnsafeBytes { input throws(CipherError) in
                try HKDF.derive(input: input, salt: salt, info: Array(purpose.utf8), into: destination)
            }
        }
    }

    /// The number of pages of keys that the system would not lock (RLIMIT_MEMLOCK): worth a warning when it is not 0.
    public static var unlockedPageCount: Int { causeway_secret_unlocked_pages() }

    public var description: String { "SecretKey(redacted)" }
    public var debugDescription: String { description }
    public var customMirror: Mirror { Mirror(self, children: []) }
}
