import Blocks
import Ciphers
import NIOCore

// Blocks that are equal are stored once (CacheSharing.swift has the idea and the keys).
extension SecureCache {
    /// What the shared block in a slot is known by; nil when what is there is one volume's.
    func identity(ofSlot slot: CacheSlot) -> SharedIdentity? {
        segments[geometry.segment(of: slot)].sharedCount > 0 ? shared[slot]?.identity : nil
    }

    func isShared(_ index: Int, in segment: Int) -> Bool {
        segments[segment].sharedCount > 0 && shared.contains(geometry.slot(index, in: segment))
    }

    /// Shared blocks in slots that follow one another; nil when the cipher library refuses.
    func sharedRun(segment: Int, first: Int, count: Int) -> CacheSharedRun? {
        guard let sharing, let root = sharing.root(salt: Int(segments[segment].salt), of: salts) else { return nil }
        let identities = (first..<first + count).compactMap { shared[geometry.slot($0, in: segment)]?.identity }
        return CacheSharedRun(cipher: sharing.cipher, root: root, identities: identities)
    }

    /// Lends the cipher of the shared block in a slot; nil, without a call, when the cipher library refuses.
    func withCipher<Result>(ofShared slot: CacheSlot, _ identity: SharedIdentity, _ body: (BlockCipher) -> Result) -> Result? {
        guard let sharing, let root = sharing.root(salt: Int(segments[geometry.segment(of: slot)].salt), of: salts) else { return nil }
        return sharing.cipher.withCipher(of: identity.keyName, root: root, body)
    }

    /// Opens what was read of a slot; nil without its key.
    func open(
        _ sealed: ByteBuffer, slot: CacheSlot, _ identity: SharedIdentity?, _ owner: CacheOwner, _ volume: CacheVolume,
        into plaintext: inout ByteBuffer
    ) -> Bool? {
        let segment = segments[geometry.segment(of: slot)]
        let nonce = CipherNonce(sequence: segment.sequence, index: UInt32(geometry.index(of: slot)))
        if let identity {
            let context = CacheFormat.sharedContext(identity.signature, sequence: segment.sequence)
            return withCipher(ofShared: slot, identity) { cipher in
                sealed.withUnsafeReadableBytes { cipher.open($0, nonce: nonce, context: context, appendingTo: &plaintext) }
            }
        }
        let context = CacheFormat.blockContext(volume.identifier, owner.block, sequence: segment.sequence)
        return volume.cipher(salt: Int(segment.salt), of: salts).map { cipher in
            sealed.withUnsafeReadableBytes { cipher.open($0, nonce: nonce, context: context, appendingTo: &plaintext) }
        }
    }

    /// A slot is no more that of a block.
    func release(_ slot: CacheSlot, of owner: CacheOwner) {
        let segment = geometry.segment(of: slot)
        if segments[segment].sharedCount > 0 {
            switch shared.release(slot, of: owner) {
            case .notShared: break
            case .othersLeft: return noteWhetherPinned(slot)
            case .wasLast(let isAdrift):
                segments[segment].sharedCount -= 1
                if isAdrift { segments[segment].adriftCount -= 1 }
            }
        }
        countLive(-1, in: segment)
    }

    /// One slot more or less of a segment has a block that counts.
    func countLive(_ change: Int32, in segment: Int) {
        segments[segment].liveCount += change
        liveInPools[Int(segments[segment].pool)] += Int(change)
    }

    /// Counts anew, after segments have come to other pools.
    func countLiveInPools() {
        liveInPools = [Int](repeating: 0, count: Int(UInt8.max) + 1)
        for segment in segments { liveInPools[Int(segment.pool)] += Int(segment.liveCount) }
    }

    /// A segment of pinned blocks is not kept for a shared one that nobody has pinned any more.
    private func noteWhetherPinned(_ slot: CacheSlot) {
        let segment = geometry.segment(of: slot)
        guard segments[segment].queue == .pinned, let block = shared[slot] else { return }
        let isAdrift = !block.references.contains { index[ordinal: $0.volume]?.isPinned($0.block) == true }
        if isAdrift == block.isAdrift { return }
        shared.setAdrift(slot, isAdrift)
        segments[segment].adriftCount += isAdrift ? 1 : -1
    }

