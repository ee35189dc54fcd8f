// Sense data says why a command failed (SPC-4, 4.5). It travels in one of two formats, which the D_SENSE bit of the control
// mode page chooses:
//
//   fixed (70h)                                   descriptor (72h)
//   0      70h, VALID in bit 7                    0      72h
//   2      sense key                              1      sense key
//   3-6    information, when VALID                2-3    additional sense code and qualifier
//   7      10, the bytes that follow              7      the bytes that follow
//   8-11   command-specific information           8-     descriptors: 00h information (12 bytes),
//   12-13  additional sense code and qualifier           01h command-specific information (12 bytes),
//   15-17  sense key specific, SKSV in bit 7             02h sense key specific (8 bytes)

import NIOCore

/// Which of the two formats sense data is written in.
public enum SenseFormat: Sendable {
    case fixed
    case descriptor
}

/// Where in a CDB or a parameter list the field is that was refused (SPC-4, 4.5.2.4.2).
public struct FieldPointer: Hashable, Sendable {
    /// True for a CDB, false for a parameter list.
    public var isInCDB: Bool
    /// The byte of the field.
    public var byte: UInt16
    /// The highest bit of the field, when it is not the whole byte.
    public var bit: UInt8?

    public init(isInCDB: Bool, byte: UInt16, bit: UInt8? = nil) {
        self.isInCDB = isInCDB
        self.byte = byte
        self.bit = bit
    }
}

/// Where an EXTENDED COPY failed (SPC-4, 6.4 and 4.5.2.4.5).
public struct CopySegmentPointer: Hashable, Sendable {
    /// The segment descriptor, counted from zero.
    public var segment: UInt16
    /// The field of the segment descriptor that was at fault, by its first byte.
    public var byte: UInt16?

    public init(segment: UInt16, byte: UInt16? = nil) {
        self.segment = segment
        self.byte = byte
    }
}

/// Why a command failed, or what a logical unit wants to be known (SPC-4, 4.5).
public struct SenseData: Error, Hashable, Sendable {
    /// The bytes of fixed format sense data as we write it.
    public static let fixedByteCount = 18

    public var key: SenseKey
    public var code: AdditionalSenseCode
    /// What the command defines: for COMPARE AND WRITE and VERIFY, the offset of the first byte that differs.
    public var information: UInt64?
    /// The field that was refused.
    public var fieldPointer: FieldPointer?
    /// PROGRESS INDICATION: how much of an operation in the background is done, in 65,536ths (SPC-4, 4.5.2.4.4).
    public var progress: UInt16?
    /// With COPY ABORTED: the segment that failed. It is in the last two bytes of the command-specific information.
    public var copySegment: CopySegmentPointer?
    /// The format in which `write(into:)` writes it.
    public var format: SenseFormat

    public init(
        _ key: SenseKey, _ code: AdditionalSenseCode, information: UInt64? = nil, fieldPointer: FieldPointer? = nil,
        progress: UInt16? = nil, format: SenseFormat = .fixed
    ) {
        self.key = key
        self.code = code
        self.information = information
        self.fieldPointer = fieldPointer
        self.progress = progress
        self.format = format
    }

    /// Nothing to report.
    public static let none = SenseData(.noSense, .noAdditionalSenseInformation)
    /// The command is not known here.
    public static let invalidOperationCode = SenseData(
        .illegalRequest, .invalidCommandOperationCode, fieldPointer: FieldPointer(isInCDB: true, byte: 0))
    /// The command reaches beyond the last logical block.
    public static let outOfRange = SenseData(.illegalRequest, .logicalBlockAddressOutOfRange)
    /// A parameter list that ends inside a field.
    public static let parameterListLength = SenseData(.illegalRequest, .parameterListLengthError)

    /// A field of the CDB that is refused.
    public static func invalidFieldInCDB(byte: Int, bit: UInt8? = nil) -> SenseData {
        SenseData(
            .illegalRequest, .invalidFieldInCDB,
            fieldPointer: FieldPointer(isInCDB: true, byte: UInt16(clamping: byte), bit: bit))
    }

    /// A field of the parameter list that is refused.
    public static func invalidFieldInParameterList(byte: Int, bit: UInt8? = nil) -> SenseData {
        SenseData(
            .illegalRequest, .invalidFieldInParameterList,
            fieldPointer: FieldPointer(isInCDB: false, byte: UInt16(clamping: byte), bit: bit))
    }

    /// Appends the sense data in its format; the caller puts iSCSI's length before it.
    public func write(into buffer: inout ByteBuffer) {
        switch format {
        case .fixed: writeFixed(into: &buffer)
        case .descriptor: writeDescriptors(into: &buffer)
        }
    }

    private func writeFixed(into buffer: inout ByteBuffer) {
        // Information that does not fit in four bytes is left out, as VALID then says (SPC-4, 4.5.3).
        let narrow = information.flatMap { UInt32(exactly: $0) }
        buffer.writeInteger(UInt8(0x70 | (narrow != nil ? 0x80 : 0)))
        buffer.writeInteger(UInt8(0))
        buffer.writeInteger(key.rawValue)
        buffer.writeInteger(narrow ?? 0)
        buffer.writeInteger(UInt8(Self.fixedByteCount - 8))
        buffer.writeInteger(UInt32(copySegment?.segment ?? 0))
        buffer.writeInteger(code.code)
        buffer.writeInteger(code.qualifier)
        buffer.writeInteger(UInt8(0))
        writeKeySpecific(into: &buffer)
    }

    private func writeDescriptors(into buffer: inout ByteBuffer) {
        let hasKeySpecific = fieldPointer != nil || copySegment?.byte != nil || progress != nil
        let length = (information != nil ? 12 : 0) + (copySegment != nil ? 12 : 0) + (hasKeySpecific ? 8 : 0)
        buffer.writeInteger(UInt8(0x72))
        buffer.writeInteger(key.rawValue)
        buffer.writeInteger(code.code)
        buffer.writeInteger(code.qualifier)
        buffer.writeRepeatingByte(0, count: 3)
        buffer.writeInteger(UInt8(length))
        if let information {
            buffer.writeInteger(UInt32(0x000A_8000))
            buffer.writeInteger(information)
        }
        if let copySegment {
            buffer.writeInteger(UInt32(0x010A_0000))
            buffer.writeInteger(UInt64(copySegment.segment))
        }
        if hasKeySpecific {
            buffer.writeInteger(UInt32(0x0206_0000))
            writeKeySpecific(into: &buffer)
            buffer.writeInteger(UInt8(0))
        }
    }

    private func writeKeySpecific(into buffer: inout ByteBuffer) {
        if let byte = copySegment?.byte {
            // SKSV and SD: the pointer counts from the start of the segment descriptor.
            buffer.writeInteger(UInt8(0xA0))
            buffer.writeInteger(byte)
            return
        }
        guard let fieldPointer else {
            // SKSV says that a progress indication follows; without it the bytes mean nothing.
            buffer.writeInteger(UInt8(progress == nil ? 0 : 0x80))
            buffer.writeInteger(progress ?? 0)
            return
        }
        var flags: UInt8 = 0x80
        if fieldPointer.isInCDB { flags |= 0x40 }
        if let bit = fieldPointer.bit { flags |= 0x08 | (bit & 0x07) }
        buffer.writeInteger(flags)
        buffer.writeInteger(fieldPointer.byte)
    }
}
