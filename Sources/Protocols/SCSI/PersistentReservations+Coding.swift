import Checksums
import NIOCore

// The state as bytes, for APTPL. Integers are big-endian:
//
//   0    4   "CWPR"
//   4    2   version, 1
//   6    1   TYPE of the reservation, 0 for none
//   7    1   zero
//   8    4   the index of the holder's registration; FFFF FFFFh when there is none or all are holders
//   12   4   the number of registrations
//   16       registrations: key (8), relative target port (2), length of the name (2), name of the initiator port
//   end  4   CRC-32C of all bytes before it
//
// PRGENERATION is left out, since it starts at zero with the power.

extension PersistentReservations {
    /// Why bytes are not a state.
    public enum DecodingError: Error, Hashable, Sendable {
        /// The checksum does not fit, or the bytes end early.
        case damaged
        /// A later version of this format.
        case unknownVersion(UInt16)
        /// The bytes are whole, but no state that we could have written; the text says what is wrong.
        case inconsistent(String)
    }

    private static let magic: UInt32 = 0x4357_5052
    private static let version: UInt16 = 1
    private static let headerByteCount = 16
    private static let noHolder = UInt32.max

    /// The state as bytes, with version and checksum.
    public func encoded() -> ByteBuffer {
        var buffer = ByteBuffer()
        buffer.writeInteger(Self.magic)
        buffer.writeInteger(Self.version)
        buffer.writeInteger(reservation?.type.rawValue ?? 0)
        buffer.writeInteger(UInt8(0))
        let holder = reservation?.holder.flatMap { holder in registrations.firstIndex { $0.registrant == holder } }
        buffer.writeInteger(holder.flatMap { UInt32(exactly: $0) } ?? Self.noHolder)
        buffer.writeInteger(UInt32(clamping: registrations.count))
        for registration in registrations {
            buffer.writeInteger(registration.key)
            buffer.writeInteger(registration.registrant.relativeTargetPort)
            let name = registration.registrant.initiatorPortName.utf8.prefix(InitiatorPort.maximumNameByteCount)
            buffer.writeInteger(UInt16(clamping: name.count))
            buffer.writeBytes(name)
        }
        buffer.writeInteger(CRC32C.checksum(of: buffer))
        return buffer
    }

    /// The state that `encoded` wrote. It is one that is to survive a loss of power, as its being kept shows.
    public init(decoding data: ByteBuffer) throws(DecodingError) {
        let payloadByteCount = data.readableBytes - 4
        guard payloadByteCount >= Self.headerByteCount,
            var buffer = data.getSlice(at: data.readerIndex, length: payloadByteCount),
            let checksum: UInt32 = data.getInteger(at: data.readerIndex + payloadByteCount),
            CRC32C.checksum(of: buffer) == checksum, buffer.readInteger() == Self.magic,
            let version: UInt16 = buffer.readInteger()
        else { throw .damaged }
        guard version == Self.version else { throw .unknownVersion(version) }
        guard let type: UInt8 = buffer.readInteger(), buffer.readInteger(as: UInt8.self) != nil,
            let holder: UInt32 = buffer.readInteger(), let count: UInt32 = buffer.readInteger()
        else { throw .damaged }
        guard count <= UInt32(Self.maximumRegistrations) else { throw .inconsistent("\(count) registrations") }
        self.init()
        isPersistent = true
        for _ in 0..<count { registrations.append(try Self.readRegistration(from: &buffer)) }
        guard buffer.readableBytes == 0 else { throw .inconsistent("bytes behind the last registration") }
        guard Set(registrations.map(\.registrant)).count == registrations.count else {
            throw .inconsistent("a registrant that stands twice")
        }
        try readReservation(type: type, holder: holder)
    }

    private static func readRegistration(from buffer: inout ByteBuffer) throws(DecodingError) -> Registration {
        guard let key: UInt64 = buffer.readInteger(), let port: UInt16 = buffer.readInteger(),
            let nameByteCount: UInt16 = buffer.readInteger(), let name = buffer.readString(length: Int(nameByteCount))
        else { throw .inconsistent("a registration that is cut off") }
        guard key != 0 else { throw .inconsistent("a registration with the key zero") }
        return Registration(registrant: Registrant(initiatorPortName: name, relativeTargetPort: port), key: key)
    }

    private mutating func readReservation(type: UInt8, holder: UInt32) throws(DecodingError) {
        if type == 0 {
            guard holder == Self.noHolder else { throw .inconsistent("a holder without a reservation") }
            return
        }
        guard let type = ReservationType(rawValue: type) else { throw .inconsistent("reservation type \(type)") }
        let index = type.isAllRegistrants && holder == Self.noHolder ? 0 : Int(holder)
        guard type.isAllRegistrants == (holder == Self.noHolder), registrations.indices.contains(index) else {
            throw .inconsistent("the holder of the reservation")
        }
        reservation = Reservation(type: type, holder: registrations[index].registrant)
    }
}