    /// The blocks of volumes whose slot this is.
    /// - Parameter owner: what the segment says of the slot.
    func owners(ofSlot slot: CacheSlot, _ owner: CacheOwner) -> [CacheOwner] {
        guard owner == CacheFormat.sharedOwner else { return has(owner, slot) ? [owner] : [] }
        return shared[slot]?.references ?? []
    }

    func has(_ owner: CacheOwner, _ slot: CacheSlot) -> Bool { index[ordinal: owner.volume]?.map.slot(of: owner.block) == slot }

    // MARK: Coming in

    /// What tells equal blocks; nil while none are looked for.
    var signing: CacheSharing? { limits.sharesBlocks ? sharing : nil }

    /// Puts one block that came into the cache, or refers to one that is equal; false when there is no room for it.
    func insertOnce(_ bytes: ByteBuffer, of block: UInt64, _ volume: CacheVolume) -> Bool {
        guard let signing, let signature = signing.signature(of: bytes) else { return insert(bytes, of: block, volume, isMove: false) }
        if let known = signatures.find(signature.within(queues.partition(ofPool: volume.pool))),
            isInPartition(known.slot, of: volume)
        {
            if known.owner == CacheFormat.sharedOwner {
                if referToShared(known.slot, signature, block, volume) { return true }
            } else if isFirstCopy(known, bytes) {
                if known.owner == CacheOwner(volume: volume.ordinal, block: block) {
                    // The same once more: it counts as asked for, and stays where it is.
                    uses[known.slot] = true
                    return true
                }
                if share(bytes, signature, first: known, block, volume) { return true }
            }
        }
        guard insert(bytes, of: block, volume, isMove: false) else { return false }
        note(signature, of: block, volume)
        return true
    }

    /// Remembers where a block is that is one volume's.
    func note(_ signature: BlockSignature, of block: UInt64, _ volume: CacheVolume) {
        guard let slot = volume.map.slot(of: block) else { return }
        put(signature, slot, CacheOwner(volume: volume.ordinal, block: block))
    }

    private func put(_ signature: BlockSignature, _ slot: CacheSlot, _ owner: CacheOwner) {
        let sequence = UInt32(truncatingIfNeeded: segments[geometry.segment(of: slot)].sequence)
        signatures.put(signature.within(partition(ofSlot: slot)), CacheSignatures.Entry(slot: slot, owner: owner, sequence: sequence))
    }

    /// True when a block is still where and what it was when its signature was noted: its slot is written once in the life of a segment, and
    /// `forgetSignature` sees to those that are replaced before they are written.
    private func isFirstCopy(_ known: CacheSignatures.Entry, _ bytes: ByteBuffer) -> Bool {
        if isPlanted(.sharesWithoutLooking) {
            return index[ordinal: known.owner.volume] != nil
        }
        guard has(known.owner, known.slot), !shared.contains(known.slot),
            UInt32(truncatingIfNeeded: segments[geometry.segment(of: known.slot)].sequence) == known.sequence
        else { return false }
        guard let held = fillingSegment(of: known.slot)?.buffers[geometry.index(of: known.slot)] else { return true }
        return held == bytes
    }

    /// Bytes that no file has yet are replaced in their slot.
    func forgetSignature(of bytes: ByteBuffer, in slot: CacheSlot) {
        guard let signing else { return }
        if let signature = signing.signature(of: bytes) {
            signatures.remove(signature.within(partition(ofSlot: slot)))
        } else {
            // Nobody knows which one is not true any more.
            signatures.removeAll()
        }
    }

    /// The partition whose room a slot is.
    private func partition(ofSlot slot: CacheSlot) -> Int {
        queues.partition(ofPool: Int(segments[geometry.segment(of: slot)].pool))
    }

