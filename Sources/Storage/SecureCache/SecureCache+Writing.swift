import Blocks
import Ciphers
import NIOCore

extension SecureCache {
    /// The most blocks in one write.
    private var blocksPerWrite: Int { max(1, min(256, 2 * limits.writeBytes / CacheFormat.blockBytes)) }

    /// Starts the writer's next operation if none is in flight.
    func pump() {
        guard !isWriting, !isClosed, let first = inFlight.first else { return }
        if !first.isHeaderWritten { return writeHeader(of: first) }
        if first.goal == nil, first.isDirty, first.isClosed || !waiters.isEmpty {
            first.goal = (first.buffers.count, first.entries.count)
            first.fixedEntries = first.entries.count
        }
        let slotEnd = first.goal?.slots ?? first.buffers.count
        let slotsWaiting = slotEnd - first.sealedSlots
        if slotsWaiting > 0, first.goal != nil || slotsWaiting * CacheFormat.blockBytes >= limits.writeBytes {
            return writeSlots(first.sealedSlots..<min(slotEnd, first.sealedSlots + blocksPerWrite), of: first)
        }
        guard let goal = first.goal else {
            if first.isClosed { finish(first) }
            return
        }
        if first.emittedEntries < goal.entries { return writeFragment(of: first, through: goal.entries) }
        synchronizeFile(first, entries: goal.entries)
    }

    /// Writes, and goes on, or drops the segment.
    private func write(_ bytes: ByteBuffer, at offset: UInt64, then next: @escaping () -> Void) {
        isWriting = true
        file.write(bytes, at: offset) { [self] result in
            isWriting = false
            if case .failure(let error) = result { return dropFailed(error) }
            next()
            pump()
        }
    }

    private func writeHeader(of pending: PendingSegment) {
        var fragments = CacheFormat.barrier
        if !pending.isBarrier, let predecessor, predecessor.sequence + 1 == pending.sequence {
            fragments = UInt32(predecessor.fragments)
        }
        let header = CacheSegmentHeader(
            segmentBytes: UInt32(geometry.segmentBytes), segmentCount: UInt32(geometry.segmentCount),
            position: UInt32(pending.segment.position), sequence: pending.sequence, predecessorFragments: fragments,
            salt: salts[salt])
        guard let bytes = header.encoded(cipher: tableCipher) else {
            return dropFailed(.failed("AES-256-GCM refused to seal a header"))
        }
        write(bytes, at: geometry.offset(ofSegment: pending.segment.position)) { pending.isHeaderWritten = true }
    }

    private func writeSlots(_ slots: Range<Int>, of pending: PendingSegment) {
        encodeBuffer.clear()
        encodeBuffer.reserveCapacity(slots.count * CacheFormat.slotBytes)
        for slot in slots where !seal(slot, of: pending, into: &encodeBuffer) {
            // The volume went meanwhile, and its key: the slot holds nothing.
            encodeBuffer.writeRepeatingByte(0, count: CacheFormat.slotBytes)
        }
        pending.sealedSlots = slots.upperBound
        write(encodeBuffer, at: geometry.offset(ofSlot: slots.lowerBound, segment: pending.segment.position)) { [self] in
            for slot in slots where pending.buffers[slot] != nil {
                pending.buffers[slot] = nil
                unwrittenBytes -= CacheFormat.blockBytes
            }
            pending.writtenSlots = slots.upperBound
        }
    }

    private func seal(_ slot: Int, of pending: PendingSegment, into buffer: inout ByteBuffer) -> Bool {
        let owner = pending.segment.slots[slot]
        guard let bytes = pending.buffers[slot], let volume = index[ordinal: owner.volume],
            let cipher = volume.cipher(salt: salt, of: salts)
        else { return false }
        return bytes.withUnsafeReadableBytes {
            cipher.seal(
                $0, nonce: CipherNonce(sequence: pending.sequence, index: UInt32(slot)),
                context: CacheFormat.blockContext(volume.identifier, owner.block, sequence: pending.sequence), appendingTo: &buffer)
        }
    }

    private func writeFragment(of pending: PendingSegment, through end: Int) {
        let entries = pending.entries[pending.emittedEntries..<end]
        let position = pending.segment.position
        guard
            let bytes = CacheTable.encodeFragment(
                entries, sequence: pending.sequence, position: position, index: pending.fragments, cipher: tableCipher)
        else { return dropFailed(.failed("AES-256-GCM refused to seal a table")) }
        guard pending.tableOffset + bytes.readableBytes <= geometry.tableBytes else {
            return dropFailed(.failed("a segment's table has no room for its entries"))
        }
        let offset = geometry.offset(ofTable: position) + UInt64(pending.tableOffset)
        pending.tableOffset += bytes.readableBytes
        pending.fragments += 1
        pending.emittedEntries = end
        write(bytes, at: offset) {}
        closeIfTableIsFull(pending)
    }

    private func synchronizeFile(_ pending: PendingSegment, entries: Int) {
        isWriting = true
        file.synchronize { [self] result in
            isWriting = false
            if case .failure(let error) = result { return dropFailed(error) }
            pending.isHeaderDurable = true
            pending.durableEntries = entries
            pending.goal = nil
            consecutiveFailures = 0
            durable = (pending.sequence, entries)
            resolveWaiters()
            pump()
        }
    }

    /// A segment that is full and durable leaves the writer.
    private func finish(_ pending: PendingSegment) {
        inFlight.removeFirst()
        pending.segment.pending = nil
        pending.segment.hasRoom = pending.segment.hasRoom || pending.segment.slots.count == geometry.slotCount
        predecessor = (pending.sequence, pending.fragments)
        durable = (pending.sequence, .max)
        resolveWaiters()
        pump()
    }
}
