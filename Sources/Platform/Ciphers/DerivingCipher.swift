import CPlatform
import Synchronization

/// AES-256-GCM of texts that have a key each, which a root key and the name of the text give.
///
/// A text's key is the key stream of the root key for a nonce that is the text's name: who has the root and not the name has nothing. A
/// text costs no allocation: a cipher is lent, and takes the text's key in the place of the one before. What is lent to several threads
/// at once is counted as in `SharedBlockCipher`.
public final class DerivingCipher: Sendable {
    /// The ciphers that are kept. A thread that finds all of them lent makes one for itself.
    public static let ciphersMax = 8

    /// Gives the cipher of a text by its name; nil when the library refuses. It is good until the next is asked for.
    public typealias Keyring = (CipherNonce) -> BlockCipher?

    /// A cipher that one thread at a time has.
    ///
    /// Sendable although it holds a pointer: whoever sets `isLent` has it alone until he clears it.
    private final class Place: @unchecked Sendable {
        private let isLent = Atomic(false)
        private let cipher: BlockCipher
        /// The key of the text and a tag of no use, in locked memory, which is wiped at the end.
        private let key: UnsafeMutableRawBufferPointer

        /// Nil when there is no memory.
        init?(anyKey: SecretKey) {
            // The locked memory comes in powers of two.
            let byteCount = 64
            guard let bytes = causeway_secret_allocate(byteCount) else { return nil }
            key = UnsafeMutableRawBufferPointer(start: bytes, count: byteCount)
            cipher = BlockCipher(key: anyKey)
        }

        deinit { if let bytes = key.baseAddress { causeway_secret_free(bytes) } }

        /// Takes it; false when another thread has it.
        func lend() -> Bool {
            isLent.compareExchange(expected: false, desired: true, successOrdering: .acquiring, failureOrdering: .relaxed).exchanged
        }

        func giveBack() { isLent.store(false, ordering: .releasing) }

        /// The cipher under the key of a text; nil when the library refuses.
        func cipher(of name: CipherNonce, root: BlockCipher) -> BlockCipher? {
            let text = UnsafeMutableRawBufferPointer(rebasing: key[..<SecretKey.byteCount])
            text.initializeMemory(as: UInt8.self, repeating: 0)
            // GCM encrypts by counter mode: zeroes become the key stream.
            guard root.seal(UnsafeRawBufferPointer(text), nonce: name, context: CipherContext(0, 0, 0, 0, 0), into: key),
                cipher.take(UnsafeRawBufferPointer(text))
            else { return nil }
            return cipher
        }
    }

    private let places: [Place]
    private let anyKey: SecretKey

    /// Nil when there is no memory.
    public init?() {
        guard let anyKey = try? SecretKey.random() else { return nil }
        self.anyKey = anyKey
        let places = (0..<Self.ciphersMax).compactMap { _ in Place(anyKey: anyKey) }
        guard places.count == Self.ciphersMax else { return nil }
        self.places = places
    }

    /// Lends the cipher of a text, which must not be kept; nil, without a call, when the library refuses.
    public func withCipher<Result>(of name: CipherNonce, root: SharedBlockCipher, _ body: (BlockCipher) -> Result) -> Result? {
        withKeyring(root: root) { $0(name).map(body) } ?? nil
    }

    /// Lends what gives the ciphers of many texts, one after the other; nil, without a call, when there is no memory.
    public func withKeyring<Result>(root: SharedBlockCipher, _ body: (Keyring) -> Result) -> Result? {
        root.withCipher { root in
            if let place = places.first(where: { $0.lend() }) {
                defer { place.giveBack() }
                return body { place.cipher(of: $0, root: root) }
            }
            return Place(anyKey: anyKey).map { place in body { place.cipher(of: $0, root: root) } }
        }
    }
}
