import NIOCore

// The parameter lists of PERSISTENT RESERVE OUT:
//
//   all actions but the last (SPC-4, 6.16.3)        REGISTER AND MOVE (SPC-4, 6.16.4)
//   0-7    RESERVATION KEY                          0-7    RESERVATION KEY
//   8-15   SERVICE ACTION RESERVATION KEY           8-15   SERVICE ACTION RESERVATION KEY
//   16-19  obsolete                                 17     UNREG in bit 1, APTPL in bit 0
//   20     SPEC_I_PT bit 3, ALL_TG_PT bit 2,        18-19  RELATIVE TARGET PORT IDENTIFIER
//          APTPL bit 0                              20-23  length of the TransportID
//   22-23  obsolete                                 24-    TransportID
//   24-27  with SPEC_I_PT: length of TransportIDs
//   28-    TransportIDs

/// The parameter list of PERSISTENT RESERVE OUT (SPC-4, 6.16.3 and 6.16.4).
public struct PersistentReserveParameters: Hashable, Sendable {
    /// The bytes of a list without TransportIDs.
    public static let byteCount = 24
    /// The longest list, with room for some sixty TransportIDs; a longer one is refused before its data is asked for.
    public static let maximumByteCount = 16 << 10

    /// RESERVATION KEY: what the sender is registered with.
    public var key: UInt64
    /// SERVICE ACTION RESERVATION KEY: the new key, or the victim's.
    public var serviceActionKey: UInt64
    /// APTPL: registrations and reservation are to survive a loss of power.
    public var activatesPersistence = false
    /// ALL_TG_PT: register through all target ports.
    public var allTargetPorts = false
    /// SPEC_I_PT: these initiator ports are to be registered too; nil when the bit is clear.
    public var initiatorPorts: [InitiatorPortDesignation]?
    /// What only REGISTER AND MOVE has.
    public var move: Move?

    /// Where REGISTER AND MOVE moves the reservation to.
    public struct Move: Hashable, Sendable {
        /// UNREG: the sender's own registration ends.
        public var unregisters: Bool
        public var destination: Registrant

        public init(unregisters: Bool = false, destination: Registrant) {
            self.unregisters = unregisters
            self.destination = destination
        }
    }

    public init(key: UInt64, serviceActionKey: UInt64 = 0) {
        self.key = key
        self.serviceActionKey = serviceActionKey
    }
}

extension PersistentReserveParameters {
    /// The parameter list of a command, or the sense data that says what is wrong with it.
    public static func parse(_ list: ByteBuffer, for command: PersistentReserveOut) throws(SenseData) -> Self {
        var buffer = list
        guard UInt32(exactly: buffer.readableBytes) == command.parameterListByteCount,
            let key: UInt64 = buffer.readInteger(), let serviceActionKey: UInt64 = buffer.readInteger()
        else { throw .parameterListLength }
        var parameters = Self(key: key, serviceActionKey: serviceActionKey)
        if command.serviceAction == .registerAndMove {
            try parameters.readMove(from: &buffer)
            return parameters
        }
        guard buffer.readInteger(as: UInt32.self) != nil, let flags: UInt8 = buffer.readInteger(), buffer.readSlice(length: 3) != nil
        else { throw .parameterListLength }
        let specifiesPorts = flags & 0x08 != 0
        // SPEC_I_PT goes with REGISTER only.
        if specifiesPorts && command.serviceAction != .register { throw .invalidFieldInParameterList(byte: 20, bit: 3) }
        switch command.serviceAction {
        case .register, .registerAndIgnoreExistingKey:
            parameters.allTargetPorts = flags & 0x04 != 0
            parameters.activatesPersistence = flags & 0x01 != 0
        default: break
        }
        if specifiesPorts {
            parameters.initiatorPorts = try readInitiatorPorts(from: &buffer)
        } else if buffer.readableBytes > 0 {
            throw .parameterListLength
        }
        return parameters
    }

    private mutating func readMove(from buffer: inout ByteBuffer) throws(SenseData) {
        guard buffer.readInteger(as: UInt8.self) != nil, let flags: UInt8 = buffer.readInteger(),
            let targetPort: UInt16 = buffer.readInteger(), let stated: UInt32 = buffer.readInteger()
        else { throw .parameterListLength }
        guard Int(stated) == buffer.readableBytes else { throw .invalidFieldInParameterList(byte: 20) }
        activatesPersistence = flags & 0x01 != 0
        // A reservation has one holder, so a TransportID that means several ports is refused (SPC-4, 5.13.8).
        guard case .port(let name)? = InitiatorPort.readTransportIdentifier(from: &buffer), buffer.readableBytes == 0 else {
            throw .invalidFieldInParameterList(byte: 24)
        }
        move = Move(
            unregisters: flags & 0x02 != 0, destination: Registrant(initiatorPortName: name, relativeTargetPort: targetPort))
    }

    private static func readInitiatorPorts(from buffer: inout ByteBuffer) throws(SenseData) -> [InitiatorPortDesignation] {
        guard let stated: UInt32 = buffer.readInteger() else { throw .parameterListLength }
        guard Int(stated) == buffer.readableBytes else { throw .invalidFieldInParameterList(byte: 24) }
        var ports: [InitiatorPortDesignation] = []
        var offset = byteCount + 4
        while buffer.readableBytes > 0 {
            let before = buffer.readableBytes
            guard let port = InitiatorPort.readTransportIdentifier(from: &buffer) else {
                throw .invalidFieldInParameterList(byte: offset)
            }
            ports.append(port)
            offset += before - buffer.readableBytes
        }
        return ports
    }
}
