import NIOCore

// How an initiator port is named, as text and as a TransportID (SPC-4, 7.6.4.6):
//
//   text         <initiator name>,i,0x<ISID, 12 hexadecimal digits>     (RFC 7143, 3.4.2)
//   TransportID  0    TPID FORMAT in bits 7-6, protocol identifier 5h (iSCSI) below
//                2-3  the bytes that follow: a multiple of four, at least 20
//                4-   format 00b: the initiator's name, ended by zero and filled with zeroes
//                     format 01b: the whole text as above, ended and filled so
//
// Names are compared without regard to case, so they are kept in lower case and ISIDs in one spelling.

/// The initiator ports that a TransportID stands for.
public enum InitiatorPortDesignation: Hashable, Sendable {
    /// TPID FORMAT 01b: one port, by its name.
    case port(String)
    /// TPID FORMAT 00b: every known port of an initiator, by the initiator's name.
    case everyPort(ofInitiator: String)
}

/// The names of iSCSI initiator ports, and their TransportIDs.
public enum InitiatorPort {
    /// The most bytes of a port's name: 223 of the initiator's (RFC 7143, 4.2.7) and the rest of the text.
    public static let maximumNameByteCount = 223 + separator.utf8.count + isidDigitCount
    private static let separator = ",i,0x"
    private static let isidDigitCount = 12
    private static let protocolIdentifier: UInt8 = 0x5
    private static let minimumAdditionalByteCount = 20

    /// The name of the port that an initiator uses with an ISID; only the lower six bytes of `isid` count.
    public static func name(initiatorName: String, isid: UInt64) -> String {
        let digits = String(isid & 0xFFFF_FFFF_FFFF, radix: 16)
        return initiatorName.lowercased() + separator + String(repeating: "0", count: isidDigitCount - digits.count) + digits
    }

    /// The name of the initiator to which a port belongs.
    public static func initiatorName(ofPort name: String) -> Substring {
        guard let range = firstRange(of: separator, in: name) else { return name[...] }
        return name[..<range]
    }

    /// The TransportID of a port, format 01b.
    static func transportIdentifier(ofPort name: String) -> ByteBuffer {
        var text = ByteBuffer()
        text.writeBytes(name.utf8.prefix(maximumNameByteCount))
        text.writeRepeatingByte(0, count: 4 - text.readableBytes % 4)
        text.writeRepeatingByte(0, count: max(0, minimumAdditionalByteCount - text.readableBytes))
        var buffer = ByteBuffer()
        buffer.writeInteger(0x40 | protocolIdentifier)
        buffer.writeInteger(UInt8(0))
        buffer.writeInteger(UInt16(clamping: text.readableBytes))
        buffer.writeImmutableBuffer(text)
        return buffer
    }

    /// Takes one TransportID from the front of `buffer`; nil when it is none of iSCSI, or malformed.
    static func readTransportIdentifier(from buffer: inout ByteBuffer) -> InitiatorPortDesignation? {
        guard let first: UInt8 = buffer.readInteger(), buffer.readInteger(as: UInt8.self) != nil,
            let stated: UInt16 = buffer.readInteger(), let field = buffer.readSlice(length: Int(stated)),
            first & 0x0F == protocolIdentifier, Int(stated) >= minimumAdditionalByteCount, stated % 4 == 0,
            let end = field.readableBytesView.firstIndex(of: 0), end > field.readerIndex
        else { return nil }
        // Names are printable ASCII here: internationalized ones come in their escaped form or are refused.
        let bytes = field.readableBytesView[..<end]
        guard bytes.count <= maximumNameByteCount, bytes.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else { return nil }
        let text = String(decoding: bytes, as: UTF8.self).lowercased()
        let split = firstRange(of: separator, in: text)
        switch (first >> 6, split) {
        case (0, nil): return .everyPort(ofInitiator: text)
        case (1, let split?):
            let digits = text[split...].dropFirst(separator.count)
            guard split > text.startIndex, digits.count <= isidDigitCount, let isid = UInt64(digits, radix: 16) else { return nil }
            return .port(name(initiatorName: String(text[..<split]), isid: isid))
        default: return nil
        }
    }

    /// Where `pattern` begins in `text` for the first time.
    private static func firstRange(of pattern: String, in text: String) -> String.Index? {
        var index = text.startIndex
        while index < text.endIndex {
            if text[index...].hasPrefix(pattern) { return index }
            index = text.index(after: index)
        }
        return nil
    }
}
