import CLibISCSI
import Glibc

extension ISCSIInitiatorSession {
    /// Reads `blockCount` logical blocks into the command's buffer.
    /// - Returns: false, with nothing started, when the session is not ready, the command is in flight or the buffer is too small.
    @discardableResult
    public func read(_ command: InitiatorCommand, block: UInt64, blockCount: Int, blockBytes: Int = 512) -> Bool {
        guard let byteCount = prepare(command, blockCount: blockCount, blockBytes: blockBytes) else { return false }
        return start(command) { context, unit, opaque in
            if let shortBlock = UInt32(exactly: block), blockCount <= 0xFFFF {
                return iscsi_read10_iov_task(
                    context, unit, shortBlock, byteCount, Int32(blockBytes), 0, 0, 0, 0, 0, Self.completed, opaque,
                    command.vector, 1)
            }
            return iscsi_read16_iov_task(
                context, unit, block, byteCount, Int32(blockBytes), 0, 0, 0, 0, 0, Self.completed, opaque, command.vector, 1)
        }
    }

    /// Writes `blockCount` logical blocks from the command's buffer. With `forceUnitAccess` GOOD means: on stable storage.
    /// - Returns: as `read`.
    @discardableResult
    public func write(
        _ command: InitiatorCommand, block: UInt64, blockCount: Int, blockBytes: Int = 512, forceUnitAccess: Bool = false
    ) -> Bool {
        guard let byteCount = prepare(command, blockCount: blockCount, blockBytes: blockBytes) else { return false }
        let access: Int32 = forceUnitAccess ? 1 : 0
        return start(command) { context, unit, opaque in
            if let shortBlock = UInt32(exactly: block), blockCount <= 0xFFFF {
                return iscsi_write10_iov_task(
                    context, unit, shortBlock, nil, byteCount, Int32(blockBytes), 0, 0, access, 0, 0, Self.completed, opaque,
                    command.vector, 1)
            }
            return iscsi_write16_iov_task(
                context, unit, block, nil, byteCount, Int32(blockBytes), 0, 0, access, 0, 0, Self.completed, opaque,
                command.vector, 1)
        }
    }

    /// SYNCHRONIZE CACHE of the whole unit.
    @discardableResult
    public func synchronizeCache(_ command: InitiatorCommand) -> Bool {
        start(command) { context, unit, opaque in
            iscsi_synchronizecache10_task(context, unit, 0, 0, 0, 0, Self.completed, opaque)
        }
    }

    /// UNMAP of one run of blocks.
    @discardableResult
    public func unmap(_ command: InitiatorCommand, block: UInt64, blockCount: UInt32) -> Bool {
        start(command) { context, unit, opaque in
            // libiscsi packs the list before it returns.
            var list = unmap_list(lba: block, num: blockCount)
            return iscsi_unmap_task(context, unit, 0, 0, &list, 1, Self.completed, opaque)
        }
    }

    /// Any command, by its CDB. Data-Out comes from the command's buffer; Data-In is handed to `received` before the handler
    /// runs. A command has one of both at most.
    /// - Returns: as `read`.
    @discardableResult
    public func execute(
        _ command: InitiatorCommand, cdb: [UInt8], dataOutByteCount: Int = 0, dataInByteCount: Int = 0,
        received: @escaping ([UInt8]) -> Void = { _ in }
    ) -> Bool {
        guard !cdb.isEmpty, cdb.count <= 16, dataOutByteCount <= command.buffer.count, dataOutByteCount == 0 || dataInByteCount == 0
        else { return false }
        let isWrite = dataOutByteCount > 0
        let byteCount = max(dataOutByteCount, dataInByteCount)
        command.inspectTask = { task in
            let data = task.pointee.datain
            received(data.size > 0 ? data.data.map { [UInt8](UnsafeBufferPointer(start: $0, count: Int(data.size))) } ?? [] : [])
        }
        return start(command) { context, unit, opaque in
            var block = cdb
            let direction = byteCount == 0 ? SCSI_XFER_NONE : isWrite ? SCSI_XFER_WRITE : SCSI_XFER_READ
            let made = scsi_create_task(
                Int32(block.count), &block, Int32(bitPattern: direction.rawValue), Int32(clamping: byteCount))
            guard let task = made else { return nil }
            // libiscsi copies this description, and reads the buffer, which the command keeps, as the data is sent.
            var data = iscsi_data(
                size: byteCount, data: command.buffer.baseAddress?.assumingMemoryBound(to: UInt8.self))
            let started = withUnsafeMutablePointer(to: &data) {
                iscsi_scsi_command_async(context, unit, task, Self.completed, isWrite ? $0 : nil, opaque)
            }
            if started == 0 { return task }
            scsi_free_scsi_task(task)
            return nil
        }
    }

