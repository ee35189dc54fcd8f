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
        case slots(CacheSegment, sequence: UInt64, first: Int, count: Int)
    }

    // MARK: Asking

    /// True when the block can be read.
    public func contains(_ identifier: VolumeIdentifier, block: UInt64) -> Bool {
        guard let volume = index[identifier], volume.key != nil else { return false }
        return block < CacheFormat.blocksMax && volume.contains(block)
    }

    /// The runs of a range that can be read, in ascending order.
    public func residentRuns(_ identifier: VolumeIdentifier, blocks: Range<UInt64>) -> [Range<UInt64>] {
        guard let volume = index[identifier], volume.key != nil, blocks.upperBound <= CacheFormat.blocksMax else { return [] }
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
        guard let location = volume.location(of: block) else { return volume.isZero(block) ? (.zeroes, 1) : nil }
        let segment = segments[Int(location.segment)]
        if let pending = segment.pending, let bytes = pending.buffers[Int(location.slot)] { return (.memory(bytes), 1) }
        var count: UInt64 = 1
        while block + count < end, Int(location.slot) + Int(count) < segment.slots.count,
            volume.location(of: block + count) == CacheLocation(segment: location.segment, slot: location.slot + UInt32(count)),
            segment.pending?.buffers[Int(location.slot) + Int(count)] == nil
        {
            count += 1
        }
        return (.slots(segment, sequence: segment.sequence, first: Int(location.slot), count: Int(count)), count)
    }

    // MARK: Reading

    /// Appends the bytes of `blocks` to `buffer` if all are here and need no waiting for the device.
    /// - Returns: false, with `buffer` unchanged, when they are not; then `read` is the way.
    public func readIfResident(_ identifier: VolumeIdentifier, blocks: Range<UInt64>, into buffer: inout ByteBuffer) -> Bool {
        guard let volume = index[identifier], volume.key != nil, blocks.upperBound <= CacheFormat.blocksMax else { return false }
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
        case .slots(let segment, let sequence, let first, let count):
            scratch.clear()
            let offset = geometry.offset(ofSlot: first, segment: segment.position)
            guard file.readIfResident(at: offset, byteCount: count * CacheFormat.slotBytes, into: &scratch) else { return false }
            return open(scratch, block: block, of: volume, segment, sequence: sequence, first: first, into: &buffer) == nil
        }
        return true
    }

    /// Reads `blocks`; the buffer that arrives holds all of them. A block that is not here, or is not
    /// what was written, makes the whole read a miss.
    public func read(
        _ identifier: VolumeIdentifier, blocks: Range<UInt64>, completion: @escaping (Result<ByteBuffer, CacheMiss>) -> Void
    ) {
        guard let volume = index[identifier], volume.key != nil, blocks.upperBound <= CacheFormat.blocksMax else {
            counters.misses += blocks.upperBound &- blocks.lowerBound
            return completion(.failure(CacheMiss(block: blocks.lowerBound)))
        }
        var pieces: [(piece: Piece, block: UInt64)] = []
        var block = blocks.lowerBound
        while block < blocks.upperBound {
            guard let (piece, count) = piece(volume, from: block, to: blocks.upperBound) else {
                counters.misses += 1
                return completion(.failure(CacheMiss(block: block)))
            }
            pieces.append((piece, block))
            block += count
        }
        let request = CacheReadRequest(parts: pieces.count) { [self] result in
            switch result {
            case .success: counters.hits += blocks.upperBound - blocks.lowerBound
            case .failure: counters.misses += 1
            }
            completion(result)
        }
        for (number, (piece, block)) in pieces.enumerated() { read(piece, block: block, of: volume, part: number, request) }
        if pieces.isEmpty { completion(.success(ByteBuffer())) }
    }

    private func read(_ piece: Piece, block: UInt64, of volume: CacheVolume, part: Int, _ request: CacheReadRequest) {
        guard case .slots(let segment, let sequence, let first, let count) = piece else {
            var buffer = ByteBuffer()
            _ = append(piece, block: block, of: volume, to: &buffer)
            return request.finish(part, .success(buffer))
        }
        let byteCount = count * CacheFormat.slotBytes
        file.read(at: geometry.offset(ofSlot: first, segment: segment.position), byteCount: byteCount) { [self] result in
            switch result {
            case .success(let sealed) where sealed.readableBytes == byteCount:
                var buffer = ByteBuffer()
                buffer.reserveCapacity(count * CacheFormat.blockBytes)
                if let bad = open(sealed, block: block, of: volume, segment, sequence: sequence, first: first, into: &buffer) {
                    request.finish(part, .failure(CacheMiss(block: bad)))
                } else {
                    request.finish(part, .success(buffer))
                }
            default:
                // What the device cannot read is not worth another try: the blocks are fetched again and put elsewhere.
                counters.readErrors += 1
                for slot in 0..<count {
                    forget(block + UInt64(slot), of: volume, segment, sequence: sequence, slot: first + slot)
                }
                request.finish(part, .failure(CacheMiss(block: block)))
            }
        }
    }

    /// Opens a run of sealed blocks and appends them to `buffer`.
    /// - Returns: nil, or the first block that is not what was written; then `buffer` is of no use.
    private func open(
        _ sealed: ByteBuffer, block: UInt64, of volume: CacheVolume, _ segment: CacheSegment, sequence: UInt64, first: Int,
        into buffer: inout ByteBuffer
    ) -> UInt64? {
        // The segment was evicted while the read was under way: whatever was read, the block is a miss.
        guard segment.sequence == sequence, let cipher = volume.cipher(salt: segment.salt, of: salts) else { return block }
        let count = sealed.readableBytes / CacheFormat.slotBytes
        let bad = sealed.withUnsafeReadableBytes { bytes -> UInt64? in
            for number in 0..<count {
                let start = number * CacheFormat.slotBytes
                let current = block + UInt64(number)
                let isOpen = cipher.open(
                    UnsafeRawBufferPointer(rebasing: bytes[start..<start + CacheFormat.slotBytes]),
                    nonce: CipherNonce(sequence: sequence, index: UInt32(first + number)),
                    context: blockContext(volume.identifier, current, sequence: sequence), appendingTo: &buffer)
                if !isOpen { return current }
            }
            return nil
        }
        if let bad {
            counters.corrupt += 1
            forget(bad, of: volume, segment, sequence: sequence, slot: first + Int(bad - block))
        }
        return bad
    }

    /// Forgets a block that could not be read, unless it is elsewhere by now.
    private func forget(_ block: UInt64, of volume: CacheVolume, _ segment: CacheSegment, sequence: UInt64, slot: Int) {
        let location = CacheLocation(segment: UInt32(segment.position), slot: UInt32(slot))
        guard segment.sequence == sequence, index[volume.identifier] === volume, volume.location(of: block) == location else {
            return
        }
        invalidate(volume.identifier, blocks: block..<block + 1)
    }
}

/// A read that waits for several runs of blocks.
final class CacheReadRequest {
    private var parts: [ByteBuffer]
    private var left: Int
    private var miss: CacheMiss?
    private let completion: (Result<ByteBuffer, CacheMiss>) -> Void

    init(parts: Int, completion: @escaping (Result<ByteBuffer, CacheMiss>) -> Void) {
        self.parts = Array(repeating: ByteBuffer(), count: parts)
        left = parts
        self.completion = completion
    }

    func finish(_ part: Int, _ result: Result<ByteBuffer, CacheMiss>) {
        switch result {
        case .success(let bytes): parts[part] = bytes
        case .failure(let new): miss = miss.map { $0.block < new.block ? $0 : new } ?? new
        }
        left -= 1
        if left > 0 { return }
        if let miss { return completion(.failure(miss)) }
        if parts.count == 1 { return completion(.success(parts[0])) }
        var whole = ByteBuffer()
        whole.reserveCapacity(parts.reduce(0) { $0 + $1.readableBytes })
        for part in parts { whole.writeImmutableBuffer(part) }
        completion(.success(whole))
    }
}
