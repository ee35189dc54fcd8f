import Blocks
import Ciphers
import DequeModule
import NIOCore

extension SecureCache {
    /// The most blocks in one write.
    private var blocksPerWrite: Int { max(1, min(256, 2 * limits.writeBytes / CacheFormat.blockBytes)) }

    /// Adds a record to those that wait.
    func record(_ record: CacheRecord) {
        journal.append(record)
        if journal.pendingBytes > limits.recordBytesMax {
            // The device cannot follow, and what must be forgotten has no room: forget all, should there be a crash.
            beginAnew()
        }
    }

    /// Drops the records that wait and all that were written: the next file begins a row of its own, in which nothing is hidden that
    /// must be, for nothing is known.
    func beginAnew() {
        journal.giveUp()
        cycle?.recordBytes = 0
        record(.salt(number: UInt32(salt), salts[salt]?.bytes ?? []))
    }

    /// A sync has failed. What it was for may be gone from the file though it can be read, and a later sync would say nothing of it, so
    /// no record counts any more that the file may have lost; blocks that it has lost are not what was sealed.
    func syncFailed(_ error: StorageFileError) {
        abandonCheckpoint()
        beginAnew()
        recordsFailed(error)
    }

    // MARK: The writer

    /// Starts the writer's next operation if none is in flight.
    func pump() {
        guard !isWriting, !isClosed, !isDegraded else { return }
        if cycle == nil, !waiters.isEmpty || wantsSynchronization { beginCycle() }
        if mustProbe { return probe() }
        if let (segment, slots) = nextSlots() { return writeSlots(slots, of: segment) }
        if let full = filling.first(where: { $0.isFull && $0.writtenSlots == $0.owners.count }) {
            return full.owners.count < geometry.slotCount ? closeEarly(full) : writeOwners(of: full)
        }
        if cycle == nil, journal.pendingBytes < limits.fragmentBytesMax { return beginCheckpoint() }
        guard journal.file != nil else { return startJournal() }
        if journal.encoded != nil { return writeFragment() }
        if let cycle {
            if cycle.recordBytes > 0 { return sealFragment(of: cycle.recordBytes) }
            return synchronizeFiles(cycle)
        }
        sealFragment(of: journal.pendingBytes)
    }

    private func beginCycle() {
        journal.settle()
        cycle = CacheCycle(
            slots: filling.map { ($0, $0.buffers.count) }, recordBytes: journal.pendingBytes, records: journal.appended)
    }

    /// True when blocks are written a few at a time too: a divided cache fills many segments at once.
    private var isShortOfMemory: Bool { unwrittenBytes > limits.unwrittenBytesMax / 2 }

    /// The next slots that are to be written, of the segments in the order in which they were opened.
    private func nextSlots() -> (FillingSegment, Range<Int>)? {
        for segment in filling {
            let goal = cycle?.slots.first { $0.segment === segment }?.count ?? 0
            let waiting = segment.buffers.count - segment.sealedSlots
            // A round comes to its end first, however much arrives meanwhile.
            let isWorthIt =
                cycle == nil && waiting > 0
                && (segment.isFull || isShortOfMemory || waiting * CacheFormat.blockBytes >= limits.writeBytes)
            let end = isWorthIt ? segment.buffers.count : goal
            if segment.sealedSlots < end { return (segment, segment.sealedSlots..<min(end, segment.sealedSlots + blocksPerWrite)) }
        }
        return nil
    }

    /// Writes, and goes on, or says that it failed.
    private func write(
        _ bytes: ByteBuffer, to file: File, at offset: UInt64, then next: @escaping () -> Void,
        failed: @escaping (StorageFileError) -> Void
    ) {
        isWriting = true
        file.write(bytes, at: offset) { [self] result in
            isWriting = false
            switch result {
            case .success: next()
            case .failure(let error): failed(error)
            }
            pump()
        }
    }

