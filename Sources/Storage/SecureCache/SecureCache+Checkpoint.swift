import Blocks
import Ciphers
import NIOCore

// A checkpoint says all that the index knows, so that what the journal said before can go:
//
//     journal N+1 begins ─► salts, volumes, segments as they are now ─► chunk by chunk of the maps, as each is when its turn comes
//       ─► all changes up to here durable in the journal ─► the last fragment ─► durable ─► older files go
//
// The maps change while they are written. That does no harm: the changes are in journal N+1 too, and each says what is, not
// what is added, so replaying them over a state that has some of them already ends in the same state.

/// A checkpoint that is being written.
final class CacheCheckpoint<File: StorageFile> {
    let number: UInt64
    var fragments: CacheFragments
    var file: File?
    /// Records that are in no fragment yet.
    var records = ByteBuffer()
    /// What is still to be written: chunks of the maps of volumes, leaf by leaf.
    var chunks: ArraySlice<(volume: VolumeIdentifier, chunk: UInt64)> = []
    /// The leaf of the first of them that is next.
    var nextLeaf = 0

    init(number: UInt64, fragments: CacheFragments) {
        self.number = number
        self.fragments = fragments
    }
}

extension SecureCache {
    /// Journals that are replayed one after the other, at most.
    private static var journalsMax: Int { 8 }
    /// How many times its usual size the journal may have while checkpoints fail.
    private static var journalGrowthMax: UInt64 { 4 }

    /// Begins a checkpoint if the journal has become long. The writer has nothing else to do.
    func beginCheckpoint() {
        guard checkpoint == nil, journal.file != nil, journal.encoded == nil, let fragments = journal.fragments,
            journal.wantsCheckpoint || mustForgetRecords || journal.fileCount >= Self.journalsMax
                || journal.byteCount >= max(UInt64(limits.journalBytes), journal.checkpointBytes, checkpointDueBytes)
        else { return }
        isWriting = true
        // Should this one fail, they go with the next, for which the journal must first become longer: a checkpoint that is tried
        // again and again ends with a cache that begins anew.
        mustForgetRecords = false
        journal.file?.synchronize { [self] result in
            isWriting = false
            if case .failure(let error) = result {
                syncFailed(error)
                return pump()
            }
            // There is no way back: should the next journal's beginning be in the file, nothing more of this one counts.
            journal.end(at: fragments)
            startJournal { [self] in startCheckpoint() }
        }
    }

    /// Notes what the cache is made of, at the moment at which journal N+1 begins.
    private func startCheckpoint() {
        journal.wantsCheckpoint = false
        salts.keep(Set(segments.filter { $0.sequence > 0 }.map { Int($0.salt) } + [salt]))
        let header = CacheRecordFileHeader(
            kind: .checkpoint, number: journal.number, cache: identifier, segmentBytes: UInt32(geometry.segmentBytes),
            predecessorFragments: 0, predecessorTag: CacheChain(), salt: newSalt())
        guard let cipher = recordCipher(header.salt), let bytes = header.encoded(cipher: cipher) else {
            return degrade(.failed("AES-256-GCM refused to seal a header"))
        }
        let checkpoint = CacheCheckpoint<File>(number: journal.number, fragments: CacheFragments(header: header, cipher: cipher))
        self.checkpoint = checkpoint
        for (number, salt) in salts.all { CacheRecord.salt(number: UInt32(number), salt).encode(into: &checkpoint.records) }
        // A segment that is being evicted is gone already, as the journal before has said: what of it is not moved leaves unrecorded.
        let byOrder = segments.enumerated().filter { [.open, .closed].contains($0.element.state) && $0.offset != eviction?.segment }.sorted
        {
            $0.element.sequence < $1.element.sequence
        }
        for (number, segment) in byOrder {
            CacheRecord.opened(segment: UInt32(number), sequence: segment.sequence, salt: segment.salt, segment.queue)
                .encode(into: &checkpoint.records)
            if segment.state == .closed, ownersInMemory[number] == nil {
                CacheRecord.closed(segment: UInt32(number)).encode(into: &checkpoint.records)
            }
        }
        for volume in index.volumes.values.sorted(by: { $0.ordinal < $1.ordinal }) {
            CacheRecord.volume(ordinal: volume.ordinal, volume.identifier).encode(into: &checkpoint.records)
            if volume.current > 0 {
                CacheRecord.current(ordinal: volume.ordinal, through: volume.current).encode(into: &checkpoint.records)
            }
            if volume.keyGeneration != 1 {
                CacheRecord.keyGeneration(ordinal: volume.ordinal, volume.keyGeneration).encode(into: &checkpoint.records)
            }
            volume.zeroes.forEach { extent in
                CacheRecord.zeroes(ordinal: volume.ordinal, extent.range.wholeBlocks).encode(into: &checkpoint.records)
            }
            checkpoint.chunks += volume.map.chunkNumbers.map { (volume.identifier, $0) }
        }
        make(CacheFileName.checkpoint(checkpoint.number), startingWith: bytes) { [self] result in
            guard self.checkpoint === checkpoint, !isClosed else { return }
            switch result {
            case .success(let file):
                checkpoint.file = file
                writeNext(of: checkpoint)
            case .failure(let error): checkpointFailed(error)
            }
        }
    }

