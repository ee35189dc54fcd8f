import Blocks
import Ciphers
import DequeModule
import NIOCore

/// A segment that is being freed.
final class CacheEviction {
    let segment: Int
    let queue: CacheQueue
    let sequence: UInt64
    /// It has so few blocks that room is made when all of them are written again.
    let isSparse: Bool
    /// A block that stays, and at whose cost: of a shared one, one of those that refer to it.
    typealias Entry = (owner: CacheOwner, slot: CacheSlot)

    /// Blocks that stay, and are not written again yet, by their slots.
    var staying: ArraySlice<Entry> = []
    /// The next blocks wait until others are written, or until a segment is free.
    var isWaiting = false

    init(segment: Int, queue: CacheQueue, sequence: UInt64, isSparse: Bool) {
        self.segment = segment
        self.queue = queue
        self.sequence = sequence
        self.isSparse = isSparse
    }
}

/// One of the queues of a pool.
struct CachePoolPlace: Equatable {
    var queue: CacheQueue
    var pool: Int
}

// Where room comes from.
extension SecureCache {
    /// Segments that blocks can be in.
    var usableCount: Int { end - withoutRoom.count }
    /// Segments that are kept free ahead of need.
    private var reserve: Int { CacheGeometry.reserve(segmentCount: usableCount) }
    /// How many of the segments that are leaving will take blocks again.
    var leavingBeforeEnd: Int { leaving.count { $0.segment < end } }
    /// Blocks that are read for being written again at a time.
    private static var moveBlocksMax: Int { 64 }

    /// The segment that takes blocks for a queue of a pool, opened when there is none.
    func openSegment(for queue: CacheQueue, of pool: Int, isMove: Bool) -> FillingSegment? {
        if let open = filling.last(where: { $0.queue == queue && $0.pool == pool && !$0.isFull }) { return open }
        // The last free segment is for blocks that are written again: without it no room could be made.
        guard freeSegments.count > (isMove ? 0 : 1), isMove || queues.mayOpen(in: pool), nextSequence < .max - 2,
            let number = freeSegments.popFirst()
        else {
            makeRoom()
            return nil
        }
        let segment = FillingSegment(segment: number, sequence: nextSequence, queue: queue, pool: pool)
        nextSequence += 1
        segments[number] = CacheSegment(
            state: .open, queue: queue, pool: UInt8(pool), hasRoom: segments[number].hasRoom, sequence: segment.sequence,
            salt: UInt32(salt))
        if number >= end { countBehindEnd += 1 }
        queues.opened(in: pool)
        filling.append(segment)
        record(.opened(segment: UInt32(number), sequence: segment.sequence, salt: UInt32(salt), queue))
        if !segments[number].hasRoom {
            fileSegments += 1
            keepToFile()
        }
        makeRoom()
        return segment
    }

    /// Sees to it that some segments are free.
    /// - Parameter isIndexFull: that the index needs memory, however many segments are free.
    func makeRoom(isIndexFull: Bool = false) {
        guard eviction == nil, !isDegraded, !isClosed else { return }
        guard let victim = takeVictim(isIndexFull: isIndexFull) else { return }
        let number = victim.segment
        let eviction = CacheEviction(
            segment: number, queue: victim.queue, sequence: segments[number].sequence, isSparse: queues.isSparse(segments[number].liveCount)
        )
        self.eviction = eviction
        // What is not recorded as moved from here on is gone after a crash, and nothing that leaves needs a record of its own.
        let isForgotten = number < end ? queues.pools.count > 1 && isPlanted(.emptiesPoolWithoutRecord) : isPlanted(.emptiesWithoutRecord)
        if !isForgotten { record(.freed(segment: UInt32(number))) }
        if segments[number].liveCount == 0 { return finish(eviction) }
        if let owners = ownersInMemory[number] { return sort(owners, eviction) }
        let byteCount = geometry.slotCount * CacheFormat.ownerBytes + BlockCipher.tagByteCount
        file.read(at: geometry.offset(ofOwnersIn: number), byteCount: byteCount) { [self] result in
            guard self.eviction === eviction, !isClosed else { return }
            let owners = (try? result.get()).flatMap { openOwners($0, of: number) }
            // What the file does not tell any more, the index does, in a longer time.
            sort(owners.flatMap { isComplete($0, of: number) ? $0 : nil } ?? self.owners(of: number), eviction)
        }
    }

