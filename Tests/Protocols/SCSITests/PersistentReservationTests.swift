import NIOCore
import Testing

@testable import SCSI

@Suite("Persistent reservations")
struct PersistentReservationTests {
    let one = Registrant(initiatorPortName: "iqn.a,i,0x1")
    let two = Registrant(initiatorPortName: "iqn.b,i,0x2")
    let three = Registrant(initiatorPortName: "iqn.c,i,0x3")

    typealias Action = PersistentReserveOut.ServiceAction

    @discardableResult
    func out(
        _ state: inout PersistentReservations, _ action: Action, key: UInt64, _ actionKey: UInt64 = 0,
        type: ReservationType = .writeExclusive,
        by registrant: Registrant
    ) throws(PersistentReservations.Refusal) -> PersistentReservations.Effects {
        try state.perform(
            PersistentReserveOut(serviceAction: action, type: type.rawValue),
            PersistentReserveParameters(key: key, serviceActionKey: actionKey), by: registrant)
    }

    /// Three registrants with the keys 1, 2 and 3.
    func registered() throws -> PersistentReservations {
        var state = PersistentReservations()
        for (registrant, key) in [(one, UInt64(1)), (two, 2), (three, 3)] {
            try out(&state, .register, key: 0, key, by: registrant)
        }
        return state
    }

    @Test("Registering, changing the key, unregistering")
    func registering() throws {
        var state = try registered()
        #expect(state.generation == 3)
        #expect(throws: PersistentReservations.Refusal.conflict) { try out(&state, .register, key: 9, 5, by: one) }
        try out(&state, .register, key: 1, 5, by: one)
        #expect(state.key(of: one) == 5)
        try out(&state, .registerAndIgnoreExistingKey, key: 77, 6, by: one)
        #expect(state.key(of: one) == 6)
        try out(&state, .register, key: 6, 0, by: one)
        #expect(state.key(of: one) == nil && state.generation == 6)
    }

    @Test("Registrations are bounded")
    func bound() throws {
        var state = PersistentReservations()
        for index in 0..<PersistentReservations.maximumRegistrations {
            try out(&state, .register, key: 0, 1, by: Registrant(initiatorPortName: "i\(index)"))
        }
        let refusal = PersistentReservations.Refusal.sense(SenseData(.illegalRequest, .insufficientRegistrationResources))
        #expect(throws: refusal) { try out(&state, .register, key: 0, 1, by: one) }
    }

    @Test("Who may do what under each type", arguments: ReservationType.allCases)
    func access(type: ReservationType) throws {
        var state = try registered()
        try out(&state, .register, key: 3, 0, by: three)
        try out(&state, .reserve, key: 1, type: type, by: one)
        #expect(state.isHolder(one) && state.isHolder(two) == type.isAllRegistrants)
        for access in [ReservationAccess.read, .write] {
            #expect(!state.conflicts(access, by: one))
            #expect(state.conflicts(access, by: two) == !(type.admitsRegistrants || (access == .read && type.admitsReads)))
            #expect(state.conflicts(access, by: three) == !(access == .read && type.admitsReads))
        }
        #expect(!state.conflicts(.always, by: three))
        #expect(throws: PersistentReservations.Refusal.conflict) { try out(&state, .reserve, key: 3, type: type, by: three) }
    }

    @Test("Reserving again, releasing with the wrong type, releasing")
    func releasing() throws {
        var state = try registered()
        try out(&state, .reserve, key: 1, type: .writeExclusiveRegistrantsOnly, by: one)
        try out(&state, .reserve, key: 1, type: .writeExclusiveRegistrantsOnly, by: one)
        #expect(throws: PersistentReservations.Refusal.conflict) { try out(&state, .reserve, key: 1, by: one) }
        let refusal = PersistentReservations.Refusal.sense(SenseData(.illegalRequest, .invalidReleaseOfPersistentReservation))
        #expect(throws: refusal) { try out(&state, .release, key: 1, by: one) }
        try out(&state, .release, key: 2, by: two)
        #expect(state.reservation != nil)
        let effects = try out(&state, .release, key: 1, type: .writeExclusiveRegistrantsOnly, by: one)
        #expect(state.reservation == nil)
        #expect(effects.attentions.map(\.registrant) == [two, three])
        #expect(effects.attentions.allSatisfy { $0.code == .reservationsReleased })
    }

