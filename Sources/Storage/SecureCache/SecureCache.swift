import Blocks
import Ciphers
import DequeModule
import NIOCore

// The cache's life, in three circles that meet in `pump`, the only writer:
//
//     blocks     insert ─► a slot of a segment that fills ─► sealed and written ─► segment full, its owners written: closed
//     records    every change ─► pending ─► a fragment of the journal ─► durable, with the blocks that it speaks of
//     room       few segments free ─► the queues name a victim ─► its used blocks are inserted again, the rest is
//                forgotten ─► leaving ─► free, as soon as it is durable that nothing in it counts
//
// The rule: nothing older comes back. What the index knows at run time changes in the order of the records, so a crash can
// only show it as it was at some time behind the last `synchronize`. A slot is bound to the sequence of its segment, so what a
// reused segment holds is never taken for what it held before.

/// The encrypted cache of clean blocks. See the module's README for what it promises.
///
/// All calls are made on one event loop, where all completions run too, possibly before the call returns.
public final class SecureCache<Directory: StorageDirectory> {
    /// The file of the blocks.
    public typealias File = Directory.File
    typealias Completion = (Result<Void, CacheError>) -> Void

    /// The bounds in force.
    public let limits: CacheLimits

    let file: File
    let directory: Directory
    let key: SecretKey
    /// The keys of shared blocks; nil when the cipher library refuses.
    let sharing: CacheSharing?
    let random: RandomSource
    let identifier: UInt64
    var geometry: CacheGeometry
    var index: CacheIndex
    var segments: [CacheSegment]
    var uses: CacheUses
    var ghosts: CacheGhosts
    var queues: CacheQueues
    var shared: CacheSharedBlocks
    var signatures: CacheSignatures
    var salts: CacheSalts
    /// The number of the salt of this run, and the cipher of owners under it.
    let salt: Int
    let ownersCipher: BlockCipher

    // MARK: Room
    var freeSegments: Deque<Int>
    /// Segments that are free when the records up to a number are durable.
    var leaving: Deque<(segment: Int, through: UInt64)> = []
    /// Segments before the end that the file system had no room for, and how many others were filled since one of them was tried.
    var withoutRoom: Deque<Int> = []
    var filledSinceTrial = 0
    /// Segments that the file may have, and that it has or is to have: those that were full once, and those with blocks.
    var fileSegmentsMax = Int.max
    var fileSegments = 0
    /// Owners that are not in the file: of segments that a crash or a failed write cut short.
    var ownersInMemory: [Int: [CacheOwner]]
    var eviction: CacheEviction?
    var nextSequence: UInt64
    /// How many blocks the segments of each pool hold.
    var liveInPools: [Int] = []

    // MARK: Its division
    /// How it is to be divided: a volume that is detached takes its share with it. See SecureCache+Division.swift.
    public internal(set) var division: CacheDivision
    /// How it is, and for how many segments that was planned.
    var plan = CachePlan()
    var plannedCount = 0
    /// The number of each pool that the plan has.
    var poolNumbers: [CachePoolKey: Int] = [.partition(nil): 0]

    // MARK: Another size
    /// Segments that the cache is to have, and those of them that it has: what is behind takes no blocks any more.
    var segmentCountWanted: Int
    var end: Int
    /// Segments behind the end of which something may count.
    var countBehindEnd = 0
    /// The file is cut at the end when the records up to a number are durable; and it is being cut.
    var cutDue: UInt64?
    var isCutting = false
    /// The tables have ended elsewhere while the file was being cut.
    var mustCutAgain = false
    /// Another size was asked for, and is not in force or has not been told.
    var isResizing = false
    /// Called when the cache has come to the size that was asked for, with that size in bytes.
    public var onResized: (UInt64) -> Void = { _ in }

