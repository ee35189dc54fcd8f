import NIOCore
import Testing

@testable import SCSI

@Suite("Registering others, through other ports, and moving")
struct PersistentReservationRegisteringTests {
    let one = Registrant(initiatorPortName: InitiatorPort.name(initiatorName: "iqn.2026-01.example:a", isid: 1))
    let two = Registrant(initiatorPortName: InitiatorPort.name(initiatorName: "iqn.2026-01.example:b", isid: 2))
    let surroundings = PersistentReservations.Surroundings(targetPorts: [1, 2], canPersist: true)

    func parameters(_ key: UInt64, _ actionKey: UInt64, _ change: (inout PersistentReserveParameters) -> Void = { _ in })
        -> PersistentReserveParameters
    {
        var parameters = PersistentReserveParameters(key: key, serviceActionKey: actionKey)
        change(&parameters)
        return parameters
    }

    func list(_ key: UInt64, _ actionKey: UInt64, flags: UInt8 = 0, ports: [ByteBuffer]? = nil) -> ByteBuffer {
        var list = ByteBuffer()
        list.writeMultipleIntegers(key, actionKey, UInt32(0), flags, UInt8(0), UInt16(0))
        if let ports {
            list.writeInteger(UInt32(ports.reduce(0) { $0 + $1.readableBytes }))
            for port in ports { list.writeImmutableBuffer(port) }
        }
        return list
    }

    func parse(_ list: ByteBuffer, _ action: PersistentReserveOut.ServiceAction = .register) throws(SenseData)
        -> PersistentReserveParameters
    {
        try PersistentReserveParameters.parse(
            list, for: PersistentReserveOut(serviceAction: action, parameterListByteCount: UInt32(list.readableBytes)))
    }

    /// A TransportID of format 00b: every port of an initiator.
    func transportIdentifier(ofInitiator name: String) -> ByteBuffer {
        var text = ByteBuffer(string: name)
        text.writeRepeatingByte(0, count: 4 - text.readableBytes % 4)
        var buffer = ByteBuffer(bytes: [0x05, 0])
        buffer.writeInteger(UInt16(text.readableBytes))
        buffer.writeImmutableBuffer(text)
        return buffer
    }

    @Test("TransportIDs: both formats, in one spelling, and whatever is malformed")
    func transportIdentifiers() {
        var buffer = InitiatorPort.transportIdentifier(ofPort: one.initiatorPortName)
        #expect(buffer.readableBytes % 4 == 0)
        #expect(InitiatorPort.readTransportIdentifier(from: &buffer) == .port(one.initiatorPortName))
        #expect(buffer.readableBytes == 0)
        buffer = InitiatorPort.transportIdentifier(ofPort: "IQN.2026-01.Example:A,i,0x1")
        #expect(InitiatorPort.readTransportIdentifier(from: &buffer) == .port(one.initiatorPortName))
        buffer = transportIdentifier(ofInitiator: "IQN.2026-01.example:node")
        #expect(InitiatorPort.readTransportIdentifier(from: &buffer) == .everyPort(ofInitiator: "iqn.2026-01.example:node"))
        #expect(InitiatorPort.initiatorName(ofPort: two.initiatorPortName) == "iqn.2026-01.example:b")
        let good = InitiatorPort.transportIdentifier(ofPort: one.initiatorPortName)
        for (offset, byte) in [(0, UInt8(0x46)), (0, 0x05), (0, 0xC5), (3, 0x13), (3, 0x10), (3, 0xFC), (4, 0), (5, 0x20)] {
            var bad = good
            bad.setInteger(byte, at: offset)
            #expect(InitiatorPort.readTransportIdentifier(from: &bad) == nil, "byte \(offset)")
        }
        var endless = good
        endless.setBytes([UInt8](repeating: 0x61, count: good.readableBytes - 4), at: 4)
        #expect(InitiatorPort.readTransportIdentifier(from: &endless) == nil)
    }

