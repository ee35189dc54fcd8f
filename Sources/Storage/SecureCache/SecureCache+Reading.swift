import Blocks
import Ciphers
import NIOCore

extension SecureCache {
    /// A run of blocks that come from one place.
    enum Piece {
        /// Bytes that no file holds yet.
        case memory(ByteBuffer)
        case zeroes
        /// Slots that follow one another in a segment.
        case slots(segment: Int, first: Int, count: Int)
    }

    // MARK: Asking

    /// What a block that can be read has: deallocated for one that is known to be zeroes and takes no room; nil for others.
    public func allocation(_ identifier: VolumeIdentifier, block: UInt64) -> Allocation? {
        guard let volume = index[identifier], volume.isAttached, block < CacheFormat.blocksMax else { return nil }
        if volume.map.slot(of: block) != nil { return .mapped }
        return volume.isZero(block) ? .deallocated : nil
    }

    /// The runs of a range that can be read, in ascending order.
    public func residentRuns(_ identifier: VolumeIdentifier, blocks: Range<UInt64>) -> [Range<UInt64>] {
        guard let volume = index[identifier], volume.isAttached, blocks.upperBound <= CacheFormat.blocksMax else { return [] }
        var runs: [Range<UInt64>] = []
        for block in blocks where volume.contains(block) {
            if let last = runs.last, last.upperBound == block {
                runs[runs.count - 1] = last.lowerBound..<block + 1
            } else {
                runs.append(block..<block + 1)
            }
        }
        return runs
    }

    /// The piece that begins with `block` and ends before `end` at the latest; nil when the block is missing.
    private func piece(_ volume: CacheVolume, from block: UInt64, to end: UInt64) -> (piece: Piece, count: UInt64)? {
        guard let slot = volume.map.slot(of: block) else { return volume.isZero(block) ? (.zeroes, 1) : nil }
        uses[slot] = true
        let (segment, first) = (geometry.segment(of: slot), geometry.index(of: slot))
        let filling = fillingSegment(of: slot)
        if let bytes = filling?.buffers[first] { return (.memory(bytes), 1) }
        var count = 1
        // All blocks of a run are shared, or none is.
        let hasShared = segments[segment].sharedCount > 0
        let isShared = hasShared && shared.contains(slot)
        while block + UInt64(count) < end, first + count < geometry.slotCount,
            volume.map.slot(of: block + UInt64(count)) == slot + UInt32(count), filling?.buffers[first + count] == nil,
            !hasShared || shared.contains(slot + UInt32(count)) == isShared
        {
            uses[slot + UInt32(count)] = true
            count += 1
        }
        return (.slots(segment: segment, first: first, count: count), UInt64(count))
    }

    // MARK: Reading

    /// Appends the bytes of `blocks` to `buffer` if all are here and need no waiting for the device.
    /// - Returns: false, with `buffer` unchanged, when they are not; then `read` is the way.
    public func readIfResident(_ identifier: VolumeIdentifier, blocks: Range<UInt64>, into buffer: inout ByteBuffer) -> Bool {
        guard let volume = index[identifier], volume.isAttached, blocks.upperBound <= CacheFormat.blocksMax else { return false }
        let before = buffer.writerIndex
        var block = blocks.lowerBound
        while block < blocks.upperBound {
            guard let (piece, count) = piece(volume, from: block, to: blocks.upperBound),
                append(piece, block: block, of: volume, to: &buffer)
            else {
                buffer.moveWriterIndex(to: before)
                return false
            }
            block += count
        }
        counters.hits += blocks.upperBound - blocks.lowerBound
        return true
    }

    private func append(_ piece: Piece, block: UInt64, of volume: CacheVolume, to buffer: inout ByteBuffer) -> Bool {
        switch piece {
        case .memory(let bytes):
            buffer.writeImmutableBuffer(bytes)
        case .zeroes:
            buffer.writeRepeatingByte(0, count: CacheFormat.blockBytes)
        case .slots(let segment, let first, let count):
            scratch.clear()
            let offset = geometry.offset(ofSlot: first, in: segment)
            guard file.readIfResident(at: offset, byteCount: count * CacheFormat.slotBytes, into: &scratch) else { return false }
            return open(scratch, block: block, of: volume, segment: segment, first: first, into: &buffer) == nil
        }
        return true
    }

