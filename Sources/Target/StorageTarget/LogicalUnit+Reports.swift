import Blocks
import NIOCore
import SCSI

extension LogicalUnit {
    /// Answers a command that does not touch the medium.
    func answer(_ task: SCSITask) -> SCSIResponse {
        guard let nexus = nexuses[task.nexus] else { return .checkCondition(SenseData(.abortedCommand, .nexusLossOccurred)) }
        do throws(SenseData) {
            switch task.command {
            case .testUnitReady, .sendDiagnostic: return .good
            case .preventAllowMediumRemoval(let isPrevented): return preventRemoval(isPrevented, by: nexus)
            case .inquiry(let page, let count): return .good(try inquiry(page, nexus).truncated(to: Int(count)))
            case .reportLUNs(let select, let count):
                let list = try LogicalUnitList.report(reportedNumbers(), selectReport: select)
                // The list must have room for its header and one number (SPC-4, 6.33).
                if count < 16 { throw .invalidFieldInCDB(byte: 6) }
                clearReportedNumbersAttention(of: nexus)
                return .good(list.truncated(to: Int(count)))
            case .requestSense(let format, let count):
                return .good(requestSense(nexus, format).dataIn(allocationByteCount: Int(count)))
            case .readCapacity10:
                return .good(CapacityData.short(blockCount: device.sectorCount, blockBytes: UInt32(Self.blockBytes)))
            case .readCapacity16(let count):
                let data = CapacityData.long(blockCount: device.sectorCount, blockBytes: UInt32(Self.blockBytes))
                return .good(data.truncated(to: Int(count)))
            case .modeSense(let request):
                let data = try parameters.sense(
                    request, blockCount: device.sectorCount, blockBytes: UInt32(Self.blockBytes),
                    isWriteProtected: device.isWriteProtected)
                return .good(data.truncated(to: Int(request.allocationByteCount)))
            case .modeSelect(let count, let isTenByte): return try modeSelect(task, nexus, Int(count), isTenByte)
            case .reportSupportedOperationCodes(let request):
                return .good(try SupportedOperations.report(request).truncated(to: Int(request.allocationByteCount)))
            case .reportTargetPortGroups(let isExtended, let count):
                return .good(TargetPortGroups.report(relativeTargetPorts(), hasExtendedHeader: isExtended).truncated(to: Int(count)))
            case .reportSupportedTaskManagementFunctions(let isExtended, let count):
                return .good(SupportedTaskManagementFunctions.report(isExtended: isExtended).truncated(to: Int(count)))
            case .readDefectData(let request):
                return .good(DefectList.report(request).truncated(to: Int(request.allocationByteCount)))
            case .persistentReserveIn(let action, let count):
                return .good(reservations.report(action, canPersist: reservationStore != nil).truncated(to: Int(count)))
            case .receiveCopyResults(let action, let identifier, let count):
                return .good(try nexus.copyResults.report(action, identifier).truncated(to: Int(count)))
            case .reserve6, .release6:
                legacyReserve(nexus, isRelease: task.command == .release6)
                return .good
            default: throw .invalidOperationCode
            }
        } catch {
            return .checkCondition(error)
        }
    }

    private func inquiry(_ page: UInt8?, _ nexus: LogicalUnitNexus) throws(SenseData) -> ByteBuffer {
        guard let page else { return InquiryData.standard(identity) }
        // The port designators are those of the port that the command came by.
        var identity = identity
        identity.relativeTargetPort = nexus.registrant.relativeTargetPort
        identity.targetPortGroup = nexus.registrant.relativeTargetPort
        guard let data = VitalProductData.page(page, identity: identity, limits: limits) else {
            throw .invalidFieldInCDB(byte: 2)
        }
        return data
    }

    /// REQUEST SENSE takes a pending unit attention as its data (SPC-4, 6.39).
    private func requestSense(_ nexus: LogicalUnitNexus, _ format: SenseFormat) -> SenseData {
        var sense = takeAttention(of: nexus).map { SenseData(.unitAttention, $0) } ?? pollableSense
        sense.format = format
        return sense
    }

    /// What the unit would say of itself to a command that needs the medium (SPC-4, 5.11.2).
    private var pollableSense: SenseData {
        if let backgroundOperation, !backgroundOperation.hasFailed { return backgroundOperation.sense }
        return isMediumLoaded ? .none : SenseData(.notReady, .mediumNotPresent)
    }

    private func modeSelect(_ task: SCSITask, _ nexus: LogicalUnitNexus, _ count: Int, _ isTenByte: Bool) throws(SenseData)
        -> SCSIResponse
    {
        let list = (task.dataOut ?? ByteBuffer()).truncated(to: count)
        guard list.readableBytes == count else { throw .parameterListLength }
        let selected = try parameters.selecting(list, isTenByte: isTenByte, blockBytes: UInt32(Self.blockBytes))
        if selected == parameters { return .good }
        parameters = selected
        for other in nexuses.values where other !== nexus { establish(.modeParametersChanged, for: other) }
        return .good
    }
}

extension SenseData {
    /// The sense data as the data of REQUEST SENSE.
    func dataIn(allocationByteCount: Int) -> ByteBuffer {
        var buffer = ByteBuffer()
        write(into: &buffer)
        return buffer.truncated(to: allocationByteCount)
    }
}
