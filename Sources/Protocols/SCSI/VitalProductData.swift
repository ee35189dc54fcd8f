import NIOCore

/// The limits of a logical unit, which page B0h publishes and the unit enforces. Counts are logical blocks.
public struct BlockLimits: Hashable, Sendable {
    /// The most that one READ, WRITE, VERIFY or ORWRITE moves: 4 MiB.
    public var maximumTransfer: UInt32 = 8192
    public var optimalTransferGranularity: UInt16 = 8
    public var optimalTransfer: UInt32 = 2048
    public var maximumPrefetch: UInt32 = 8192
    public var maximumCompareAndWrite: UInt8 = 255
    /// The most that one UNMAP frees, over all its descriptors: 512 MiB.
    public var maximumUnmap: UInt32 = 1 << 20
    public var maximumUnmapDescriptors: UInt32 = 256
    public var optimalUnmapGranularity: UInt32 = 8
    /// The most that one WRITE SAME fills: 16 MiB. Less than 65,536 blocks, which initiators take for a promise that a plain
    /// write of as many works too.
    public var maximumWriteSame: UInt64 = 32768
    /// The most that one WRITE ATOMIC (16) moves: all of what a plain write may, since each write is one record of the log,
    /// which survives a crash as a whole or not at all.
    public var maximumAtomicWrite: UInt32 = 8192

    public init() {}
}

/// Vital product data pages (SPC-4, 7.8; SBC-3).
public enum VitalProductData {
    /// The pages that we have, ascending.
    public static let supportedPages: [UInt8] = [0x00, 0x80, 0x83, 0x86, 0x8F, 0xB0, 0xB1, 0xB2]

    /// A page, whole; nil when there is none of that code.
    public static func page(_ code: UInt8, identity: LogicalUnitIdentity, limits: BlockLimits) -> ByteBuffer? {
        let body: ByteBuffer
        switch code {
        case 0x00: body = ByteBuffer(bytes: supportedPages)
        case 0x80: body = serialNumber(identity)
        case 0x83: body = deviceIdentification(identity)
        case 0x86: body = extendedInquiry()
        case 0x8F: body = thirdPartyCopy()
        case 0xB0: body = blockLimits(limits)
        case 0xB1: body = blockDeviceCharacteristics()
        case 0xB2: body = logicalBlockProvisioning()
        default: return nil
        }
        var page = ByteBuffer()
        page.reserveCapacity(4 + body.readableBytes)
        page.writeInteger(UInt8(0))
        page.writeInteger(code)
        page.writeInteger(UInt16(clamping: body.readableBytes))
        page.writeImmutableBuffer(body)
        return page
    }

    private static func serialNumber(_ identity: LogicalUnitIdentity) -> ByteBuffer {
        var body = ByteBuffer()
        body.writeText(identity.serialNumber, byteCount: min(identity.serialNumber.utf8.count, 64))
        return body
    }

    /// Page 83h (SPC-4, 7.8.6): the disk by NAA and by T10 vendor, its port by number, group and SCSI name, its device by
    /// SCSI name.
    private static func deviceIdentification(_ identity: LogicalUnitIdentity) -> ByteBuffer {
        var body = ByteBuffer()
        var name = ByteBuffer()
        name.writeInteger(identity.nameAddressAuthority)
        writeDesignator(name, codeSet: 1, association: 0, type: 3, into: &body)

        name.clear()
        name.writeText(identity.vendor, byteCount: 8)
        let unique = LogicalUnitIdentity.hexadecimal(identity.uniqueHigh) + LogicalUnitIdentity.hexadecimal(identity.uniqueLow)
        name.writeText(unique, byteCount: 32)
        writeDesignator(name, codeSet: 2, association: 0, type: 1, into: &body)

        name.clear()
        name.writeInteger(UInt16(0))
        name.writeInteger(identity.relativeTargetPort)
        writeDesignator(name, codeSet: 1, association: 1, type: 4, into: &body)

        name.clear()
        name.writeInteger(UInt16(0))
        name.writeInteger(identity.targetPortGroup)
        writeDesignator(name, codeSet: 1, association: 1, type: 5, into: &body)

        let port = identity.targetName + ",t,0x" + LogicalUnitIdentity.hexadecimal(UInt64(identity.targetPortGroup)).suffix(4)
        writeDesignator(scsiName(port), codeSet: 3, association: 1, type: 8, into: &body)
        writeDesignator(scsiName(identity.targetName), codeSet: 3, association: 2, type: 8, into: &body)
        return body
    }