    /// Reads `blocks` into `destination`, from `offset` on. A block that is not here, or is not what was written, makes the whole
    /// read a miss, and what the destination holds is then of no use.
    public func read(
        _ identifier: VolumeIdentifier, blocks: Range<UInt64>, into destination: ReadDestination, at offset: Int,
        completion: @escaping (Result<Void, CacheMiss>) -> Void
    ) {
        guard let volume = index[identifier], volume.isAttached, blocks.upperBound <= CacheFormat.blocksMax else {
            counters.misses += blocks.upperBound &- blocks.lowerBound
            return completion(.failure(CacheMiss(block: blocks.lowerBound)))
        }
        // Holds the request open until all pieces have been asked for.
        let request = CacheReadRequest { [self] result in
            switch result {
            case .success: counters.hits += blocks.upperBound - blocks.lowerBound
            case .failure: counters.misses += 1
            }
            completion(result)
        }
        var runs: [CacheRun] = []
        var block = blocks.lowerBound
        while block < blocks.upperBound {
            guard let (piece, count) = piece(volume, from: block, to: blocks.upperBound) else {
                return request.finish(CacheMiss(block: block))
            }
            let position = offset + Int(block - blocks.lowerBound) * CacheFormat.blockBytes
            switch piece {
            case .memory(let bytes):
                guard destination.copy(bytes, to: position) else { return request.finish(CacheMiss(block: block)) }
            case .zeroes:
                guard destination.clear(at: position, byteCount: CacheFormat.blockBytes) else {
                    return request.finish(CacheMiss(block: block))
                }
            case .slots(let segment, let first, let count):
                guard let opener = opener(volume, segment: segment, first: first, count: count) else {
                    if isShared(first, in: segment) { invalidate(identifier, blocks: block..<block + 1) }
                    return request.finish(CacheMiss(block: block))
                }
                runs.append(
                    CacheRun(
                        volume: volume.identifier, block: block, sequence: segments[segment].sequence, segment: segment,
                        firstSlot: first, slotCount: count, opener: opener, destination: destination, offset: position))
            }
            block += count
        }
        read(runs, of: volume, request)
        request.finish(nil)
    }

    /// What opens a run of slots on any thread; nil without its key.
    private func opener(_ volume: CacheVolume, segment: Int, first: Int, count: Int) -> CacheRun.Opener? {
        if isShared(first, in: segment) { return sharedRun(segment: segment, first: first, count: count).map { .shared($0) } }
        return volume.sharedCipher(salt: Int(segments[segment].salt), of: salts).map { .own($0) }
    }

    /// Has the runs of a request read and opened, by another thread for each `CacheRun.jobSlotsMax` slots: blocks that came one
    /// by one lie one by one, and must not cost a change of threads each.
    private func read(_ runs: [CacheRun], of volume: CacheVolume, _ request: CacheReadRequest) {
        var first = 0
        var slots = 0
        for (number, run) in runs.enumerated() {
            slots += run.slotCount
            guard slots >= CacheRun.jobSlotsMax || number == runs.count - 1 else { continue }
            let job = Array(runs[first...number])
            first = number + 1
            slots = 0
            request.partsLeft += 1
            let reads = job.map { run in
                FileRead(
                    offset: geometry.offset(ofSlot: run.firstSlot, in: run.segment), byteCount: run.slotCount * CacheFormat.slotBytes,
                    consume: { run.open($1, at: $0) })
            }
            file.read(reads, pieceByteCount: CacheRun.pieceSlots * CacheFormat.slotBytes) { [self] results in
                var miss: CacheMiss?
                for (run, result) in zip(job, results) {
                    guard let missed = missed(run, of: volume, result) else { continue }
                    miss = miss.map { $0.block < missed.block ? $0 : missed } ?? missed
                }
                request.finish(miss)
            }
        }
    }

    /// What a run that was read says: nil when all of it is what was written.
    private func missed(_ run: CacheRun, of volume: CacheVolume, _ result: Result<Int, StorageFileError>) -> CacheMiss? {
        // The segment was evicted while the read was under way: whatever was read, the block is a miss.
        guard run.segment < segments.count, segments[run.segment].sequence == run.sequence else { return CacheMiss(block: run.block) }
        switch result {
        case .success(let byteCount) where byteCount == run.slotCount * CacheFormat.slotBytes: return nil
        case .success(let byteCount):
            if case .shared(let shared) = run.opener, shared.wasRefused { return CacheMiss(block: run.block) }
            counters.corrupt += 1
            let good = byteCount / CacheFormat.slotBytes
            let bad = run.block + UInt64(good)
            forget(bad, of: volume, geometry.slot(run.firstSlot + good, in: run.segment))
            return CacheMiss(block: bad)
        case .failure:
            // What the device cannot read is not worth another try: the blocks are fetched again and put elsewhere.
            counters.readErrors += 1
            for slot in 0..<run.slotCount {
                forget(run.block + UInt64(slot), of: volume, geometry.slot(run.firstSlot + slot, in: run.segment))
            }
            return CacheMiss(block: run.block)
        }
    }

    /// Opens a run of sealed blocks and appends them to `buffer`.
    /// - Returns: nil, or the first block that is not what was written; then `buffer` is of no use.
    private func open(
        _ sealed: ByteBuffer, block: UInt64, of volume: CacheVolume, segment: Int, first: Int, into buffer: inout ByteBuffer
    ) -> UInt64? {
        if isShared(first, in: segment) {
            return openShared(sealed, block: block, of: volume, segment: segment, first: first, into: &buffer)
        }
        guard let cipher = volume.cipher(salt: Int(segments[segment].salt), of: salts) else { return block }
        let sequence = segments[segment].sequence
        let count = sealed.readableBytes / CacheFormat.slotBytes
        let bad = sealed.withUnsafeReadableBytes { bytes -> UInt64? in
            for number in 0..<count {
                let start = number * CacheFormat.slotBytes
                let current = block + UInt64(number)
                let isOpen = cipher.open(
                    UnsafeRawBufferPointer(rebasing: bytes[start..<start + CacheFormat.slotBytes]),
                    nonce: CipherNonce(sequence: sequence, index: UInt32(first + number)),
                    context: CacheFormat.blockContext(volume.identifier, current, sequence: sequence), appendingTo: &buffer)
                if !isOpen { return current }
            }
            return nil
        }
        if let bad {
            counters.corrupt += 1
            forget(bad, of: volume, geometry.slot(first + Int(bad - block), in: segment))
        }
        return bad
    }

