import Blocks
import Ciphers
import NIOCore
import Synchronization

// Equal blocks of any volumes are stored once.
//
//     first copy        in a slot under its volume's key, as ever; its signature is remembered, with who brought it
//     second            written once more, as a shared block, and both refer to it; the first slot counts no more
//     third and later   refers to it, and nothing is written but a record
//
// What is where:
//
//     slot      the block, sealed under a key of its own, bound to (magic of shared blocks, signature high, low, sequence, 0)
//     owners    a shared slot has one mark (`CacheFormat.sharedOwner`): who refers to it changes after the segment is full
//     records   one for each reference: name of the volume | hidden under its key: block, slot, signature, name of the shared block (kind 14)
//     memory    for each shared slot its identity and who refers to it (`CacheSharedBlocks`); of blocks that came lately the
//               signatures (`CacheSignatures`), of which the coldest go first
//
// Keys. All come from the edge's cache key, which the site makes and the edge never writes:
//
//     signature  = the first 16 bytes of HMAC-SHA256(HKDF(cache key, "causeway cache signatures 5"), block)
//     name       = 12 random bytes, drawn when the block is written as a shared one
//     block key  = the first 32 bytes of the key stream of AES-256-GCM under HKDF(cache key, salt of the run, "causeway cache shared 5")
//                  for the nonce (first 12 bytes of the signature) xor name
//
// A shared block is readable for who has the cache key, its signature and its name. Signature and name stand in records only, under the keys of the
// volumes that refer to it. So when a volume is shredded its neighbours read on, and of a block to which no other volume refers nobody has the
// name. Without the name a signature would do, and who has the cache key could guess a block and see whether the guess opens anything.
// What records tell of a volume that is gone, and for how long, is in docs/reference/cache-format.md.
//
// References are not counted on disk. Whoever replays the records counts them anew: a record of another place, of zeroes, of removal, or of
// a volume that went ends a reference as it ends any place of a block.

/// What a block is known by, wherever it is: equal for equal blocks, and nothing to those who don't have the cache's key.
struct BlockSignature: Hashable {
    static let byteCount = 16

    let high: UInt64
    let low: UInt64

    /// By what it is looked up: a partition knows its own blocks only.
    func within(_ partition: Int) -> BlockSignature {
        BlockSignature(high: high &+ UInt64(partition) &* 0x9e37_79b9_7f4a_7c15, low: low)
    }
}

/// What a shared block is known by: its signature, and a name of its own, drawn at random when it was written.
struct SharedIdentity: Hashable {
    static let byteCount = BlockSignature.byteCount + 12

    let signature: BlockSignature
    let nameHigh: UInt64
    let nameLow: UInt32

    /// What gives its key. Should two blocks have the same, they have one key, and nonces of their own.
    var keyName: CipherNonce {
        CipherNonce(sequence: signature.high ^ nameHigh, index: UInt32(truncatingIfNeeded: signature.low >> 32) ^ nameLow)
    }
}

/// The keys of shared blocks.
final class CacheSharing {
    private let key: SecretKey
    private let authenticator: MessageAuthenticator
    let cipher: DerivingCipher
    /// By the number of the salt.
    private var roots: [Int: SharedBlockCipher] = [:]

    /// Nil when the cipher library refuses: then nothing is shared.
    init?(key: SecretKey) {
        guard let signatureKey = try? key.derive(salt: [], purpose: CacheFormat.signaturePurpose),
            let authenticator = MessageAuthenticator(key: signatureKey), let cipher = DerivingCipher()
        else { return nil }
        self.key = key
        self.authenticator = authenticator
        self.cipher = cipher
    }

    func signature(of block: ByteBuffer) -> BlockSignature? {
        block.withUnsafeReadableBytes { authenticator.shortCode(of: $0) }.map { BlockSignature(high: $0.high, low: $0.low) }
    }

    /// What gives, with their signatures, the keys of the shared blocks that were written under a salt.
    func root(salt number: Int, of salts: CacheSalts) -> SharedBlockCipher? {
        if let known = roots[number] { return known }
        guard let salt = salts[number], let derived = try? key.derive(salt: salt.bytes, purpose: CacheFormat.sharedPurpose) else {
            return nil
        }
        let root = SharedBlockCipher(key: derived)
        roots[number] = root
        return root
    }
}

