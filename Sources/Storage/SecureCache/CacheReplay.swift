import Blocks
import Ciphers
import NIOCore

// Replaying records. A segment that was freed or opened again after a block was put into it has that block no more, and the
// records do not say so block by block. So what happened to segments is counted first; a block counts only when everything that
// happened to its segment in the journals had happened before it.

/// An index in the making.
final class CacheReplay {
    let geometry: CacheGeometry
    private let keys: CacheKeys
    /// The veils of the file that is being replayed.
    private var veil = CacheVeil(salt: [])
    /// Volumes of which something was hidden by a key that is not at hand. Nothing is known of them, until their records say that
    /// everything before is forgotten.
    private var hidden: Set<UInt32> = []
    /// Those of which the fragment that is being replayed hides something: all that it says of one is hidden under one key.
    private var hiddenHere: Set<UInt32> = []
    private var index: CacheIndex
    private var segments: [CacheSegment]
    var salts = CacheSalts()
    /// How often each segment was freed or opened in the journals; and how often so far in the replay.
    private var events: [UInt32]
    private var seen: [UInt32]
    private var sequenceMax: UInt64 = 0
    /// Something in a fragment was no record. It was sealed under the cache's key, so another version wrote it.
    private(set) var hasUnreadRecords = false
    /// What shared blocks are known by, those of slots among them that have others by now.
    private var identities: [CacheSlot: SharedIdentity] = [:]
    /// Segments that were used when the cache was larger.
    private var segmentsBeyond: Set<UInt32> = []

    init(geometry: CacheGeometry, keys: CacheKeys) {
        self.geometry = geometry
        self.keys = keys
        index = CacheIndex(slotWidth: geometry.slotWidth)
        segments = Array(repeating: CacheSegment(), count: geometry.segmentCount)
        events = Array(repeating: 0, count: geometry.segmentCount)
        seen = events
    }

    /// Notes what a fragment of a journal says of segments.
    func countEvents(in sealed: CacheFragmentRecords) {
        let records = sealed.records
        var index = records.readerIndex
        while let outline = CacheRecordOutline(of: records, at: index) {
            index = outline.end
            guard outline.kind == .opened || outline.kind == .freed, Int(outline.first) < events.count else { continue }
            events[Int(outline.first)] += 1
        }
    }

    /// Carries out the records of a fragment.
    func apply(_ sealed: CacheFragmentRecords, isCheckpoint: Bool) {
        if veil.salt != sealed.salt { veil = CacheVeil(salt: sealed.salt) }
        let shown = veil.show(
            sealed.records, fragment: sealed.fragment, identifier: { index[ordinal: $0]?.identifier }, key: keys.volume)
        guard let shown else {
            hasUnreadRecords = true
            return
        }
        hiddenHere = shown.hiddenVolumes
        hidden.formUnion(hiddenHere)
        var reader = shown.records
        while let outline = CacheRecordOutline(of: reader, at: reader.readerIndex) {
            if outline.hidden != nil, hidden.contains(outline.first) {
                reader.moveReaderIndex(to: outline.end)
                continue
            }
            guard let record = CacheRecord(from: &reader) else {
                hasUnreadRecords = true
                return
            }
            apply(record, isCheckpoint: isCheckpoint)
        }
    }

    private func apply(_ record: CacheRecord, isCheckpoint: Bool) {
        switch record {
        case .salt(let number, let salt): salts.add(salt, number: Int(number))
        case .volume(let ordinal, let identifier):
            if index[identifier]?.ordinal != ordinal {
                index.remove(identifier)
                _ = index.add(identifier, ordinal: ordinal)
            }
        case .volumeRemoved(let ordinal):
            hidden.remove(ordinal)
            if let volume = index[ordinal: ordinal] { index.remove(volume.identifier) }
        case .current(let ordinal, let point):
            if let volume = index[ordinal: ordinal] { volume.current = max(volume.current, point) }
        case .opened(let segment, let sequence, let salt, let queue):
            sequenceMax = max(sequenceMax, sequence)
            guard Int(segment) < segments.count else {
                segmentsBeyond.insert(segment)
                return
            }
            segments[Int(segment)] = CacheSegment(state: .open, queue: queue, sequence: sequence, salt: salt)
            if !isCheckpoint { seen[Int(segment)] += 1 }
        case .closed(let segment):
            if Int(segment) < segments.count, segments[Int(segment)].state == .open { segments[Int(segment)].state = .closed }
        case .freed(let segment):
            guard Int(segment) < segments.count else {
                segmentsBeyond.remove(segment)
                return
            }
            segments[Int(segment)] = CacheSegment()
            if !isCheckpoint { seen[Int(segment)] += 1 }
        case .data(let ordinal, let block, let count, let slot):
            guard let volume = index[ordinal: ordinal] else { return }
            for number in 0..<count { put(block + UInt64(number), slot + number, volume) }
        case .places(let ordinal, let block, let places):
            guard let volume = index[ordinal: ordinal] else { return }
            for place in places { put(block + UInt64(place.offset), place.slot, volume) }
        case .shared(let ordinal, let block, let slot, let identity):
            guard let volume = index[ordinal: ordinal] else { return }
            volume.sharedRecordsIn = 0
            put(block, slot, volume, identity)
        case .zeroes(let ordinal, let blocks):
            guard let volume = index[ordinal: ordinal] else { return }
            volume.map.remove(blocks) { _, _ in }
            volume.zeroes.insert(blocks.sectors, ZeroMark())
        case .removed(let ordinal, let blocks):
            guard let volume = index[ordinal: ordinal] else { return }
            volume.map.remove(blocks) { _, _ in }
            volume.zeroes.remove(blocks.sectors)
        case .keyGeneration(let ordinal, let generation):
            guard let volume = index[ordinal: ordinal] else { return }
            // What was under another generation was forgotten before; whoever has the new key only must not miss it. Where this fragment
            // hides something of the volume, it is under the new one, and what follows is no more readable than what was before.
            if !hiddenHere.contains(ordinal) { hidden.remove(ordinal) }
            volume.keyGeneration = generation
            volume.map.remove(0..<CacheFormat.blocksMax) { _, _ in }
            volume.zeroes.remove((0..<CacheFormat.blocksMax).sectors)
        case .veil: break
        }
    }