    // MARK: The writer
    /// Segments of which something is not written, in the order in which they were opened.
    var filling: Deque<FillingSegment> = []
    var isWriting = false
    var areBlocksDirty = false
    var journal: CacheJournal<File>
    var cycle: CacheCycle?
    var waiters: Deque<(through: UInt64, completion: Completion)> = []
    /// Room waits for what is leaving.
    var wantsSynchronization = false
    var checkpoint: CacheCheckpoint<File>?
    /// The last one that was ended in this run; 0 before. Nothing older is left.
    var checkpointNumber: UInt64 = 0
    /// There are records that are not to stay, so a checkpoint begins as soon as one can.
    var mustForgetRecords = false
    /// Checkpoints that failed in a row, and how long the journal is to be before the next one.
    var checkpointsFailed: UInt64 = 0
    var checkpointDueBytes: UInt64 = 0
    var consecutiveFailures = 0
    /// The device takes no writes. Each `synchronize` tries it once more.
    var isDegraded: Bool
    /// The next thing that is written is the header, as it stands: that tells whether the device takes writes again.
    var mustProbe = false
    /// What kept the cache from being opened: it has no blocks and takes none, until it is opened again.
    let unusable: StorageFileError?
    /// Ranges of all volumes that changed meanwhile.
    var missedRanges = 0
    var isClosed = false
    /// After so many failed writes in a row the cache writes no more.
    static var failuresMax: Int { 3 }

    var counters = CacheStatistics()
    var unwrittenBytes = 0
    var scratch = ByteBuffer()
    var encodeBuffer = ByteBuffer()

    init(
        _ state: RecoveredCache<File>, file: File, directory: Directory, keys: CacheKeys, limits: CacheLimits, division: CacheDivision,
        random: RandomSource
    ) {
        var limits = limits
        limits.fragmentBytesMax = min(max(limits.fragmentBytesMax, CacheRecord.byteCountMax), CacheFragments.recordBytesMax)
        self.limits = limits
        self.file = file
        self.directory = directory
        key = keys.cache
        sharing = CacheSharing(key: keys.cache)
        self.random = random
        identifier = state.identifier
        geometry = state.geometry
        index = state.index
        segments = state.segments
        queues = state.queues
        shared = state.shared
        signatures = CacheSignatures(byteCount: limits.signatureBytesMax(cacheBytes: state.geometry.byteCount))
        salts = state.salts
        salt = state.salt
        ownersCipher = state.ownersCipher
        ownersInMemory = state.ownersInMemory
        journal = state.journal
        nextSequence = state.nextSequence
        unusable = state.unusable
        self.division = division
        isDegraded = state.unusable != nil
        segmentCountWanted = state.geometry.segmentCount
        end = state.geometry.segmentCount
        let slots = state.geometry.segmentCount * state.geometry.slotCount
        uses = CacheUses(slotCount: slots)
        ghosts = CacheGhosts(entries: CacheGhosts.entries(slotCount: slots))
        freeSegments = Deque(state.segments.indices.filter { state.segments[$0].state == .free })
        counters.segmentsSkipped = state.loss == nil ? 0 : 1
        record(.salt(number: UInt32(salt), salts[salt]?.bytes ?? []))
        // What lies behind the end is gone for good: should the cache become larger again, nobody knows what changed meanwhile.
        for segment in state.segmentsBeyond { record(.freed(segment: segment)) }
        // Should their keys come after all, nobody knows what changed meanwhile.
        for volume in state.volumesWithoutKey { record(.volumeRemoved(ordinal: volume.ordinal)) }
        // When what was shared came into the records tells something of them.
        mustForgetRecords = !state.volumesWithoutKey.isEmpty && shared.count > 0
        cutDue = journal.appended
        fileSegments = segments.count { $0.isInFile }
        countLiveInPools()
        didDivide()
        findPools()
        countLiveInPools()
        noteSharedBlocks()
        makeRoom()
    }

    /// What the cache has done and holds.
    public var statistics: CacheStatistics {
        var statistics = counters
        statistics.blocksHeld = index.blockCount
        statistics.unwrittenBytes = unwrittenBytes
        statistics.isDegraded = isDegraded
        statistics.sharedBlocks = UInt64(shared.count)
        statistics.sharedReferences = UInt64(shared.referenceCount)
        statistics.indexBytes = indexBytes
        statistics.byteCount = geometry.byteCount
        statistics.byteCountWanted = geometry.offset(ofSegment: segmentCountWanted)
        statistics.bytesWithoutRoom = UInt64(withoutRoom.count) * UInt64(geometry.segmentBytes)
        statistics.bytesToEmpty = UInt64(countBehindEnd) * UInt64(geometry.segmentBytes)
        return statistics
    }

