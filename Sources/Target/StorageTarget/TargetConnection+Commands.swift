import Blocks
import ISCSI
import NIOCore
import SCSI

/// What the connection knows of a command between its arrival and its answer.
struct CommandContext {
    var unit: LogicalUnit
    var task: SCSITask
    var transfer: DataTransfer
    /// Bytes that the command holds of the connection's share of memory.
    var reservedByteCount = 0
    /// Bytes of data that it has, or may get, unasked while it waits for that.
    var unaskedByteCount = 0
    /// True while a logical unit has it.
    var isRunning = false

    /// It has memory, and waits no more: what had come unasked is in that.
    /// - Returns: how much that was.
    mutating func hold(_ byteCount: Int) -> Int {
        defer { unaskedByteCount = 0 }
        reservedByteCount = byteCount
        return unaskedByteCount
    }
}

// Commands on their way from the session to a logical unit and back.
extension TargetConnection {
    /// A command arrived: a cached read is answered on the spot, anything else is looked at and waits for room.
    func begin(_ handle: TaskHandle) {
        guard let task = session?.task(handle) else { return }
        let block = CommandDescriptorBlock(high: task.cdbHigh, low: task.cdbLow)
        guard let unit = target?.unit(task.lun) else { return answerAbsent(handle, block) }
        if task.attribute <= 1, let read = block.plainRead, answerInPlace(handle, task, read, unit) { return }
        guard !task.hasExtendedCDB else { return answer(handle, .checkCondition(.invalidOperationCode), transferByteCount: 0) }
        let admission = unit.admit(
            block, nexus: nexus, tag: UInt64(task.initiatorTaskTag), attribute: Self.attribute(task.attribute),
            offeredByteCount: task.writes ? task.expectedByteCount : 0)
        switch admission {
        case .rejected(let response): answer(handle, response, transferByteCount: 0)
        case .accepted(let admitted): reserve(handle, unit, admitted)
        }
    }

    private static func attribute(_ code: UInt8) -> SCSITask.Attribute {
        switch code {
        case 2: .ordered
        case 3: .headOfQueue
        default: .simple
        }
    }

    /// The way of a cached read: header, data and digests go into the batch without a buffer in between.
    private func answerInPlace(
        _ handle: TaskHandle, _ task: SessionTask, _ read: BlockTransfer, _ unit: LogicalUnit
    ) -> Bool {
        let byteCount = Int(read.blockCount) &* LogicalUnit.blockBytes
        guard byteCount <= Self.inPlaceByteCount, session?.canAnswerInPlace(task, byteCount: byteCount) ?? false,
            dataIn.reserve(byteCount)
        else { return false }
        answers.begin()
        let start = encoder.reserveHeader(in: &answers.buffer)
        guard unit.readIfResident(read, nexus: nexus, into: &answers.buffer),
            let header = session?.completeInPlace(handle, byteCount: byteCount)
        else {
            answers.buffer.moveWriterIndex(to: start)
            dataIn.release(byteCount)
            return false
        }
        encoder.finish(header, reservedAt: start, in: &answers.buffer)
        answers.holds(byteCount)
        if answers.isLong { answers.flush() }
        return true
    }

    /// Reserves memory for the data of a command when its turn has come, or has it wait.
    private func reserve(_ handle: TaskHandle, _ unit: LogicalUnit, _ task: SCSITask) {
        let transfer = unit.expectedTransfer(of: task.command)
        commands[handle] = CommandContext(unit: unit, task: task, transfer: transfer)
        if unit.order.isFree || task.attribute == .headOfQueue { return takeMemory(handle, unit, task, transfer) }
        guard mayWait(handle, task) else { return }
        let waits = unit.atTurn(of: task) { [self] in
            guard commands[handle] != nil, session != nil else { return }
            takeMemory(handle, unit, task, transfer)
            drain()
        }
        if !waits { answer(handle, SCSIResponse(status: .taskSetFull), transferByteCount: 0) }
    }

    /// Counts what comes unasked with a command that waits; when that is too much, the command is answered.
    private func mayWait(_ handle: TaskHandle, _ task: SCSITask) -> Bool {
        // A read that waits has nothing yet, nor has a write whose data is asked for.
        guard share(of: task.command) === dataOut, commands[handle]?.unaskedByteCount == 0 else { return true }
        let unasked = session?.heldByteCount(handle, wanted: 0) ?? 0
        guard server.unaskedByteCount + unasked <= server.dataOut.limit else {
            answer(handle, SCSIResponse(status: .busy), transferByteCount: 0)
            return false
        }
        commands[handle]?.unaskedByteCount = unasked
        server.unaskedByteCount += unasked
        return true
    }

    private func takeMemory(_ handle: TaskHandle, _ unit: LogicalUnit, _ task: SCSITask, _ transfer: DataTransfer) {
        let wanted = transfer.direction == .fromInitiator ? transfer.byteCount : 0
        let share = share(of: task.command)
        let byteCount =
            share === dataIn
            ? transfer.byteCount : (session?.heldByteCount(handle, wanted: wanted) ?? 0) + unit.heldOfMedium(task.command)
        if byteCount == 0 || share.reserve(byteCount) { return proceed(handle, byteCount, wanted) }
        guard mayWait(handle, task) else { return }
        share.wait(for: byteCount) { [self] in
            guard commands[handle] != nil, session != nil else { return false }
            proceed(handle, byteCount, wanted)
            drain()
            return true
        }
    }

