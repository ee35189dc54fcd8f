import Blocks
import Checksums
import Ciphers
import NIOCore

/// Turning batches into the bytes of a file, and back.
struct LogEncoding {
    let volume: VolumeIdentifier

    /// What a chunk is bound to: where in which volume it belongs, and to which epoch.
    func context(epoch: PointNumber, start: UInt64, sectors: UInt64) -> CipherContext {
        CipherContext(volume.high, volume.low, epoch, start, sectors)
    }

    // MARK: Encoding

    /// Writes a batch into an empty buffer as it stands in the file; false when the cipher refused.
    func encode(_ batch: LogBatchContent, cipher: BlockCipher, binding: LogBinding, into buffer: inout ByteBuffer) -> Bool {
        let header = LogBatchHeader(
            epoch: batch.epoch, sequence: batch.sequence, durableThrough: batch.durableThrough,
            descriptorBytes: UInt32(batch.descriptorBytes), dataBytes: UInt32(batch.sealedBytes),
            version: binding.version)
        buffer.reserveCapacity(header.byteCount)
        header.encodeBound(into: &buffer)
        buffer.writeInteger(UInt64(0))  // the two checksums
        for record in batch.records { buffer.writeMultipleIntegers(record.kind.rawValue, record.start, record.count) }
        buffer.writeRepeatingByte(0, count: BlockCipher.tagByteCount)
        let sealed = buffer.withUnsafeMutableReadableBytes { bytes in
            let place = UnsafeMutableRawBufferPointer(rebasing: bytes[LogFormat.batchHeaderBytes...])
            let descriptors = UnsafeRawBufferPointer(rebasing: place.dropLast(BlockCipher.tagByteCount))
            return header.withBoundBytes(of: volume) { bound in
                cipher.seal(
                    descriptors, nonce: CipherNonce(sequence: batch.sequence, index: 0), authenticating: bound, into: place)
            }
        }
        guard sealed else { return false }
        for record in batch.records where record.kind == .data {
            guard encodeData(of: record, batch: batch, cipher: cipher, into: &buffer) else { return false }
        }
        var checksum = CRC32C()
        buffer.withUnsafeReadableBytes { checksum.update(UnsafeRawBufferPointer(rebasing: $0[LogFormat.batchHeaderBytes...])) }
        buffer.setInteger(checksum.value, at: LogFormat.batchHeaderBoundBytes)
        let headerChecksum = buffer.withUnsafeReadableBytes {
            binding.checksum(of: UnsafeRawBufferPointer(rebasing: $0[..<(LogFormat.batchHeaderBytes - 4)]))
        }
        buffer.setInteger(headerChecksum, at: LogFormat.batchHeaderBytes - 4)
        buffer.writeRepeatingByte(0, count: header.byteCount - buffer.readableBytes)
        return true
    }

    private func encodeData(
        of record: LogRecord, batch: LogBatchContent, cipher: BlockCipher, into buffer: inout ByteBuffer
    ) -> Bool {
        guard let data = record.data, data.readableBytes == record.byteCount else { return false }
        return data.withUnsafeReadableBytes { bytes in
            var chunk: UInt64 = 0
            var position = 0
            while position < bytes.count {
                let end = min(position + LogFormat.chunkBytes, bytes.count)
                let sealed = cipher.seal(
                    UnsafeRawBufferPointer(rebasing: bytes[position..<end]),
                    nonce: CipherNonce(sequence: batch.sequence, index: 1 + record.firstChunk + UInt32(chunk)),
                    context: context(
                        epoch: batch.epoch, start: record.start + chunk * LogFormat.sectorsPerChunk,
                        sectors: record.sectorsInChunk(chunk)),
                    appendingTo: &buffer)
                if !sealed { return false }
                position = end
                chunk += 1
            }
            return true
        }
    }

    // MARK: Decoding

    enum BatchError: Error, Equatable {
        /// The checksum does not fit: the batch was torn, or its medium decayed.
        case torn
        /// The checksum fits, but this was not sealed under the file's key.
        case forged
    }

    /// Opens the batch at the reader index of `bytes`, which holds all of it.
    /// - Returns: the batch, without the bytes of its data.
    func decode(_ header: LogBatchHeader, from bytes: ByteBuffer, cipher: BlockCipher) throws(BatchError) -> LogBatch {
        let payloadBytes = Int(header.descriptorBytes) + Int(header.dataBytes)
        guard let payload = bytes.getSlice(at: bytes.readerIndex + LogFormat.batchHeaderBytes, length: payloadBytes),
            CRC32C.checksum(of: payload) == header.payloadChecksum,
            let sealed = payload.getSlice(at: payload.readerIndex, length: Int(header.descriptorBytes))
        else { throw .torn }
        var descriptors = ByteBuffer()
        let size = Int(header.descriptorBytes) - BlockCipher.tagByteCount
        var opened = false
        descriptors.writeWithUnsafeMutableBytes(minimumWritableBytes: size) { destination in
            opened = sealed.withUnsafeReadableBytes { sealed in
                header.withBoundBytes(of: volume) { bound in
                    cipher.open(
                        sealed, nonce: CipherNonce(sequence: header.sequence, index: 0), authenticating: bound, into: destination)
                }
            }
            return opened ? size : 0
        }
        guard opened, let batch = parse(&descriptors, of: header) else { throw .forged }
        return batch
    }

    /// Parses descriptors; nil when they break a rule, which authentic ones never do.
    func parse(_ descriptors: inout ByteBuffer, of header: LogBatchHeader) -> LogBatch? {
        let batch = LogBatch(epoch: header.epoch, sequence: header.sequence)
        var isSealed = false
        var attributeRecords = 0
        while descriptors.readableBytes > 0 {
            guard !isSealed, let (kindValue, start, count) = descriptors.readMultipleIntegers(as: (UInt8, UInt64, UInt64).self),
                let kind = LogRecordKind(rawValue: kindValue), attributeRecords == 0 || kind == .attributes || kind == .seal
            else { return nil }
            switch kind {
            case .seal:
                guard start == header.epoch, count == 0 else { return nil }
                isSealed = true
            case .attributes:
                attributeRecords += 1
                guard attributeRecords <= LogAttributes.recordsMax else { return nil }
            case .zeroes, .absent:
                guard count > 0, SectorRange(start: start, count: count) != nil else { return nil }
            case .data:
                let sectorsMax = UInt64(LogFormat.batchDataBytesMax / BlockGeometry.sectorBytes)
                guard count > 0, count <= sectorsMax, SectorRange(start: start, count: count) != nil else { return nil }
            }
            _ = batch.add(kind, start: start, count: count, data: nil)
            guard batch.sealedBytes <= Int(header.dataBytes) else { return nil }
        }
        // What a seal carries stands in the seal's own batch, so that they are there together or not at all.
        guard attributeRecords == 0 || isSealed else { return nil }
        return batch.sealedBytes == Int(header.dataBytes) && !batch.isEmpty ? batch : nil
    }
}
