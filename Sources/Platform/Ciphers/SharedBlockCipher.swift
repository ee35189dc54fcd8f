import Synchronization

/// AES-256-GCM under one key for several threads.
///
/// A key that the multi-buffer library expanded serves all of them at once. Of OpenSSL's ciphers each thread borrows one for as
/// long as it works, and nobody waits for anybody: with more threads than cores a lock here, short as it is held, costs a fifth of
/// a long read, because its holder is put aside now and then and all others spin.
public final class SharedBlockCipher: Sendable {
    /// The OpenSSL ciphers that are kept. A thread that finds all of them lent makes one for itself.
    public static let ciphersMax = 8

    /// A cipher that one thread at a time has.
    ///
    /// Sendable although the cipher is not: whoever sets `isLent` has it alone until he clears it, and the ordering of the two
    /// makes what one thread did with it come before what the next one does.
    private final class Place: @unchecked Sendable {
        private let isLent = Atomic(false)
        private let cipher: BlockCipher

        init(key: SecretKey) { cipher = BlockCipher(.openSSL(OpenSSLCipher(key: key))) }

        /// Lends the cipher; nil, without a call, when another thread has it.
        func withCipher<Result>(_ body: (BlockCipher) -> Result) -> Result? {
            guard isLent.compareExchange(expected: false, desired: true, successOrdering: .acquiring, failureOrdering: .relaxed).exchanged
            else { return nil }
            defer { isLent.store(false, ordering: .releasing) }
            return body(cipher)
        }
    }

    /// Sendable although a `BlockCipher` is not: the common one is the multi-buffer library's, which changes nothing of its own.
    private enum Ciphers: @unchecked Sendable {
        case common(BlockCipher)
        case lent(places: [Place], key: SecretKey)
    }

    private let ciphers: Ciphers

    public convenience init(key: SecretKey) { self.init(BlockCipher(key: key)) }

    /// Under the key of a cipher that its owner goes on using.
    init(_ cipher: BlockCipher) {
        switch cipher.implementation {
        case .multiBuffer: ciphers = .common(cipher)
        case .openSSL(let cipher):
            ciphers = .lent(places: (0..<Self.ciphersMax).map { _ in Place(key: cipher.key) }, key: cipher.key)
        }
    }

    /// Lends a cipher, which must not be kept.
    public func withCipher<Result>(_ body: (BlockCipher) -> Result) -> Result {
        switch ciphers {
        case .common(let cipher): return body(cipher)
        case .lent(let places, let key):
            for place in places {
                if let result = place.withCipher(body) { return result }
            }
            return body(BlockCipher(.openSSL(OpenSSLCipher(key: key))))
        }
    }
}