    /// The memory of all that says what is where.
    private var indexBytes: Int {
        // A segment is in one queue, or in the row of those that are free.
        index.byteCount + uses.byteCount + ghosts.byteCount + shared.byteCount + signatures.byteCount + segments.count
            * (MemoryLayout<CacheSegment>.stride + MemoryLayout<Int>.stride)
    }

    // MARK: Volumes

    /// Gives the cache the key of a volume, whose blocks can be read from now on.
    ///
    /// Blocks that were sealed under another generation of the key are forgotten: the cache is never the only copy, and they come
    /// again under this one. Should a crash take that back, the next attach forgets them again: the cache needs an older key no more.
    public func attach(volume identifier: VolumeIdentifier, key: SecretKey, generation: KeyGeneration) {
        let volume = volume(identifier)
        let isSame = volume.key.map { $0.hasSameBytes(as: key) } ?? true
        if volume.keyGeneration != generation || !isSame {
            forget(volume, blocks: 0..<CacheFormat.blocksMax)
            forgetSharedRecords(of: volume)
            volume.keyGeneration = generation
            record(.keyGeneration(ordinal: volume.ordinal, generation))
        }
        volume.key = key
        volume.isAttached = true
        pump()
    }

    private func volume(_ identifier: VolumeIdentifier) -> CacheVolume {
        if let volume = index[identifier] { return volume }
        let volume = index.add(identifier)
        assignPool(to: volume)
        record(.volume(ordinal: volume.ordinal, identifier))
        return volume
    }

    /// Forgets a volume, its blocks and its key: the volume will not come back. A cache that is only
    /// closed keeps them for the next run. A crash may bring the blocks back, under this identifier only: another attachment of the
    /// same disk has another one.
    public func detach(volume identifier: VolumeIdentifier) {
        guard let volume = index[identifier] else { return forgetShare(of: identifier) }
        volume.key = nil
        volume.map.forEach { block, slot in release(slot, of: CacheOwner(volume: volume.ordinal, block: block)) }
        forgetSharedRecords(of: volume)
        missedRanges -= volume.missed.ranges.count
        index.remove(identifier)
        record(.volumeRemoved(ordinal: volume.ordinal))
        forgetShare(of: identifier)
        pump()
    }

    /// How many blocks with data the cache holds of a volume; zeroes count nothing.
    public func blocksHeld(of identifier: VolumeIdentifier) -> UInt64 { index[identifier]?.map.count ?? 0 }

    /// Notes that everything of a volume's points up to `point` is in the cache, or was forgotten by it.
    public func setCurrent(_ identifier: VolumeIdentifier, through point: PointNumber) {
        guard let volume = index[identifier], point > volume.current else { return }
        volume.current = point
        record(.current(ordinal: volume.ordinal, through: point))
    }

    /// Forgets all blocks of a volume if the cache does not have everything of its points up to `point`: it is an old copy then, put
    /// back, or lost its end, and could show what the volume no longer is.
    /// - Returns: false when it forgot them.
    @discardableResult
    public func require(_ identifier: VolumeIdentifier, through point: PointNumber) -> Bool {
        if unusable != nil {
            // Whether it is an old copy is seen once it can be read.
            index[identifier]?.missed.required = point
            return true
        }
        guard let volume = index[identifier], volume.current < point, !isPlanted(.trustsOldCache) else { return true }
        let isEmpty = volume.map.count == 0 && volume.zeroes.isEmpty
        invalidate(identifier, blocks: 0..<CacheFormat.blocksMax)
        setCurrent(identifier, through: point)
        if !isEmpty { counters.stale += 1 }
        return isEmpty
    }

    // MARK: Changing

