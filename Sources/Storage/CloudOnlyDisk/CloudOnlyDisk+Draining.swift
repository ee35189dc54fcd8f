import Blocks
import Ciphers
import NIOCore
import Synchronization
import WriteLog

// Draining an epoch of the journal into the files:
//
//     reads that began before it was sealed end ──► pieces: sectors to blocks, then their seals; holes for zeroes and removals
//         ──► the pages of all sectors that changed, the root ──► fdatasync of all three ──► the epoch is released, for good ──► the next
//
// Nothing is taken back when it fails or a crash comes: the epoch is still there, and is drained again. Until the epoch is released the
// slots that tell what was before it are left alone; so whoever opens the disk can tell that nothing of it is lost.

/// One epoch on its way into the files.
final class CloudOnlyDrain {
    /// How much is sealed and written at once, in sectors, and how many such pieces are under way.
    static let pieceSectorsMax: UInt64 = 256
    static let piecesInFlightMax = 8
    /// How many pages are being written: fewer than there are threads for all files of an edge, or flushes would wait behind them.
    static let pagesInFlightMax = 4

    let epoch: PointNumber
    let segments: [LogSegment]
    var index = 0
    var position: UInt64
    var inFlight = 0
    /// The first segment that may lie in a page that is not written yet, and the first such page.
    private var pageIndex = 0
    private var pageNumber: UInt64 = 0
    /// What that segment changes, if it removes.
    private var removedPages: ArraySlice<UInt64>?
    /// Pieces, or pages, are being started.
    var isFilling = false
    var failure: WriteLogError?

    init(epoch: PointNumber, segments: [LogSegment]) {
        self.epoch = epoch
        self.segments = segments
        position = segments.first?.range.start ?? 0
    }

    /// The next piece; nil at the end.
    func nextPiece() -> LogSegment? {
        guard index < segments.count else { return nil }
        let segment = segments[index]
        guard case .data = segment.content else {
            advance()
            return segment
        }
        let end = min(segment.range.end, position + Self.pieceSectorsMax)
        let piece = segment.clipped(to: SectorRange(from: position, to: end))
        if end == segment.range.end { advance() } else { position = end }
        return piece
    }

    /// The next page that the epoch changes, and what of the epoch lies in it; nil at the end.
    func nextPage(known: PresenceMap) -> (number: UInt64, segments: ArraySlice<LogSegment>)? {
        while pageIndex < segments.count {
            guard let number = firstPage(of: segments[pageIndex], known: known) else {
                pageIndex += 1
                removedPages = nil
                continue
            }
            pageNumber = number + 1
            let end = segments[pageIndex...].firstIndex { PresenceMap.pages(in: $0.range).lowerBound > number } ?? segments.endIndex
            return (number, segments[pageIndex..<end])
        }
        return nil
    }

    /// The first page that a segment changes and that is not written yet. Where nothing is held there is nothing to be removed, unless this epoch
    /// has removed it in an attempt that came to nothing.
    private func firstPage(of segment: LogSegment, known: PresenceMap) -> UInt64? {
        let pages = PresenceMap.pages(in: segment.range)
        let first = max(pages.lowerBound, pageNumber)
        if segment.presence != .absent { return first < pages.upperBound ? first : nil }
        let removed = (removedPages ?? known.heldPages(in: segment.range, orChangedBy: epoch)[...]).drop { $0 < first }
        removedPages = removed
        return removed.first
    }

    private func advance() {
        index += 1
        if index < segments.count { position = segments[index].range.start }
    }
}

extension LogSegment {
    /// What a disk holds of the segment's sectors.
    fileprivate var presence: SectorState {
        switch content {
        case .data: .data
        case .zeroes: .zeroes
        case .absent: .absent
        }
    }
}

/// Carries the seals of a piece from the thread that has made them to the loop.
private final class SealsBox: Sendable {
    let seals = Mutex(ByteBuffer())
}

extension CloudOnlyDisk {
    /// How long a drain waits after the file system took no changes.
    private static var drainRetryDelay: TimeAmount { .seconds(1) }

