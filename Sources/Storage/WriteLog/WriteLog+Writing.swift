import Blocks
import Ciphers
import NIOCore

extension WriteLog {
    // MARK: The writer

    /// Keeps the writer going as long as there is something for it to do that ends at once.
    func pump() {
        // What completes in here may call again; this loop sees what that brought.
        if isPumping { return }
        isPumping = true
        defer { isPumping = false }
        while startNext() {}
    }

    /// Starts the writer's next operation if none is in flight: the next batch, or the file that the next batch needs.
    /// - Returns: true when it has ended already, and another may follow.
    private func startNext() -> Bool {
        guard failure == nil, !isWriting, !isOutOfSpace else { return false }
        if queue.isEmpty { closeBatch() }
        let epoch: LogEpoch
        if let batch = queue.first {
            guard let owner = epochs.first(where: { $0.number == batch.epoch }) else {
                poison(.corrupt("batch \(batch.sequence) belongs to epoch \(batch.epoch), which is gone"))
                return false
            }
            epoch = owner
        } else if current.files.isEmpty {
            // A header of the epoch that gathers is always on its way, so that a log whose points
            // were all released still knows its name and its numbers.
            epoch = current
        } else {
            return false
        }
        guard let file = epoch.files.last else {
            makeFile(for: epoch)
            return false
        }
        guard let batch = queue.first else { return false }
        return writeAtOnce(batch, to: file) || write(batch, to: file)
    }

    /// Writes a small batch before it returns, if the file agrees; false when the batch still has to be written.
    private func writeAtOnce(_ batch: LogBatch, to file: LogFile) -> Bool {
        guard encoded == nil, batch.sealedBytes <= LogFormat.atOnceBytesMax else { return false }
        let offset = file.writeOffset
        atOnce.clear()
        guard encoding.encode(LogBatchContent(batch, durableThrough: durableThrough), cipher: file.cipher, into: &atOnce) else {
            poison(.cipher("AES-256-GCM refused to seal a batch"))
            return true
        }
        switch file.writeAtOnce(atOnce, at: offset) {
        case .success:
            wrote(batch, byteCount: atOnce.readableBytes, to: file, at: offset)
        case .failure(let error):
            couldNotWrite(atOnce, error)
            atOnce = ByteBuffer()
        case nil:
            // The same nonce must seal the same bytes.
            encoded = atOnce
            atOnce = ByteBuffer()
            return false
        }
        return true
    }

    /// Has another thread write a batch. False, for it is in flight then.
    private func write(_ batch: LogBatch, to file: LogFile) -> Bool {
        isWriting = true
        let offset = file.writeOffset
        let content = LogBatchContent(batch, durableThrough: durableThrough)
        // Sealing takes longer than all the rest, so it is done where the write is.
        let produce: @Sendable () -> ByteBuffer? = { [encoding, encoded, cipher = file.sharedCipher] in
            if let encoded { return encoded }
            var buffer = ByteBuffer()
            return cipher.withCipher { encoding.encode(content, cipher: $0, into: &buffer) } ? buffer : nil
        }
        file.write(at: offset, produce: produce) { [self] bytes, result in
            isWriting = false
            guard failure == nil else { return }
            switch result {
            case .success:
                guard let bytes else { return poison(.cipher("AES-256-GCM refused to seal a batch")) }
                wrote(batch, byteCount: bytes.readableBytes, to: file, at: offset)
                pump()
            case .failure(let error):
                couldNotWrite(bytes, error)
            }
        }
        return false
    }

    private func couldNotWrite(_ bytes: ByteBuffer?, _ error: StorageFileError) {
        guard case .noSpace(let text) = error else { return poison(.file(error)) }
        // The next attempt writes the same bytes over the part that got there.
        encoded = bytes
        ranOutOfSpace(text)
    }

    private func wrote(_ batch: LogBatch, byteCount: Int, to file: LogFile, at offset: UInt64) {
        encoded = nil
        file.writeOffset = offset + UInt64(byteCount)
        fileBytes += UInt64(byteCount)
        file.isDirty = true
        unwrittenBytes -= batch.unwrittenBytes
        batch.place(in: file, dataOffset: offset + UInt64(LogFormat.batchHeaderBytes + batch.descriptorBytes))
        queue.removeFirst()
        writtenThrough = batch.sequence
        batches += 1
        completeWritten()
        synchronizeIfNeeded()
        admitHeld()
    }

    // MARK: Files

    /// Makes the file of an epoch, and writes its header.
    private func makeFile(for epoch: LogEpoch) {
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

    private func startFile(_ opened: Directory.File, name: String, epoch: LogEpoch) {
        let first = epoch.firstBatch ?? nextSequence
        let header = LogFileHeader(
            volume: volume, log: logIdentifier, epoch: epoch.number, part: 0, firstBatch: first, epochFirstBatch: first,
            durableThrough: durableThrough, salt: random.bytes(LogFormat.saltBytes))
        do throws(CipherError) {
            let cipher = BlockCipher(key: try key.derive(salt: header.salt, purpose: LogFormat.keyPurpose))
            guard let bytes = header.encoded(cipher: cipher) else { throw .unavailable("AES-256-GCM refused to seal a header") }
            let file = LogFile(file: opened, name: name, epoch: epoch.number, cipher: cipher)
            fileInTheMaking = (file, bytes)
            writeHeader(bytes, to: file, of: epoch)
        } catch {
            poison(.cipher("\(error)"))
        }
    }

    private func writeHeader(_ header: ByteBuffer, to file: LogFile, of epoch: LogEpoch) {
        isWriting = true
        file.write(header, at: 0) { [self] result in
            isWriting = false
            guard failure == nil else { return }
            switch result {
            case .success:
                fileInTheMaking = nil
                file.isDirty = true
                fileBytes += file.writeOffset
                epoch.files.append(file)
                admitHeld()
                synchronizeIfNeeded()
            case .failure(.noSpace(let text)):
                ranOutOfSpace(text)
            case .failure(let error):
                poison(.file(error))
            }
        }
    }
}
