import NIOCore

/// What READ CAPACITY, REPORT LUNS, GET LBA STATUS and REPORT TARGET PORT GROUPS answer.
public enum CapacityData {
    /// The bytes of the answer to READ CAPACITY (10).
    public static let shortByteCount = 8
    /// Logical blocks per physical block, as an exponent: a sector is what the log writes, frees and never tears, so a physical
    /// block is one logical block. That four KiB go best together is said by the granularities of VPD page B0h.
    public static let physicalBlockExponent: UInt8 = 0

    /// The answer to READ CAPACITY (10) (SBC-3, 5.15.2); a disk of 2 TiB or more sends the initiator to READ CAPACITY (16).
    public static func short(blockCount: UInt64, blockBytes: UInt32) -> ByteBuffer {
        var buffer = ByteBuffer()
        buffer.writeInteger(UInt32(clamping: blockCount == 0 ? 0 : blockCount - 1))
        buffer.writeInteger(blockBytes)
        return buffer
    }

    /// The answer to READ CAPACITY (16) (SBC-3, 5.16.2): LBPME and LBPRZ, no protection.
    public static func long(blockCount: UInt64, blockBytes: UInt32) -> ByteBuffer {
        var buffer = ByteBuffer()
        buffer.writeInteger(blockCount == 0 ? 0 : blockCount - 1)
        buffer.writeInteger(blockBytes)
        buffer.writeInteger(UInt8(0))
        buffer.writeInteger(physicalBlockExponent)
        buffer.writeInteger(UInt16(0xC000))
        buffer.writeRepeatingByte(0, count: 16)
        return buffer
    }
}

/// The eight bytes that address a logical unit (SAM-5, 4.7).
public struct LogicalUnitNumber: Hashable, Sendable {
    /// The bytes, big-endian.
    public let rawValue: UInt64

    public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// The address of the unit with this index: peripheral below 256, flat space up to 16,383; nil above.
    public init?(index: Int) {
        switch index {
        case 0..<256: rawValue = UInt64(index) << 48
        case 256..<16384: rawValue = (0x4000 | UInt64(index)) << 48
        default: return nil
        }
    }

    /// The index that a single-level address names; nil for every other address.
    public var index: Int? {
        guard rawValue & 0x0000_FFFF_FFFF_FFFF == 0 else { return nil }
        let first = rawValue >> 48
        switch first >> 14 {
        case 0: return first < 256 ? Int(first) : nil
        case 1: return Int(first & 0x3FFF)
        default: return nil
        }
    }
}

/// The answer to REPORT LUNS (SPC-4, 6.33).
public enum LogicalUnitList {
    /// The list, whole, for SELECT REPORT 0, 1 (well known units: none) or 2.
    public static func report(_ numbers: [LogicalUnitNumber], selectReport: UInt8) throws(SenseData) -> ByteBuffer {
        guard selectReport <= 2 else { throw .invalidFieldInCDB(byte: 2) }
        let shown = selectReport == 1 ? [] : numbers
        var buffer = ByteBuffer()
        buffer.writeInteger(UInt32(clamping: shown.count * 8))
        buffer.writeInteger(UInt32(0))
        for number in shown { buffer.writeInteger(number.rawValue) }
        return buffer
    }
}

/// The answer to REPORT TARGET PORT GROUPS (SPC-4, 6.37).
public enum TargetPortGroups {
    /// Each port in a group of its own, whose number is the port's relative identifier; all of them active and optimized.
    public static func report(_ relativeTargetPorts: [UInt16], hasExtendedHeader: Bool) -> ByteBuffer {
        var buffer = ByteBuffer()
        buffer.writeInteger(UInt32((hasExtendedHeader ? 4 : 0) + 12 * relativeTargetPorts.count))
        // Return data format 001b, and no implicit transition time.
        if hasExtendedHeader { buffer.writeInteger(UInt32(0x1000_0000)) }
        for port in relativeTargetPorts {
            // PREF clear, active/optimized; only that state is supported.
            buffer.writeInteger(UInt8(0x00))
            buffer.writeInteger(UInt8(0x01))
            buffer.writeInteger(port)
            buffer.writeInteger(UInt16(0))
            buffer.writeInteger(UInt8(0))
            buffer.writeInteger(UInt8(1))
            buffer.writeInteger(UInt16(0))
            buffer.writeInteger(port)
        }
        return buffer
    }
}

/// A run of blocks in the answer to GET LBA STATUS (SBC-3, 5.4.3).
public struct BlockStatusExtent: Hashable, Sendable {
    /// PROVISIONING STATUS.
    public enum Provisioning: UInt8, Sendable {
        case mapped = 0
        case deallocated = 1
        case anchored = 2
    }

    public var logicalBlockAddress: UInt64
    public var blockCount: UInt32
    public var provisioning: Provisioning

    public init(logicalBlockAddress: UInt64, blockCount: UInt32, provisioning: Provisioning) {
        self.logicalBlockAddress = logicalBlockAddress
        self.blockCount = blockCount
        self.provisioning = provisioning
    }

    /// The answer that holds `extents`, whole.
    public static func report(_ extents: [BlockStatusExtent]) -> ByteBuffer {
        var buffer = ByteBuffer()
        buffer.writeInteger(UInt32(clamping: 4 + extents.count * 16))
        buffer.writeInteger(UInt32(0))
        for extent in extents {
            buffer.writeInteger(extent.logicalBlockAddress)
            buffer.writeInteger(extent.blockCount)
            buffer.writeInteger(extent.provisioning.rawValue)
            buffer.writeRepeatingByte(0, count: 3)
        }
        return buffer
    }
}
