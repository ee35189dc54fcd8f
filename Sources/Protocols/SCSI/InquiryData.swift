import NIOCore

/// Standard INQUIRY data (SPC-4, 6.6.2).
public enum InquiryData {
    /// The bytes of standard INQUIRY data as we write it.
    public static let standardByteCount = 96

    /// VERSION DESCRIPTORS: SAM-5, SPC-4, SBC-3, iSCSI.
    static let versionDescriptors: [UInt16] = [0x00A0, 0x0460, 0x04C0, 0x0960]

    /// The data of a disk that is there, or with `isPresent` false of a number behind which there is none
    /// (qualifier 011b, type 1Fh).
    public static func standard(_ identity: LogicalUnitIdentity, isPresent: Bool = true) -> ByteBuffer {
        var buffer = ByteBuffer()
        buffer.reserveCapacity(standardByteCount)
        buffer.writeInteger(UInt8(isPresent ? 0x00 : 0x7F))
        buffer.writeInteger(UInt8(isPresent && identity.isRemovable ? 0x80 : 0))
        buffer.writeInteger(UInt8(0x06))
        // HISUP, and response data format 2.
        buffer.writeInteger(UInt8(0x12))
        buffer.writeInteger(UInt8(standardByteCount - 5))
        // TPGS 01b: implicit asymmetric access, which REPORT TARGET PORT GROUPS tells more of; 3PC: EXTENDED COPY is here.
        buffer.writeInteger(UInt8(isPresent ? 0x18 : 0))
        buffer.writeInteger(UInt8(0))
        // CMDQUE.
        buffer.writeInteger(UInt8(0x02))
        buffer.writeText(identity.vendor, byteCount: 8)
        buffer.writeText(identity.product, byteCount: 16)
        buffer.writeText(identity.revision, byteCount: 4)
        buffer.writeRepeatingByte(0, count: 22)
        for descriptor in versionDescriptors { buffer.writeInteger(descriptor) }
        buffer.writeRepeatingByte(0, count: standardByteCount - buffer.readableBytes)
        return buffer
    }
}

extension ByteBuffer {
    /// Appends `text` as `byteCount` bytes of printable ASCII, left-aligned and filled with spaces (SPC-4, 4.3.1).
    mutating func writeText(_ text: String, byteCount: Int) {
        var count = 0
        for byte in text.utf8 {
            if count == byteCount { return }
            writeInteger(byte >= 0x20 && byte <= 0x7E ? byte : UInt8(0x20))
            count += 1
        }
        writeRepeatingByte(0x20, count: byteCount - count)
    }

    /// The buffer cut to the allocation length of a command (SPC-4, 4.2.5.6).
    public func truncated(to byteCount: Int) -> ByteBuffer {
        byteCount >= readableBytes ? self : getSlice(at: readerIndex, length: max(0, byteCount)) ?? ByteBuffer()
    }
}