    /// The same of shared blocks.
    private func openShared(
        _ sealed: ByteBuffer, block: UInt64, of volume: CacheVolume, segment: Int, first: Int, into buffer: inout ByteBuffer
    ) -> UInt64? {
        let count = sealed.readableBytes / CacheFormat.slotBytes
        guard let run = sharedRun(segment: segment, first: first, count: count) else {
            invalidate(volume.identifier, blocks: block..<block + 1)
            return block
        }
        let good = sealed.withUnsafeReadableBytes { bytes in
            run.goodCount(of: bytes, from: 0, sequence: segments[segment].sequence, firstSlot: first) { _, text in
                text.cipher.open(text.sealed, nonce: text.nonce, context: text.context, appendingTo: &buffer)
            }
        }
        if good == count { return nil }
        if run.wasRefused { return block }
        counters.corrupt += 1
        forget(block + UInt64(good), of: volume, geometry.slot(first + good, in: segment))
        return block + UInt64(good)
    }

    /// Forgets a block that could not be read, unless it is elsewhere by now.
    private func forget(_ block: UInt64, of volume: CacheVolume, _ slot: CacheSlot) {
        guard index[volume.identifier] === volume, volume.map.slot(of: block) == slot else { return }
        if identity(ofSlot: slot) != nil { return forgetShared(slot) }
        invalidate(volume.identifier, blocks: block..<block + 1)
    }
}

/// A run of slots to be opened, perhaps on another thread: plain values, and two objects that any thread may use.
struct CacheRun: Sendable {
    /// What opens the slots: the volume's own cipher, or those of shared blocks.
    enum Opener: Sendable {
        case own(SharedBlockCipher)
        case shared(CacheSharedRun)
    }

    /// Slots that are read and opened at a time: as much as stays in the processor's cache between the two.
    static let pieceSlots = 16
    /// One thread takes runs until they have this many slots, 256 KiB; what is longer goes to several.
    static let jobSlotsMax = 64

    let volume: VolumeIdentifier
    let block: UInt64
    let sequence: UInt64
    /// The position of the segment.
    let segment: Int
    let firstSlot: Int
    let slotCount: Int
    let opener: Opener
    let destination: ReadDestination
    /// Where the first block goes.
    let offset: Int

    /// Opens whole slots that stand `position` bytes behind the first, into their places.
    /// - Returns: the bytes of those that are what was written, up to the first that is not.
    func open(_ sealed: UnsafeRawBufferPointer, at position: Int) -> Int {
        let start = position / CacheFormat.slotBytes
        let count = sealed.count / CacheFormat.slotBytes
        let cipher: SharedBlockCipher
        switch opener {
        case .own(let own): cipher = own
        case .shared(let run):
            let good = run.goodCount(of: sealed, from: start, sequence: sequence, firstSlot: firstSlot) { number, text in
                destination.fill(at: offset + (start + number) * CacheFormat.blockBytes, byteCount: CacheFormat.blockBytes) {
                    text.cipher.open(text.sealed, nonce: text.nonce, context: text.context, into: $0)
                } == true
            }
            return good * CacheFormat.slotBytes
        }
        return cipher.withCipher { cipher in
            for number in 0..<count {
                let slot = start + number
                let bytes = sealed[number * CacheFormat.slotBytes..<(number + 1) * CacheFormat.slotBytes]
                let isOpen = destination.fill(at: offset + slot * CacheFormat.blockBytes, byteCount: CacheFormat.blockBytes) {
                    cipher.open(
                        UnsafeRawBufferPointer(rebasing: bytes),
                        nonce: CipherNonce(sequence: sequence, index: UInt32(firstSlot + slot)),
                        context: CacheFormat.blockContext(volume, block + UInt64(slot), sequence: sequence), into: $0)
                }
                if isOpen != true { return number * CacheFormat.slotBytes }
            }
            return count * CacheFormat.slotBytes
        }
    }
}

/// A read that waits for several runs of blocks.
final class CacheReadRequest {
    /// The runs that have not come, and one for the caller, who may ask for more.
    var partsLeft = 1
    private var miss: CacheMiss?
    private let completion: (Result<Void, CacheMiss>) -> Void

    init(completion: @escaping (Result<Void, CacheMiss>) -> Void) { self.completion = completion }

    /// One of them has come, whole or not. The answer names the first block that is missing.
    func finish(_ new: CacheMiss?) {
        if let new { miss = miss.map { $0.block < new.block ? $0 : new } ?? new }
        partsLeft -= 1
        if partsLeft == 0 { completion(miss.map { .failure($0) } ?? .success(())) }
    }
}