    /// Puts whole blocks into the cache, from `block` on. Every later read sees them. Those that are zeroes take no slot.
    ///
    /// The insertion may be dropped at a limit, or while the device takes no writes; then the cache
    /// forgets what it had of these blocks.
    public func insert(_ identifier: VolumeIdentifier, block: UInt64, data: ByteBuffer) {
        assert(data.readableBytes % CacheFormat.blockBytes == 0, "the cache takes whole blocks")
        let count = UInt64(data.readableBytes / CacheFormat.blockBytes)
        guard count > 0, let blocks = checked(block, count) else { return }
        if unusable != nil { return noteMissed(identifier, blocks) }
        guard let volume = index[identifier], volume.isAttached else { return invalidate(identifier, blocks: blocks) }
        ghosts.goOnHalving()
        let hasMemory = hasMemory(forBytes: blocks.count * MemoryLayout<CacheSlot>.size)
        var position = data.readerIndex
        var zeroes = block..<block
        for block in blocks {
            guard let bytes = data.getSlice(at: position, length: CacheFormat.blockBytes) else { break }
            position += CacheFormat.blockBytes
            counters.inserted += 1
            // Beyond the limit they take a slot, as others do.
            if volume.zeroes.count < limits.zeroExtentsMax, bytes.isAllZeroes {
                counters.zeroes += 1
                zeroes = (zeroes.isEmpty ? block : zeroes.lowerBound)..<block + 1
                continue
            }
            noteZeroes(of: volume, zeroes)
            zeroes = block..<block
            if isDegraded || isClosed || !hasMemory || !insertOnce(bytes, of: block, volume) {
                counters.dropped += 1
                forget(volume, blocks: block..<block + 1)
            }
        }
        noteZeroes(of: volume, zeroes)
        if !hasMemory { makeRoom(isIndexFull: true) }
        pump()
    }

    /// True when the index may grow by so much, for which it gives up signatures beyond their least share and the names of blocks that left.
    private func hasMemory(forBytes byteCount: Int) -> Bool {
        let bytesMax = limits.indexBytesMax(cacheBytes: geometry.byteCount)
        repeat {
            if indexBytes + byteCount <= bytesMax { return true }
        } while giveUpSignatures() || ghosts.halve()
        return false
    }

    /// Says that a run of blocks holds zeroes.
    public func insertZeroes(_ identifier: VolumeIdentifier, blocks: Range<UInt64>) {
        guard !blocks.isEmpty, let blocks = checked(blocks.lowerBound, blocks.upperBound - blocks.lowerBound) else { return }
        if unusable != nil { return noteMissed(identifier, blocks) }
        guard let volume = index[identifier], volume.isAttached else { return invalidate(identifier, blocks: blocks) }
        noteZeroes(of: volume, blocks)
        pump()
    }

    /// Notes that a run of blocks, which may be empty, holds zeroes; forgets it when there are too many such runs, or no memory for one.
    private func noteZeroes(of volume: CacheVolume, _ blocks: Range<UInt64>) {
        if blocks.isEmpty { return }
        guard volume.zeroes.count < limits.zeroExtentsMax, hasMemory(forBytes: CacheIndex.zeroExtentBytes) else {
            counters.dropped &+= blocks.upperBound - blocks.lowerBound
            return forget(volume, blocks: blocks)
        }
        removeData(of: volume, blocks)
        volume.zeroes.insert(blocks.sectors, ZeroMark())
        record(.zeroes(ordinal: volume.ordinal, blocks))
    }

    /// Forgets a run of blocks.
    public func invalidate(_ identifier: VolumeIdentifier, blocks: Range<UInt64>) {
        guard !blocks.isEmpty, let blocks = checked(blocks.lowerBound, blocks.upperBound - blocks.lowerBound),
            let volume = index[identifier]
        else { return }
        if unusable != nil { return noteMissed(identifier, blocks) }
        forget(volume, blocks: blocks)
        pump()
    }

    /// A run of blocks, if there can be such blocks.
    private func checked(_ block: UInt64, _ count: UInt64) -> Range<UInt64>? {
        guard block < CacheFormat.blocksMax, count <= CacheFormat.blocksMax - block else { return nil }
        return block..<block + count
    }

