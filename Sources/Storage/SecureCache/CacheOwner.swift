import Ciphers
import NIOCore

// What stands behind the slots of a full segment: which block of which volume each was filled with, 12 bytes a slot.
//
// The whole is sealed under the cache's key. The numbers of the blocks are hidden beneath that, those of each volume as one text under the
// volume's key, as in records (CacheVeil.swift). What comes out under another key is no block that the index has in that slot.

/// The block that a slot was filled with.
struct CacheOwner: Hashable {
    var volume: UInt32
    var block: UInt64
}

extension CacheOwner {
    /// Hides the numbers of blocks, or shows them, by the key of a volume; nil without one.
    typealias Combine = (_ volume: UInt32, _ blocks: ByteBuffer) -> ByteBuffer?

    /// The owners of a segment, each volume's blocks hidden. Slots of volumes without a key have none.
    static func encode(_ owners: [CacheOwner], combine: Combine) -> ByteBuffer {
        var plaintext = ByteBuffer()
        plaintext.reserveCapacity(owners.count * CacheFormat.ownerBytes)
        for owner in combined(owners, combine) { plaintext.writeMultipleIntegers(owner.volume, owner.block) }
        return plaintext
    }

    /// Combines the numbers of all blocks, volume by volume, in the order of the slots.
    private static func combined(_ owners: [CacheOwner], _ combine: Combine) -> [CacheOwner] {
        var owners = owners
        var slots: [UInt32: [Int]] = [:]
        for (slot, owner) in owners.enumerated() where owner != CacheFormat.noOwner && owner != CacheFormat.sharedOwner {
            slots[owner.volume, default: []].append(slot)
        }
        for (volume, slots) in slots {
            var blocks = ByteBuffer()
            for slot in slots { blocks.writeInteger(owners[slot].block) }
            var result = combine(volume, blocks)
            for slot in slots {
                owners[slot] = result?.readInteger().map { CacheOwner(volume: volume, block: $0) } ?? CacheFormat.noOwner
            }
        }
        return owners
    }

    /// The owners of a full segment, from what stands behind its slots; nil when that is not what was written.
    static func open(
        _ bytes: ByteBuffer, of number: Int, _ segment: CacheSegment, _ geometry: CacheGeometry, cipher: BlockCipher, _ index: CacheIndex,
        _ salts: CacheSalts
    ) -> [CacheOwner]? {
        var plaintext = ByteBuffer()
        let context = CacheFormat.ownersContext(segment: number, sequence: segment.sequence, count: geometry.slotCount)
        let isOpen = bytes.withUnsafeReadableBytes {
            cipher.open($0, nonce: CacheFormat.ownersNonce(segment.sequence), context: context, appendingTo: &plaintext)
        }
        guard isOpen else { return nil }
        var owners: [CacheOwner] = []
        while let (volume, block) = plaintext.readMultipleIntegers(as: (UInt32, UInt64).self) {
            owners.append(CacheOwner(volume: volume, block: block))
        }
        guard owners.count == geometry.slotCount else { return nil }
        return combined(owners) { volume, blocks in
            index[ordinal: volume]?.cipher(salt: Int(segment.salt), of: salts)?.combine(
                blocks, nonce: CacheFormat.ownersNonce(segment.sequence))
        }
    }
}

extension CacheIndex {
    /// For each of some segments, which block each of its slots has, as far as the index knows blocks there.
    static func owners(
        of wanted: Set<Int>, in index: CacheIndex, _ geometry: CacheGeometry, _ shared: CacheSharedBlocks
    ) -> [Int: [CacheOwner]] {
        var owners: [Int: [CacheOwner]] = [:]
        for number in wanted { owners[number] = Array(repeating: CacheFormat.noOwner, count: geometry.slotCount) }
        if wanted.isEmpty { return owners }
        for volume in index.volumes.values {
            volume.map.forEach { block, slot in
                let segment = geometry.segment(of: slot)
                if wanted.contains(segment) {
                    let owner = shared.contains(slot) ? CacheFormat.sharedOwner : CacheOwner(volume: volume.ordinal, block: block)
                    owners[segment]?[geometry.index(of: slot)] = owner
                }
            }
        }
        return owners
    }
}
