// Persistent reservations of one logical unit (SPC-4, 5.13).
//
//                     REGISTER key                 RESERVE type
//   not registered ----------------> registered ----------------> holder
//         ^                           |   ^                          |
//         |  REGISTER 0, CLEAR,       |   |  RELEASE, PREEMPT by     |
//         |  PREEMPT by another       |   |  another with my key,    |
//         |                           |   |  REGISTER AND MOVE       |
//         +---------------------------+   +--------------------------+
//
// A registrant is an initiator port at a target port, known by name, so a registration outlives its session. With an "all
// registrants" type every registrant is a holder, and the reservation goes when the last of them does.
//
// A command is carried out on a copy of the state; the owner takes the copy over when it has been made durable, if APTPL asks
// for that, and does what the effects say. So a command that fails changes nothing.

/// An initiator port at a target port: what a registration belongs to.
public struct Registrant: Hashable, Sendable {
    /// The name of the initiator port, as `InitiatorPort.name` makes it.
    public var initiatorPortName: String
    public var relativeTargetPort: UInt16

    public init(initiatorPortName: String, relativeTargetPort: UInt16 = 1) {
        self.initiatorPortName = initiatorPortName
        self.relativeTargetPort = relativeTargetPort
    }
}

/// TYPE of a persistent reservation (SPC-4, 6.15.3.4).
public enum ReservationType: UInt8, Sendable, CaseIterable {
    case writeExclusive = 1
    case exclusiveAccess = 3
    case writeExclusiveRegistrantsOnly = 5
    case exclusiveAccessRegistrantsOnly = 6
    case writeExclusiveAllRegistrants = 7
    case exclusiveAccessAllRegistrants = 8

    /// Every registrant holds the reservation.
    public var isAllRegistrants: Bool { self == .writeExclusiveAllRegistrants || self == .exclusiveAccessAllRegistrants }
    /// Registrants that do not hold the reservation have access nevertheless.
    public var admitsRegistrants: Bool { self != .writeExclusive && self != .exclusiveAccess }
    /// Whoever is shut out may still read.
    public var admitsReads: Bool {
        self == .writeExclusive || self == .writeExclusiveRegistrantsOnly || self == .writeExclusiveAllRegistrants
    }
}

/// Who is registered with a logical unit and who has it reserved.
public struct PersistentReservations: Sendable {
    /// The most registrations; one more is refused with INSUFFICIENT REGISTRATION RESOURCES.
    public static let maximumRegistrations = 256

    /// Why a command was refused.
    public enum Refusal: Error, Hashable, Sendable {
        case conflict
        case sense(SenseData)
    }

    /// What the unit must do when a command has been carried out.
    public struct Effects: Hashable, Sendable {
        /// Unit attentions to establish.
        public var attentions: [Attention] = []
        /// Registrants whose tasks are to be aborted (PREEMPT AND ABORT).
        public var aborted: [Registrant] = []

        public struct Attention: Hashable, Sendable {
            public let registrant: Registrant
            public let code: AdditionalSenseCode
        }
    }

    /// What a command must know of the target around it.
    public struct Surroundings: Sendable {
        /// The relative identifiers of the target ports, for ALL_TG_PT and REGISTER AND MOVE.
        public var targetPorts: [UInt16]
        /// The names of the initiator ports that have sessions, for TransportIDs that mean every port of an initiator.
        public var initiatorPorts: [String]
        /// Whether there is a place to keep the state, without which APTPL is refused.
        public var canPersist: Bool

        public init(targetPorts: [UInt16] = [1], initiatorPorts: [String] = [], canPersist: Bool = false) {
            self.targetPorts = targetPorts
            self.initiatorPorts = initiatorPorts
            self.canPersist = canPersist
        }
    }

    /// A registration.
    public struct Registration: Hashable, Sendable {
        public let registrant: Registrant
        public var key: UInt64
    }

    /// A reservation; `holder` is nil for the types that all registrants hold.
    public struct Reservation: Hashable, Sendable {
        public let type: ReservationType
        public let holder: Registrant?

        init(type: ReservationType, holder: Registrant) {
            self.type = type
            self.holder = type.isAllRegistrants ? nil : holder
        }
    }

    /// PRGENERATION: grows with every change of the registrations, and starts at zero when the power comes.
    public internal(set) var generation: UInt32 = 0
    public internal(set) var registrations: [Registration] = []
    public internal(set) var reservation: Reservation?
    /// The APTPL bit of the last command that had one: what is here is to survive a loss of power.
    public internal(set) var isPersistent = false

    public init() {}

    /// The key of a registrant.
    public func key(of registrant: Registrant) -> UInt64? {
        registrations.first { $0.registrant == registrant }?.key
    }

    /// True when the registrant holds the reservation.
    public func isHolder(_ registrant: Registrant) -> Bool {
        guard let reservation else { return false }
        return reservation.holder == nil ? key(of: registrant) != nil : reservation.holder == registrant
    }