    /// True when a slot, which may be none any more, is in the partition of a volume.
    private func isInPartition(_ slot: CacheSlot, of volume: CacheVolume) -> Bool {
        geometry.segment(of: slot) < segments.count && partition(ofSlot: slot) == queues.partition(ofPool: volume.pool)
    }

    /// True when there is memory for another shared block, or for another reference.
    private var hasMemoryForSharing: Bool { shared.byteCount < limits.sharedBytesMax(cacheBytes: geometry.byteCount) }

    /// Refers to a shared block; false when it is gone, or has references enough.
    private func referToShared(_ slot: CacheSlot, _ signature: BlockSignature, _ block: UInt64, _ volume: CacheVolume) -> Bool {
        guard let there = shared[slot], there.identity.signature == signature else { return false }
        if volume.map.slot(of: block) != slot {
            guard there.references.count < CacheSharedBlocks.referencesMax, hasMemoryForSharing else { return false }
            refer(block, of: volume, to: slot)
            counters.shared += 1
        }
        uses[slot] = true
        put(signature, slot, CacheFormat.sharedOwner)
        return true
    }

    /// Stores a block that is here once already, as a shared one, to which both refer; false when it is better not shared.
    private func share(
        _ bytes: ByteBuffer, _ signature: BlockSignature, first: CacheSignatures.Entry, _ block: UInt64, _ volume: CacheVolume
    ) -> Bool {
        guard hasMemoryForSharing, let other = index[ordinal: first.owner.volume], other.key != nil else { return false }
        let place = placeOfShared(first: first, other, block, volume)
        guard let slot = appendShared(bytes, signature, to: place, isMove: false) else { return false }
        refer(block, of: volume, to: slot)
        refer(first.owner.block, of: other, to: slot)
        uses[slot] = true
        put(signature, slot, CacheFormat.sharedOwner)
        counters.shared += 1
        return true
    }

    /// At whose cost a block is shared: of who has it pinned; of who had it first, when something is guaranteed to that one, who would have
    /// the room and nothing in it otherwise; of who brings it.
    private func placeOfShared(
        first: CacheSignatures.Entry, _ other: CacheVolume, _ block: UInt64, _ volume: CacheVolume
    ) -> CachePoolPlace {
        if other.isPinned(first.owner.block) { return CachePoolPlace(queue: .pinned, pool: other.pool) }
        if other.pool != volume.pool, !volume.isPinned(block), queues.pools[other.pool].bounds.floor > 0 {
            let isSmall = segments[geometry.segment(of: first.slot)].queue == .small
            return CachePoolPlace(queue: isSmall ? .small : .main, pool: other.pool)
        }
        return CachePoolPlace(queue: queue(for: block, of: volume, isMove: false), pool: volume.pool)
    }

    /// A shared block to which nobody refers yet.
    private func appendShared(_ bytes: ByteBuffer, _ signature: BlockSignature, to place: CachePoolPlace, isMove: Bool) -> CacheSlot? {
        guard let slot = append(bytes, of: CacheFormat.sharedOwner, to: place, isMove: isMove) else { return nil }
        var random = random
        let identity = SharedIdentity(
            signature: signature, nameHigh: random.next(), nameLow: UInt32(truncatingIfNeeded: random.next()))
        shared.add(slot, identity)
        segments[geometry.segment(of: slot)].sharedCount += 1
        return slot
    }

    private func refer(_ block: UInt64, of volume: CacheVolume, to slot: CacheSlot) {
        guard let identity = shared[slot]?.identity else { return }
        let owner = CacheOwner(volume: volume.ordinal, block: block)
        let previous = volume.map.set(block, to: slot)
        if shared[slot]?.references.isEmpty == true { countLive(1, in: geometry.segment(of: slot)) }
        shared.refer(owner, to: slot)
        noteWhetherPinned(slot)
        if let previous { release(previous, of: owner) }
        if volume.isZero(block) { volume.zeroes.remove(SectorRange(block: block)) }
        volume.sharedRecordsIn = journal.number
        record(.shared(ordinal: volume.ordinal, block: block, slot: slot, identity))
    }

    // MARK: Leaving

