import Blocks
import NIOCore
import SCSI

extension LogicalUnit {
    /// Parses a command and says whether it may be carried out, before any Data-Out is asked for.
    public func admit(
        _ block: CommandDescriptorBlock, nexus: NexusIdentifier, tag: UInt64 = 0, attribute: SCSITask.Attribute = .simple,
        offeredByteCount: Int? = nil
    ) -> SCSIAdmission {
        switch block.parse() {
        case .failure(let sense):
            // An attention comes before the answer that the command is not known, too (SAM-5, status precedence).
            if let nexus = nexuses[nexus], let attention = takeAttention(of: nexus) {
                return .rejected(formatted(.checkCondition(SenseData(.unitAttention, attention))))
            }
            return .rejected(formatted(.checkCondition(sense)))
        case .success(let command):
            var task = SCSITask(
                nexus: nexus, command: command, tag: tag, attribute: attribute, offeredByteCount: offeredByteCount)
            if let refusal = refusal(of: task) { return .rejected(formatted(refusal)) }
            task.place = order.enter(attribute)
            task.abortCount = nexuses[nexus]?.abortCount ?? 0
            return .accepted(task)
        }
    }

    /// Why a task may not be carried out: everything that can be known without its data, in SAM-5's order of precedence. An
    /// initiator hears of a reset before it hears of a reservation, and of everything else after.
    func refusal(of task: SCSITask) -> SCSIResponse? {
        guard let nexus = nexuses[task.nexus] else { return Self.unknownNexus }
        let hearsAttention = !task.command.passesUnitAttention
        if hearsAttention, nexus.attentions.first?.tellsOfReset ?? false, let attention = takeAttention(of: nexus) {
            return .checkCondition(SenseData(.unitAttention, attention))
        }
        if let conflict = reservationRefusal(of: task.command, by: nexus) { return conflict }
        if hearsAttention, let attention = takeAttention(of: nexus) {
            return .checkCondition(SenseData(.unitAttention, attention))
        }
        return stateRefusal(of: task.command) ?? mediumRefusal(of: task)
    }

    /// The same for a task that was admitted before, whose unit attention is not looked at again.
    func readmission(of task: SCSITask) -> SCSIResponse? {
        guard let nexus = nexuses[task.nexus] else { return Self.unknownNexus }
        if task.abortCount != nexus.abortCount { return SCSIResponse(status: .taskAborted) }
        return reservationRefusal(of: task.command, by: nexus) ?? stateRefusal(of: task.command) ?? mediumRefusal(of: task)
    }

    /// What keeps the unit as a whole from carrying out the command.
    private func stateRefusal(of command: SCSICommand) -> SCSIResponse? {
        if let backgroundOperation, !backgroundOperation.admits(command) { return .checkCondition(backgroundOperation.sense) }
        if !isMediumLoaded && !command.needsNoMedium { return .checkCondition(SenseData(.notReady, .mediumNotPresent)) }
        return nil
    }

    /// The session went away between the command and its turn.
    private static var unknownNexus: SCSIResponse {
        .checkCondition(SenseData(.abortedCommand, .nexusLossOccurred))
    }

    private func reservationRefusal(of command: SCSICommand, by nexus: LogicalUnitNexus) -> SCSIResponse? {
        let conflict = SCSIResponse(status: .reservationConflict)
        switch command {
        case .reserve6, .release6:
            // The two kinds of reservation mix only as CRH says (SPC-4, 5.13.3).
            if let refusal = legacyRefusal(by: nexus) { return refusal }
        case .persistentReserveIn, .persistentReserveOut:
            if legacyHolder != nil { return conflict }
        default: break
        }
        if let legacyHolder, legacyHolder != nexus.identifier, !command.passesLegacyReservation { return conflict }
        if reservations.conflicts(command.persistentReservationAccess, by: nexus.registrant) { return conflict }
        return nil
    }

    private func mediumRefusal(of task: SCSITask) -> SCSIResponse? {
        let command = task.command
        if command.isWrite {
            if device.isWriteProtected { return .checkCondition(SenseData(.dataProtect, .writeProtected)) }
            if parameters.isSoftwareWriteProtected {
                return .checkCondition(SenseData(.dataProtect, .logicalUnitSoftwareWriteProtected))
            }
        }
        switch command {
        case .read(let transfer), .write(let transfer), .writeAndVerify(let transfer, _), .verify(let transfer, _),
            .orWrite(let transfer):
            return rangeRefusal(of: transfer, limit: UInt64(limits.maximumTransfer))
        case .writeAtomic(let transfer):
            if transfer.blockCount > limits.maximumAtomicWrite { return .checkCondition(.invalidFieldInCDB(byte: 12)) }
            return rangeRefusal(of: transfer, limit: UInt64(limits.maximumAtomicWrite)) ?? lengthRefusal(of: task, transfer)
        case .sanitize(let request):
            let longest = OverwriteParameters.longestByteCount(blockBytes: Self.blockBytes)
            return Int(request.parameterListByteCount) > longest ? .checkCondition(.invalidFieldInCDB(byte: 7)) : nil
        case .compareAndWrite(let transfer):
            return rangeRefusal(of: transfer, limit: UInt64(limits.maximumCompareAndWrite))
                ?? lengthRefusal(of: task, transfer)
        case .prefetch(let transfer, _), .synchronizeCache(let transfer, _):
            return rangeRefusal(of: transfer, limit: .max)
        case .writeSame(let transfer, _, _):
            // WSNZ: zero blocks would mean all to the end.
            if transfer.blockCount == 0 { return .checkCondition(transfer.invalidLength) }
            return rangeRefusal(of: transfer, limit: limits.maximumWriteSame) ?? lengthRefusal(of: task, transfer)
        case .getLBAStatus(let address, _):
            return address < device.sectorCount ? nil : .checkCondition(.outOfRange)
        default: return nil
        }
    }

    private func rangeRefusal(of transfer: BlockTransfer, limit: UInt64) -> SCSIResponse? {
        if sectorRange(of: transfer) == nil { return .checkCondition(.outOfRange) }
        return UInt64(transfer.blockCount) > limit ? .checkCondition(transfer.invalidLength) : nil
    }

    /// Data of another length than the command's cannot be told apart from a command that was mistyped, so it is refused
    /// where a part of it would mean something else than the whole.
    private func lengthRefusal(of task: SCSITask, _ transfer: BlockTransfer) -> SCSIResponse? {
        guard let offered = task.offeredByteCount, offered != expectedTransfer(of: task.command).byteCount else { return nil }
        return .checkCondition(transfer.invalidLength)
    }
}