    /// Writes the next part, or ends.
    private func writeNext(of checkpoint: CacheCheckpoint<File>) {
        guard let file = checkpoint.file else { return }
        while checkpoint.records.readableBytes < limits.fragmentBytesMax, let next = checkpoint.chunks.first {
            if let volume = index[next.volume] {
                for record in volume.map.records(
                    ofLeaf: checkpoint.nextLeaf, inChunk: next.chunk, ordinal: volume.ordinal, identity: identity(ofSlot:))
                {
                    if case .shared = record { volume.sharedRecordsIn = checkpoint.number }
                    record.encode(into: &checkpoint.records)
                }
            }
            checkpoint.nextLeaf += 1
            if checkpoint.nextLeaf == CacheMap.leavesPerChunk {
                checkpoint.chunks.removeFirst()
                checkpoint.nextLeaf = 0
            }
        }
        let all = checkpoint.records.readableBytes
        guard let records = CacheJournal<File>.cut(&checkpoint.records, at: all, fragmentBytesMax: limits.fragmentBytesMax) else {
            // The maps were written later than the journal began: what they say must not be lost from it.
            return synchronize { [self] result in
                guard self.checkpoint === checkpoint, !isClosed else { return }
                switch result {
                case .success: end(checkpoint)
                case .failure: checkpointFailed(.failed("the journal is not durable"))
                }
            }
        }
        write(records, of: checkpoint, to: file, isLast: false) { [self] in writeNext(of: checkpoint) }
    }

    private func write(
        _ records: ByteBuffer, of checkpoint: CacheCheckpoint<File>, to file: File, isLast: Bool, then next: @escaping () -> Void
    ) {
        guard let (bytes, offset) = checkpoint.fragments.seal(records, isLast: isLast, key: index.key(of:)) else {
            return checkpointFailed(.failed("AES-256-GCM refused to seal records"))
        }
        file.write(bytes, at: offset) { [self] result in
            guard self.checkpoint === checkpoint, !isClosed else { return }
            if case .failure(let error) = result { checkpointFailed(error) } else { next() }
        }
    }

    private func end(_ checkpoint: CacheCheckpoint<File>) {
        guard let file = checkpoint.file else { return }
        write(ByteBuffer(), of: checkpoint, to: file, isLast: true) { [self] in
            file.synchronize { [self] result in
                guard self.checkpoint === checkpoint, !isClosed else { return }
                if case .failure(let error) = result { return checkpointFailed(error) }
                directory.synchronize { [self] result in
                    guard self.checkpoint === checkpoint, !isClosed else { return }
                    if case .failure(let error) = result { return checkpointFailed(error) }
                    file.close()
                    self.checkpoint = nil
                    checkpointNumber = checkpoint.number
                    (checkpointsFailed, checkpointDueBytes) = (0, 0)
                    journal.checkpointBytes = checkpoint.fragments.offset
                    journal.byteCount = journal.fragments?.offset ?? 0
                    journal.fileCount = 1
                    removeFiles(before: checkpoint.number)
                    pump()
                }
            }
        }
    }

    /// The journal goes on being the truth. Another checkpoint is tried when it has become longer by its usual size; when it is
    /// several times as long, a crash is to find no blocks rather than the journals take all room there is.
    private func checkpointFailed(_ error: StorageFileError) {
        counters.writeErrors += 1
        guard checkpoint != nil else { return }
        abandonCheckpoint()
        checkpointsFailed += 1
        if checkpointsFailed < Self.journalGrowthMax {
            checkpointDueBytes = journal.byteCount + UInt64(limits.journalBytes)
            journal.fileCount = 0
        } else {
            checkpointsFailed = 0
            beginAnew()
        }
    }

    /// Ends the checkpoint that is being written, if one is.
    func abandonCheckpoint() {
        guard let abandoned = checkpoint else { return }
        checkpoint = nil
        abandoned.file?.close()
        directory.remove(CacheFileName.checkpoint(abandoned.number)) { _ in }
    }

    /// Files that count no more. Should one stay, the next start removes it.
    func removeFiles(before number: UInt64) {
        directory.list { [self] result in
            guard case .success(let names) = result, !isClosed else { return }
            for name in names {
                if let parsed = CacheFileName.parse(name), parsed.number < number { directory.remove(name) { _ in } }
            }
        }
    }
}
