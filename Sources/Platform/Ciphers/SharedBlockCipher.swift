import Synchronization

/// AES-256-GCM under one key for several threads: each borrows a `BlockCipher` for as long as it works.
///
/// There are as many of those as threads have worked at once, which the thread pool bounds; they live as long as this object.
public final class SharedBlockCipher: Sendable {
    /// A cipher on its way between threads.
    ///
    /// Sendable although the cipher is not: whoever takes one out of `idle` has it alone until it is put back, and the lock
    /// around `idle` orders what one thread did with it before what the next one does.
    private struct Lent: @unchecked Sendable {
        let cipher: BlockCipher
    }

    private let key: SecretKey
    private let idle = Mutex<[Lent]>([])

    public init(key: SecretKey) {
        self.key = key
    }

    /// Lends a cipher, which must not be kept.
    public func withCipher<Result>(_ body: (BlockCipher) -> Result) -> Result {
        let lent = idle.withLock { $0.popLast() } ?? Lent(cipher: BlockCipher(key: key))
        defer { idle.withLock { $0.append(lent) } }
        return body(lent.cipher)
    }
}
