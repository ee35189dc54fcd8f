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
            .reportSupportedOperationCodes, .reportTargetPortGroups, .persistentReserveIn, .persistentReserveOut,
            .reserve6, .release6:
            // RESERVE, RELEASE and PERSISTENT RESERVE OUT decide for themselves.
            .always
        case .read, .verify, .prefetch, .getLBAStatus, .modeSense: .read
        case .startStopUnit(let request): request.start && request.powerCondition == 0 ? .always : .write
        case .preventAllowMediumRemoval(let prevent): prevent ? .write : .always
        case .write, .writeAndVerify, .compareAndWrite, .orWrite, .synchronizeCache, .unmap, .writeSame, .modeSelect: .write
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

    /// True when the command would change what the medium holds.
    public var isWrite: Bool {
        switch self {
        case .write, .writeAndVerify, .compareAndWrite, .orWrite, .unmap, .writeSame: true
        default: false
        }
    }
}