    /// The segment that is to go next: for room, or because the cache is to end before it.
    private func takeVictim(isIndexFull: Bool) -> CacheVictim? {
        if let victim = queues.takeAtCeiling(segments) { return victim }
        let leavingBefore = leavingBeforeEnd
        let leavingBehind = leaving.count - leavingBefore
        if freeSegments.count < reserve, leavingBefore > 0 { wantsSynchronization = true }
        if isIndexFull || freeSegments.count + leavingBefore < reserve,
            let victim = queues.takeVictim(segmentCount: usableCount, segments)
        {
            return victim
        }
        if leavingBehind >= reserve || (leavingBehind > 0 && queues.behindEnd.isEmpty) {
            // Some at a time: each round of the writer takes a sync.
            wantsSynchronization = true
            return nil
        }
        return queues.takeBehindEnd()
    }

    /// The owners of a segment, from what stands behind its slots.
    private func openOwners(_ bytes: ByteBuffer, of number: Int) -> [CacheOwner]? {
        let segment = segments[number]
        let cipher: BlockCipher?
        if Int(segment.salt) == salt {
            cipher = ownersCipher
        } else {
            let derived = salts[Int(segment.salt)].flatMap { try? key.derive(salt: $0.bytes, purpose: CacheFormat.ownersPurpose) }
            cipher = derived.map { BlockCipher(key: $0) }
        }
        return cipher.flatMap { CacheOwner.open(bytes, of: number, segment, geometry, cipher: $0, index, salts) }
    }

    /// The owners of a segment's slots, as far as the index knows blocks there; the others have none.
    private func owners(of number: Int) -> [CacheOwner] {
        CacheIndex.owners(of: [number], in: index, geometry, shared)[number] ?? []
    }

    /// True when the owners are all those that the index has in a segment: none may stay behind there.
    private func isComplete(_ owners: [CacheOwner], of number: Int) -> Bool {
        let known = owners.enumerated().reduce(0) { known, entry in
            let slot = geometry.slot(entry.offset, in: number)
            let isKnown = entry.element == CacheFormat.sharedOwner ? shared.contains(slot) : has(entry.element, slot)
            return isKnown ? known + 1 : known
        }
        return known == Int(segments[number].liveCount)
    }

    /// Parts the blocks of a segment into those that stay and those that leave.
    private func sort(_ owners: [CacheOwner], _ eviction: CacheEviction) {
        var (pinned, staying): ([CacheEviction.Entry], [CacheEviction.Entry]) = ([], [])
        for (number, owner) in owners.enumerated() {
            let slot = geometry.slot(number, in: eviction.segment)
            let isShared = owner == CacheFormat.sharedOwner
            if isShared ? !shared.contains(slot) : !has(owner, slot) { continue }
            guard let home = isShared ? home(ofShared: slot, eviction) : stays(owner, in: slot, eviction) ? owner : nil else {
                for owner in self.owners(ofSlot: slot, owner) {
                    if eviction.queue == .small { ghosts.insert(owner.volume, owner.block) }
                    leave(owner)
                }
                continue
            }
            if place(of: home).queue == .pinned { pinned.append((home, slot)) } else { staying.append((home, slot)) }
        }
        eviction.staying = (pinned + staying)[...]
        moveNext(eviction)
    }

    /// True when a block that is one volume's stays.
    private func stays(_ owner: CacheOwner, in slot: CacheSlot, _ eviction: CacheEviction) -> Bool {
        guard let volume = index[ordinal: owner.volume] else { return false }
        if volume.isPinned(owner.block) { return true }
        guard volume.key != nil else { return false }
        let pool = Int(segments[eviction.segment].pool)
        return isPromised(volume, eviction) || (uses[slot] && (volume.pool == pool || queues.mayOpen(in: volume.pool)))
    }

    /// Takes a block out, wherever it is.
    private func leave(_ owner: CacheOwner) {
        guard let slot = index[ordinal: owner.volume]?.map.remove(owner.block) else { return }
        release(slot, of: owner)
        counters.evicted += 1
    }

    /// All who have what is in a slot lose it.
    private func leave(_ entry: CacheEviction.Entry) {
        let owner = shared.contains(entry.slot) ? CacheFormat.sharedOwner : entry.owner
        for owner in owners(ofSlot: entry.slot, owner) { leave(owner) }
    }

