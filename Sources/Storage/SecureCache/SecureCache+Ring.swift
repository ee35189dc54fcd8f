import Blocks
import NIOCore

extension SecureCache {
    // MARK: Entries

    /// Puts an entry without data into the table of the segment that is open.
    /// - Returns: the segment, or nil when the device takes no writes. Then the next segment that is
    ///   written will be a barrier, which forgets more than the entry would.
    @discardableResult
    func record(_ entry: CacheEntry) -> CacheSegment? {
        guard let open = openSegment(forData: false) else { return nil }
        append(entry, to: open)
        pump()
        return open.segment
    }

    /// Adds an entry, or makes the last one longer, and closes the segment whose table is full.
    func append(_ entry: CacheEntry, to open: PendingSegment) {
        if open.entries.count > open.fixedEntries, let last = open.entries.last, last.isContinued(by: entry) {
            open.entries[open.entries.count - 1].count += entry.count
        } else {
            open.entries.append(entry)
        }
        closeIfTableIsFull(open)
    }

    /// A table has room for what waits and for one more entry, and for the padding of a fragment cut in two.
    func closeIfTableIsFull(_ open: PendingSegment) {
        let waiting = open.entries.count - open.emittedEntries
        let needed = CacheFormat.fragmentBytes(entries: waiting + 1) + 2 * CacheFormat.alignment
        if !open.isClosed, open.tableOffset + needed > geometry.tableBytes { close(open) }
    }

    func close(_ open: PendingSegment) {
        open.isClosed = true
        pump()
    }

    // MARK: Segments

    /// The segment that takes entries, opened when there is none.
    func openSegment(forData: Bool) -> PendingSegment? {
        if isClosed || isDegraded {
            needsBarrier = true
            return nil
        }
        if let open = inFlight.last, !open.isClosed { return open }
        if inFlight.count >= inFlightMax {
            if forData { return nil }
            // The device cannot follow, and what must be forgotten has no room: forget more.
            dropQueued()
        }
        if let started = startSegment() { return started }
        // There always are more usable places than segments in flight; if not, what must be forgotten may not get lost.
        if !forData { degrade(.failed("no segment of the cache can be written")) }
        return nil
    }

    /// Evicts the oldest segment, and opens a new one in its place.
    func startSegment() -> PendingSegment? {
        var tries = segments.count
        while segments[nextPosition].isUnusable, tries > 0 {
            nextPosition = (nextPosition + 1) % segments.count
            tries -= 1
        }
        let segment = segments[nextPosition]
        guard tries > 0, segment.pending == nil, nextSequence < .max - 1 else { return nil }
        counters.evicted += forget(segment)
        segment.sequence = nextSequence
        segment.salt = salt
        let pending = PendingSegment(segment: segment, sequence: nextSequence, isBarrier: needsBarrier)
        segment.pending = pending
        needsBarrier = false
        nextSequence += 1
        nextPosition = (nextPosition + 1) % segments.count
        inFlight.append(pending)
        return pending
    }

    /// Takes from the index whatever is in a segment, and says how many blocks of data that were.
    func forget(_ segment: CacheSegment) -> UInt64 {
        var count: UInt64 = 0
        for (slot, entry) in segment.slots.enumerated() {
            let location = CacheLocation(segment: UInt32(segment.position), slot: UInt32(slot))
            if let volume = index[ordinal: entry.volume], volume.remove(entry.block, at: location) { count += 1 }
        }
        for entry in segment.zeroes {
            index[ordinal: entry.volume]?.removeZeroes(in: entry.blocks, segment: UInt32(segment.position))
        }
        if let pending = segment.pending {
            unwrittenBytes -= pending.buffers.reduce(0) { $0 + ($1 == nil ? 0 : CacheFormat.blockBytes) }
        }
        segment.clear()
        return count
    }

    /// Drops the segments behind the one that is being written; the next one becomes a barrier.
    private func dropQueued() {
        while inFlight.count > 1, let dropped = inFlight.popLast() {
            nextPosition = dropped.segment.position
            counters.dropped += forget(dropped.segment)
        }
        needsBarrier = true
    }

    /// Takes a segment off the writer. The blocks that were written before can still be read, until the ring comes round.
    private func abandon(_ pending: PendingSegment) {
        let segment = pending.segment
        let written = Array(segment.slots.prefix(pending.writtenSlots))
        for (slot, entry) in segment.slots.enumerated().dropFirst(pending.writtenSlots) {
            let location = CacheLocation(segment: UInt32(segment.position), slot: UInt32(slot))
            if let volume = index[ordinal: entry.volume], volume.remove(entry.block, at: location) { counters.dropped += 1 }
        }
        unwrittenBytes -= pending.buffers.reduce(0) { $0 + ($1 == nil ? 0 : CacheFormat.blockBytes) }
        segment.pending = nil
        segment.slots = written
    }

    /// Drops the segment whose write failed. What it was to hide stays hidden: the next one is a barrier.
    func dropFailed(_ error: StorageFileError) {
        counters.writeErrors += 1
        consecutiveFailures += 1
        guard let failed = inFlight.popFirst() else { return }
        if case .noSpace = error, !failed.segment.hasRoom {
            failed.segment.isUnusable = segments.filter { !$0.isUnusable }.count > inFlightMax + 1
        }
        abandon(failed)
        if let next = inFlight.first { next.isBarrier = true } else { needsBarrier = true }
        if consecutiveFailures >= Self.failuresMax { return degrade(error) }
        if inFlight.isEmpty, !waiters.isEmpty, startSegment() == nil { return degrade(error) }
        pump()
    }

    /// Stops writing. What is in memory only is dropped; what is in the file is still served.
    func degrade(_ error: StorageFileError) {
        isDegraded = true
        while let dropped = inFlight.popLast() { abandon(dropped) }
        needsBarrier = true
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
        if isDegraded {
            // One more try, which the next failure ends.
            isDegraded = false
            consecutiveFailures = Self.failuresMax - 1
        }
        if inFlight.isEmpty {
            // A barrier is needed only when something older could come back.
            guard needsBarrier, startSegment() != nil else {
                return completion(
                    needsBarrier ? .failure(.file(.failed("no segment of the cache can be written"))) : .success(()))
            }
        }
        guard let last = inFlight.last, last.isDirty else { return completion(.success(())) }
        waiters.append((last.sequence, last.entries.count, completion))
        pump()
    }

    /// Synchronises, and gives the file back.
    public func close(completion: @escaping (Result<Void, CacheError>) -> Void) {
        synchronize { [self] result in
            isClosed = true
            file.close()
            completion(result)
        }
    }

    /// Answers those who wait for what is durable now.
    func resolveWaiters() {
        while let first = waiters.first,
            durable.sequence > first.sequence || (durable.sequence == first.sequence && durable.entries >= first.entries)
        {
            waiters.removeFirst()
            first.completion(.success(()))
        }
    }
}

extension CacheEntry {
    /// True when `next` says the same of the blocks right behind this entry's.
    func isContinued(by next: CacheEntry) -> Bool {
        kind == next.kind && kind != .volumeRemoved && volume == next.volume && block + UInt64(count) == next.block
            && (kind != .data || Int(slot) + Int(count) == Int(next.slot))
            && UInt64(count) + UInt64(next.count) <= UInt64(UInt32.max)
    }
}