/// Shared blocks in slots that follow one another, to be opened on any thread.
final class CacheSharedRun: Sendable {
    /// A sealed block, and what opens it.
    struct Text {
        let cipher: BlockCipher
        let sealed: UnsafeRawBufferPointer
        let nonce: CipherNonce
        let context: CipherContext
    }

    private let cipher: DerivingCipher
    private let root: SharedBlockCipher
    private let identities: [SharedIdentity]
    private let isRefused = Atomic(false)
    /// The cipher library refused: nothing is wrong with the blocks.
    var wasRefused: Bool { isRefused.load(ordering: .relaxed) }

    init(cipher: DerivingCipher, root: SharedBlockCipher, identities: [SharedIdentity]) {
        self.cipher = cipher
        self.root = root
        self.identities = identities
    }

    /// Gives whole slots to `open`, from the one with number `start` in the run on, until it refuses one.
    /// - Returns: how many it took.
    func goodCount(
        of sealed: UnsafeRawBufferPointer, from start: Int, sequence: UInt64, firstSlot: Int, _ open: (Int, Text) -> Bool
    ) -> Int {
        let count = min(sealed.count / CacheFormat.slotBytes, identities.count - start)
        let good = cipher.withKeyring(root: root) { keyring in
            for number in 0..<count {
                let identity = identities[start + number]
                let bytes = sealed[number * CacheFormat.slotBytes..<(number + 1) * CacheFormat.slotBytes]
                guard let cipher = keyring(identity.keyName) else {
                    isRefused.store(true, ordering: .relaxed)
                    return number
                }
                let text = Text(
                    cipher: cipher, sealed: UnsafeRawBufferPointer(rebasing: bytes),
                    nonce: CipherNonce(sequence: sequence, index: UInt32(firstSlot + start + number)),
                    context: CacheFormat.sharedContext(identity.signature, sequence: sequence))
                if !open(number, text) { return number }
            }
            return count
        }
        if good == nil { isRefused.store(true, ordering: .relaxed) }
        return good ?? 0
    }
}

/// The slots with shared blocks, and who refers to them.
struct CacheSharedBlocks {
    struct Block {
        let identity: SharedIdentity
        /// Blocks of volumes whose slot this is.
        fileprivate(set) var references: [CacheOwner] = []
        /// It is in a segment of pinned blocks, and none of those who are left has it pinned.
        var isAdrift = false
    }

    enum Release {
        case notShared, othersLeft
        /// The slot has no shared block any more.
        case wasLast(isAdrift: Bool)
    }

    /// No block has more references: what makes room goes through all of them at a time. Beyond it the block is stored once more.
    static let referencesMax = 64
    /// What a block and a reference take in memory, as far as that can be told.
    private static let blockBytes = 144
    private static let referenceBytes = 2 * MemoryLayout<CacheOwner>.stride
    /// So many tables: none becomes so large that to grow takes long.
    private static let tableCount = 256

    private var tables = [[CacheSlot: Block]](repeating: [:], count: tableCount)
    private(set) var count = 0
    private(set) var referenceCount = 0

    var byteCount: Int { count * Self.blockBytes + referenceCount * Self.referenceBytes }

    private static func table(of slot: CacheSlot) -> Int { Int(slot) % tableCount }

    subscript(slot: CacheSlot) -> Block? { tables[Self.table(of: slot)][slot] }

    /// True when a slot has a shared block.
    func contains(_ slot: CacheSlot) -> Bool { count > 0 && tables[Self.table(of: slot)].index(forKey: slot) != nil }

    func forEach(_ body: (CacheSlot, Block) -> Void) { for table in tables { for (slot, block) in table { body(slot, block) } } }

    /// A slot gets a shared block, to which nobody refers yet.
    mutating func add(_ slot: CacheSlot, _ identity: SharedIdentity) {
        tables[Self.table(of: slot)][slot] = Block(identity: identity)
        count += 1
    }

    /// Adds a reference.
    mutating func refer(_ owner: CacheOwner, to slot: CacheSlot) {
        let table = Self.table(of: slot)
        guard let index = tables[table].index(forKey: slot) else { return }
        tables[table].values[index].references.append(owner)
        referenceCount += 1
    }

