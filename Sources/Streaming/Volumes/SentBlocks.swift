import Blocks
import Ciphers
import NIOCore

// What the other edge probably has (X4): the blocks that it was sent, by their digests, and which block of which volume each was. It keeps what
// it reads in its cache, so a block that is equal to one of them need not cross again: a reference to that one does (`readReferences`). Nobody
// asks first. What was evicted there, or overwritten, is asked for as bytes, which takes one round trip and puts the table right.
//
// Points go home in the same way (`pointReferences`): the cloud edge remembers what home has sent it, and what home has applied.
//
// A table of a fixed size for all edges, in buckets of four entries, the youngest first; the oldest of a bucket goes when a fifth comes. An entry
// is two words: 64 bits of the digest, mixed with who has the block, and the place (16 bits for the volume, 48 for the block). That is enough to
// guess with; the receiver compares all of the digest.

/// A block of a volume.
public struct BlockPlace: Equatable, Sendable {
    public let volume: VolumeIdentifier
    public let block: UInt64

    public init(volume: VolumeIdentifier, block: UInt64) {
        self.volume = volume
        self.block = block
    }
}

/// Blocks that other edges have, within a bound of memory; `PeerBlocks` is what one of them has. Lives on one event loop.
public final class SentBlocks {
    /// Counters since the start, for one peer.
    public struct Statistics: Equatable, Sendable {
        /// Blocks that were referred to instead of sent.
        public var referredBlocks: UInt64 = 0
        /// Those of them that the peer did not have, and asked for.
        public var wrongBlocks: UInt64 = 0

        public init() {}
    }

    private static var entriesPerBucket: Int { 4 }
    private static var wordsPerEntry: Int { 2 }
    private static var wordsPerBucket: Int { entriesPerBucket * wordsPerEntry }
    private static var blockBits: UInt64 { 48 }

    private let bucketCount: Int
    private let hasher: BlockHasher
    /// Nothing until the first block is noted.
    private var words: [UInt64] = []
    /// The number of a volume in the entries is its index here, and one more: no entry is zero.
    private var volumes: [VolumeIdentifier?] = []
    private var numbers: [VolumeIdentifier: UInt64] = [:]

    /// A table that takes up to `byteCount` bytes. Nil when the library for digests refuses.
    public init?(byteCount: Int) {
        guard let hasher = BlockHasher() else { return nil }
        self.hasher = hasher
        bucketCount = max(1, byteCount / (Self.wordsPerBucket * MemoryLayout<UInt64>.size))
    }

    /// The digest of a whole block; nil when it is all zeroes.
    func digest(of block: ByteBuffer) -> BlockDigest? {
        block.isAllZeroes ? nil : block.withUnsafeReadableBytes { hasher.hash($0) }.map { BlockDigest($0) }
    }

    /// The digests of whole blocks, one for each block that `data` begins; nil for those that are all zeroes, and for a cut one at the end.
    func digests(of data: ByteBuffer) -> [BlockDigest?] {
        stride(from: 0, to: data.readableBytes, by: BlockGeometry.blockBytes).map { offset in
            data.getSlice(at: data.readerIndex + offset, length: BlockGeometry.blockBytes).flatMap { digest(of: $0) }
        }
    }

    /// Where the block with this key was noted last.
    func find(_ key: UInt64) -> BlockPlace? {
        guard !words.isEmpty, let entry = position(of: key, in: bucket(key)) else { return nil }
        let place = words[entry + 1]
        return volumes[Int(place >> Self.blockBits) - 1].map { BlockPlace(volume: $0, block: place & (1 << Self.blockBits - 1)) }
    }

    /// Notes where a block is.
    func put(_ key: UInt64, _ place: BlockPlace) {
        guard place.block < 1 << Self.blockBits else { return }
        let number = number(of: place.volume)
        if words.isEmpty { words = Array(repeating: 0, count: bucketCount * Self.wordsPerBucket) }
        let first = bucket(key)
        let end = position(of: key, in: first) ?? first + Self.wordsPerBucket - Self.wordsPerEntry
        for word in stride(from: end - 1, through: first, by: -1) { words[word + Self.wordsPerEntry] = words[word] }
        words[first] = key
        words[first + 1] = number << Self.blockBits | place.block
    }

    /// Nothing that was noted of the volume is found any more.
    func forget(_ volume: VolumeIdentifier) {
        guard let number = numbers.removeValue(forKey: volume) else { return }
        volumes[Int(number) - 1] = nil
    }

    private func bucket(_ key: UInt64) -> Int { Int(key.multipliedFullWidth(by: UInt64(bucketCount)).high) * Self.wordsPerBucket }

    private func position(of key: UInt64, in bucket: Int) -> Int? {
        stride(from: bucket, to: bucket + Self.wordsPerBucket, by: Self.wordsPerEntry).first { words[$0] == key && words[$0 + 1] != 0 }
    }

    /// When the numbers have run out the table begins anew.
    private func number(of volume: VolumeIdentifier) -> UInt64 {
        if let number = numbers[volume] { return number }
        if volumes.count == Int(UInt16.max) {
            (volumes, numbers, words) = ([], [:], [])
        }
        volumes.append(volume)
        numbers[volume] = UInt64(volumes.count)
        return UInt64(volumes.count)
    }
}
