import NIOCore

extension PersistentReservations {
    /// The answer to PERSISTENT RESERVE IN, whole; the caller cuts it to the allocation length.
    /// - Parameter canPersist: whether APTPL may be asked for.
    public func report(_ action: PersistentReserveIn, canPersist: Bool = false) -> ByteBuffer {
        switch action {
        case .readKeys: keys()
        case .readReservation: currentReservation()
        case .reportCapabilities: capabilities(canPersist: canPersist)
        case .readFullStatus: fullStatus()
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

    /// READ RESERVATION (SPC-4, 6.15.3). A reservation that all registrants hold is shown with the key zero.
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

    /// REPORT CAPABILITIES (SPC-4, 6.15.4): CRH, SIP_C and ATP_C, and PTPL_C where there is a place to keep the state; TMV with
    /// all six types. ALLOW COMMANDS tells nothing.
    private func capabilities(canPersist: Bool) -> ByteBuffer {
        var buffer = ByteBuffer()
        buffer.writeInteger(UInt16(8))
        buffer.writeInteger(UInt8(0x10 | 0x08 | 0x04 | (canPersist ? 0x01 : 0)))
        buffer.writeInteger(UInt8(0x80 | (isPersistent ? 0x01 : 0)))
        buffer.writeInteger(UInt16(0xEA01))
        buffer.writeInteger(UInt16(0))
        return buffer
    }

    /// READ FULL STATUS (SPC-4, 6.15.5).
    private func fullStatus() -> ByteBuffer {
        var descriptors = ByteBuffer()
        for registration in registrations {
            let holds = isHolder(registration.registrant)
            let transport = InitiatorPort.transportIdentifier(ofPort: registration.registrant.initiatorPortName)
            descriptors.writeInteger(registration.key)
            descriptors.writeInteger(UInt32(0))
            // R_HOLDER. ALL_TG_PT stays clear: a registration through all ports is one for each.
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
}