    /// Tries a device that took no writes.
    private func probe() {
        mustProbe = false
        let header = CacheHeader(segmentBytes: UInt32(geometry.segmentBytes), identifier: identifier)
        write(header.encoded(), to: file, at: 0) { [self] in
            areBlocksDirty = true
        } failed: { [self] error in
            recordsFailed(error)
        }
    }

    // MARK: Blocks

    private func writeSlots(_ slots: Range<Int>, of segment: FillingSegment) {
        encodeBuffer.clear()
        encodeBuffer.reserveCapacity(slots.count * CacheFormat.slotBytes)
        for slot in slots where !seal(slot, of: segment, into: &encodeBuffer) {
            // The volume went meanwhile, and its key: the slot holds nothing.
            encodeBuffer.writeRepeatingByte(0, count: CacheFormat.slotBytes)
        }
        segment.sealedSlots = slots.upperBound
        write(encodeBuffer, to: file, at: geometry.offset(ofSlot: slots.lowerBound, in: segment.segment)) { [self] in
            areBlocksDirty = true
            for slot in slots { release(slot, of: segment) }
            segment.writtenSlots = slots.upperBound
            consecutiveFailures = 0
            if let eviction, eviction.isWaiting { moveNext(eviction) }
        } failed: { [self] error in
            cutShort(segment, error)
        }
    }

    private func release(_ slot: Int, of segment: FillingSegment) {
        guard segment.buffers[slot] != nil else { return }
        segment.buffers[slot] = nil
        unwrittenBytes -= CacheFormat.blockBytes
    }

    private func seal(_ slot: Int, of segment: FillingSegment, into buffer: inout ByteBuffer) -> Bool {
        let owner = segment.owners[slot]
        guard let bytes = segment.buffers[slot] else { return false }
        let nonce = CipherNonce(sequence: segment.sequence, index: UInt32(slot))
        if owner == CacheFormat.sharedOwner {
            let place = geometry.slot(slot, in: segment.segment)
            guard let identity = identity(ofSlot: place) else { return false }
            let context = CacheFormat.sharedContext(identity.signature, sequence: segment.sequence)
            return withCipher(ofShared: place, identity) { cipher in
                bytes.withUnsafeReadableBytes { cipher.seal($0, nonce: nonce, context: context, appendingTo: &buffer) }
            } ?? false
        }
        guard let volume = index[ordinal: owner.volume], let cipher = volume.cipher(salt: salt, of: salts) else { return false }
        let context = CacheFormat.blockContext(volume.identifier, owner.block, sequence: segment.sequence)
        return bytes.withUnsafeReadableBytes { cipher.seal($0, nonce: nonce, context: context, appendingTo: &buffer) }
    }

    /// Writes behind a full segment which blocks it was filled with.
    private func writeOwners(of segment: FillingSegment) {
        let plaintext = CacheOwner.encode(segment.owners) { owner, blocks in
            index[ordinal: owner]?.cipher(salt: salt, of: salts)?.combine(blocks, nonce: CacheFormat.ownersNonce(segment.sequence))
        }
        var bytes = ByteBuffer()
        let context = CacheFormat.ownersContext(segment: segment.segment, sequence: segment.sequence, count: segment.owners.count)
        let isSealed = plaintext.withUnsafeReadableBytes {
            ownersCipher.seal(
                $0, nonce: CacheFormat.ownersNonce(segment.sequence), context: context,
                appendingTo: &bytes)
        }
        guard isSealed else { return degrade(.failed("AES-256-GCM refused to seal the owners of a segment")) }
        write(bytes, to: file, at: geometry.offset(ofOwnersIn: segment.segment)) { [self] in
            areBlocksDirty = true
            filling.removeAll { $0 === segment }
            close(segment)
            record(.closed(segment: UInt32(segment.segment)))
            wasFilled(segment.segment)
            makeRoom()
        } failed: { [self] error in
            cutShort(segment, error)
        }
    }