    /// True when a block of a segment that is being freed stays because its volume would have less than nobody else takes of it otherwise, by the
    /// blocks that its pool has: segments may hold little. In the same pool only what is sparse is written again for that: anything else would
    /// make no room.
    func isPromised(_ volume: CacheVolume, _ eviction: CacheEviction) -> Bool {
        let floor = queues.pools[volume.pool].bounds.floor
        if floor == 0 { return false }
        let segment = segments[eviction.segment]
        let isOwn = Int(segment.pool) == volume.pool
        if isOwn, !eviction.isSparse { return false }
        let live = liveInPools[volume.pool] - (isOwn ? Int(segment.liveCount) : 0)
        return live * 8 < floor * geometry.slotCount * CacheQueues.sparseEighths
    }

    /// A volume's blocks are gone, or the key that hid them. When its records of shared blocks came tells something of them, so these go too.
    func forgetSharedRecords(of volume: CacheVolume) {
        if let number = volume.sharedRecordsIn, number >= checkpointNumber { mustForgetRecords = true }
    }

    /// At whose cost a shared block stays whose segment is being freed; nil when it leaves.
    func home(ofShared slot: CacheSlot, _ eviction: CacheEviction) -> CacheOwner? {
        if sharing == nil { return nil }
        let references = owners(ofSlot: slot, CacheFormat.sharedOwner).compactMap { owner in
            index[ordinal: owner.volume].map { (owner: owner, volume: $0) }
        }
        if let pinned = references.first(where: { $0.volume.isPinned($0.owner.block) }) { return pinned.owner }
        // Nobody loses what he is promised because another has no more room for it.
        if let promised = references.first(where: { isPromised($0.volume, eviction) }) { return promised.owner }
        guard uses[slot] else { return nil }
        let pool = Int(segments[eviction.segment].pool)
        let own = references.first { $0.volume.pool == pool }
        return (own ?? references.first { queues.mayOpen(in: $0.volume.pool) })?.owner
    }

    /// A shared block stays: it is written again, and all who refer to it refer to the new one.
    /// - Returns: false when there was no room.
    func moveShared(_ bytes: ByteBuffer, from slot: CacheSlot, to place: CachePoolPlace) -> Bool {
        let references = owners(ofSlot: slot, CacheFormat.sharedOwner)
        guard let signature = shared[slot]?.identity.signature, let new = appendShared(bytes, signature, to: place, isMove: true) else {
            return false
        }
        // What went over the bridge is moved once more.
        uses[new] = geometry.segment(of: new) >= end
        for owner in references {
            if let volume = index[ordinal: owner.volume] { refer(owner.block, of: volume, to: new) }
        }
        put(signature, new, CacheFormat.sharedOwner)
        return true
    }

    /// What is in a slot is not what was written: nobody refers to it any more.
    func forgetShared(_ slot: CacheSlot) {
        for owner in owners(ofSlot: slot, CacheFormat.sharedOwner) {
            if let volume = index[ordinal: owner.volume] { forget(volume, blocks: owner.block..<owner.block + 1) }
        }
        pump()
    }

    /// Has as much memory for signatures as the cache's present size allows.
    func fitSignatures() {
        let byteCount = limits.signatureBytesMax(cacheBytes: geometry.byteCount)
        if CacheSignatures.byteCount(within: byteCount) != signatures.byteCount { makeSignatures(byteCount) }
    }

    /// Has no more memory for signatures than they have in any case: blocks that lie alone take more of the index than others.
    /// - Returns: false when they had no more.
    func giveUpSignatures() -> Bool {
        let least = limits.signatureBytesMin(cacheBytes: geometry.byteCount)
        if CacheSignatures.byteCount(within: least) >= signatures.byteCount { return false }
        makeSignatures(least)
        return true
    }

    private func makeSignatures(_ byteCount: Int) {
        signatures = CacheSignatures(byteCount: byteCount)
        noteSharedBlocks()
    }

    /// What is shared already can be referred to at once.
    func noteSharedBlocks() {
        if signing == nil { return }
        shared.forEach { slot, block in put(block.identity.signature, slot, CacheFormat.sharedOwner) }
    }
}
