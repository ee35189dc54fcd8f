import Blocks
import NIOCore
import SCSI

extension LogicalUnit {
    /// The most blocks that one read of a PRE-FETCH or a verification asks for: 1 MiB.
    private static var pieceBlocks: UInt64 { 2048 }

    /// Carries out a command that reads, writes or flushes the medium. The range was checked by admission.
    func executeOnMedium(_ task: SCSITask, completion: @escaping (SCSIResponse) -> Void) {
        switch task.command {
        case .read(let transfer): read(task, transfer, completion)
        case .write(let transfer): write(task, transfer, .shared, completion)
        // Held alone, so that no read sees a part of it.
        case .writeAtomic(let transfer): write(task, transfer, .exclusive, completion)
        case .writeAndVerify(let transfer, let check): writeAndVerify(task, transfer, check, completion)
        case .verify(let transfer, let check): verify(task, transfer, check, completion)
        case .compareAndWrite(let transfer): compareAndWrite(task, transfer, completion)
        case .orWrite(let transfer): orWrite(task, transfer, completion)
        case .prefetch(let transfer, let isImmediate): prefetch(task, transfer, isImmediate, completion)
        case .synchronizeCache(_, let isImmediate): synchronizeCache(task, isImmediate: isImmediate, completion)
        case .unmap: unmap(task, completion)
        case .writeSame(let transfer, let unmap, let hasData): writeSame(task, transfer, unmap, hasData, completion)
        case .getLBAStatus(let address, let count): getLBAStatus(task, from: address, allocationByteCount: Int(count), completion)
        default: completion(.checkCondition(.invalidOperationCode))
        }
    }

    private func read(_ task: SCSITask, _ transfer: BlockTransfer, _ completion: @escaping (SCSIResponse) -> Void) {
        guard let range = sectorRange(of: transfer) else { return completion(formatted(.checkCondition(.outOfRange))) }
        if range.isEmpty { return completion(.good) }
        runOnMedium(task, range, .shared, completion: completion) { running in
            let read = {
                self.device.read(range) { result in
                    switch result {
                    case .success(let data): self.finish(running, .good(data))
                    case .failure(let error): self.finish(running, self.response(to: error, isWrite: false))
                    }
                }
            }
            // FUA: what the cache holds and the medium does not must be on the medium first (SBC-3, Caches).
            if transfer.forceUnitAccess {
                self.step(running, { self.device.flush(completion: $0) }, then: read)
            } else {
                read()
            }
        }
    }

    private func write(
        _ task: SCSITask, _ transfer: BlockTransfer, _ mode: LogicalUnitRangeLocks.Mode, _ completion: @escaping (SCSIResponse) -> Void
    ) {
        switch dataToWrite(task, transfer) {
        case .failure(let sense): completion(formatted(.checkCondition(sense)))
        case .success(nil): completion(.good)
        case .success(let piece?):
            runOnMedium(task, piece.range, mode, completion: completion) { running in
                let durability = self.durability(forceUnitAccess: transfer.forceUnitAccess)
                self.device.write(piece.range, data: piece.data, durability: durability) { result in
                    self.finish(running, self.response(to: result))
                }
            }
        }
    }

    /// The blocks of a write for which data came. An initiator that offers less than the command says has the whole blocks
    /// that it sent written, and learns of the rest by the residual; a part of a block is refused.
    private func dataToWrite(_ task: SCSITask, _ transfer: BlockTransfer)
        -> Result<(range: SectorRange, data: ByteBuffer)?, SenseData>
    {
        guard let whole = sectorRange(of: transfer) else { return .failure(.outOfRange) }
        let data = (task.dataOut ?? ByteBuffer()).truncated(to: whole.byteCount)
        let (count, rest) = data.readableBytes.quotientAndRemainder(dividingBy: Self.blockBytes)
        if rest != 0 { return .failure(SenseData(.illegalRequest, .invalidFieldInCommandInformationUnit)) }
        guard count > 0, let range = SectorRange(start: whole.start, count: UInt64(count)) else { return .success(nil) }
        return .success((range, data))
    }

    private func writeAndVerify(
        _ task: SCSITask, _ transfer: BlockTransfer, _ check: ByteCheck, _ completion: @escaping (SCSIResponse) -> Void
    ) {
        switch dataToWrite(task, transfer) {
        case .failure(let sense): completion(formatted(.checkCondition(sense)))
        case .success(nil): completion(.good)
        case .success(let piece?):
            runOnMedium(task, piece.range, .exclusive, completion: completion) { running in
                // What is verified is the medium, so the write goes there first (SBC-3, WRITE AND VERIFY (10)).
                let verify = {
                    let data = check == .mediumOnly ? nil : piece.data
                    self.compare(running, piece.range, with: data, check) { self.finish(running, .good) }
                }
                self.step(
                    running, { self.device.write(piece.range, data: piece.data, durability: .durable, completion: $0) },
                    then: verify)
            }
        }
    }

    private func verify(
        _ task: SCSITask, _ transfer: BlockTransfer, _ check: ByteCheck, _ completion: @escaping (SCSIResponse) -> Void
    ) {
        guard let range = sectorRange(of: transfer) else { return completion(formatted(.checkCondition(.outOfRange))) }
        if range.isEmpty { return completion(.good) }
        let needed = expectedTransfer(of: task.command).byteCount
        let data = (task.dataOut ?? ByteBuffer()).truncated(to: needed)
        if check != .mediumOnly && data.readableBytes != needed {
            return completion(formatted(.checkCondition(transfer.invalidLength)))
        }
        runOnMedium(task, range, .shared, completion: completion) { running in
            self.compare(running, range, with: check == .mediumOnly ? nil : data, check) { self.finish(running, .good) }
        }
    }