    /// Whose memory the data of a command is.
    private func share(of command: SCSICommand) -> BudgetShare {
        if case .read = command { dataIn } else { dataOut }
    }

    private func proceed(_ handle: TaskHandle, _ byteCount: Int, _ wanted: Int) {
        if let unasked = commands[handle]?.hold(byteCount), unasked > 0 { server.unaskedByteCount -= unasked }
        session?.prepare(handle, wanted: wanted)
    }

    /// All data of a command is here.
    func execute(_ handle: TaskHandle) {
        guard var command = commands[handle], let data = session?.takeData(handle) else { return }
        if command.transfer.direction == .fromInitiator { command.task.dataOut = data }
        command.isRunning = true
        commands[handle] = command
        runningCount += 1
        command.unit.execute(command.task) { [self] response in
            runningCount -= 1
            let transferByteCount = command.transfer.direction == .fromInitiator ? command.transfer.byteCount : 0
            answer(handle, response, transferByteCount: transferByteCount)
            drain()
            settleDepartures(from: command.unit)
            commandDidEnd()
        }
    }

    /// Answers a command and gives its memory back, in this order: who waits for the memory comes after the answer.
    func answer(_ handle: TaskHandle, _ response: SCSIResponse, transferByteCount: Int) {
        var completion = TargetSession.Completion(status: response.status.rawValue, transferByteCount: transferByteCount)
        if let sense = response.sense { sense.write(into: &completion.sense) }
        if let dataIn = response.dataIn { completion.dataIn = dataIn }
        session?.complete(handle, completion)
        settle(handle)
    }

    /// Forgets a command. The memory of a read is free when its data has left, that of anything else is free now.
    private func settle(_ handle: TaskHandle) {
        guard let command = commands.removeValue(forKey: handle) else { return }
        server.unaskedByteCount -= command.unaskedByteCount
        // A task that no unit has executed gives up its place there.
        if !command.isRunning { command.unit.withdraw(command.task) }
        guard command.reservedByteCount > 0 else { return }
        let share = share(of: command.task.command)
        if share === dataIn, session != nil {
            answers.holds(command.reservedByteCount)
        } else {
            share.release(command.reservedByteCount)
        }
    }

    /// A command is gone that no logical unit has seen.
    func drop(_ handle: TaskHandle) {
        settle(handle)
    }

    /// Nobody waits for a command; its unit may give it up.
    func abort(_ handle: TaskHandle) {
        guard let command = commands[handle], command.isRunning else { return }
        command.unit.abortTasks(.task(nexus: nexus, tag: command.task.tag)) {}
    }

    private func answerAbsent(_ handle: TaskHandle, _ block: CommandDescriptorBlock) {
        guard let target else { return answer(handle, Self.noUnit, transferByteCount: 0) }
        let response = AbsentLogicalUnit.response(to: block, identity: target.identity, reportedNumbers: target.numbers)
        answer(handle, response, transferByteCount: 0)
    }

    /// The transport ended a command (RFC 7143 section 11.4.7.2).
    func answer(_ handle: TaskHandle, _ failure: TransportFailure) {
        let code: AdditionalSenseCode =
            switch failure {
            case .dataDigest, .dataSequence: AdditionalSenseCode(0x47, 0x05)
            case .unexpectedUnsolicitedData: AdditionalSenseCode(0x0C, 0x0C)
            case .incorrectAmountOfData: AdditionalSenseCode(0x0C, 0x0D)
            }
        answer(handle, .checkCondition(SenseData(.abortedCommand, code)), transferByteCount: 0)
    }
}

// Logical units that come and go.
extension TargetConnection {
    private static var noUnit: SCSIResponse { .checkCondition(SenseData(.illegalRequest, .logicalUnitNotSupported)) }

    /// Makes the session known to a unit that its target got.
    /// - Returns: false when the unit has no room for it.
    func join(_ unit: LogicalUnit) -> Bool {
        guard hasNexus, let identity else { return true }
        return unit.addNexus(nexus, initiatorPortName: Self.portName(of: identity), relativeTargetPort: portalGroupTag)
    }

    /// The target has lost a unit: what has not begun on it is refused; `completion` runs when the rest is answered.
    func leave(_ unit: LogicalUnit, completion: @escaping () -> Void) {
        for (handle, command) in commands where command.unit === unit && commands[handle]?.isRunning == false {
            answer(handle, Self.noUnit, transferByteCount: 0)
        }
        drain()
        guard commands.values.contains(where: { $0.unit === unit }) else { return completion() }
        departures.append((unit, completion))
    }

    /// Called when a command has left `unit`.
    func settleDepartures(from unit: LogicalUnit) {
        guard !departures.isEmpty, !commands.values.contains(where: { $0.unit === unit }) else { return }
        let done = departures.filter { $0.unit === unit }
        departures.removeAll { $0.unit === unit }
        for departure in done { departure.completion() }
    }
}