    /// Notes whether anybody has a block pinned whose segment is one of pinned blocks.
    mutating func setAdrift(_ slot: CacheSlot, _ isAdrift: Bool) { tables[Self.table(of: slot)][slot]?.isAdrift = isAdrift }

    /// Takes a reference away.
    mutating func release(_ slot: CacheSlot, of owner: CacheOwner) -> Release {
        let table = Self.table(of: slot)
        guard let index = tables[table].index(forKey: slot) else { return .notShared }
        if let position = tables[table].values[index].references.firstIndex(of: owner) {
            tables[table].values[index].references.remove(at: position)
            referenceCount -= 1
        }
        if !tables[table].values[index].references.isEmpty { return .othersLeft }
        let isAdrift = tables[table].values[index].isAdrift
        tables[table].remove(at: index)
        count -= 1
        return .wasLast(isAdrift: isAdrift)
    }
}

/// Where blocks are whose signatures are known: a table of a fixed size, in buckets of four, of which each forgets what was asked for longest
/// ago. What it says is a hint: who uses it looks whether the index says so too.
struct CacheSignatures {
    /// A place: who brought the block, and in which segment's life.
    struct Entry: Equatable {
        let slot: CacheSlot
        /// `CacheFormat.sharedOwner` for a shared block.
        let owner: CacheOwner
        let sequence: UInt32
    }

    private static let wordsPerEntry = 5
    private static let entriesPerBucket = 4
    private static let wordsPerBucket = wordsPerEntry * entriesPerBucket

    private var words: CachePages
    private let bucketCount: Int

    init(byteCount: Int) {
        bucketCount = Self.bucketCount(within: byteCount)
        words = CachePages(count: bucketCount * Self.wordsPerBucket)
    }

    var byteCount: Int { words.byteCount }

    /// What a table takes that is made with so many bytes.
    static func byteCount(within byteCount: Int) -> Int { CachePages.byteCount(of: bucketCount(within: byteCount) * wordsPerBucket) }

    private static func bucketCount(within byteCount: Int) -> Int { max(1, byteCount / (wordsPerBucket * 8)) }

    private func bucket(_ signature: BlockSignature) -> Int {
        Int(signature.high.multipliedFullWidth(by: UInt64(bucketCount)).high) * Self.wordsPerBucket
    }

    private func position(_ signature: BlockSignature, in bucket: Int) -> Int? {
        stride(from: bucket, to: bucket + Self.wordsPerBucket, by: Self.wordsPerEntry).first {
            words[$0] == signature.high && words[$0 + 1] == signature.low && words[$0 + 2] != 0
        }
    }

    /// Where a block with this signature was put last.
    func find(_ signature: BlockSignature) -> Entry? {
        guard let place = position(signature, in: bucket(signature)) else { return nil }
        let third = words[place + 2]
        return Entry(
            slot: CacheSlot(truncatingIfNeeded: third),
            owner: CacheOwner(volume: UInt32(truncatingIfNeeded: words[place + 3]), block: words[place + 4]),
            sequence: UInt32(truncatingIfNeeded: third >> 32))
    }

    /// Notes where a block with this signature is now. The youngest stands first. No sequence is 0.
    mutating func put(_ signature: BlockSignature, _ entry: Entry) {
        let first = bucket(signature)
        let end = position(signature, in: first) ?? first + Self.wordsPerBucket - Self.wordsPerEntry
        for place in stride(from: end, to: first, by: -Self.wordsPerEntry) {
            for word in 0..<Self.wordsPerEntry { words[place + word] = words[place - Self.wordsPerEntry + word] }
        }
        words[first] = signature.high
        words[first + 1] = signature.low
        words[first + 2] = UInt64(entry.sequence) << 32 | UInt64(entry.slot)
        words[first + 3] = UInt64(entry.owner.volume)
        words[first + 4] = entry.owner.block
    }

    /// Forgets where a block with this signature is.
    mutating func remove(_ signature: BlockSignature) {
        guard let place = position(signature, in: bucket(signature)) else { return }
        for word in 0..<Self.wordsPerEntry { words[place + word] = 0 }
    }

    mutating func removeAll() { words = CachePages(count: bucketCount * Self.wordsPerBucket) }
}