    /// Closes the journal's epoch and drains it.
    func sealJournal() {
        guard !isSealing, failure == nil, !isClosed else { return }
        isSealing = true
        journal.seal(now: clock()) { [self] result in
            isSealing = false
            switch result {
            case .success: drainNext()
            case .failure(.closed), .failure(.noSpace): break
            case .failure(let error): fail(error)
            }
        }
    }

    /// Drains the oldest sealed epoch, if there is one and nothing is in the way.
    func drainNext() {
        guard !isDraining, failure == nil, !isClosed, drainRetryAt == nil, let point = journal.sealedPoints.first else { return }
        isDraining = true
        let drain = CloudOnlyDrain(epoch: point.number, segments: journal.contents(of: point.number))
        // What reads the files of a sector of this epoch began before the epoch was sealed, and so before now.
        let before = readGeneration
        readGeneration ^= 1
        if readsInFlight[before] == 0 { return fill(drain) }
        onReadsEnded = { [self] in fill(drain) }
    }

    /// Starts pieces as long as there are some and the limit allows it.
    private func fill(_ drain: CloudOnlyDrain) {
        // A piece with nothing to do ends before it has been started: the loop goes on by itself, and there is one end.
        if drain.isFilling { return }
        drain.isFilling = true
        while drain.failure == nil, !isClosed, drain.inFlight < CloudOnlyDrain.piecesInFlightMax, let next = drain.nextPiece() {
            drain.inFlight += 1
            move(next, of: drain)
        }
        drain.isFilling = false
        guard drain.inFlight == 0 else { return }
        if isClosed { return }
        if let failure = drain.failure { return stop(failure) }
        writePages(of: drain)
    }

    private func ended(_ result: Result<Void, WriteLogError>, _ drain: CloudOnlyDrain) {
        if case .failure(let error) = result { drain.failure = drain.failure ?? error }
        drain.inFlight -= 1
        fill(drain)
    }

    private func move(_ piece: LogSegment, of drain: CloudOnlyDrain) {
        let range = piece.range
        guard case .data = piece.content else {
            return punch(range) { [self] in ended($0, drain) }
        }
        var data = ByteBufferAllocator().buffer(capacity: range.byteCount)
        if journal.readIfResident(piece, into: &data) { return store(data, range, drain) }
        journal.read(piece) { [self] result in
            switch result {
            case .success(let data): if isClosed { ended(.failure(.closed), drain) } else { store(data, range, drain) }
            case .failure(let error): ended(.failure(error), drain)
            }
        }
    }

    /// Sealing takes longer than all the rest, so it is done where the write is.
    private func store(_ data: ByteBuffer, _ range: SectorRange, _ drain: CloudOnlyDrain) {
        // Never taken back: what is sealed again, after an attempt that came to nothing, has other numbers.
        let number = sealedSectors
        sealedSectors += range.count
        let box = SealsBox()
        let produce: @Sendable () -> ByteBuffer? = { [encoding, cipher = sharedBlockCipher, era = blockCiphers.era] in
            let sealed = cipher.withCipher { encoding.seal(data, start: range.start, era: era, number: number, cipher: $0) }
            guard let sealed else { return nil }
            box.seals.withLock { $0 = sealed.seals }
            return sealed.blocks
        }
        changes.begin()
        blocks.write(at: CloudOnlyFormat.blockOffset(range.start), produce: produce) { [self] bytes, result in
            defer { changes.end() }
            if case .failure(let error) = result { return ended(.failure(.file(error)), drain) }
            if bytes == nil { return ended(.failure(.cipher("AES-256-GCM refused to seal a sector")), drain) }
            let seals = box.seals.withLock { $0 }
            changes.make { done in
                self.seals.write(seals, at: CloudOnlyFormat.sealOffset(range.start), completion: done)
            } then: { [self] result in
                ended(result.mapError { .file($0) }, drain)
            }
        }
    }