    /// Takes a segment off the writer after a failed write.
    private func cutShort(_ segment: FillingSegment, _ error: StorageFileError) {
        filling.removeAll { $0 === segment }
        cutOff(segment)
        counters.writeErrors += 1
        if case .noSpace = error, !segments[segment.segment].hasRoom {
            // Nothing is wrong with the device.
            setAside(segment)
        } else {
            consecutiveFailures += 1
        }
        if consecutiveFailures >= Self.failuresMax { degrade(error) } else { makeRoom() }
        endIfEmptied()
    }

    /// Ends a segment that takes no more blocks before it is full, because the cache is to end before it.
    private func closeEarly(_ segment: FillingSegment) {
        filling.removeAll { $0 === segment }
        cutOff(segment)
        makeRoom()
        pump()
    }

    /// Ends a segment where it is written to. What was written before can still be read; the rest is forgotten.
    private func cutOff(_ segment: FillingSegment) {
        let number = segment.segment
        for slot in segment.writtenSlots..<segment.owners.count {
            let owner = segment.owners[slot]
            release(slot, of: segment)
            for owner in owners(ofSlot: geometry.slot(slot, in: number), owner) {
                if let volume = index[ordinal: owner.volume] { forget(volume, blocks: owner.block..<owner.block + 1) }
                counters.dropped += 1
            }
        }
        ownersInMemory[number] = Array(segment.owners.prefix(segment.writtenSlots))
        close(segment)
    }

    /// Gives a segment that takes no more blocks to its queue.
    private func close(_ segment: FillingSegment) {
        segments[segment.segment].state = .closed
        queues.closed(in: segment.pool)
        queues.append(segment.segment, to: segment.queue, of: segment.pool)
    }

    // MARK: Records

    /// Makes the file that takes records from now on. The one before is durable then, as far as it counts.
    func startJournal(then next: @escaping () -> Void = {}) {
        let header = CacheRecordFileHeader(
            kind: journal.startsAnew ? .firstJournal : .journal, number: journal.number, cache: identifier,
            segmentBytes: UInt32(geometry.segmentBytes), predecessorFragments: journal.predecessor.fragments,
            predecessorTag: journal.predecessor.chain, salt: newSalt())
        guard let cipher = recordCipher(header.salt), let bytes = header.encoded(cipher: cipher) else {
            return degrade(.failed("AES-256-GCM refused to seal a header"))
        }
        isWriting = true
        make(CacheFileName.journal(journal.number), startingWith: bytes) { [self] result in
            isWriting = false
            switch result {
            case .success(let file) where journal.number != header.number:
                // All that waited was given up meanwhile: another file begins anew.
                file.close()
            case .success(let file):
                journal.start(file, CacheFragments(header: header, cipher: cipher))
                next()
            case .failure(let error): recordsFailed(error)
            }
            pump()
        }
    }

    /// Makes a file whose name is durable, and begins it. What a run that died has left under that name goes.
    func make(_ name: String, startingWith bytes: ByteBuffer, completion: @escaping (Result<File, StorageFileError>) -> Void) {
        directory.open(name, create: true) { [self] result in
            guard case .success(let file) = result else { return completion(result) }
            let ended: (Result<Void, StorageFileError>) -> Void = { result in
                if case .failure = result { file.close() }
                completion(result.map { file })
            }
            file.truncate(to: 0) { [self] result in
                if case .failure = result { return ended(result) }
                file.write(bytes, at: 0) { [self] result in
                    if case .failure = result { return ended(result) }
                    directory.synchronize(completion: ended)
                }
            }
        }
    }

    private func sealFragment(of byteCount: Int) {
        journal.settle()
        guard let records = journal.take(byteCount, fragmentBytesMax: limits.fragmentBytesMax),
            let sealed = journal.fragments?.seal(records, key: index.key(of:))
        else {
            beginAnew()
            return degrade(.failed("AES-256-GCM refused to seal records"))
        }
        cycle?.recordBytes -= records.readableBytes
        journal.encoded = sealed
        writeFragment()
    }

