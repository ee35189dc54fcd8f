import Blocks
import Ciphers
import NIOCore

extension WriteLog {
    // MARK: The overlay

    /// True when the log holds at least one sector of `range`.
    public func hasUnsent(overlapping range: SectorRange) -> Bool { map.overlaps(range) }

    /// What the log holds of `range`, the newest of each sector, clipped, in ascending order.
    public func segments(in range: SectorRange) -> [LogSegment] {
        var segments: [LogSegment] = []
        map.forEach(in: range) { segments.append(LogSegment(range: $0.range, content: $0.value.content)) }
        return segments
    }

    /// The first segments of `range`, at most `limit`.
    public func segments(in range: SectorRange, limit: Int) -> [LogSegment] {
        map.extents(in: range, limit: limit).map { LogSegment(range: $0.range, content: $0.value.content) }
    }

    // MARK: Reading

    /// Appends the bytes of a segment to `buffer` if they are at hand: in memory, or in the page cache.
    /// - Returns: false, with `buffer` unchanged, when they are not, or are not what was written; `read` says which.
    public func readIfResident(_ segment: LogSegment, into buffer: inout ByteBuffer) -> Bool {
        guard case .data(let location) = segment.content else {
            buffer.writeRepeatingByte(0, count: segment.range.byteCount)
            return true
        }
        let extent = location.extent
        if let bytes = extent.bytesInMemory(sectors: segment.range.count) {
            buffer.writeImmutableBuffer(bytes)
            return true
        }
        guard let file = extent.batch.file else { return false }
        let span = extent.span(sectors: segment.range.count)
        scratch.clear()
        return file.readIfResident(at: span.offset, byteCount: span.byteCount, into: &scratch)
            && open(scratch, of: extent, sectors: segment.range.count, in: file, into: &buffer)
    }

    /// Reads the bytes of a segment, which stay readable until then whatever is released meanwhile.
    public func read(_ segment: LogSegment, completion: @escaping (Result<ByteBuffer, WriteLogError>) -> Void) {
        var buffer = ByteBuffer()
        guard case .data(let location) = segment.content else {
            buffer.writeRepeatingByte(0, count: segment.range.byteCount)
            return completion(.success(buffer))
        }
        let extent = location.extent
        if let bytes = extent.bytesInMemory(sectors: segment.range.count) { return completion(.success(bytes)) }
        guard let file = extent.batch.file else {
            return completion(.failure(.corrupt("\(segment.range) is neither in memory nor in a file")))
        }
        let span = extent.span(sectors: segment.range.count)
        file.read(at: span.offset, byteCount: span.byteCount) { [self] result in
            switch result {
            case .failure(let error):
                completion(.failure(.file(error)))
            case .success(let bytes):
                buffer.reserveCapacity(segment.range.byteCount)
                if bytes.readableBytes == span.byteCount,
                    open(bytes, of: extent, sectors: segment.range.count, in: file, into: &buffer)
                {
                    completion(.success(buffer))
                } else {
                    completion(
                        .failure(.corrupt("\(segment.range) in \(file.name) at \(span.offset) is not what was written there")))
                }
            }
        }
    }

    /// Opens the chunks that hold `count` sectors of an extent and appends those sectors to `buffer`.
    private func open(
        _ sealed: ByteBuffer, of extent: LogExtent, sectors count: UInt64, in file: LogFile, into buffer: inout ByteBuffer
    ) -> Bool {
        let before = buffer.writerIndex
        let record = extent.batch.records[Int(extent.record)]
        let wanted = SectorRange(from: UInt64(extent.skip), to: UInt64(extent.skip) + count)
        let opened = sealed.withUnsafeReadableBytes { bytes -> Bool in
            var chunk = wanted.start / LogFormat.sectorsPerChunk
            var position = 0
            while chunk * LogFormat.sectorsPerChunk < wanted.end {
                let first = chunk * LogFormat.sectorsPerChunk
                let sectors = record.sectorsInChunk(chunk)
                let size = Int(sectors) * BlockGeometry.sectorBytes + BlockCipher.tagByteCount
                guard position + size <= bytes.count else { return false }
                let chunkStart = buffer.writerIndex
                let isOpen = file.cipher.open(
                    UnsafeRawBufferPointer(rebasing: bytes[position..<position + size]),
                    nonce: CipherNonce(sequence: extent.batch.sequence, index: 1 + record.firstChunk + UInt32(chunk)),
                    context: encoding.context(epoch: extent.batch.epoch, start: record.start + first, sectors: sectors),
                    appendingTo: &buffer)
                if !isOpen { return false }
                trim(&buffer, from: chunkStart, chunk: SectorRange(from: first, to: first + sectors), to: wanted)
                position += size
                chunk += 1
            }
            return true
        }
        if !opened { buffer.moveWriterIndex(to: before) }
        return opened
    }

    /// Leaves of a chunk that was appended at `position` only the sectors that are wanted.
    private func trim(_ buffer: inout ByteBuffer, from position: Int, chunk: SectorRange, to wanted: SectorRange) {
        let kept = chunk.intersection(wanted)
        if kept == chunk { return }
        let skipped = SectorRange(from: chunk.start, to: kept.start).byteCount
        let index = position - buffer.readerIndex
        buffer.withUnsafeMutableReadableBytes { bytes in
            guard let target = bytes.baseAddress.map({ $0 + index }) else { return }
            target.copyMemory(from: target + skipped, byteCount: kept.byteCount)
        }
        buffer.moveWriterIndex(to: position + kept.byteCount)
    }
}

extension LogExtent {
    /// The plaintext of the extent's first `count` sectors, while no file holds it.
    func bytesInMemory(sectors count: UInt64) -> ByteBuffer? {
        guard let data = batch.records[Int(record)].data else { return nil }
        return data.getSlice(
            at: data.readerIndex + Int(skip) * BlockGeometry.sectorBytes, length: Int(count) * BlockGeometry.sectorBytes)
    }

    /// Where the sealed chunks that hold the first `count` sectors are in the file.
    func span(sectors count: UInt64) -> (offset: UInt64, byteCount: Int) {
        let record = batch.records[Int(self.record)]
        let firstChunk = UInt64(skip) / LogFormat.sectorsPerChunk
        let endChunk = (UInt64(skip) + count + LogFormat.sectorsPerChunk - 1) / LogFormat.sectorsPerChunk
        let start = Int(firstChunk) * LogFormat.sealedChunkBytes
        let end = min(Int(endChunk) * LogFormat.sealedChunkBytes, LogFormat.sealedBytes(record.byteCount))
        return (batch.dataOffset + UInt64(record.sealedOffset + start), end - start)
    }
}