    /// A SCSI name string: UTF-8, ended by zero, filled to a multiple of four (SPC-4, 7.8.6.11).
    private static func scsiName(_ text: String) -> ByteBuffer {
        var buffer = ByteBuffer()
        // RFC 7143 bounds iSCSI names to 223 bytes, so a port's name fits; a longer one is cut rather than trusted.
        buffer.writeBytes(text.utf8.prefix(247))
        buffer.writeRepeatingByte(0, count: 4 - buffer.readableBytes % 4)
        return buffer
    }

    private static func writeDesignator(
        _ name: ByteBuffer, codeSet: UInt8, association: UInt8, type: UInt8, into body: inout ByteBuffer
    ) {
        // PIV with the protocol identifier of iSCSI, 5, where the designator is about a port or a device.
        body.writeInteger(association == 0 ? codeSet : 0x50 | codeSet)
        body.writeInteger((association == 0 ? 0 : 0x80) | association << 4 | type)
        body.writeInteger(UInt8(0))
        body.writeInteger(UInt8(clamping: name.readableBytes))
        body.writeImmutableBuffer(name)
    }

    /// Page 86h (SPC-4, 7.8.7): all task attributes but ACA, and a volatile cache.
    private static func extendedInquiry() -> ByteBuffer {
        var body = ByteBuffer(repeating: 0, count: 60)
        body.setInteger(UInt8(0x07), at: 1)
        body.setInteger(UInt8(0x01), at: 2)
        return body
    }

    /// Page B0h (SBC-3, Block Limits VPD page).
    private static func blockLimits(_ limits: BlockLimits) -> ByteBuffer {
        var body = ByteBuffer()
        // WSNZ: a WRITE SAME of zero blocks is refused instead of running to the end.
        body.writeInteger(UInt8(0x01))
        body.writeInteger(limits.maximumCompareAndWrite)
        body.writeInteger(limits.optimalTransferGranularity)
        body.writeInteger(limits.maximumTransfer)
        body.writeInteger(limits.optimalTransfer)
        body.writeInteger(limits.maximumPrefetch)
        body.writeInteger(limits.maximumUnmap)
        body.writeInteger(limits.maximumUnmapDescriptors)
        body.writeInteger(limits.optimalUnmapGranularity)
        // UGAVALID, with an alignment of zero.
        body.writeInteger(UInt32(0x8000_0000))
        body.writeInteger(limits.maximumWriteSame)
        // No alignment, no granularity and no boundary is asked for.
        body.writeInteger(limits.maximumAtomicWrite)
        body.writeRepeatingByte(0, count: 60 - body.readableBytes)
        return body
    }

    /// Page B1h (SBC-3, Block Device Characteristics VPD page): a medium that does not rotate.
    private static func blockDeviceCharacteristics() -> ByteBuffer {
        var body = ByteBuffer(repeating: 0, count: 60)
        body.setInteger(UInt16(0x0001), at: 0)
        // WABEREQ and WACEREQ: after a block or cryptographic erase, reads give zeroes.
        body.setInteger(UInt8(0x50), at: 3)
        return body
    }

    /// Page B2h (SBC-3, Logical Block Provisioning VPD page): LBPU, LBPWS, LBPWS10 and LBPRZ; thin.
    private static func logicalBlockProvisioning() -> ByteBuffer {
        ByteBuffer(bytes: [0x00, 0xE4, 0x02, 0x00] as [UInt8])
    }
}
