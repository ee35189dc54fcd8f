import Synchronization

/// AES-256-GCM under one key for several threads: each borrows a `BlockCipher` for as long as it works.
///
/// Nobody waits for anybody: with more threads than cores a lock here, short as it is held, costs a fifth of a long read, because
/// its holder is put aside now and then and all others spin.
public final class SharedBlockCipher: Sendable {
    /// The ciphers that are kept. A thread that finds all of them lent makes one for itself.
    public static let ciphersMax = 8

    /// A cipher that one thread at a time has.
    ///
    /// Sendable although the cipher is not: whoever sets `isLent` has it alone until he clears it, and the ordering of the two
    /// makes what one thread did with it come before what the next one does.
    private final class Place: @unchecked Sendable {
        private let isLent = Atomic(false)
        private let cipher: BlockCipher

        init(key: SecretKey) { cipher = BlockCipher(key: key) }

        /// Lends the cipher; nil, without a call, when another thread has it.
        func withCipher<Result>(_ body: (BlockCipher) -> Result) -> Result? {
            guard isLent.compareExchange(expected: false, desired: true, successOrdering: .acquiring, failureOrdering: .relaxed).exchanged
            else { return nil }
            defer { isLent.store(false, ordering: .releasing) }
            return body(cipher)
        }
    }

    private let key: SecretKey
    private let places: [Place]

    public init(key: SecretKey) {
        self.key = key
        places = (0..<Self.ciphersMax).map { _ in Place(key: key) }
    }

    /// Lends a cipher, which must not be kept.
    public func withCipher<Result>(_ body: (BlockCipher) -> Result) -> Result {
        for place in places {
            if let result = place.withCipher(body) { return result }
        }
        return body(BlockCipher(key: key))
    }
}
