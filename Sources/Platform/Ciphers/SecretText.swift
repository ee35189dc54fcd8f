import CLibCrypto
import CPlatform

/// A secret text, as people and protocols choose them, in locked memory, which is left out of core files and wiped at the end.
///
/// Sendable for the reason that `SecretKey` is.
public final class SecretText: @unchecked Sendable, Equatable, CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    /// The longest text.
    public static let byteCountMax = 256

    private let bytes: UnsafeMutableRawPointer
    private let byteCount: Int

    /// Fills a new text by `fill`, which gets as many bytes to write.
    init(byteCount: Int, filling fill: (UnsafeMutableRawBufferPointer) -> Void) throws(CipherError) {
        guard byteCount <= Self.byteCountMax else { throw .wrongTextLength(byteCount) }
        guard let bytes = causeway_secret_allocate(Self.byteCountMax) else { throw .unavailable("no memory for a secret") }
        fill(UnsafeMutableRawBufferPointer(start: bytes, count: byteCount))
        self.bytes = bytes
        self.byteCount = byteCount
    }

    /// A copy of a text in ordinary memory, which is not wiped.
    public convenience init(_ text: String) throws(CipherError) {
        let source = text.utf8
        try self.init(byteCount: source.count) { $0.copyBytes(from: source) }
    }

    deinit { causeway_secret_free(bytes) }

    /// Lends the bytes; they must not be kept.
    public func withUnsafeBytes<Result, Failure: Error>(
        _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try body(UnsafeRawBufferPointer(start: bytes, count: byteCount))
    }

    /// A copy in ordinary memory, for who has asked to see the secret.
    public var text: String { withUnsafeBytes { String(decoding: $0, as: UTF8.self) } }

    /// It takes as long whether texts of one length are the same or not.
    public static func == (left: SecretText, right: SecretText) -> Bool {
        left.byteCount == right.byteCount && CRYPTO_memcmp(left.bytes, right.bytes, left.byteCount) == 0
    }

    public var description: String { "SecretText(redacted)" }
    public var debugDescription: String { description }
    public var customMirror: Mirror { Mirror(self, children: []) }
}
