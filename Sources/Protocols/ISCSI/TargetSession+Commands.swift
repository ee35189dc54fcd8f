import NIOCore

// SCSI commands and their data (RFC 7143 sections 4.2.2, 4.2.4 and 11.3 to 11.8).

extension TargetSession {
    mutating func receive(_ command: SCSICommandPDU, _ frame: PDUFrame) {
        guard isInOrder(command.cmdSN, isImmediate: command.isImmediate) else { return }
        // The connection is about to end; the initiator sends the command again in its next session. Its number is used up all the same, so
        // that what comes behind it is in order.
        if isRetiring { return }
        guard identity.sessionType == .normal else { return reject(frame, .protocolError) }
        guard pendingLogout == nil else { return reject(frame, .waitingForLogout) }
        guard tasks.handle(tag: command.initiatorTaskTag) == nil, command.initiatorTaskTag != BasicHeader.reservedTag else {
            return reject(frame, .taskInProgress)
        }
        if command.isImmediate {
            guard immediateCount < limits.immediateCommands else { return reject(frame, .immediateCommandReject) }
            immediateCount += 1
        } else {
            windowedCount += 1
        }
        rejectCount = 0
        let handle = tasks.insert(SessionTask(command))
        if let failure = unsolicitedFailure(command) { return fail(handle, failure) }
        act(.started(handle))
    }

    private func unsolicitedFailure(_ command: SCSICommandPDU) -> TransportFailure? {
        if command.data.readableBytes > 0, !parameters.immediateData || !command.writes { return .unexpectedUnsolicitedData }
        if command.writes, !command.isFinal, parameters.initialR2T { return .unexpectedUnsolicitedData }
        let limit = min(parameters.firstBurstLength, Int(command.expectedDataTransferLength))
        return command.data.readableBytes > limit ? .incorrectAmountOfData : nil
    }

    /// The bytes that a task which wants `wanted` bytes of Data-Out will hold in memory.
    public func heldByteCount(_ handle: TaskHandle, wanted: Int) -> Int {
        tasks[handle]?.heldByteCount(wanted: wanted, parameters) ?? 0
    }

    /// Says how many bytes of Data-Out a command wants, and that there is room for them.
    /// Data is asked for as needed; `execute` follows, perhaps at once.
    public mutating func prepare(_ handle: TaskHandle, wanted: Int) {
        guard let task = tasks[handle], task.phase == .arrived else { return }
        tasks.update(handle) {
            $0.phase = .collecting
            $0.wantedByteCount = $0.writes ? min(wanted, $0.expectedByteCount) : 0
            $0.solicitedByteCount = $0.receivedByteCount
        }
        advance(handle)
    }

    /// Asks for the next data, or starts the command when nothing is missing.
    private mutating func advance(_ handle: TaskHandle) {
        guard let task = tasks[handle], task.phase == .collecting, !task.isUnsolicitedOpen else { return }
        if task.receivedByteCount >= task.wantedByteCount, task.solicitations.isEmpty {
            tasks.update(handle) { $0.phase = .executing }
            return act(.execute(handle))
        }
        var offset = max(task.solicitedByteCount, task.receivedByteCount)
        var outstanding = task.solicitations.count
        while offset < task.wantedByteCount, outstanding < parameters.maxOutstandingR2T {
            let length = min(parameters.maxBurstLength, task.wantedByteCount - offset)
            ask(handle, task, offset: offset, length: length)
            offset += length
            outstanding += 1
        }
    }

    private mutating func ask(_ handle: TaskHandle, _ task: SessionTask, offset: Int, length: Int) {
        let tag = takeTargetTransferTag()
        var r2t = ReadyToTransfer()
        r2t.lun = task.lun
        r2t.initiatorTaskTag = task.initiatorTaskTag
        r2t.targetTransferTag = tag
        r2t.sequence = plainSequence
        r2t.bufferOffset = UInt32(clamping: offset)
        r2t.desiredLength = UInt32(clamping: length)
        tasks.update(handle) {
            r2t.r2tSN = $0.r2tSN
            $0.r2tSN &+= 1
            $0.solicitations.append(.init(targetTransferTag: tag, end: offset + length))
            $0.solicitedByteCount = offset + length
        }
        act(.send(.readyToTransfer(r2t)))
    }

    mutating func receive(_ pdu: DataOut, _ frame: PDUFrame) {
        guard let handle = tasks.handle(tag: pdu.initiatorTaskTag) else { return }
        let parameters = parameters
        // In the task's place: with a second reference to the data that has come, each piece would copy all of it.
        switch tasks.update(handle, { $0.take(pdu, parameters) }) ?? .dropped {
        case .dropped, .added: break
        case .rejected: reject(frame, .invalidPDUField)
        case .sequenceEnded: advance(handle)
        case .failed(let failure): fail(handle, failure)
        }
    }

    /// Takes the data of a command that runs: at most what it wanted.
    public mutating func takeData(_ handle: TaskHandle) -> ByteBuffer {
        tasks.update(handle) { task in
            defer { task.data = ByteBuffer() }
            return task.data.readSlice(length: min(task.wantedByteCount, task.data.readableBytes)) ?? ByteBuffer()
        } ?? ByteBuffer()
    }

    // MARK: Answers

