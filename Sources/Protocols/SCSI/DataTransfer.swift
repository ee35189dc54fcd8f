/// Which way the data of a command goes.
public enum DataDirection: Sendable {
    case none
    /// Data-In: a read.
    case toInitiator
    /// Data-Out: a write.
    case fromInitiator
}

/// How much data a command moves at most, and which way. This is the SCSI side's number; the initiator's is in the PDU, and
/// the difference is the residual (RFC 7143, 11.4.5).
public struct DataTransfer: Hashable, Sendable {
    public let direction: DataDirection
    public let byteCount: Int

    public init(_ direction: DataDirection, _ byteCount: Int) {
        self.direction = byteCount == 0 ? .none : direction
        self.byteCount = byteCount
    }
}

extension SCSICommand {
    /// What the command moves on a unit with logical blocks of `blockBytes`. A count that fits in no Int is clamped; the
    /// limits of the unit refuse it long before.
    public func dataTransfer(blockBytes: Int) -> DataTransfer {
        func blocks(_ transfer: BlockTransfer, times factor: Int = 1) -> Int {
            let (product, overflow) = Int(transfer.blockCount).multipliedReportingOverflow(by: blockBytes &* factor)
            return overflow ? Int.max : product
        }
        func checked(_ transfer: BlockTransfer, _ check: ByteCheck) -> DataTransfer {
            switch check {
            case .mediumOnly: DataTransfer(.none, 0)
            case .everyBlock: DataTransfer(.fromInitiator, blocks(transfer))
            case .oneBlock: DataTransfer(.fromInitiator, transfer.blockCount == 0 ? 0 : blockBytes)
            }
        }
        switch self {
        case .read(let transfer): return DataTransfer(.toInitiator, blocks(transfer))
        case .write(let transfer), .writeAtomic(let transfer), .writeAndVerify(let transfer, _), .orWrite(let transfer):
            return DataTransfer(.fromInitiator, blocks(transfer))
        case .compareAndWrite(let transfer): return DataTransfer(.fromInitiator, blocks(transfer, times: 2))
        case .verify(let transfer, let check): return checked(transfer, check)
        case .writeSame(_, _, let hasDataOut): return DataTransfer(.fromInitiator, hasDataOut ? blockBytes : 0)
        case .unmap(let count): return DataTransfer(.fromInitiator, Int(count))
        case .sanitize(let request): return DataTransfer(.fromInitiator, Int(request.parameterListByteCount))
        case .formatUnit(let hasList, let isLong):
            return DataTransfer(.fromInitiator, hasList ? FormatParameterList.byteCount(isLong: isLong) : 0)
        case .modeSelect(let count, _): return DataTransfer(.fromInitiator, Int(count))
        case .persistentReserveOut(let out): return DataTransfer(.fromInitiator, Int(out.parameterListByteCount))
        case .extendedCopy(let count): return DataTransfer(.fromInitiator, Int(count))
        case .receiveCopyResults(_, _, let count): return DataTransfer(.toInitiator, Int(count))
        case .inquiry(_, let count): return DataTransfer(.toInitiator, Int(count))
        case .reportLUNs(_, let count), .readCapacity16(let count), .getLBAStatus(_, let count),
            .reportTargetPortGroups(_, let count), .reportSupportedTaskManagementFunctions(_, let count):
            return DataTransfer(.toInitiator, Int(count))
        case .requestSense(_, let count): return DataTransfer(.toInitiator, Int(count))
        case .readCapacity10: return DataTransfer(.toInitiator, CapacityData.shortByteCount)
        case .readDefectData(let request): return DataTransfer(.toInitiator, Int(request.allocationByteCount))
        case .modeSense(let sense): return DataTransfer(.toInitiator, Int(sense.allocationByteCount))
        case .reportSupportedOperationCodes(let report): return DataTransfer(.toInitiator, Int(report.allocationByteCount))
        case .persistentReserveIn(_, let count): return DataTransfer(.toInitiator, Int(count))
        case .testUnitReady, .prefetch, .synchronizeCache, .startStopUnit, .preventAllowMediumRemoval, .sendDiagnostic, .reserve6,
            .release6:
            return DataTransfer(.none, 0)
        }
    }
}
