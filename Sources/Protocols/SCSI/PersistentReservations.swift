// Persistent reservations of one logical unit (SPC-4, 5.13).
//
//                     REGISTER key                 RESERVE type
//   not registered ----------------> registered ----------------> holder
//         ^                           |   ^                          |
//         |  REGISTER 0, CLEAR,       |   |  RELEASE, PREEMPT by     |
//         |  PREEMPT by another       |   |  another with my key     |
//         +---------------------------+   +--------------------------+
//
// A registrant is an initiator port at a target port, known by name, so a registration outlives its session. With an "all
// registrants" type every registrant is a holder, and the reservation goes when the last of them does. Nothing here
// survives a restart of the process (PTPL_C is clear); an initiator that asks for that is refused.

/// An initiator port at a target port: what a registration belongs to.
public struct Registrant: Hashable, Sendable {
    /// The name of the initiator port: in iSCSI, `<initiator name>,i,0x<ISID>` (RFC 7143, 3.4.2).
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

/// The parameter list of PERSISTENT RESERVE OUT (SPC-4, 6.16.3).
public struct PersistentReserveParameters: Hashable, Sendable {
    /// The bytes of a list without transport identifiers.
    public static let byteCount = 24

    public var key: UInt64
    public var serviceActionKey: UInt64

    public init(key: UInt64, serviceActionKey: UInt64) {
        self.key = key
        self.serviceActionKey = serviceActionKey
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

    /// A registration.
    public struct Registration: Hashable, Sendable {
        public let registrant: Registrant
        public var key: UInt64
    }

    /// A reservation; `holder` is nil for the types that all registrants hold.
    public struct Reservation: Hashable, Sendable {
        public let type: ReservationType
        public let holder: Registrant?
    }

    /// PRGENERATION: grows with every change of the registrations.
    public private(set) var generation: UInt32 = 0
    public private(set) var registrations: [Registration] = []
    public private(set) var reservation: Reservation?

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
        if isHolder(registrant) { return false }
        if reservation.type.admitsRegistrants && key(of: registrant) != nil { return false }
        return access == .write || !reservation.type.admitsReads
    }

    /// Carries out PERSISTENT RESERVE OUT.
    public mutating func perform(
        _ command: PersistentReserveOut, _ parameters: PersistentReserveParameters, by registrant: Registrant
    ) throws(Refusal) -> Effects {
        switch command.serviceAction {
        case .register:
            let expected = key(of: registrant) ?? 0
            guard parameters.key == expected else { throw .conflict }
            return try register(parameters.serviceActionKey, registrant)
        case .registerAndIgnoreExistingKey: return try register(parameters.serviceActionKey, registrant)
        case .reserve, .release, .clear, .preempt, .preemptAndAbort:
            guard let key = key(of: registrant), key == parameters.key else { throw .conflict }
        }
        switch command.serviceAction {
        case .reserve: return try reserve(try type(of: command), registrant)
        case .release: return try release(try type(of: command), registrant)
        case .clear: return clear(registrant)
        case .preempt, .preemptAndAbort:
            var effects = try preempt(command, victimKey: parameters.serviceActionKey, registrant)
            if command.serviceAction == .preempt { effects.aborted = [] }
            return effects
        case .register, .registerAndIgnoreExistingKey: return Effects()
        }
    }

    private func type(of command: PersistentReserveOut) throws(Refusal) -> ReservationType {
        guard command.scope == 0 else { throw .sense(.invalidFieldInCDB(byte: 2, bit: 7)) }
        guard let type = ReservationType(rawValue: command.type) else { throw .sense(.invalidFieldInCDB(byte: 2, bit: 3)) }
        return type
    }

    private mutating func register(_ key: UInt64, _ registrant: Registrant) throws(Refusal) -> Effects {
        let index = registrations.firstIndex { $0.registrant == registrant }
        switch (index, key) {
        case (nil, 0): return Effects()
        case (let index?, 0):
            let effects = remove(at: index)
            generation &+= 1
            return effects
        case (let index?, _): registrations[index].key = key
        case (nil, _):
            guard registrations.count < Self.maximumRegistrations else {
                throw .sense(SenseData(.illegalRequest, .insufficientRegistrationResources))
            }
            registrations.append(Registration(registrant: registrant, key: key))
        }
        generation &+= 1
        return Effects()
    }

    /// Unregisters, and releases what only this registrant held (SPC-4, 5.13.11.3).
    private mutating func remove(at index: Int) -> Effects {
        let registrant = registrations[index].registrant
        let held = isHolder(registrant)
        registrations.remove(at: index)
        guard held, let reservation else { return Effects() }
        if reservation.type.isAllRegistrants {
            if registrations.isEmpty { self.reservation = nil }
            return Effects()
        }
        self.reservation = nil
        return reservation.type.admitsRegistrants ? attention(.reservationsReleased, except: registrant) : Effects()
    }

    private mutating func reserve(_ type: ReservationType, _ registrant: Registrant) throws(Refusal) -> Effects {
        if let reservation {
            guard isHolder(registrant), reservation.type == type else { throw .conflict }
            return Effects()
        }
        reservation = Reservation(type: type, holder: type.isAllRegistrants ? nil : registrant)
        return Effects()
    }

    private mutating func release(_ type: ReservationType, _ registrant: Registrant) throws(Refusal) -> Effects {
        guard let reservation, isHolder(registrant) else { return Effects() }
        guard reservation.type == type else {
            throw .sense(SenseData(.illegalRequest, .invalidReleaseOfPersistentReservation))
        }
        self.reservation = nil
        return type.admitsRegistrants ? attention(.reservationsReleased, except: registrant) : Effects()
    }

    private mutating func clear(_ registrant: Registrant) -> Effects {
        let effects = attention(.reservationsPreempted, except: registrant)
        registrations = []
        reservation = nil
        generation &+= 1
        return effects
    }

    /// PREEMPT (SPC-4, 5.13.11.4): registrations with the victim's key go; a reservation that such a registration holds
    /// becomes ours.
    private mutating func preempt(_ command: PersistentReserveOut, victimKey: UInt64, _ registrant: Registrant)
        throws(Refusal) -> Effects
    {
        let takesReservation: Bool
        if let reservation {
            takesReservation = reservation.holder.map { key(of: $0) == victimKey } ?? (victimKey == 0)
        } else {
            takesReservation = false
        }
        if victimKey == 0 && !takesReservation { throw .sense(.invalidFieldInParameterList(byte: 8)) }
        let newType = takesReservation ? try type(of: command) : nil
        let isEveryone = takesReservation && victimKey == 0
        guard isEveryone || registrations.contains(where: { $0.key == victimKey }) else { throw .conflict }

        let victims = registrations.filter { $0.registrant != registrant && (isEveryone || $0.key == victimKey) }
        registrations.removeAll { victims.contains($0) }
        var effects = Effects()
        effects.aborted = victims.map(\.registrant)
        effects.attentions = victims.map { .init(registrant: $0.registrant, code: .registrationsPreempted) }
        if let newType {
            if let old = reservation, old.type != newType {
                effects.attentions += attention(.reservationsReleased, except: registrant).attentions
            }
            reservation = Reservation(type: newType, holder: newType.isAllRegistrants ? nil : registrant)
        }
        generation &+= 1
        return effects
    }

    /// The same attention for every registrant but one.
    private func attention(_ code: AdditionalSenseCode, except registrant: Registrant) -> Effects {
        var effects = Effects()
        for other in registrations where other.registrant != registrant {
            effects.attentions.append(.init(registrant: other.registrant, code: code))
        }
        return effects
    }
}