    /// How a command ended.
    public struct Completion {
        /// The SCSI status.
        public var status: UInt8
        /// Sense data, with CHECK CONDITION.
        public var sense: ByteBuffer
        /// What the command read.
        public var dataIn: ByteBuffer
        /// How many bytes the command would move by its CDB; what it read is counted by itself.
        public var transferByteCount: Int

        public init(
            status: UInt8, sense: ByteBuffer = ByteBuffer(), dataIn: ByteBuffer = ByteBuffer(), transferByteCount: Int = 0
        ) {
            self.status = status
            self.sense = sense
            self.dataIn = dataIn
            self.transferByteCount = transferByteCount
        }
    }

    /// Answers a command. An aborted one stays silent.
    public mutating func complete(_ handle: TaskHandle, _ completion: Completion) {
        guard let task = end(handle), !task.isAborted, !isClosing else { return }
        let residual = residual(of: task, moved: max(completion.transferByteCount, completion.dataIn.readableBytes))
        let limit = task.reads && !task.writes ? task.expectedByteCount : Int(task.bidirectionalReadByteCount ?? 0)
        var rest = completion.dataIn
        rest = rest.readSlice(length: min(limit, rest.readableBytes)) ?? ByteBuffer()
        let collapses = completion.status == 0 && completion.sense.readableBytes == 0 && !task.writes && rest.readableBytes > 0
        let dataSN = sendData(rest, of: task, status: collapses ? (completion.status, residual) : nil)
        if collapses { return }
        var response = SCSIResponsePDU()
        response.status = completion.status
        response.sense = completion.sense
        response.initiatorTaskTag = task.initiatorTaskTag
        response.residual = residual
        if let expected = task.bidirectionalReadByteCount, expected > 0, task.writes {
            let sent = UInt32(clamping: min(limit, completion.dataIn.readableBytes))
            response.bidirectionalReadResidual = expected > sent ? .underflow(expected - sent) : .none
        }
        response.expDataSN = task.writes ? task.r2tSN : dataSN
        response.sequence = statusSequence()
        act(.send(.scsiResponse(response)))
    }

    /// Answers a read whose `byteCount` bytes fit one PDU and stand already in the outgoing buffer.
    /// - Returns: the header to put before them, or nil when the task may not be answered so; then nothing has changed.
    public mutating func completeInPlace(_ handle: TaskHandle, byteCount: Int) -> BasicHeader? {
        guard let task = tasks[handle], !task.isAborted, !isClosing, canAnswerInPlace(task, byteCount: byteCount),
            end(handle) != nil
        else { return nil }
        var pdu = DataIn()
        pdu.isFinal = true
        pdu.status = 0
        pdu.lun = task.lun
        pdu.initiatorTaskTag = task.initiatorTaskTag
        pdu.residual = residual(of: task, moved: byteCount)
        pdu.sequence = statusSequence()
        return pdu.header
    }

    /// True when a read of that many bytes goes into a single Data-In PDU.
    public func canAnswerInPlace(_ task: SessionTask, byteCount: Int) -> Bool {
        task.reads && !task.writes && byteCount > 0 && byteCount <= task.expectedByteCount
            && byteCount <= min(parameters.initiatorMaxRecvDataSegmentLength, parameters.maxBurstLength)
    }

    private func residual(of task: SessionTask, moved: Int) -> Residual {
        if moved > task.expectedByteCount { return .overflow(UInt32(clamping: moved - task.expectedByteCount)) }
        if moved < task.expectedByteCount { return .underflow(UInt32(clamping: task.expectedByteCount - moved)) }
        return .none
    }

    /// Sends Data-In PDUs; the last of a burst has F, the last of all the status.
    /// - Returns: how many there were.
    private mutating func sendData(_ data: ByteBuffer, of task: SessionTask, status: (UInt8, Residual)?) -> UInt32 {
        var rest = data
        var dataSN: UInt32 = 0
        var burst = 0
        while rest.readableBytes > 0 {
            let room = min(parameters.initiatorMaxRecvDataSegmentLength, parameters.maxBurstLength - burst)
            var pdu = DataIn()
            pdu.bufferOffset = UInt32(clamping: data.readableBytes - rest.readableBytes)
            pdu.data = rest.readSlice(length: min(room, rest.readableBytes)) ?? ByteBuffer()
            burst += pdu.data.readableBytes
            pdu.lun = task.lun
            pdu.initiatorTaskTag = task.initiatorTaskTag
            pdu.dataSN = dataSN
            dataSN &+= 1
            pdu.isFinal = rest.readableBytes == 0 || burst >= parameters.maxBurstLength
            if burst >= parameters.maxBurstLength { burst = 0 }
            if rest.readableBytes == 0, let status {
                pdu.status = status.0
                pdu.residual = status.1
                pdu.sequence = statusSequence()
            } else {
                pdu.sequence = plainSequence
            }
            act(.send(.dataIn(pdu)))
        }
        return dataSN
    }

    /// Takes a task out of the table and tells the aborts that wait for it.
    mutating func end(_ handle: TaskHandle) -> SessionTask? {
        guard let task = tasks.remove(handle) else { return nil }
        if task.isImmediate { immediateCount -= 1 } else { windowedCount -= 1 }
        for token in task.abortTokens { settleAbort(token) }
        return task
    }
}