    /// READ CAPACITY (16).
    public func readCapacity(completion: @escaping (Result<LogicalUnitCapacity, InitiatorError>) -> Void) {
        let command = InitiatorCommand(byteCount: 0)
        var capacity: LogicalUnitCapacity?
        command.inspectTask = { task in
            guard let raw = scsi_datain_unmarshall(task) else { return }
            let answer = raw.assumingMemoryBound(to: scsi_readcapacity16.self).pointee
            let (count, overflow) = answer.returned_lba.addingReportingOverflow(1)
            guard !overflow, answer.block_length > 0 else { return }
            capacity = LogicalUnitCapacity(blockCount: count, blockBytes: Int(answer.block_length))
        }
        command.handler = { _, outcome in
            if let capacity, outcome == .good {
                completion(.success(capacity))
            } else {
                completion(.failure(.commandFailed(outcome == .good ? .failed(status: 0) : outcome)))
            }
        }
        let started = start(command) { context, unit, opaque in
            iscsi_readcapacity16_task(context, unit, Self.completed, opaque)
        }
        if !started { completion(.failure(.sessionLost("not connected"))) }
    }

    // MARK: - Inside

    private func prepare(_ command: InitiatorCommand, blockCount: Int, blockBytes: Int) -> UInt32? {
        let (byteCount, overflow) = blockCount.multipliedReportingOverflow(by: blockBytes)
        guard !overflow, blockCount > 0, blockBytes > 0, byteCount <= command.buffer.count, !command.isInFlight else {
            return nil
        }
        command.vector.pointee = scsi_iovec(iov_base: command.buffer.baseAddress, iov_len: byteCount)
        return UInt32(exactly: byteCount)
    }

    private func start(
        _ command: InitiatorCommand,
        _ make: (OpaquePointer, Int32, UnsafeMutableRawPointer) -> UnsafeMutablePointer<scsi_task>?
    ) -> Bool {
        guard let context, phase == .ready, !command.isInFlight else { return false }
        // The list of commands in flight keeps the command alive, so libiscsi needs no reference of its own.
        guard let task = make(context, logicalUnit, Unmanaged.passUnretained(command).toOpaque()) else { return false }
        command.task = task
        command.session = self
        command.index = inFlight.count
        inFlight.append(command)
        return true
    }

    /// Takes the command out of flight, frees its task and tells the owner. Runs once for each start.
    func finish(_ command: InitiatorCommand, _ outcome: CommandOutcome) {
        guard command.session === self else { return }
        command.session = nil
        if let last = inFlight.popLast(), last !== command {
            inFlight[command.index] = last
            last.index = command.index
        }
        if let task = command.task {
            if outcome == .good { command.inspectTask?(task) }
            command.task = nil
            scsi_free_scsi_task(task)
        }
        command.handler?(command, outcome)
    }

    private static let completed: iscsi_command_cb = { context, status, _, opaque in
        guard let opaque else { return }
        let command = Unmanaged<InitiatorCommand>.fromOpaque(opaque).takeUnretainedValue()
        guard let session = command.session else { return }
        session.finish(command, session.outcome(of: command, status: UInt32(bitPattern: status), context: context))
    }

    private func outcome(of command: InitiatorCommand, status: UInt32, context: OpaquePointer?) -> CommandOutcome {
        switch status {
        case SCSI_STATUS_GOOD.rawValue:
            if let task = command.task, task.pointee.residual_status == SCSI_RESIDUAL_UNDERFLOW, task.pointee.residual > 0,
                command.inspectTask == nil
            {
                return .failed(status: 0)
            }
            return .good
        case SCSI_STATUS_CHECK_CONDITION.rawValue:
            guard let task = command.task else { return .failed(status: Int32(bitPattern: status)) }
            return .checkCondition(
                senseKey: UInt8(truncatingIfNeeded: task.pointee.sense.key.rawValue),
                additionalSense: UInt16(truncatingIfNeeded: task.pointee.sense.ascq))
        case SCSI_STATUS_BUSY.rawValue, SCSI_STATUS_TASK_SET_FULL.rawValue:
            return .busy
        case SCSI_STATUS_CANCELLED.rawValue:
            markBroken(Self.errorText(context))
            return .lost
        case SCSI_STATUS_TIMEOUT.rawValue:
            // The target may still execute it and answer into a buffer that is in use again: only a new session is safe.
            markBroken("a command had no answer for \(options.commandTimeoutSeconds) s")
            return .lost
        case SCSI_STATUS_ERROR.rawValue:
            markBroken(Self.errorText(context))
            return .lost
        default:
            return .failed(status: Int32(bitPattern: status))
        }
    }
}
