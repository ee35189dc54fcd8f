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
            && encoding.open(scratch, of: extent, sectors: segment.range.count, cipher: file.cipher, into: &buffer)
    }

    /// Reads the bytes of a segment, which stay readable until then whatever is released meanwhile.
    public func read(_ segment: LogSegment, completion: @escaping (Result<ByteBuffer, WriteLogError>) -> Void) {
        guard case .data(let location) = segment.content else {
            return completion(.success(ByteBuffer(repeating: 0, count: segment.range.byteCount)))
        }
        let extent = location.extent
        if let bytes = extent.bytesInMemory(sectors: segment.range.count) { return completion(.success(bytes)) }
        encoding.read(segment.range, extent, completion: completion)
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
