import NIOCore

extension PersistentReserveParameters {
    /// The parameter list of any action that we take: 24 bytes, without SPEC_I_PT, APTPL or transport identifiers.
    public static func parse(_ buffer: ByteBuffer, for command: PersistentReserveOut) throws(SenseData) -> Self {
        let start = buffer.readerIndex
        guard command.parameterListByteCount == UInt32(byteCount), buffer.readableBytes == byteCount,
            let key: UInt64 = buffer.getInteger(at: start), let serviceActionKey: UInt64 = buffer.getInteger(at: start + 8),
            let flags: UInt8 = buffer.getInteger(at: start + 20)
        else { throw .parameterListLength }
        switch command.serviceAction {
        case .register, .registerAndIgnoreExistingKey:
            // We can neither register others nor persist through power loss, and REPORT CAPABILITIES says so. ALL_TG_PT
            // is refused for the same reason.
            if flags & 0x08 != 0 { throw .invalidFieldInParameterList(byte: 20, bit: 3) }
            if flags & 0x04 != 0 { throw .invalidFieldInParameterList(byte: 20, bit: 2) }
            if flags & 0x01 != 0 { throw .invalidFieldInParameterList(byte: 20, bit: 0) }
        default: break
        }
        return Self(key: key, serviceActionKey: serviceActionKey)
    }
}

extension PersistentReservations {
    /// The answer to PERSISTENT RESERVE IN, whole; the caller cuts it to the allocation length.
    public func report(_ action: PersistentReserveIn) -> ByteBuffer {
        switch action {
        case .readKeys: return keys()
        case .readReservation: return currentReservation()
        case .reportCapabilities: return capabilities()
        case .readFullStatus: return fullStatus()
        }
    }

    /// READ KEYS (SPC-4, 6.15.2).
    private func keys() -> ByteBuffer {
        var buffer = ByteBuffer()
        buffer.writeInteger(generation)
        buffer.writeInteger(UInt32(clamping: registrations.count * 8))
        for registration in registrations { buffer.writeInteger(registration.key) }
        return buffer
    }

    /// READ RESERVATION (SPC-4, 6.15.3).
    private func currentReservation() -> ByteBuffer {
        var buffer = ByteBuffer()
        buffer.writeInteger(generation)
        guard let reservation else {
            buffer.writeInteger(UInt32(0))
            return buffer
        }
        buffer.writeInteger(UInt32(16))
        buffer.writeInteger(reservation.holder.flatMap { key(of: $0) } ?? 0)
        buffer.writeInteger(UInt32(0))
        buffer.writeInteger(UInt8(0))
        buffer.writeInteger(reservation.type.rawValue)
        buffer.writeInteger(UInt16(0))
        return buffer
    }

    /// REPORT CAPABILITIES (SPC-4, 6.15.4): all six types, and none of the optional abilities.
    private func capabilities() -> ByteBuffer {
        ByteBuffer(bytes: [0x00, 0x08, 0x00, 0x80, 0xEA, 0x01, 0x00, 0x00] as [UInt8])
    }

    /// READ FULL STATUS (SPC-4, 6.15.5).
    private func fullStatus() -> ByteBuffer {
        var descriptors = ByteBuffer()
        for registration in registrations {
            let holds = isHolder(registration.registrant)
            let transport = Self.transportIdentifier(registration.registrant)
            descriptors.writeInteger(registration.key)
            descriptors.writeInteger(UInt32(0))
            descriptors.writeInteger(UInt8(holds ? 0x01 : 0))
            descriptors.writeInteger(holds ? reservation?.type.rawValue ?? 0 : 0)
            descriptors.writeInteger(UInt32(0))
            descriptors.writeInteger(registration.registrant.relativeTargetPort)
            descriptors.writeInteger(UInt32(clamping: transport.readableBytes))
            descriptors.writeImmutableBuffer(transport)
        }
        var buffer = ByteBuffer()
        buffer.writeInteger(generation)
        buffer.writeInteger(UInt32(clamping: descriptors.readableBytes))
        buffer.writeImmutableBuffer(descriptors)
        return buffer
    }

    /// An iSCSI TransportID with the name of the initiator port (SPC-4, 7.6.4.6).
    private static func transportIdentifier(_ registrant: Registrant) -> ByteBuffer {
        var name = ByteBuffer()
        name.writeBytes(registrant.initiatorPortName.utf8.prefix(255))
        name.writeRepeatingByte(0, count: 4 - name.readableBytes % 4)
        if name.readableBytes < 20 { name.writeRepeatingByte(0, count: 20 - name.readableBytes) }
        var buffer = ByteBuffer()
        buffer.writeInteger(UInt8(0x45))
        buffer.writeInteger(UInt8(0))
        buffer.writeInteger(UInt16(clamping: name.readableBytes))
        buffer.writeImmutableBuffer(name)
        return buffer
    }
}