    // MARK: The index

    /// Forgets what is known of a run of blocks.
    func forget(_ volume: CacheVolume, blocks: Range<UInt64>) {
        guard volume.containsAny(of: blocks) else { return }
        removeData(of: volume, blocks)
        if !volume.zeroes.isEmpty { volume.zeroes.remove(blocks.sectors) }
        if isPlanted(.dropsTombstones) { return }
        record(.removed(ordinal: volume.ordinal, blocks))
    }

    private func removeData(of volume: CacheVolume, _ blocks: Range<UInt64>) {
        volume.map.remove(blocks) { release($1, of: CacheOwner(volume: volume.ordinal, block: $0)) }
    }

    /// Puts one block into the segment that takes such blocks; false when there is no room for it.
    /// - Parameter isMove: that the block is in the cache and is written again.
    func insert(_ bytes: ByteBuffer, of block: UInt64, _ volume: CacheVolume, isMove: Bool) -> Bool {
        if let slot = volume.map.slot(of: block), let segment = fillingSegment(of: slot), geometry.index(of: slot) >= segment.sealedSlots,
            identity(ofSlot: slot) == nil
        {
            // Nobody has seen the older bytes in the file: the slot takes the new ones.
            if let older = segment.buffers[geometry.index(of: slot)] { forgetSignature(of: older, in: slot) }
            segment.buffers[geometry.index(of: slot)] = bytes
            uses[slot] = true
            return true
        }
        let owner = CacheOwner(volume: volume.ordinal, block: block)
        let place = CachePoolPlace(queue: queue(for: block, of: volume, isMove: isMove), pool: volume.pool)
        guard let slot = append(bytes, of: owner, to: place, isMove: isMove) else { return false }
        let segment = geometry.segment(of: slot)
        let previous = volume.map.set(block, to: slot)
        if let previous { release(previous, of: owner) }
        countLive(1, in: segment)
        // To be renewed counts as to be asked for. What went over the bridge is moved once more.
        uses[slot] = previous != nil && !isMove || segment >= end
        if volume.isZero(block) { volume.zeroes.remove(SectorRange(block: block)) }
        record(.data(ordinal: volume.ordinal, block: block, count: 1, slot: slot))
        return true
    }

    /// Gives a block the next slot of the segment that takes such; nil when there is no room for it.
    func append(_ bytes: ByteBuffer, of owner: CacheOwner, to place: CachePoolPlace, isMove: Bool) -> CacheSlot? {
        guard unwrittenBytes + CacheFormat.blockBytes <= limits.unwrittenBytesMax,
            var segment = openSegment(for: place.queue, of: place.pool, isMove: isMove)
        else { return nil }
        // What is moved to make room may have filled it at once.
        while segment.isFull {
            guard let next = openSegment(for: place.queue, of: place.pool, isMove: isMove) else { return nil }
            segment = next
        }
        let slot = geometry.slot(segment.owners.count, in: segment.segment)
        segment.owners.append(owner)
        segment.buffers.append(bytes)
        unwrittenBytes += CacheFormat.blockBytes
        if segment.owners.count == geometry.slotCount { segment.isFull = true }
        return slot
    }

    /// Where a block belongs: a new one into the small queue, one that was in the main queue or that comes back into the main one, one that
    /// is to stay with its like.
    func queue(for block: UInt64, of volume: CacheVolume, isMove: Bool) -> CacheQueue {
        if volume.isPinned(block) { return .pinned }
        if isMove || ghosts.take(volume.ordinal, block) { return .main }
        guard let slot = volume.map.slot(of: block) else { return .small }
        return segments[geometry.segment(of: slot)].queue == .small ? .small : .main
    }

    /// The segment of a slot, while something of it is not written.
    func fillingSegment(of slot: CacheSlot) -> FillingSegment? {
        let segment = geometry.segment(of: slot)
        if segments[segment].state != .open { return nil }
        return filling.first { $0.segment == segment }
    }
}
