import Blocks
import Ciphers
import NIOCore

// A cloud-only disk numbers what it seals from zero each time that it is opened. The time from one opening to the next is an era; it has
// a random name, which stands beside everything that is sealed in it, and a key of its own. So also a disk that goes on from an old copy,
// journal and all, seals no two texts under one key and number: the numbers come again, the key does not.

/// The keys of one kind of text, by era. Belongs to one event loop.
final class EraCiphers {
    /// Ciphers of earlier eras that are kept; one more and all are made anew when they are asked for.
    private static let earlierMax = 16

    /// What is sealed now belongs to this era.
    let era: UInt64
    let current: BlockCipher
    private let key: SecretKey
    private var earlier: [UInt64: BlockCipher] = [:]

    init(key: SecretKey, era: UInt64) throws(CipherError) {
        self.key = key
        self.era = era
        current = try Self.cipher(key, era)
    }

    /// The cipher of an era; nil when it can't be made.
    func cipher(of era: UInt64) -> BlockCipher? {
        if era == self.era { return current }
        if let known = earlier[era] { return known }
        guard let made = try? Self.cipher(key, era) else { return nil }
        if earlier.count >= Self.earlierMax { earlier.removeAll(keepingCapacity: true) }
        earlier[era] = made
        return made
    }

    private static func cipher(_ key: SecretKey, _ era: UInt64) throws(CipherError) -> BlockCipher {
        let salt = (0..<8).map { UInt8(truncatingIfNeeded: era >> (56 - 8 * $0)) }
        return BlockCipher(key: try key.derive(salt: salt, purpose: CloudOnlyFormat.eraPurpose))
    }
}