    private func writeFragment() {
        guard let (bytes, offset) = journal.encoded, let file = journal.file else { return }
        write(bytes, to: file, at: offset) { [self] in
            journal.encoded = nil
            journal.isDirty = true
            journal.byteCount += UInt64(bytes.readableBytes)
        } failed: { [self] error in
            recordsFailed(error)
        }
    }

    func recordsFailed(_ error: StorageFileError) {
        counters.writeErrors += 1
        consecutiveFailures += 1
        if consecutiveFailures >= Self.failuresMax { degrade(error) }
    }

    private func synchronizeFiles(_ done: CacheCycle) {
        isWriting = true
        var left = 2
        var failure: StorageFileError?
        let ended: (Result<Void, StorageFileError>) -> Void = { [self] result in
            if case .failure(let error) = result { failure = error }
            left -= 1
            if left > 0 { return }
            isWriting = false
            if let failure {
                syncFailed(failure)
            } else {
                cycleEnded(done)
            }
            pump()
        }
        if areBlocksDirty { file.synchronize(completion: ended) } else { ended(.success(())) }
        if let file = journal.file, journal.isDirty { file.synchronize(completion: ended) } else { ended(.success(())) }
    }

    private func cycleEnded(_ done: CacheCycle) {
        consecutiveFailures = 0
        cycle = nil
        areBlocksDirty = false
        journal.isDirty = false
        if let first = journal.firstOfRow {
            journal.firstOfRow = nil
            removeFiles(before: first)
        }
        journal.durable = max(journal.durable, done.records)
        while let first = waiters.first, first.through <= journal.durable {
            waiters.removeFirst()
            first.completion(.success(()))
        }
        reclaim(through: journal.durable)
        if let due = cutDue, due <= journal.durable {
            cutDue = nil
            cutFile()
        }
    }

    /// Stops writing. What is in memory only is dropped; what is in the file is still served.
    func degrade(_ error: StorageFileError) {
        isDegraded = true
        cycle = nil
        for segment in filling { cutOff(segment) }
        filling.removeAll()
        if let eviction, eviction.isWaiting { moveNext(eviction) }
        let failing = waiters
        waiters.removeAll()
        for waiter in failing { waiter.completion(.failure(.file(error))) }
    }

    // MARK: Durability

    /// Completes when everything that was inserted, overwritten or invalidated before the call is
    /// durable: no crash brings back anything older.
    ///
    /// A failure means that the device takes no writes. Then what is older may come back after a
    /// crash, and the caller must not rely on the cache having forgotten it.
    public func synchronize(completion: @escaping (Result<Void, CacheError>) -> Void) {
        if isClosed { return completion(.failure(.closed)) }
        if let unusable { return completion(.failure(.file(unusable))) }
        if isDegraded {
            // One more try, which the next failure ends.
            isDegraded = false
            consecutiveFailures = Self.failuresMax - 1
            mustProbe = true
        }
        tryForRoom()
        guard journal.durable < journal.appended || journal.isDirty || mustProbe else { return completion(.success(())) }
        waiters.append((journal.appended, completion))
        pump()
    }

    /// Synchronises, and gives the file back.
    public func close(completion: @escaping (Result<Void, CacheError>) -> Void) {
        synchronize { [self] result in
            isClosed = true
            file.close()
            journal.file?.close()
            completion(result)
        }
    }

    // MARK: Keys

    func newSalt() -> [UInt8] {
        var random = random
        return random.bytes(CacheFormat.saltBytes)
    }

    /// The cipher of the records of a file with that salt.
    func recordCipher(_ salt: [UInt8]) -> BlockCipher? {
        (try? key.derive(salt: salt, purpose: CacheFormat.recordsPurpose)).map { BlockCipher(key: $0) }
    }
}