    @Test("A reservation goes with its holder, or with the last of all registrants")
    func unregisteringHolder() throws {
        var state = try registered()
        try out(&state, .reserve, key: 1, by: one)
        try out(&state, .register, key: 1, 0, by: one)
        #expect(state.reservation == nil)
        try out(&state, .reserve, key: 2, type: .exclusiveAccessAllRegistrants, by: two)
        try out(&state, .register, key: 2, 0, by: two)
        #expect(state.reservation != nil)
        try out(&state, .register, key: 3, 0, by: three)
        #expect(state.reservation == nil)
    }

    @Test("CLEAR tells the others")
    func clearing() throws {
        var state = try registered()
        try out(&state, .reserve, key: 1, by: one)
        #expect(throws: PersistentReservations.Refusal.conflict) { try out(&state, .clear, key: 1, by: two) }
        let effects = try out(&state, .clear, key: 2, by: two)
        #expect(state.registrations.isEmpty && state.reservation == nil)
        #expect(Set(effects.attentions.map(\.registrant)) == [one, three])
    }

    @Test("PREEMPT removes a registration, takes a reservation, and needs a victim")
    func preempting() throws {
        var state = try registered()
        try out(&state, .reserve, key: 1, by: one)
        let removal = try out(&state, .preempt, key: 2, 3, by: two)
        #expect(state.key(of: three) == nil && state.isHolder(one) && removal.aborted.isEmpty)
        #expect(removal.attentions == [.init(registrant: three, code: .registrationsPreempted)])
        #expect(throws: PersistentReservations.Refusal.conflict) { try out(&state, .preempt, key: 2, 3, by: two) }
        let refusal = PersistentReservations.Refusal.sense(.invalidFieldInParameterList(byte: 8))
        #expect(throws: refusal) { try out(&state, .preempt, key: 2, 0, by: two) }
        let taking = try out(&state, .preemptAndAbort, key: 2, 1, type: .exclusiveAccess, by: two)
        #expect(state.isHolder(two) && state.key(of: one) == nil && state.reservation?.type == .exclusiveAccess)
        #expect(taking.aborted == [one])
    }

    @Test("PREEMPT with key zero under an all registrants type removes everybody else")
    func preemptingAll() throws {
        var state = try registered()
        try out(&state, .reserve, key: 1, type: .writeExclusiveAllRegistrants, by: one)
        try out(&state, .preempt, key: 2, 0, type: .writeExclusive, by: two)
        #expect(state.registrations.map(\.registrant) == [two])
        #expect(state.isHolder(two) && state.reservation?.type == .writeExclusive)
    }

    @Test("PREEMPT of one's own key: a holder stays, a mere registrant goes with the others")
    func preemptingOneself() throws {
        var state = try registered()
        try out(&state, .reserve, key: 1, by: one)
        try out(&state, .preempt, key: 1, 1, type: .exclusiveAccess, by: one)
        #expect(state.isHolder(one) && state.reservation?.type == .exclusiveAccess && state.registrations.count == 3)
        let effects = try out(&state, .preemptAndAbort, key: 2, 2, by: two)
        #expect(state.key(of: two) == nil && state.isHolder(one))
        #expect(effects.attentions.isEmpty && effects.aborted == [two])
    }

