// REGISTER, REGISTER AND IGNORE EXISTING KEY (SPC-4, 5.13.7) and REGISTER AND MOVE (SPC-4, 5.13.8). One command may register
// several initiator ports (SPEC_I_PT) through several target ports (ALL_TG_PT); it does all of that or nothing.

extension PersistentReservations {
    mutating func register(
        _ action: PersistentReserveOut.ServiceAction, _ parameters: PersistentReserveParameters, _ registrant: Registrant,
        _ surroundings: Surroundings
    ) throws(Refusal) -> Effects {
        if action == .register && parameters.key != key(of: registrant) ?? 0 { throw .conflict }
        try checkPersistence(parameters, surroundings, byte: 20)
        let isRegistered = key(of: registrant) != nil
        if isRegistered && parameters.initiatorPorts != nil { throw .sense(.invalidFieldInParameterList(byte: 20, bit: 3)) }
        if !isRegistered && parameters.serviceActionKey == 0 { return Effects() }

        var targetPorts = [registrant.relativeTargetPort]
        if parameters.allTargetPorts { targetPorts += surroundings.targetPorts.filter { $0 != registrant.relativeTargetPort } }
        let own = targetPorts.map {
            Registrant(initiatorPortName: registrant.initiatorPortName, relativeTargetPort: $0)
        }
        // As if the request had come through each of the ports, so the key must be right at each.
        if action == .register {
            for port in own where (key(of: port) ?? 0) != parameters.key { throw .conflict }
        }
        let effects: Effects
        if parameters.serviceActionKey == 0 {
            effects = remove(own)
        } else {
            try set(parameters.serviceActionKey, own, others(parameters, targetPorts, surroundings))
            effects = Effects()
        }
        isPersistent = parameters.activatesPersistence
        generation &+= 1
        return effects
    }

    private func checkPersistence(_ parameters: PersistentReserveParameters, _ surroundings: Surroundings, byte: Int)
        throws(Refusal)
    {
        if parameters.activatesPersistence && !surroundings.canPersist {
            throw .sense(.invalidFieldInParameterList(byte: byte, bit: 0))
        }
    }

    /// The registrants that SPEC_I_PT names. Those that are registered already keep their keys: nobody changes another's.
    private func others(_ parameters: PersistentReserveParameters, _ targetPorts: [UInt16], _ surroundings: Surroundings)
        -> [Registrant]
    {
        var names: [String] = []
        for designation in parameters.initiatorPorts ?? [] {
            switch designation {
            case .port(let name): names.append(name)
            case .everyPort(let initiator):
                names += surroundings.initiatorPorts.filter { InitiatorPort.initiatorName(ofPort: $0) == initiator }
            }
        }
        return names.flatMap { name in
            targetPorts.map { Registrant(initiatorPortName: name, relativeTargetPort: $0) }
        }
    }

    /// Gives `own` a key, and `others` the same where they have none.
    private mutating func set(_ key: UInt64, _ own: [Registrant], _ others: [Registrant]) throws(Refusal) {
        var next = registrations
        for registrant in own {
            if let index = next.firstIndex(where: { $0.registrant == registrant }) {
                next[index].key = key
            } else {
                next.append(Registration(registrant: registrant, key: key))
            }
        }
        for registrant in others where !next.contains(where: { $0.registrant == registrant }) {
            next.append(Registration(registrant: registrant, key: key))
            if next.count > Self.maximumRegistrations { break }
        }
        guard next.count <= Self.maximumRegistrations else {
            throw .sense(SenseData(.illegalRequest, .insufficientRegistrationResources))
        }
        registrations = next
    }

    /// Unregisters, and releases what only these registrants held (SPC-4, 5.13.11.3).
    private mutating func remove(_ registrants: [Registrant]) -> Effects {
        let held = reservation.flatMap { $0.holder }.map { registrants.contains($0) } ?? false
        registrations.removeAll { registrants.contains($0.registrant) }
        guard let reservation else { return Effects() }
        if reservation.type.isAllRegistrants {
            if registrations.isEmpty { self.reservation = nil }
            return Effects()
        }
        guard held else { return Effects() }
        self.reservation = nil
        return reservation.type.admitsRegistrants ? attention(.reservationsReleased, except: registrants) : Effects()
    }

    /// REGISTER AND MOVE: another initiator port is registered, and the reservation becomes its own.
    mutating func move(
        _ parameters: PersistentReserveParameters, _ registrant: Registrant, _ surroundings: Surroundings
    ) throws(Refusal) -> Effects {
        guard let move = parameters.move else { throw .sense(.parameterListLength) }
        guard let reservation else { throw .sense(.invalidFieldInCDB(byte: 1, bit: 4)) }
        if reservation.type.isAllRegistrants || !isHolder(registrant) { throw .conflict }
        try checkPersistence(parameters, surroundings, byte: 17)
        if parameters.serviceActionKey == 0 { throw .sense(.invalidFieldInParameterList(byte: 8)) }
        guard surroundings.targetPorts.contains(move.destination.relativeTargetPort) else {
            throw .sense(.invalidFieldInParameterList(byte: 18))
        }
        // Moving to oneself would be a way to change the key.
        if move.destination == registrant { throw .sense(.invalidFieldInParameterList(byte: 24)) }
        var next = registrations
        if move.unregisters { next.removeAll { $0.registrant == registrant } }
        if let index = next.firstIndex(where: { $0.registrant == move.destination }) {
            next[index].key = parameters.serviceActionKey
        } else {
            next.append(Registration(registrant: move.destination, key: parameters.serviceActionKey))
        }
        guard next.count <= Self.maximumRegistrations else {
            throw .sense(SenseData(.illegalRequest, .insufficientRegistrationResources))
        }
        registrations = next
        self.reservation = Reservation(type: reservation.type, holder: move.destination)
        isPersistent = parameters.activatesPersistence
        generation &+= 1
        return Effects()
    }
}
