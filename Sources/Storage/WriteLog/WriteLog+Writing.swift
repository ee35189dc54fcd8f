import Blocks
import Ciphers
import NIOCore

extension WriteLog {
    // MARK: The writer

    /// Starts the writer's next operation if none is in flight: the next batch, or the file that the next batch needs.
    func pump() {
        guard failure == nil, !isWriting, !isOutOfSpace else { return }
        if queue.isEmpty { closeBatch() }
        let epoch: Epoch
        if let batch = queue.first {
            guard let owner = epochs.first(where: { $0.number == batch.epoch }) else {
                return poison(.corrupt("batch \(batch.sequence) belongs to epoch \(batch.epoch), which is gone"))
            }
            epoch = owner
        } else if current.files.isEmpty {
            // A header of the epoch that gathers is always on its way, so that a log whose points
            // were all released still knows its name and its numbers.
            epoch = current
        } else {
            return
        }
        guard let file = epoch.files.last else { return makeFile(for: epoch) }
        if let batch = queue.first { write(batch, to: file) }
    }

    private func write(_ batch: LogBatch, to file: File) {
        isWriting = true
        let offset = file.writeOffset
        let content = LogBatchContent(batch, durableThrough: durableThrough)
        // Sealing takes longer than all the rest, so it is done where the write is.
        let produce: @Sendable () -> ByteBuffer? = { [encoding, encoded, cipher = file.sharedCipher] in
            encoded ?? cipher.withCipher { encoding.encode(content, cipher: $0) }
        }
        file.file.write(at: offset, produce: produce) { [self] bytes, result in
            isWriting = false
            guard failure == nil else { return }
            switch result {
            case .success:
                guard let bytes else { return poison(.cipher("AES-256-GCM refused to seal a batch")) }
                wrote(batch, byteCount: bytes.readableBytes, to: file, at: offset)
            case .failure(.noSpace(let text)):
                // The next attempt writes the same bytes over the part that got there.
                encoded = bytes
                ranOutOfSpace(text)
            case .failure(let error):
                poison(.file(error))
            }
        }
    }

    private func wrote(_ batch: LogBatch, byteCount: Int, to file: File, at offset: UInt64) {
        encoded = nil
        file.writeOffset = offset + UInt64(byteCount)
        fileBytes += UInt64(byteCount)
        file.isDirty = true
        unwrittenBytes -= batch.unwrittenBytes
        batch.place(in: file, dataOffset: offset + UInt64(LogFormat.batchHeaderBytes + batch.descriptorBytes))
        queue.removeFirst()
        writtenThrough = batch.sequence
        batches += 1
        pump()
        synchronizeIfNeeded()
        releaseMemoryWaiters()
        admitHeld()
    }

    // MARK: Files

    /// Makes the file of an epoch, and writes its header.
    private func makeFile(for epoch: Epoch) {
        if let making = fileInTheMaking, making.file.epoch == epoch.number {
            return writeHeader(making.header, to: making.file, of: epoch)
        }
        let name = LogFormat.fileName(epoch: epoch.number, part: 0)
        isWriting = true
        directory.open(name, create: true) { [self] result in
            isWriting = false
            guard failure == nil else { return }
            switch result {
            case .success(let opened):
                isDirectoryDirty = true
                startFile(opened, name: name, epoch: epoch)
            case .failure(.noSpace(let text)):
                ranOutOfSpace(text)
            case .failure(let error):
                poison(.file(error))
            }
        }
    }

    private func startFile(_ opened: Directory.File, name: String, epoch: Epoch) {
        let first = epoch.firstBatch ?? nextSequence
        let header = LogFileHeader(
            volume: volume, log: logIdentifier, epoch: epoch.number, part: 0, firstBatch: first, epochFirstBatch: first,
            durableThrough: durableThrough, salt: random.bytes(LogFormat.saltBytes))
        do throws(CipherError) {
            let cipher = BlockCipher(key: try key.derive(salt: header.salt, purpose: LogFormat.keyPurpose))
            guard let bytes = header.encoded(cipher: cipher) else { throw .unavailable("AES-256-GCM refused to seal a header") }
            let file = File(file: opened, name: name, epoch: epoch.number, cipher: cipher)
            fileInTheMaking = (file, bytes)
            writeHeader(bytes, to: file, of: epoch)
        } catch {
            poison(.cipher("\(error)"))
        }
    }

    private func writeHeader(_ header: ByteBuffer, to file: File, of epoch: Epoch) {
        isWriting = true
        file.file.write(header, at: 0) { [self] result in
            isWriting = false
            guard failure == nil else { return }
            switch result {
            case .success:
                fileInTheMaking = nil
                file.isDirty = true
                fileBytes += file.writeOffset
                epoch.files.append(file)
                pump()
                synchronizeIfNeeded()
            case .failure(.noSpace(let text)):
                ranOutOfSpace(text)
            case .failure(let error):
                poison(.file(error))
            }
        }
    }
}