    private func put(_ block: UInt64, _ slot: CacheSlot, _ volume: CacheVolume, _ identity: SharedIdentity? = nil) {
        if volume.isZero(block) { volume.zeroes.remove(SectorRange(block: block)) }
        let segment = geometry.segment(of: slot)
        if segment < segments.count, segments[segment].sequence > 0, seen[segment] == events[segment] {
            _ = volume.map.set(block, to: slot)
            if identity != nil || !identities.isEmpty { identities[slot] = identity }
        } else {
            _ = volume.map.remove(block)
        }
    }

    /// The state that the records lead to.
    func recovered<File: StorageFile>(
        identifier: UInt64, salt: Int, ownersCipher: BlockCipher, journal: CacheJournal<File>, loss: String?,
        files: (checkpoint: CacheRecordFileExtent?, journals: [CacheRecordFileExtent]), unusable: StorageFileError?
    ) -> RecoveredCache<File> {
        var segments = segments
        let withoutKey = takeVolumesWithoutKey()
        var shared = CacheSharedBlocks()
        for volume in index.volumes.values {
            volume.map.forEach { block, slot in
                let segment = geometry.segment(of: slot)
                guard let identity = identities[slot] else {
                    segments[segment].liveCount += 1
                    return
                }
                if !shared.contains(slot) {
                    shared.add(slot, identity)
                    segments[segment].liveCount += 1
                    segments[segment].sharedCount += 1
                }
                shared.refer(CacheOwner(volume: volume.ordinal, block: block), to: slot)
            }
        }
        // A crash came before these were full: nobody wrote down which blocks they have.
        let unfinished = Set(segments.indices.filter { segments[$0].state == .open })
        for number in segments.indices where segments[number].state == .closed { segments[number].hasRoom = true }
        for number in unfinished { segments[number].state = .closed }
        var queues = CacheQueues(slotCount: geometry.slotCount)
        let closed = segments.indices.filter { segments[$0].state == .closed }.sorted { segments[$0].sequence < segments[$1].sequence }
        for number in closed { queues.append(number, to: segments[number].queue, of: 0) }
        return RecoveredCache(
            identifier: identifier, geometry: geometry, index: index, segments: segments, queues: queues, salts: salts, salt: salt,
            ownersCipher: ownersCipher, ownersInMemory: CacheIndex.owners(of: unfinished, in: index, geometry, shared), shared: shared,
            journal: journal,
            nextSequence: sequenceMax + 1, segmentsBeyond: segmentsBeyond.sorted(), volumesWithoutKey: withoutKey, loss: loss,
            files: files, unusable: unusable)
    }

    /// Gives the volumes their keys, and takes those out of which nobody knows anything without one.
    private func takeVolumesWithoutKey() -> [CacheVolume] {
        var withoutKey: [CacheVolume] = []
        for volume in index.volumes.values.sorted(by: { $0.ordinal < $1.ordinal }) {
            volume.key = keys.volume(volume.identifier, volume.keyGeneration)
            let isEmpty = volume.map.count == 0 && volume.zeroes.isEmpty
            guard hidden.contains(volume.ordinal) || (volume.key == nil && !isEmpty) else { continue }
            withoutKey.append(volume)
            index.remove(volume.identifier)
        }
        return withoutKey
    }
}
