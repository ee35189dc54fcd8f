/// What a command does to a unit that somebody else has reserved (SPC-4, 5.13.1; SBC-3, Reservations).
public enum ReservationAccess: Sendable {
    /// Allowed whoever holds what.
    case always
    /// Allowed where a reservation excludes writers only.
    case read
    /// Allowed to holders, and to registrants where the type admits them.
    case write
}

extension SCSICommand {
    /// The class of the command under a persistent reservation.
    public var persistentReservationAccess: ReservationAccess {
        switch self {
        case .testUnitReady, .inquiry, .reportLUNs, .requestSense, .readCapacity10, .readCapacity16,
            .reportSupportedOperationCodes, .reportSupportedTaskManagementFunctions, .reportTargetPortGroups, .persistentReserveIn,
            .persistentReserveOut,
            .reserve6, .release6:
            // RESERVE, RELEASE and PERSISTENT RESERVE OUT decide for themselves.
            .always
        case .read, .verify, .prefetch, .getLBAStatus, .readDefectData, .modeSense: .read
        case .startStopUnit(let request): request.start && request.powerCondition == 0 ? .always : .write
        case .preventAllowMediumRemoval(let prevent): prevent ? .write : .always
        case .write, .writeAtomic, .writeAndVerify, .compareAndWrite, .orWrite, .synchronizeCache, .unmap, .writeSame,
            .sanitize, .formatUnit, .sendDiagnostic, .modeSelect, .extendedCopy, .receiveCopyResults:
            .write
        }
    }

    /// True when the command is carried out although another initiator holds the unit by RESERVE (6) (SPC-2, Reservations).
    public var passesLegacyReservation: Bool {
        switch self {
        case .inquiry, .reportLUNs, .requestSense, .release6, .reportTargetPortGroups, .preventAllowMediumRemoval(prevent: false):
            true
        default: false
        }
    }

    /// True when a pending unit attention does not keep the command from being carried out (SAM-5, 5.14).
    public var passesUnitAttention: Bool {
        switch self {
        case .inquiry, .reportLUNs, .requestSense: true
        default: false
        }
    }

    /// True when the command is about the unit and not about what its medium holds: it is answered while the medium is out.
    public var needsNoMedium: Bool {
        switch self {
        case .inquiry, .reportLUNs, .requestSense, .reportSupportedOperationCodes, .reportSupportedTaskManagementFunctions,
            .reportTargetPortGroups, .persistentReserveIn, .persistentReserveOut, .reserve6, .release6, .modeSense, .modeSelect,
            .startStopUnit, .preventAllowMediumRemoval, .sendDiagnostic:
            true
        default: false
        }
    }

    /// True when the command is answered while a SANITIZE or a FORMAT UNIT is under way (SBC-3, sanitize operations).
    public var passesBackgroundOperation: Bool {
        switch self {
        case .inquiry, .reportLUNs, .requestSense, .reportSupportedOperationCodes, .reportSupportedTaskManagementFunctions,
            .reportTargetPortGroups:
            true
        default: false
        }
    }

    /// True when the command would change what the medium holds.
    public var isWrite: Bool {
        switch self {
        case .write, .writeAtomic, .writeAndVerify, .compareAndWrite, .orWrite, .unmap, .writeSame, .formatUnit: true
        case .sanitize(let request): request.serviceAction != .exitFailureMode
        default: false
        }
    }
}