    /// True when a command of this class must end with RESERVATION CONFLICT (SPC-4, 5.13.1; SBC-3, Reservations).
    public func conflicts(_ access: ReservationAccess, by registrant: Registrant) -> Bool {
        guard let reservation, access != .always else { return false }
        if access == .read && reservation.type.admitsReads { return false }
        return !hasFullAccess(registrant)
    }

    /// True when the reservation, if there is one, shuts this registrant out of nothing.
    public func hasFullAccess(_ registrant: Registrant) -> Bool {
        guard let reservation else { return true }
        return isHolder(registrant) || (reservation.type.admitsRegistrants && key(of: registrant) != nil)
    }

    /// What RESERVE (6) and RELEASE (6) come to (SPC-4, 5.13.3): CRH says that we follow its exceptions to SPC-2.
    public enum CompatibleHandling: Sendable {
        /// Nobody is registered: as in SPC-2.
        case legacy
        /// GOOD, and nothing changes: who already has the access that it asks for.
        case nothing
        /// RESERVATION CONFLICT.
        case conflict
    }

    /// How a RESERVE (6) or RELEASE (6) of this registrant is to be handled.
    public func compatibleHandling(of registrant: Registrant) -> CompatibleHandling {
        if registrations.isEmpty { return .legacy }
        return reservation != nil && hasFullAccess(registrant) ? .nothing : .conflict
    }

    /// True when the other state would be kept in the same bytes, or none of both is kept.
    public func isKeptAs(_ other: Self) -> Bool {
        if !isPersistent && !other.isPersistent { return true }
        return isPersistent == other.isPersistent && registrations == other.registrations && reservation == other.reservation
    }

    /// Carries out PERSISTENT RESERVE OUT. When it throws, nothing has changed.
    public mutating func perform(
        _ command: PersistentReserveOut, _ parameters: PersistentReserveParameters, by registrant: Registrant,
        in surroundings: Surroundings = Surroundings()
    ) throws(Refusal) -> Effects {
        switch command.serviceAction {
        case .register, .registerAndIgnoreExistingKey:
            return try register(command.serviceAction, parameters, registrant, surroundings)
        case .reserve, .release, .clear, .preempt, .preemptAndAbort, .registerAndMove: break
        }
        guard key(of: registrant) == parameters.key else { throw .conflict }
        switch command.serviceAction {
        case .reserve: return try reserve(try type(of: command), registrant)
        case .release: return try release(try type(of: command), registrant)
        case .clear: return clear(registrant)
        case .preempt, .preemptAndAbort:
            var effects = try preempt(command, victimKey: parameters.serviceActionKey, registrant)
            if command.serviceAction == .preempt { effects.aborted = [] }
            return effects
        case .registerAndMove: return try move(parameters, registrant, surroundings)
        case .register, .registerAndIgnoreExistingKey: return Effects()
        }
    }

    func type(of command: PersistentReserveOut) throws(Refusal) -> ReservationType {
        guard command.scope == 0 else { throw .sense(.invalidFieldInCDB(byte: 2, bit: 7)) }
        guard let type = ReservationType(rawValue: command.type) else { throw .sense(.invalidFieldInCDB(byte: 2, bit: 3)) }
        return type
    }

    /// RESERVE (SPC-4, 5.13.9).
    private mutating func reserve(_ type: ReservationType, _ registrant: Registrant) throws(Refusal) -> Effects {
        if let reservation {
            guard isHolder(registrant), reservation.type == type else { throw .conflict }
            return Effects()
        }
        reservation = Reservation(type: type, holder: registrant)
        return Effects()
    }

    /// RELEASE (SPC-4, 5.13.11.2). Who is registered and holds nothing is told GOOD.
    private mutating func release(_ type: ReservationType, _ registrant: Registrant) throws(Refusal) -> Effects {
        guard let reservation, isHolder(registrant) else { return Effects() }
        guard reservation.type == type else {
            throw .sense(SenseData(.illegalRequest, .invalidReleaseOfPersistentReservation))
        }
        self.reservation = nil
        return type.admitsRegistrants ? attention(.reservationsReleased, except: [registrant]) : Effects()
    }

    /// CLEAR (SPC-4, 5.13.11.6).
    private mutating func clear(_ registrant: Registrant) -> Effects {
        let effects = attention(.reservationsPreempted, except: [registrant])
        registrations = []
        reservation = nil
        generation &+= 1
        return effects
    }

    /// The same attention for every registrant but some.
    func attention(_ code: AdditionalSenseCode, except registrants: [Registrant]) -> Effects {
        var effects = Effects()
        for other in registrations where !registrants.contains(other.registrant) {
            effects.attentions.append(.init(registrant: other.registrant, code: code))
        }
        return effects
    }
}