    @Test("PREEMPT of the last of all registrants releases; a new type is told to those who stay")
    func preemptingTheLast() throws {
        var state = try registered()
        try out(&state, .reserve, key: 1, type: .exclusiveAccessAllRegistrants, by: one)
        try out(&state, .preempt, key: 1, 2, by: one)
        try out(&state, .preempt, key: 1, 3, by: one)
        #expect(state.isHolder(one))
        try out(&state, .preempt, key: 1, 1, by: one)
        #expect(state.registrations.isEmpty && state.reservation == nil)

        state = try registered()
        try out(&state, .reserve, key: 1, type: .writeExclusiveRegistrantsOnly, by: one)
        let effects = try out(&state, .preempt, key: 2, 1, type: .exclusiveAccessRegistrantsOnly, by: two)
        #expect(
            effects.attentions == [
                .init(registrant: one, code: .registrationsPreempted), .init(registrant: three, code: .reservationsReleased),
            ])
    }

    @Test("Releases and unregistrations tell the others only where others had access", arguments: ReservationType.allCases)
    func releaseAttentions(type: ReservationType) throws {
        var state = try registered()
        try out(&state, .reserve, key: 1, type: type, by: one)
        let released = try out(&state, .release, key: 1, type: type, by: one)
        #expect(released.attentions.map(\.registrant) == (type.admitsRegistrants ? [two, three] : []))
        try out(&state, .reserve, key: 1, type: type, by: one)
        let gone = try out(&state, .register, key: 1, 0, by: one)
        let isToldAtOnce = type.admitsRegistrants && !type.isAllRegistrants
        #expect(gone.attentions.map(\.registrant) == (isToldAtOnce ? [two, three] : []))
        #expect((state.reservation != nil) == type.isAllRegistrants)
    }

    @Test("RESERVE (6) and RELEASE (6) beside registrations, as CRH says")
    func compatibleHandling() throws {
        var state = PersistentReservations()
        #expect(state.compatibleHandling(of: one) == .legacy)
        state = try registered()
        #expect(state.compatibleHandling(of: one) == .conflict)
        try out(&state, .reserve, key: 1, by: one)
        #expect(state.compatibleHandling(of: one) == .nothing && state.compatibleHandling(of: two) == .conflict)
        try out(&state, .preempt, key: 1, 1, type: .writeExclusiveRegistrantsOnly, by: one)
        #expect(state.compatibleHandling(of: two) == .nothing)
        #expect(state.compatibleHandling(of: Registrant(initiatorPortName: "iqn.d,i,0x4")) == .conflict)
    }

    @Test("Scope and type are checked")
    func fields() throws {
        var state = try registered()
        let parameters = PersistentReserveParameters(key: 1, serviceActionKey: 0)
        #expect(throws: PersistentReservations.Refusal.sense(.invalidFieldInCDB(byte: 2, bit: 3))) {
            try state.perform(PersistentReserveOut(serviceAction: .reserve, type: 2), parameters, by: one)
        }
        #expect(throws: PersistentReservations.Refusal.sense(.invalidFieldInCDB(byte: 2, bit: 7))) {
            try state.perform(PersistentReserveOut(serviceAction: .reserve, scope: 1, type: 1), parameters, by: one)
        }
    }

    @Test("What PERSISTENT RESERVE IN answers")
    func reports() throws {
        var state = try registered()
        #expect(state.report(.readKeys).readableBytes == 8 + 24)
        #expect(state.report(.readReservation).readableBytes == 8)
        try out(&state, .reserve, key: 2, type: .exclusiveAccess, by: two)
        let reservation = state.report(.readReservation)
        #expect(reservation.getInteger(at: 8, as: UInt64.self) == 2 && reservation.getInteger(at: 21, as: UInt8.self) == 3)
        #expect(state.report(.reportCapabilities) == ByteBuffer(bytes: [0, 8, 0x1C, 0x80, 0xEA, 1, 0, 0]))
        #expect(state.report(.reportCapabilities, canPersist: true) == ByteBuffer(bytes: [0, 8, 0x1D, 0x80, 0xEA, 1, 0, 0]))
        let full = state.report(.readFullStatus)
        #expect(full.getInteger(at: 4, as: UInt32.self) == UInt32(full.readableBytes - 8))
        #expect(full.getInteger(at: 8 + 24, as: UInt8.self) == 0x45)
    }
}