    /// Frees the space of sectors that hold no bytes any more.
    private func punch(_ range: SectorRange, completion: @escaping (Result<Void, WriteLogError>) -> Void) {
        // A page that was never there has nothing to free: most of a disk that is unmapped as a whole.
        guard let part = presence.heldSpan(in: range) else { return completion(.success(())) }
        changes.make { done in
            blocks.writeZeroes(at: CloudOnlyFormat.blockOffset(part.start), byteCount: UInt64(part.byteCount), completion: done)
        } then: { [self] result in
            if case .failure(let error) = result { return completion(.failure(.file(error))) }
            changes.make { done in
                seals.writeZeroes(
                    at: CloudOnlyFormat.sealOffset(part.start), byteCount: part.count * UInt64(CloudOnlyFormat.sealBytes), completion: done)
            } then: {
                completion($0.mapError { .file($0) })
            }
        }
    }

    // MARK: Pages

    /// Takes the epoch's changes into the map page by page, and writes each page: there may be millions of them, and others of this loop
    /// have their turns in between. What is half in the map hides behind the epoch, which is in the journal still.
    private func writePages(of drain: CloudOnlyDrain) {
        if drain.isFilling { return }
        drain.isFilling = true
        while drain.failure == nil, !isClosed, drain.inFlight < CloudOnlyDrain.pagesInFlightMax, let next = drain.nextPage(known: presence)
        {
            drain.inFlight += 1
            write(next.number, next.segments, of: drain)
        }
        drain.isFilling = false
        guard drain.inFlight == 0 else { return }
        if isClosed { return }
        if let failure = drain.failure { return stop(failure) }
        writeRoot(of: drain)
    }

    private func write(_ number: UInt64, _ segments: ArraySlice<LogSegment>, of drain: CloudOnlyDrain) {
        let page = presence.change(number, segments.lazy.map { ($0.range, $0.presence) }, epoch: drain.epoch)
        let ended = { [self] (result: Result<Void, WriteLogError>) in
            if case .failure(let error) = result { drain.failure = drain.failure ?? error }
            drain.inFlight -= 1
            writePages(of: drain)
        }
        guard let slot = encoding.encode(page, number: number, ciphers: presenceCiphers) else {
            return ended(.failure(.cipher("AES-256-GCM refused to seal a page")))
        }
        changes.make { done in
            presenceFile.write(slot, at: CloudOnlyFormat.slotOffset(of: page, number: number), completion: done)
        } then: {
            ended($0.mapError { .file($0) })
        }
    }

    private func writeRoot(of drain: CloudOnlyDrain) {
        guard let slot = encoding.encode(presence.root, epoch: drain.epoch, ciphers: presenceCiphers) else {
            return stop(.cipher("AES-256-GCM refused to seal the root of the pages"))
        }
        changes.make { done in
            presenceFile.write(slot, at: UInt64((rootSlot ^ 1) * CloudOnlyFormat.slotBytes), completion: done)
        } then: { [self] result in
            if case .failure(let error) = result { return stop(.file(error)) }
            synchronizeFiles(drain)
        }
    }

    private func synchronizeFiles(_ drain: CloudOnlyDrain) {
        synchronize([blocks, seals, presenceFile][...]) { [self] result in
            if case .failure(let error) = result {
                // After a failed sync nobody knows what is on the medium.
                return fail(.file(error))
            }
            journal.release(through: drain.epoch) { [self] result in
                isDraining = false
                if case .failure(let error) = result {
                    if error != .closed { fail(error) }
                    return
                }
                releasedThrough = drain.epoch
                rootSlot ^= 1
                drainedEpochs += 1
                drainNext()
            }
        }
    }

    private func synchronize(_ files: ArraySlice<Directory.File>, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        guard let file = files.first else { return completion(.success(())) }
        if isClosed { return }
        changes.make { done in
            file.synchronize(completion: done)
        } then: { [self] result in
            if case .failure = result { return completion(result) }
            synchronize(files.dropFirst(), completion: completion)
        }
    }

    /// A drain has come to nothing. Where the file system is full or read-only it is tried again; anything else ends the disk.
    private func stop(_ error: WriteLogError) {
        isDraining = false
        switch error {
        case .file(.noSpace):
            // What the journal keeps for later may be what is missing.
            journal.giveRoomBack()
            drainRetryAt = clock() + Self.drainRetryDelay
        case .file(.denied): drainRetryAt = clock() + Self.drainRetryDelay
        default: fail(error)
        }
    }
}