    /// Reads the next blocks that stay, and puts them into the main queue.
    func moveNext(_ eviction: CacheEviction) {
        guard self.eviction === eviction, !isClosed else { return }
        eviction.isWaiting = false
        guard let first = nextStaying(eviction) else { return finish(eviction) }
        // Nothing can be written again.
        if isDegraded { return leave(eviction) }
        // What is moved has records, of which a shared block has several.
        if journal.pendingBytes > limits.recordBytesMax / 4 {
            eviction.isWaiting = true
            wantsSynchronization = true
            return pump()
        }
        let memory = (limits.unwrittenBytesMax - unwrittenBytes) / CacheFormat.blockBytes
        let place = place(of: first.owner)
        let room = min(memory, room(in: place))
        guard room > 0 else {
            // Blocks leave only where nothing else will ever make room for them.
            if memory > 0, leavingBeforeEnd == 0 { return leave(eviction) }
            eviction.isWaiting = true
            // What is too little to be worth a write is written too, and what leaves becomes free.
            wantsSynchronization = true
            return pump()
        }
        // All of one queue, in the order of their slots.
        let alike = eviction.staying.prefix { self.place(of: $0.owner) == place && $0.slot >= first.slot }
        let run = alike.prefix(min(Self.moveBlocksMax, room))
        let start = geometry.index(of: first.slot)
        let end = geometry.index(of: run.last?.slot ?? first.slot) + 1
        eviction.staying = eviction.staying.dropFirst(run.count)
        file.read(at: geometry.offset(ofSlot: start, in: eviction.segment), byteCount: (end - start) * CacheFormat.slotBytes) {
            [self] result in
            guard self.eviction === eviction, !isClosed else { return }
            let bytes = try? result.get()
            for entry in run { move(entry, from: bytes, start: start) }
            pump()
            moveNext(eviction)
        }
    }

    /// The next block that stays; nil when none is left. Who has it may have let go of it meanwhile.
    private func nextStaying(_ eviction: CacheEviction) -> CacheEviction.Entry? {
        while let first = eviction.staying.first {
            if has(first.owner, first.slot) { return first }
            let home = shared.contains(first.slot) ? home(ofShared: first.slot, eviction) : nil
            if let home {
                eviction.staying[eviction.staying.startIndex].owner = home
                continue
            }
            eviction.staying.removeFirst()
            leave(first)
        }
        return nil
    }

    private func move(_ entry: CacheEviction.Entry, from bytes: ByteBuffer?, start: Int) {
        // The block may be elsewhere by now, or nowhere.
        let identity = identity(ofSlot: entry.slot)
        guard let owner = has(entry.owner, entry.slot) ? entry.owner : owners(ofSlot: entry.slot, CacheFormat.sharedOwner).first,
            let volume = index[ordinal: owner.volume]
        else { return }
        let position = (geometry.index(of: entry.slot) - start) * CacheFormat.slotBytes
        var plaintext = ByteBuffer()
        let sealed = bytes.flatMap { $0.getSlice(at: $0.readerIndex + position, length: CacheFormat.slotBytes) }
        guard let sealed, let isOpen = open(sealed, slot: entry.slot, identity, owner, volume, into: &plaintext) else {
            return leave(entry)
        }
        if !isOpen { counters.corrupt += 1 }
        // What one alone has left is its own again: whose it was besides is no more to be seen.
        let isShared = shared[entry.slot].map { $0.references.count > 1 } ?? false
        let isMoved =
            isOpen
            && (isShared
                ? moveShared(plaintext, from: entry.slot, to: place(of: owner))
                : insert(plaintext, of: owner.block, volume, isMove: true))
        if !isMoved { return leave(entry) }
        if !isShared, let own = signing?.signature(of: plaintext) { note(own, of: owner.block, volume) }
        counters.moved += 1
    }

    /// Where a block goes that stays.
    func place(of owner: CacheOwner) -> CachePoolPlace {
        guard let volume = index[ordinal: owner.volume] else { return CachePoolPlace(queue: .main, pool: 0) }
        return CachePoolPlace(queue: volume.isPinned(owner.block) ? .pinned : .main, pool: volume.pool)
    }

    /// Slots that blocks which stay can have there now.
    private func room(in place: CachePoolPlace) -> Int {
        let open = filling.last { $0.queue == place.queue && $0.pool == place.pool && !$0.isFull }
        return (open.map { geometry.slotCount - $0.owners.count } ?? 0) + freeSegments.count * geometry.slotCount
    }

    /// The rest of the blocks leaves too.
    private func leave(_ eviction: CacheEviction) {
        for entry in eviction.staying { leave(entry) }
        eviction.staying = []
        finish(eviction)
    }

    /// The segment is empty: it is free as soon as that is durable.
    private func finish(_ eviction: CacheEviction) {
        self.eviction = nil
        let number = eviction.segment
        ownersInMemory[number] = nil
        segments[number].state = .leaving
        segments[number].sequence = 0
        leaving.append((number, journal.appended))
        makeRoom()
        pump()
    }