    /// Reads a range, piece by piece, and compares it with `data`; a difference ends the task with MISCOMPARE.
    /// - Parameter offset: how many bytes before `range` were compared already.
    func compare(
        _ running: LogicalUnitRunningTask, _ range: SectorRange, with data: ByteBuffer?, _ check: ByteCheck, offset: Int = 0,
        then next: @escaping () -> Void
    ) {
        if range.isEmpty { return next() }
        let piece = SectorRange(from: range.start, to: min(range.end, range.start + Self.pieceBlocks))
        device.read(piece) { result in
            if running.isAborted { return self.finish(running, SCSIResponse(status: .taskAborted)) }
            switch result {
            case .failure(let error): self.finish(running, self.response(to: error, isWrite: false))
            case .success(let medium):
                let isRepeating = check == .oneBlock
                let expected =
                    isRepeating ? data : data.map { $0.getSlice(at: $0.readerIndex + offset, length: piece.byteCount) ?? ByteBuffer() }
                if let expected, let difference = medium.firstDifference(from: expected, repeating: isRepeating) {
                    let sense = SenseData(
                        .miscompare, .miscompareDuringVerifyOperation, information: UInt64(offset + difference))
                    return self.finish(running, .checkCondition(sense))
                }
                let rest = SectorRange(from: piece.end, to: range.end)
                self.compare(running, rest, with: data, check, offset: offset + piece.byteCount, then: next)
            }
        }
    }

    /// What a command holds in memory of the medium, besides the data that comes with it.
    func heldOfMedium(_ command: SCSICommand) -> Int {
        switch command {
        case .verify(let transfer, _), .writeAndVerify(let transfer, _), .compareAndWrite(let transfer):
            Int(min(UInt64(transfer.blockCount), Self.pieceBlocks)) * Self.blockBytes
        case .orWrite(let transfer): expectedTransfer(of: .orWrite(transfer)).byteCount
        case .extendedCopy: Self.copyPieceByteCount
        case .writeSame(let transfer, _, true): Int(min(UInt64(transfer.blockCount), Self.patternBlocks)) * Self.blockBytes
        default: 0
        }
    }

    /// One step of a task that has several: an error or an abortion ends the task, else the next step follows.
    func step(
        _ running: LogicalUnitRunningTask,
        _ action: (@escaping (Result<Void, BlockDeviceError>) -> Void) -> Void, then next: @escaping () -> Void
    ) {
        action { result in
            switch result {
            case .failure(let error): self.finish(running, self.response(to: error, isWrite: true))
            case .success where running.isAborted: self.finish(running, SCSIResponse(status: .taskAborted))
            case .success: next()
            }
        }
    }

    /// Answers a command with IMMED, which goes on as a task that somebody may have to wait for.
    /// - Returns: what the end of that task is told.
    private func answerAtOnce(_ completion: (SCSIResponse) -> Void) -> (SCSIResponse) -> Void {
        completion(.good)
        return { _ in }
    }

    func synchronizeCache(
        _ task: SCSITask, isImmediate: Bool, _ completion: @escaping (SCSIResponse) -> Void
    ) {
        // All of the cache is flushed, whatever the range: that is allowed, and the log has only one tail. With IMMED the answer does not
        // wait; an error of the flush comes with the next one.
        let ended = isImmediate ? answerAtOnce(completion) : completion
        runOnMedium(task, SectorRange(from: 0, to: 0), .shared, completion: ended) { running in
            self.device.flush { result in self.finish(running, self.response(to: result)) }
        }
    }

    /// PRE-FETCH is a hint: the blocks are read, so that the device has them, in pieces and one command at a time; a
    /// second one is answered at once and does nothing. CONDITION MET says that all of them are at hand, GOOD that some may not
    /// be (SBC-3, PRE-FETCH (10)).
    private func prefetch(
        _ task: SCSITask, _ transfer: BlockTransfer, _ isImmediate: Bool, _ completion: @escaping (SCSIResponse) -> Void
    ) {
        let wanted = transfer.blockCount == 0 ? UInt64.max : UInt64(transfer.blockCount)
        let end = min(device.sectorCount, transfer.logicalBlockAddress &+ min(wanted, UInt64(limits.maximumPrefetch)))
        let range = SectorRange(from: transfer.logicalBlockAddress, to: end)
        if isPrefetching || range.isEmpty { return completion(.good) }
        isPrefetching = true
        let isWhole = range.count == min(wanted, device.sectorCount &- transfer.logicalBlockAddress)
        let answer = isImmediate ? answerAtOnce(completion) : completion
        let ended: (SCSIResponse) -> Void = { response in
            self.isPrefetching = false
            answer(response)
        }
        runOnMedium(task, range, .shared, completion: ended) { running in
            self.prefetchPieces(of: range, isStopped: { running.isAborted }) { isRead in
                self.finish(running, SCSIResponse(status: isRead && isWhole ? .conditionMet : .good))
            }
        }
    }

    private func prefetchPieces(of range: SectorRange, isStopped: @escaping () -> Bool, then done: @escaping (Bool) -> Void) {
        if range.isEmpty || isStopped() { return done(range.isEmpty) }
        let piece = SectorRange(from: range.start, to: min(range.end, range.start + Self.pieceBlocks))
        device.read(piece) { result in
            // An error here is nobody's: the read that wants the blocks will meet it.
            guard case .success = result else { return done(false) }
            self.prefetchPieces(of: SectorRange(from: piece.end, to: range.end), isStopped: isStopped, then: done)
        }
    }
}
