/// Operation codes of the commands that a disk of ours takes (SPC-4, SBC-3).
public enum OperationCode: UInt8, Sendable, CaseIterable {
    case testUnitReady = 0x00
    case requestSense = 0x03
    case formatUnit = 0x04
    case read6 = 0x08
    case write6 = 0x0A
    case inquiry = 0x12
    case modeSelect6 = 0x15
    case reserve6 = 0x16
    case release6 = 0x17
    case modeSense6 = 0x1A
    case startStopUnit = 0x1B
    case sendDiagnostic = 0x1D
    case preventAllowMediumRemoval = 0x1E
    case readCapacity10 = 0x25
    case read10 = 0x28
    case write10 = 0x2A
    case writeAndVerify10 = 0x2E
    case verify10 = 0x2F
    case prefetch10 = 0x34
    case synchronizeCache10 = 0x35
    case readDefectData10 = 0x37
    case writeSame10 = 0x41
    case unmap = 0x42
    case sanitize = 0x48
    case modeSelect10 = 0x55
    case modeSense10 = 0x5A
    case persistentReserveIn = 0x5E
    case persistentReserveOut = 0x5F
    case extendedCopy = 0x83
    case receiveCopyResults = 0x84
    case read16 = 0x88
    case compareAndWrite = 0x89
    case write16 = 0x8A
    case orWrite16 = 0x8B
    case writeAndVerify16 = 0x8E
    case verify16 = 0x8F
    case prefetch16 = 0x90
    case synchronizeCache16 = 0x91
    case writeSame16 = 0x93
    case writeAtomic16 = 0x9C
    case serviceActionIn16 = 0x9E
    case reportLUNs = 0xA0
    case maintenanceIn = 0xA3
    case read12 = 0xA8
    case write12 = 0xAA
    case writeAndVerify12 = 0xAE
    case verify12 = 0xAF
    case readDefectData12 = 0xB7
}

/// Service actions of SERVICE ACTION IN (16) (SBC-3, 5.4 and 5.16).
enum ServiceActionIn: UInt8 {
    case readCapacity16 = 0x10
    case getLBAStatus = 0x12
}

/// Service actions of MAINTENANCE IN (SPC-4, 6.35 to 6.37).
enum MaintenanceIn: UInt8 {
    case reportTargetPortGroups = 0x0A
    case reportSupportedOperationCodes = 0x0C
    case reportSupportedTaskManagementFunctions = 0x0D
}
