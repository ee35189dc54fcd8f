import Ciphers

/// The volume's keys, as far as its log and the cache need them. A cloud-only disk stays under the key that it was made with.
extension Volume {
    /// Takes over the keys as they are now: what is written from now on is sealed under the newest. The cache forgets what it has under
    /// another one, and fetches it again as it is asked for.
    public func use(_ keys: DataKeys) {
        log.use(keys)
        cache.attach(volume: identifier, key: keys.newestKey, generation: keys.newest)
    }

    /// The generations of the key without which the log would not open after a crash; nil when that can't be said.
    public var logKeyGenerations: Set<KeyGeneration>? { log.keyGenerations }
}
