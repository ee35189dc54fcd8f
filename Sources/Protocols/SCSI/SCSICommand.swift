/// A command with its fields, as parsed from a CDB (SPC-4, SBC-3). Sizes are in logical blocks unless a name says bytes.
public enum SCSICommand: Hashable, Sendable {
    /// TEST UNIT READY (SPC-4, 6.47).
    case testUnitReady
    /// INQUIRY (SPC-4, 6.6). `vitalProductDataPage` is nil for the standard data.
    case inquiry(vitalProductDataPage: UInt8?, allocationByteCount: UInt16)
    /// REPORT LUNS (SPC-4, 6.33).
    case reportLUNs(selectReport: UInt8, allocationByteCount: UInt32)
    /// REQUEST SENSE (SPC-4, 6.39).
    case requestSense(format: SenseFormat, allocationByteCount: UInt8)
    /// READ CAPACITY (10) (SBC-3, 5.15).
    case readCapacity10
    /// READ CAPACITY (16) (SBC-3, 5.16).
    case readCapacity16(allocationByteCount: UInt32)
    /// READ (10), (12), (16) (SBC-3, 5.11 to 5.13), and READ (6) of SBC-2.
    case read(BlockTransfer)
    /// WRITE (10), (12), (16) of SBC-3, and WRITE (6) of SBC-2.
    case write(BlockTransfer)
    /// WRITE AND VERIFY (10), (12), (16) of SBC-3.
    case writeAndVerify(BlockTransfer, byteCheck: ByteCheck)
    /// WRITE ATOMIC (16) (SBC-4, 5.48; published with VPD page B0h of SBC-3): all blocks or none, whatever crashes.
    case writeAtomic(BlockTransfer)
    /// VERIFY (10), (12), (16) of SBC-3.
    case verify(BlockTransfer, byteCheck: ByteCheck)
    /// COMPARE AND WRITE (SBC-3, 5.2).
    case compareAndWrite(BlockTransfer)
    /// ORWRITE (16) (SBC-3, 5.5).
    case orWrite(BlockTransfer)
    /// PRE-FETCH (10), (16) (SBC-3, 5.8 and 5.9). A count of zero means to the end.
    case prefetch(BlockTransfer, isImmediate: Bool)
    /// SYNCHRONIZE CACHE (10), (16) of SBC-3. A count of zero means to the end.
    case synchronizeCache(BlockTransfer, isImmediate: Bool)
    /// UNMAP of SBC-3.
    case unmap(parameterListByteCount: UInt16)
    /// WRITE SAME (10), (16) of SBC-3.
    case writeSame(BlockTransfer, unmap: Bool, hasDataOut: Bool)
    /// GET LBA STATUS (SBC-3, 5.4).
    case getLBAStatus(logicalBlockAddress: UInt64, allocationByteCount: UInt32)
    /// MODE SENSE (6), (10) (SPC-4, 6.13 and 6.14).
    case modeSense(ModeSense)
    /// MODE SELECT (6), (10) (SPC-4, 6.11 and 6.12).
    case modeSelect(parameterListByteCount: UInt16, isTenByte: Bool)
    /// START STOP UNIT of SBC-3.
    case startStopUnit(StartStopUnit)
    /// PREVENT ALLOW MEDIUM REMOVAL (SBC-3, 5.10).
    case preventAllowMediumRemoval(prevent: Bool)
    /// SANITIZE of SBC-3.
    case sanitize(Sanitize)
    /// FORMAT UNIT (SBC-3, 5.3). `hasParameterList` is FMTDATA.
    case formatUnit(hasParameterList: Bool, isLongList: Bool)
    /// READ DEFECT DATA (10), (12) of SBC-3.
    case readDefectData(ReadDefectData)
    /// SEND DIAGNOSTIC (SPC-4, 6.42), the default self-test or none.
    case sendDiagnostic
    /// REPORT SUPPORTED OPERATION CODES (SPC-4, 6.35).
    case reportSupportedOperationCodes(ReportSupportedOperationCodes)
    /// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-4, 6.36).
    case reportSupportedTaskManagementFunctions(isExtended: Bool, allocationByteCount: UInt32)
    /// REPORT TARGET PORT GROUPS (SPC-4, 6.37).
    case reportTargetPortGroups(hasExtendedHeader: Bool, allocationByteCount: UInt32)
    /// PERSISTENT RESERVE IN (SPC-4, 6.15).
    case persistentReserveIn(PersistentReserveIn, allocationByteCount: UInt16)
    /// PERSISTENT RESERVE OUT (SPC-4, 6.16).
    case persistentReserveOut(PersistentReserveOut)
    /// EXTENDED COPY(LID1) (SPC-4, 6.4).
    case extendedCopy(parameterListByteCount: UInt32)
    /// RECEIVE COPY RESULTS of EXTENDED COPY(LID1) (SPC-4, 6.18 to 6.21).
    case receiveCopyResults(ReceiveCopyResultsAction, listIdentifier: UInt8, allocationByteCount: UInt32)
    /// RESERVE (6) of SPC-2, 7.21.
    case reserve6
    /// RELEASE (6) of SPC-2, 7.16.
    case release6
}

/// The blocks that a command is about.
public struct BlockTransfer: Hashable, Sendable {
    /// The first logical block.
    public var logicalBlockAddress: UInt64
    /// How many logical blocks.
    public var blockCount: UInt32
    /// FUA: the command completes when the medium, not only the cache, holds the blocks (SBC-3, Caches).
    public var forceUnitAccess: Bool
    /// DPO: the blocks are not likely to be wanted again (SBC-3, Caches).
    public var disablePageOut: Bool
    /// The length of the CDB, which says where its fields are.
    public var cdbByteCount: UInt8