    // MARK: A full file system

    /// Segments that are filled between two tries of one that had no room.
    static var segmentsPerTrial: Int { 16 }

    /// The file system has no room for a segment, so it has none for others that the file does not have yet: the cache goes on with
    /// those that it has, rather than lose some blocks to each of the others.
    func setAside(_ segment: FillingSegment) {
        let number = segment.segment
        filledSinceTrial = 0
        if segment.writtenSlots == 0 {
            queues.remove(number)
            ownersInMemory[number] = nil
            record(.freed(segment: UInt32(number)))
            segments[number].sequence = 0
            fileSegments -= 1
            if number < end {
                segments[number].state = .withoutRoom
                // The first is tried first, so that the file has no holes: after a restart the first segments are those that it has.
                withoutRoom.insert(number, at: withoutRoom.firstIndex { $0 > number } ?? withoutRoom.count)
            } else {
                segments[number].state = .free
                countBehindEnd -= 1
            }
        }
        setAsideFree()
    }

    /// Sets all free segments aside that the file does not have yet.
    private func setAsideFree() {
        // The bridge stays free where it is, behind the end, and is not tried again: the tables may end before it at any time.
        let without = freeSegments.filter { $0 < end && !segments[$0].hasRoom }
        for number in without { segments[number].state = .withoutRoom }
        if !without.isEmpty { withoutRoom = Deque((withoutRoom + without).sorted()) }
        freeSegments.removeAll { !segments[$0].hasRoom }
        planForRoom()
    }

    /// One of the segments that had no room is the next to be filled: when others were filled meanwhile, or there are no others.
    func tryForRoom() {
        if !mayGrow { return }
        let hasOthers = freeSegments.count > 1 || !filling.isEmpty || !leaving.isEmpty || eviction != nil || !queues.isEmpty
        guard filledSinceTrial >= Self.segmentsPerTrial || !hasOthers, let number = withoutRoom.popFirst() else { return }
        filledSinceTrial = 0
        segments[number].state = .free
        freeSegments.prepend(number)
    }

    /// A segment is full. When the file had no room for it before, there may be room for others, too.
    func wasFilled(_ number: Int) {
        filledSinceTrial += 1
        if segments[number].hasRoom { return tryForRoom() }
        segments[number].hasRoom = true
        if mayGrow { tryAll() }
    }

    /// All segments that had no room are to be filled again.
    private func tryAll() {
        for number in withoutRoom { segments[number].state = .free }
        freeSegments += withoutRoom
        withoutRoom = []
        planForRoom()
    }

    // MARK: Room that others need

    /// Bounds how large the file may become, until the next call: others need the rest of its file system. Without room for one more segment the
    /// cache goes on with those that the file has, as on a full file system. It gives nothing back that it has.
    public func boundFile(bytesMax: UInt64) {
        let couldGrow = mayGrow
        let bytes = bytesMax - min(bytesMax, UInt64(CacheFormat.headerBytes))
        fileSegmentsMax = Int(clamping: bytes / UInt64(geometry.segmentBytes))
        if isClosed { return }
        planForRoom()
        if mayGrow == couldGrow { return }
        if mayGrow { tryAll() } else { setAsideFree() }
        if let eviction, eviction.isWaiting { moveNext(eviction) }
        makeRoom()
        pump()
    }

    var mayGrow: Bool { fileSegments < fileSegmentsMax }

    /// Sets free segments aside for which there may be no more room, and promises what there may be room for.
    func keepToFile() {
        if mayGrow { planForRoom() } else { setAsideFree() }
    }

    /// Frees what has left for good.
    func reclaim(through durable: UInt64) {
        while let first = leaving.first, first.through <= durable {
            leaving.removeFirst()
            if !segments[first.segment].hasRoom { fileSegments -= 1 }
            segments[first.segment] = CacheSegment(hasRoom: segments[first.segment].hasRoom)
            if first.segment < end {
                endBridge()
                // One that was never full is filled first: the file may have a part of it.
                if segments[first.segment].hasRoom { freeSegments.append(first.segment) } else { freeSegments.prepend(first.segment) }
            } else {
                countBehindEnd -= 1
            }
        }
        // Some that never came to be in the file may be free now.
        keepToFile()
        endIfEmptied()
        wantsSynchronization = freeSegments.count < reserve && !leaving.isEmpty
        if let eviction, eviction.isWaiting { moveNext(eviction) }
        makeRoom()
    }
}