    @Test("Parameter lists")
    func parameterLists() throws {
        #expect(try parse(list(0, 5)) == parameters(0, 5))
        #expect(
            try parse(list(0, 5, flags: 0x05))
                == parameters(0, 5) {
                    $0.allTargetPorts = true; $0.activatesPersistence = true
                })
        #expect(try parse(list(0, 5, flags: 0x05), .reserve) == parameters(0, 5))
        let port = InitiatorPort.transportIdentifier(ofPort: two.initiatorPortName)
        let everyPort = transportIdentifier(ofInitiator: "iqn.2026-01.example:node")
        let both = try parse(list(0, 5, flags: 0x08, ports: [port, everyPort]))
        #expect(both.initiatorPorts == [.port(two.initiatorPortName), .everyPort(ofInitiator: "iqn.2026-01.example:node")])
        #expect(throws: SenseData.parameterListLength) { try parse(list(0, 5).truncated(to: 23)) }
        #expect(throws: SenseData.parameterListLength) { try parse(list(0, 5, ports: [port])) }
        #expect(throws: SenseData.parameterListLength) { try parse(list(0, 5, flags: 0x08)) }
        #expect(throws: SenseData.invalidFieldInParameterList(byte: 20, bit: 3)) {
            try parse(list(0, 5, flags: 0x08, ports: [port]), .registerAndIgnoreExistingKey)
        }
        let cut = port.truncated(to: port.readableBytes - 4)
        #expect(throws: SenseData.invalidFieldInParameterList(byte: 28)) { try parse(list(0, 5, flags: 0x08, ports: [cut])) }
        let block = CommandDescriptorBlock([0x5F, 0, 0, 0, 0, 0, 1, 0, 0, 0])
        #expect(throws: SenseData.parameterListLength) { try block.parse().get() }
    }

    @Test("The list of REGISTER AND MOVE")
    func moveLists() throws {
        var move = ByteBuffer()
        let port = InitiatorPort.transportIdentifier(ofPort: two.initiatorPortName)
        move.writeMultipleIntegers(UInt64(1), UInt64(9), UInt8(0), UInt8(0x03), UInt16(2), UInt32(port.readableBytes))
        let head = move
        move.writeImmutableBuffer(port)
        let parsed = try parse(move, .registerAndMove)
        #expect(parsed.key == 1 && parsed.serviceActionKey == 9 && parsed.activatesPersistence)
        #expect(parsed.move?.unregisters == true)
        #expect(parsed.move?.destination == Registrant(initiatorPortName: two.initiatorPortName, relativeTargetPort: 2))
        #expect(throws: SenseData.invalidFieldInParameterList(byte: 20)) { try parse(head, .registerAndMove) }
        #expect(throws: SenseData.parameterListLength) { try parse(head.truncated(to: 22), .registerAndMove) }
        var several = head
        let everyPort = transportIdentifier(ofInitiator: "iqn.2026-01.example:node")
        several.setInteger(UInt32(everyPort.readableBytes), at: 20)
        several.writeImmutableBuffer(everyPort)
        #expect(throws: SenseData.invalidFieldInParameterList(byte: 24)) { try parse(several, .registerAndMove) }
    }

    let register = PersistentReserveOut(serviceAction: .register)

    @Test("SPEC_I_PT registers others too, and changes nobody's key")
    func specifiedPorts() throws {
        var state = PersistentReservations()
        _ = try state.perform(register, parameters(0, 7), by: two, in: surroundings)
        var around = surroundings
        around.initiatorPorts = ["iqn.n,i,0x000000000001", "iqn.n,i,0x000000000002", "iqn.nn,i,0x000000000001"]
        let everybody = parameters(0, 5) {
            $0.initiatorPorts = [.port(two.initiatorPortName), .everyPort(ofInitiator: "iqn.n")]
        }
        _ = try state.perform(register, everybody, by: one, in: around)
        #expect(state.key(of: one) == 5 && state.key(of: two) == 7 && state.generation == 2)
        #expect(state.registrations.map(\.registrant.initiatorPortName).suffix(2) == around.initiatorPorts.prefix(2))
        // Who is registered may not register others.
        let again = parameters(5, 6) { $0.initiatorPorts = [.port(two.initiatorPortName)] }
        #expect(throws: PersistentReservations.Refusal.sense(.invalidFieldInParameterList(byte: 20, bit: 3))) {
            try state.perform(register, again, by: one, in: around)
        }
    }

    @Test("A registration of several that does not fit registers nobody")
    func wholeOrNothing() throws {
        var state = PersistentReservations()
        let many = parameters(0, 5) { $0.initiatorPorts = (0..<300).map { .port("iqn.\($0),i,0x000000000001") } }
        #expect(throws: PersistentReservations.Refusal.sense(SenseData(.illegalRequest, .insufficientRegistrationResources))) {
            try state.perform(register, many, by: one, in: surroundings)
        }
        #expect(state.registrations.isEmpty && state.generation == 0)
    }

    @Test("ALL_TG_PT registers, changes and unregisters at every port")
    func allTargetPorts() throws {
        var state = PersistentReservations()
        let other = Registrant(initiatorPortName: one.initiatorPortName, relativeTargetPort: 2)
        _ = try state.perform(register, parameters(0, 5) { $0.allTargetPorts = true }, by: one, in: surroundings)
        #expect(state.key(of: one) == 5 && state.key(of: other) == 5)
        _ = try state.perform(register, parameters(5, 6), by: other, in: surroundings)
        #expect(throws: PersistentReservations.Refusal.conflict) {
            try state.perform(register, parameters(5, 0) { $0.allTargetPorts = true }, by: one, in: surroundings)
        }
        _ = try state.perform(
            PersistentReserveOut(serviceAction: .registerAndIgnoreExistingKey), parameters(0, 0) { $0.allTargetPorts = true },
            by: one, in: surroundings)
        #expect(state.registrations.isEmpty)
    }

    @Test("APTPL: the last command that had it counts; without a place to keep the state it is refused")
    func persistence() throws {
        var state = PersistentReservations()
        let asking = parameters(0, 5) { $0.activatesPersistence = true }
        #expect(throws: PersistentReservations.Refusal.sense(.invalidFieldInParameterList(byte: 20, bit: 0))) {
            try state.perform(register, asking, by: one, in: .init())
        }
        _ = try state.perform(register, asking, by: one, in: surroundings)
        #expect(state.isPersistent)
        _ = try state.perform(PersistentReserveOut(serviceAction: .reserve, type: 1), parameters(5, 0), by: one, in: surroundings)
        #expect(state.isPersistent)
        let before = state
        _ = try state.perform(register, parameters(0, 7), by: two, in: surroundings)
        #expect(!state.isPersistent && !state.isKeptAs(before))
    }

    @Test("REGISTER AND MOVE gives the reservation away")
    func moving() throws {
        var state = PersistentReservations()
        let move = PersistentReserveOut(serviceAction: .registerAndMove)
        let toTwo = parameters(5, 8) { $0.move = .init(destination: two) }
        #expect(throws: PersistentReservations.Refusal.conflict) { try state.perform(move, toTwo, by: one, in: surroundings) }
        _ = try state.perform(register, parameters(0, 5), by: one, in: surroundings)
        #expect(throws: PersistentReservations.Refusal.sense(.invalidFieldInCDB(byte: 1, bit: 4))) {
            try state.perform(move, toTwo, by: one, in: surroundings)
        }
        _ = try state.perform(PersistentReserveOut(serviceAction: .reserve, type: 5), parameters(5, 0), by: one, in: surroundings)
        for (wrong, byte) in [
            (parameters(5, 0) { $0.move = .init(destination: two) }, 8), (parameters(5, 8) { $0.move = .init(destination: one) }, 24),
            (
                parameters(5, 8) {
                    $0.move = .init(destination: Registrant(initiatorPortName: two.initiatorPortName, relativeTargetPort: 3))
                }, 18
            ),
        ] {
            #expect(throws: PersistentReservations.Refusal.sense(.invalidFieldInParameterList(byte: byte))) {
                try state.perform(move, wrong, by: one, in: surroundings)
            }
        }
        #expect(throws: PersistentReservations.Refusal.conflict) {
            try state.perform(move, parameters(6, 8) { $0.move = .init(destination: two) }, by: one, in: surroundings)
        }
        _ = try state.perform(move, toTwo, by: one, in: surroundings)
        #expect(state.isHolder(two) && state.key(of: two) == 8 && state.key(of: one) == 5 && state.generation == 2)
        // The old holder is a registrant like others now.
        #expect(throws: PersistentReservations.Refusal.conflict) { try state.perform(move, toTwo, by: one, in: surroundings) }
        let back = parameters(8, 3) { $0.move = .init(unregisters: true, destination: one) }
        _ = try state.perform(move, back, by: two, in: surroundings)
        #expect(state.isHolder(one) && state.key(of: one) == 3 && state.key(of: two) == nil)
        _ = try state.perform(PersistentReserveOut(serviceAction: .clear), parameters(3, 0), by: one, in: surroundings)
        _ = try state.perform(register, parameters(0, 5), by: one, in: surroundings)
        _ = try state.perform(PersistentReserveOut(serviceAction: .reserve, type: 7), parameters(5, 0), by: one, in: surroundings)
        #expect(throws: PersistentReservations.Refusal.conflict) { try state.perform(move, toTwo, by: one, in: surroundings) }
    }
}
