import Blocks
import Ciphers
import NIOCore

/// Reading what a file holds of a record.
extension LogEncoding {
    /// Reads the sectors `range`, which are the first of `extent`, from its file.
    func read(
        _ range: SectorRange, _ extent: LogExtent, completion: @escaping (Result<ByteBuffer, WriteLogError>) -> Void
    ) {
        guard let file = extent.batch.file else {
            return completion(.failure(.corrupt("\(range) is neither in memory nor in a file")))
        }
        let span = extent.span(sectors: range.count)
        file.read(at: span.offset, byteCount: span.byteCount) { [self] result in
            switch result {
            case .failure(let error):
                completion(.failure(.file(error)))
            case .success(let bytes):
                var buffer = ByteBuffer()
                buffer.reserveCapacity(range.byteCount)
                if bytes.readableBytes == span.byteCount, open(bytes, of: extent, sectors: range.count, cipher: file.cipher, into: &buffer)
                {
                    completion(.success(buffer))
                } else {
                    completion(.failure(.corrupt("\(range) in \(file.name) at \(span.offset) is not what was written there")))
                }
            }
        }
    }

    /// True when all data of a batch, whose bytes begin at the reader index of `bytes`, opens under the cipher.
    func opens(_ batch: LogBatch, in bytes: ByteBuffer, cipher: BlockCipher) -> Bool {
        guard
            let data = bytes.getSlice(
                at: bytes.readerIndex + LogFormat.batchHeaderBytes + batch.descriptorBytes, length: batch.sealedBytes)
        else { return false }
        var chunks = ByteBuffer()
        for (index, record) in batch.records.enumerated() where record.kind == .data {
            let extent = LogExtent(batch: batch, record: UInt32(index), skip: 0)
            guard
                let sealed = data.getSlice(at: data.readerIndex + record.sealedOffset, length: LogFormat.sealedBytes(record.byteCount))
            else { return false }
            chunks.clear()
            guard open(sealed, of: extent, sectors: record.count, cipher: cipher, into: &chunks) else { return false }
        }
        return true
    }

    /// Opens the chunks that hold `count` sectors of an extent and appends those sectors to `buffer`.
    func open(
        _ sealed: ByteBuffer, of extent: LogExtent, sectors count: UInt64, cipher: BlockCipher, into buffer: inout ByteBuffer
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
                let isOpen = cipher.open(
                    UnsafeRawBufferPointer(rebasing: bytes[position..<position + size]),
                    nonce: CipherNonce(sequence: extent.batch.sequence, index: 1 + record.firstChunk + UInt32(chunk)),
                    context: context(epoch: extent.batch.epoch, start: record.start + first, sectors: sectors),
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
