import Blocks
import Ciphers
import DequeModule
import NIOCore

// The ring, and the life of a segment in it:
//
//     ... │ 41 │ 42 │ 43 │ 4 │ 5 │ ...      the numbers are sequences; 43 takes insertions, 4 is the next to go
//
//     evicted ──► open: takes blocks and entries ──► closed: full ──► durable
//                   │ header, blocks and table fragments are written as they come, or when somebody synchronises
//                   └ a failed write drops the segment, and the next one becomes a barrier
//
// The rule: nothing older comes back. An entry counts over all in segments of lower sequence, and
// segments leave in the order in which they came, each overwritten only when the one before it is
// durable; so whatever an entry hides is gone before the entry itself is. A row of sequences with a
// hole is not trusted below the hole. That is also how a segment that could not be written is
// replaced: by a hole, and a barrier above it.

/// The encrypted cache of clean blocks. See the module's README for what it promises.
///
/// All calls are made on one event loop, where all completions run too, possibly before the call returns.
public final class SecureCache<File: StorageFile> {
    /// The bounds in force.
    public let limits: CacheLimits

    let file: File
    let key: SecretKey
    let geometry: CacheGeometry
    let segments: [CacheSegment]
    var index: CacheIndex
    var salts: CacheSalts
    /// The salt of this run, and the cipher of the tables under it.
    let salt: Int
    let tableCipher: BlockCipher

    /// Segments that are not wholly durable, oldest first. The last one may still take entries.
    var inFlight: Deque<PendingSegment> = []
    let inFlightMax: Int
    var nextSequence: UInt64
    var nextPosition: Int
    /// The last segment that is durable as a whole, and how many fragments of it count.
    var predecessor: (sequence: UInt64, fragments: Int)?
    /// The next segment must say that nothing older counts.
    var needsBarrier = false

    var isWriting = false
    /// The last segment of which something is durable, and how many of its entries.
    var durable: (sequence: UInt64, entries: Int) = (0, 0)
    typealias Completion = (Result<Void, CacheError>) -> Void
    var waiters: Deque<(sequence: UInt64, entries: Int, completion: Completion)> = []
    var consecutiveFailures = 0
    /// The device takes no writes. Each `synchronize` tries it once more.
    var isDegraded = false
    var isClosed = false
    /// After so many failed segments in a row the cache writes no more.
    static var failuresMax: Int { 3 }

    var counters = CacheStatistics()
    var unwrittenBytes = 0
    var scratch = ByteBuffer()
    var encodeBuffer = ByteBuffer()

    init(recovered state: RecoveredCache, file: File, key: SecretKey, limits: CacheLimits, byteCount: UInt64) {
        self.limits = limits
        self.file = file
        self.key = key
        geometry = state.geometry
        segments = state.segments
        index = state.index
        salts = state.salts
        salt = state.salt
        tableCipher = state.tableCipher
        nextSequence = state.nextSequence
        nextPosition = state.nextPosition
        predecessor = state.predecessor
        needsBarrier = state.predecessor == nil
        inFlightMax = min(limits.unwrittenBytesMax / limits.segmentBytes + 2, state.geometry.segmentCount - 1)
        counters.byteCount = byteCount
        counters.segmentsSkipped = state.segmentsSkipped
    }

    /// What the cache has done and holds.
    public var statistics: CacheStatistics {
        var statistics = counters
        statistics.blocksHeld = index.blockCount
        statistics.unwrittenBytes = unwrittenBytes
        statistics.isDegraded = isDegraded
        return statistics
    }

    // MARK: Volumes

    /// Gives the cache the key of a volume, whose blocks can be read from now on.
    public func attach(volume: VolumeIdentifier, key: SecretKey) {
        index.volume(volume).key = key
    }

    /// Forgets a volume, its blocks and its key: the volume will not come back. A cache that is only
    /// closed keeps them for the next run.
    public func detach(volume identifier: VolumeIdentifier) {
        guard let volume = index[identifier] else { return }
        volume.key = nil
        index.remove(identifier)
        record(CacheEntry(kind: .volumeRemoved, volume: identifier, block: 0, count: 0, slot: 0))
    }

    // MARK: Changing

