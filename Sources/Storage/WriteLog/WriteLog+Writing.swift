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
        guard failure == nil, !isWriting, !writing.rests else { return false }
        if queue.isEmpty { closeBatch() }
        let epoch: LogEpoch
        if let batch = queue.first {
            guard let owner = epochs.first(where: { $0.number == batch.epoch }) else {
                poison(.corrupt("batch \(batch.sequence) belongs to epoch \(batch.epoch), which is gone"))
                return false
            }
            epoch = owner
        } else if current.files.last.map({ isOutdated($0) }) ?? true {
            // A header of the epoch that gathers is always on its way, so that a log whose points
            // were all released still knows its name and its numbers; under the newest key, so that an older one can go.
            epoch = current
        } else {
            return false
        }
        guard let file = epoch.files.last, !isOutdated(file) else {
            makeFile(for: epoch)
            return false
        }
        guard let batch = queue.first else { return false }
        let ahead = encoded == nil ? bytesAhead(of: batch, in: file) : 0
        return ahead == 0 && writeAtOnce(batch, to: file) || write(batch, to: file, ahead: ahead)
    }

    /// Writes a small batch before it returns, if the file agrees; false when the batch still has to be written.
    private func writeAtOnce(_ batch: LogBatch, to file: LogFile) -> Bool {
        guard encoded == nil, batch.sealedBytes <= LogFormat.atOnceBytesMax else { return false }
        let offset = file.writeOffset
        atOnce.clear()
        guard
            encoding.encode(
                LogBatchContent(batch, durableThrough: durableThrough), cipher: file.cipher, binding: file.binding, into: &atOnce)
        else {
            poison(.cipher("AES-256-GCM refused to seal a batch"))
            return true
        }
        switch file.writeAtOnce(atOnce, at: offset) {
        case .success:
            wrote(batch, to: file, ahead: 0)
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

    /// How many bytes of zeroes are to be written behind a batch, so that the next ones overwrite what the file has already.
    ///
    /// To make a file durable that has grown, the file system commits its own journal too. That takes as long again as the
    /// batch itself, so a file whose small batches are flushed as they come grows ahead of them, by and by in longer steps. A file
    /// that held another epoch does so behind what that has left.
    private func bytesAhead(of batch: LogBatch, in file: LogFile) -> Int {
        guard let flushed = file.flushedThrough, !file.takesNoZeroes, batch.records.last?.kind != .seal,
            file.writeOffset &- flushed <= UInt64(LogFormat.atOnceBytesMax),
            batch.sealedBytes <= LogFormat.atOnceBytesMax, file.writeOffset + UInt64(batch.byteCount) > file.roomThrough
        else { return 0 }
        let bounds = LogFormat.bytesAhead
        let ahead = min(max(Int(clamping: file.writeOffset), bounds.lowerBound), bounds.upperBound)
        // Not where room is short: the zeroes take it until the epoch is sealed.
        return heldBytes + UInt64(ahead) <= limits.logBytesMax / 2 ? ahead : 0
    }

    /// Has another thread write a batch, and `ahead` bytes of zeroes behind it. False, for it is in flight then.
    private func write(_ batch: LogBatch, to file: LogFile, ahead: Int) -> Bool {
        isWriting = true
        let offset = file.writeOffset
        let content = LogBatchContent(batch, durableThrough: durableThrough)
        // Sealing takes longer than all the rest, so it is done where the write is.
        let produce: @Sendable () -> ByteBuffer? = { [encoding, encoded, cipher = file.sharedCipher, binding = file.binding] in
            if let encoded { return encoded }
            var buffer = ByteBuffer()
            guard cipher.withCipher({ encoding.encode(content, cipher: $0, binding: binding, into: &buffer) }) else { return nil }
            buffer.writeRepeatingByte(0, count: ahead)
            return buffer
        }
        changes.begin()
        file.write(at: offset, produce: produce) { [self] bytes, result in
            defer { changes.end() }
            isWriting = false
            guard failure == nil else { return }
            switch result {
            case .success:
                if bytes == nil { return poison(.cipher("AES-256-GCM refused to seal a batch")) }
                wrote(batch, to: file, ahead: ahead)
                pump()
            case .failure(let error):
                let alone = bytes.flatMap { $0.getSlice(at: $0.readerIndex, length: batch.byteCount) }
                if ahead > 0, case .noSpace = error {
                    // There may be room for the batch alone, when the zeroes that got there are given back.
                    encoded = alone
                    file.takesNoZeroes = true
                    isWriting = true
                    return changes.make { done in
                        file.truncate(to: offset, completion: done)
                    } then: { [self] result in
                        isWriting = false
                        if case .success = result { resize(file) { file.roomThrough = 0 } }
                        pump()
                    }
                }
                couldNotWrite(alone, error)
            }
        }
        return false
    }

    private func couldNotWrite(_ bytes: ByteBuffer?, _ error: StorageFileError) {
        // The next attempt writes the same bytes over the part that got there.
        if LogObstacle(error) != nil { encoded = isPlanted(.reusesNonceForRetry) ? nil : bytes }
        couldNotWrite(error)
    }

    private func wrote(_ batch: LogBatch, to file: LogFile, ahead: Int) {
        encoded = nil
        writing.succeeded()
        let offset = file.writeOffset
        resize(file) {
            file.writeOffset = offset + UInt64(batch.byteCount)
            if ahead > 0 { file.roomThrough = file.writeOffset + UInt64(ahead) }
        }
        file.isDirty = true
        if file.roomThrough > file.writeOffset, epochs.contains(where: { $0.sealBatch == batch.sequence }) { cutZeroes(of: file) }
        unwrittenBytes -= batch.unwrittenBytes
        batch.place(in: file, dataOffset: offset + UInt64(LogFormat.batchHeaderBytes + batch.descriptorBytes))
        queue.removeFirst()
        writtenThrough = batch.sequence
        batches += 1
        completeWritten()
        synchronizeIfNeeded()
        admitHeld()
        if hasTooMuchRoom { tendSpares() }
    }

    /// Gives back what was zeroed ahead in a file that takes no more batches. Should it fail, the zeroes go with the file. What is left
    /// of another epoch stays, for the next one.
    private func cutZeroes(of file: LogFile) {
        if !file.isRecycled { cutRoom(of: file) }
    }

    // MARK: Files

    /// True when a file takes no more batches because the key has been rotated. Bytes that it was to take already are repeated there.
    private func isOutdated(_ file: LogFile) -> Bool { file.keyGeneration != keys.newest && encoded == nil }

    /// Makes the file of an epoch, or the next one of an epoch whose last is under an older key, and writes its header.
    private func makeFile(for epoch: LogEpoch) {
        if let making = fileInTheMaking, making.file.epoch == epoch.number {
            return writeHeader(making.header, to: making.file, of: epoch)
        }
        let (part, overflow) = epoch.files.last.map { $0.part.addingReportingOverflow(1) } ?? (0, false)
        if overflow { return poison(.corrupt("part numbers of an epoch have run out")) }
        let name = LogFormat.fileName(epoch: epoch.number, part: part)
        isWriting = true
        openFile(name) { [self] result in
            isWriting = false
            guard failure == nil else { return }
            switch result {
            case .success(let opened):
                isDirectoryDirty = true
                startFile(opened, name: name, part: part, epoch: epoch)
            case .failure(let error):
                couldNotWrite(error)
            }
        }
    }

    private func startFile(_ opened: OpenedFile, name: String, part: UInt32, epoch: LogEpoch) {
        // Batches are written in the order of their sequence: this one is next, whether it has been begun or not.
        let first = part == 0 ? epoch.firstBatch ?? nextSequence : writtenThrough + 1
        let header = LogFileHeader(
            volume: volume, log: logIdentifier, epoch: epoch.number, part: part, firstBatch: first,
            epochFirstBatch: epoch.firstBatch ?? first, durableThrough: durableThrough, keyGeneration: keys.newest,
            salt: random.bytes(LogFormat.saltBytes), isRecycled: opened.byteCount > 0)
        do throws(CipherError) {
            let cipher = BlockCipher(key: try keys.newestKey.derive(salt: header.salt, purpose: LogFormat.keyPurpose))
            guard let bytes = header.encoded(cipher: cipher) else { throw .unavailable("AES-256-GCM refused to seal a header") }
            let file = LogFile(file: opened.file, name: name, header: header, cipher: cipher)
            file.roomThrough = opened.byteCount
            fileInTheMaking = (file, bytes)
            writeHeader(bytes, to: file, of: epoch)
        } catch {
            poison(.cipher("\(error)"))
        }
    }

    private func writeHeader(_ header: ByteBuffer, to file: LogFile, of epoch: LogEpoch) {
        isWriting = true
        changes.make { done in
            file.write(header, at: 0, completion: done)
        } then: { [self] result in
            isWriting = false
            guard failure == nil else { return }
            switch result {
            case .success:
                fileInTheMaking = nil
                writing.succeeded()
                file.isDirty = true
                fileBytes += file.byteCount
                contentBytes += file.writeOffset
                if let last = epoch.files.last, last.roomThrough > last.writeOffset { cutZeroes(of: last) }
                epoch.files.append(file)
                admitHeld()
                synchronizeIfNeeded()
            case .failure(let error):
                couldNotWrite(error)
            }
        }
    }
}
