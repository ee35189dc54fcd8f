// PREEMPT and PREEMPT AND ABORT (SPC-4, 5.13.11.4 and 5.13.11.5).
//
//   reservation          victim's key                    what happens
//   none                 zero                            INVALID FIELD IN PARAMETER LIST
//   none                 any other                       the registrations with that key go
//   all registrants      zero                            all other registrations go, the reservation is ours
//   all registrants      any other                       the registrations with that key go
//   one holder           the holder's                    the registrations with that key go, the reservation is ours
//   one holder           zero                            INVALID FIELD IN PARAMETER LIST
//   one holder           any other                       the registrations with that key go
//
// Where the reservation is taken the sender's own registration stays whatever its key; where only registrations go, the
// sender's goes too if the key is its own.

extension PersistentReservations {
    mutating func preempt(_ command: PersistentReserveOut, victimKey: UInt64, _ registrant: Registrant)
        throws(Refusal) -> Effects
    {
        let takesReservation =
            switch reservation?.holder {
            case let holder?: key(of: holder) == victimKey
            case nil: reservation != nil && victimKey == 0
            }
        if victimKey == 0 && !takesReservation { throw .sense(.invalidFieldInParameterList(byte: 8)) }
        guard victimKey == 0 || registrations.contains(where: { $0.key == victimKey }) else { throw .conflict }
        // TYPE and SCOPE count only when there is a reservation to take.
        let newType = takesReservation ? try type(of: command) : nil

        let victims = registrations.filter {
            (victimKey == 0 || $0.key == victimKey) && !(takesReservation && $0.registrant == registrant)
        }.map(\.registrant)
        registrations.removeAll { victims.contains($0.registrant) }
        var effects = Effects()
        effects.aborted = victims
        effects.attentions = victims.filter { $0 != registrant }.map { .init(registrant: $0, code: .registrationsPreempted) }
        if let newType {
            if reservation?.type != newType {
                effects.attentions += attention(.reservationsReleased, except: [registrant]).attentions
            }
            reservation = Reservation(type: newType, holder: registrant)
        } else if registrations.isEmpty {
            // The last of all registrants has gone; a single holder is never among these victims.
            reservation = nil
        }
        generation &+= 1
        return effects
    }
}