    /// Puts whole blocks into the cache, from `block` on. Every later read sees them.
    ///
    /// The insertion may be dropped at a limit, or while the device takes no writes; then the cache
    /// forgets what it had of these blocks.
    public func insert(_ identifier: VolumeIdentifier, block: UInt64, data: ByteBuffer) {
        assert(data.readableBytes % CacheFormat.blockBytes == 0, "the cache takes whole blocks")
        let count = UInt64(data.readableBytes / CacheFormat.blockBytes)
        guard count > 0, let blocks = checked(block, count) else { return }
        guard let volume = index[identifier], volume.key != nil else { return invalidate(identifier, blocks: blocks) }
        var position = data.readerIndex
        for block in blocks {
            guard let bytes = data.getSlice(at: position, length: CacheFormat.blockBytes) else { return }
            position += CacheFormat.blockBytes
            counters.inserted += 1
            if !insert(bytes, of: block, volume) {
                counters.dropped += 1
                invalidate(identifier, blocks: block..<block + 1)
            }
        }
    }

    /// Says that a run of blocks holds zeroes.
    public func insertZeroes(_ identifier: VolumeIdentifier, blocks: Range<UInt64>) {
        guard !blocks.isEmpty, let blocks = checked(blocks.lowerBound, blocks.upperBound - blocks.lowerBound) else { return }
        guard let volume = index[identifier], volume.key != nil else { return invalidate(identifier, blocks: blocks) }
        for part in blocks.entryParts {
            let entry = CacheEntry(
                kind: .zeroes, volume: identifier, block: part.lowerBound, count: UInt32(part.upperBound - part.lowerBound),
                slot: 0)
            guard let segment = record(entry) else {
                invalidate(identifier, blocks: part)
                continue
            }
            volume.setZeroes(part, segment: UInt32(segment.position))
            segment.zeroes.append((volume.ordinal, part))
        }
    }

    /// Forgets a run of blocks.
    public func invalidate(_ identifier: VolumeIdentifier, blocks: Range<UInt64>) {
        guard !blocks.isEmpty, let blocks = checked(blocks.lowerBound, blocks.upperBound - blocks.lowerBound),
            let volume = index[identifier], volume.containsAny(of: blocks)
        else { return }
        volume.remove(blocks)
        if isPlanted(.dropsTombstones) { return }
        for part in blocks.entryParts {
            record(
                CacheEntry(
                    kind: .tombstone, volume: identifier, block: part.lowerBound,
                    count: UInt32(part.upperBound - part.lowerBound),
                    slot: 0))
        }
    }

    /// A run of blocks, if there can be such blocks.
    private func checked(_ block: UInt64, _ count: UInt64) -> Range<UInt64>? {
        guard block < CacheFormat.blocksMax, count <= CacheFormat.blocksMax - block else { return nil }
        return block..<block + count
    }

    /// Puts one block into the segment that is open; false when there is no room for it.
    private func insert(_ bytes: ByteBuffer, of block: UInt64, _ volume: CacheVolume) -> Bool {
        if let location = volume.location(of: block), let pending = segments[Int(location.segment)].pending,
            Int(location.slot) >= pending.sealedSlots
        {
            // Nobody has seen the older bytes in the file: the slot takes the new ones.
            pending.buffers[Int(location.slot)] = bytes
            return true
        }
        guard unwrittenBytes + CacheFormat.blockBytes <= limits.unwrittenBytesMax else { return false }
        if let open = inFlight.last, !open.isClosed, open.segment.slots.count >= geometry.slotCount { close(open) }
        guard let open = openSegment(forData: true) else { return false }
        let slot = open.segment.slots.count
        open.segment.slots.append((volume.ordinal, block))
        open.buffers.append(bytes)
        unwrittenBytes += CacheFormat.blockBytes
        append(CacheEntry(kind: .data, volume: volume.identifier, block: block, count: 1, slot: UInt16(slot)), to: open)
        volume.set(block, to: CacheLocation(segment: UInt32(open.segment.position), slot: UInt32(slot)))
        pump()
        return true
    }
}

extension Range<UInt64> {
    /// The range in parts that an entry can count.
    var entryParts: [Range<UInt64>] {
        var parts: [Range<UInt64>] = []
        var start = lowerBound
        while start < upperBound {
            let end = Swift.min(upperBound, start + UInt64(UInt32.max))
            parts.append(start..<end)
            start = end
        }
        return parts
    }
}