    public init(
        logicalBlockAddress: UInt64, blockCount: UInt32, forceUnitAccess: Bool = false, disablePageOut: Bool = false,
        cdbByteCount: UInt8 = 16
    ) {
        self.logicalBlockAddress = logicalBlockAddress
        self.blockCount = blockCount
        self.forceUnitAccess = forceUnitAccess
        self.disablePageOut = disablePageOut
        self.cdbByteCount = cdbByteCount
    }

    /// What to answer when `blockCount` is more than the limits of VPD page B0h allow.
    public var invalidLength: SenseData {
        let byte: Int
        switch cdbByteCount {
        case 6: byte = 4
        case 10: byte = 7
        case 12: byte = 6
        default: byte = 10
        }
        return .invalidFieldInCDB(byte: byte)
    }
}

/// BYTCHK: what is compared with the medium (SBC-3, VERIFY (10)).
public enum ByteCheck: UInt8, Sendable {
    /// Nothing: the medium must only be readable.
    case mediumOnly = 0
    /// Each block with its block of the data.
    case everyBlock = 1
    /// Each block with the one block of the data.
    case oneBlock = 3
}

/// The fields of MODE SENSE (SPC-4, 6.13).
public struct ModeSense: Hashable, Sendable {
    /// PC: which values are asked for.
    public enum PageControl: UInt8, Sendable {
        case current = 0
        case changeable = 1
        case defaults = 2
        case saved = 3
    }

    public var isTenByte: Bool
    public var disableBlockDescriptors: Bool
    public var pageControl: PageControl
    public var pageCode: UInt8
    public var subpageCode: UInt8
    public var allocationByteCount: UInt16
}

/// The fields of START STOP UNIT of SBC-3.
public struct StartStopUnit: Hashable, Sendable {
    public var isImmediate: Bool
    public var powerCondition: UInt8
    public var noFlush: Bool
    public var loadEject: Bool
    public var start: Bool
}

/// The fields of SANITIZE of SBC-3.
public struct Sanitize: Hashable, Sendable {
    /// What is done to all of the medium.
    public enum ServiceAction: UInt8, Sendable {
        case overwrite = 0x01
        case blockErase = 0x02
        case cryptographicErase = 0x03
        /// Leaves the state in which a failed operation keeps the unit.
        case exitFailureMode = 0x1F
    }

    public var serviceAction: ServiceAction
    /// IMMED: the answer comes when the operation has begun.
    public var isImmediate: Bool
    /// AUSE: a failure may be left by `exitFailureMode`, else by another SANITIZE that succeeds only.
    public var allowsUnrestrictedExit: Bool
    public var parameterListByteCount: UInt16

    public init(
        serviceAction: ServiceAction, isImmediate: Bool = false, allowsUnrestrictedExit: Bool = false, parameterListByteCount: UInt16 = 0
    ) {
        self.serviceAction = serviceAction
        self.isImmediate = isImmediate
        self.allowsUnrestrictedExit = allowsUnrestrictedExit
        self.parameterListByteCount = parameterListByteCount
    }
}

/// The fields of READ DEFECT DATA (10) and (12) of SBC-3.
public struct ReadDefectData: Hashable, Sendable {
    public var isTwelveByte: Bool
    /// REQ_PLIST and REQ_GLIST, as their two bits.
    public var lists: UInt8
    /// DEFECT LIST FORMAT.
    public var format: UInt8
    public var allocationByteCount: UInt32
}

/// The fields of REPORT SUPPORTED OPERATION CODES (SPC-4, 6.35).
public struct ReportSupportedOperationCodes: Hashable, Sendable {
    /// REPORTING OPTIONS.
    public enum Options: UInt8, Sendable {
        case all = 0
        case operationCode = 1
        case serviceAction = 2
        case operationCodeAndServiceAction = 3
    }

    public var options: Options
    public var withTimeouts: Bool
    public var operationCode: UInt8
    public var serviceAction: UInt16
    public var allocationByteCount: UInt32
}

/// Service actions of PERSISTENT RESERVE IN (SPC-4, 6.15.1).
public enum PersistentReserveIn: UInt8, Sendable {
    case readKeys = 0
    case readReservation = 1
    case reportCapabilities = 2
    case readFullStatus = 3
}

/// The fields of PERSISTENT RESERVE OUT (SPC-4, 6.16.1).
public struct PersistentReserveOut: Hashable, Sendable {
    /// What is asked for.
    public enum ServiceAction: UInt8, Sendable {
        case register = 0
        case reserve = 1
        case release = 2
        case clear = 3
        case preempt = 4
        case preemptAndAbort = 5
        case registerAndIgnoreExistingKey = 6
        case registerAndMove = 7
    }

    public var serviceAction: ServiceAction
    /// SCOPE; only zero, the logical unit, is a scope.
    public var scope: UInt8
    /// TYPE as it came; actions that use no type ignore it.
    public var type: UInt8
    public var parameterListByteCount: UInt32

    public init(serviceAction: ServiceAction, scope: UInt8 = 0, type: UInt8 = 0, parameterListByteCount: UInt32 = 24) {
        self.serviceAction = serviceAction
        self.scope = scope
        self.type = type
        self.parameterListByteCount = parameterListByteCount
    }
}
