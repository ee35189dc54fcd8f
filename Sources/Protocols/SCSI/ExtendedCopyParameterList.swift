import NIOCore

// The parameter list of EXTENDED COPY(LID1) (SPC-4, 6.4):
//
//   0      LIST IDENTIFIER
//   1      STR bit 5, LIST ID USAGE bits 4-3, PRIORITY bits 2-0
//   2-3    length of the CSCD descriptors
//   8-11   length of the segment descriptors
//   12-15  length of the inline data
//   16-    CSCD descriptors, 32 bytes each: the logical units that are copied from and to
//          segment descriptors: what is copied
//
//   CSCD descriptor E4h, by identification (6.4.5.2)     segment descriptor 02h, block to block (6.4.6.3)
//   0      E4h                                           0      02h
//   1      peripheral device type in bits 4-0            1      DC bit 1, CAT bit 0
//   4      code set in bits 3-0                          2-3    24, the bytes that follow
//   5      association bits 5-4, designator type 3-0     4-5    index of the source's CSCD descriptor
//   7      length of the designator                      6-7    index of the destination's
//   8-27   designator                                    10-11  number of blocks
//   29-31  bytes of a logical block                      12-19  first logical block at the source
//                                                        20-27  first logical block at the destination

/// The limits of EXTENDED COPY, which RECEIVE COPY RESULTS and vital product data page 8Fh publish.
public enum CopyLimits {
    public static let maximumTargetDescriptors = 16
    public static let maximumSegmentDescriptors = 64
    public static let maximumDescriptorListByteCount =
        maximumTargetDescriptors * CopyTargetDescriptor.byteCount + maximumSegmentDescriptors * CopySegmentDescriptor.byteCount
    /// The longest parameter list that is looked at; a longer one is refused before its data is asked for.
    public static let maximumParameterListByteCount = 16 << 10
    /// What one segment moves at most: 65535 blocks of 512 bytes.
    public static let maximumSegmentByteCount: UInt32 = 65535 * 512
    /// Copies that one logical unit manages at a time; one more is answered with BUSY.
    public static let maximumConcurrentCopies = 8
    /// Copies of one initiator whose results are kept; the oldest that has ended makes room.
    public static let maximumHeldResults = 16
    /// DATA SEGMENT GRANULARITY: segments are counted in units of 2 to the power of this many bytes.
    public static let segmentGranularity: UInt8 = 9
}

/// The identification of a logical unit as designators have it (SPC-4, 7.8.6).
public struct LogicalUnitDesignator: Hashable, Sendable {
    public var codeSet: UInt8
    public var type: UInt8
    public var bytes: [UInt8]

    public init(codeSet: UInt8, type: UInt8, bytes: [UInt8]) {
        self.codeSet = codeSet
        self.type = type
        self.bytes = bytes
    }
}

/// A logical unit that a copy reads or writes (SPC-4, 6.4.5.2).
public struct CopyTargetDescriptor: Hashable, Sendable {
    static let typeCode: UInt8 = 0xE4
    static let byteCount = 32
    private static let maximumDesignatorByteCount = 20

    /// Nil when the descriptor does not name a logical unit by a designator of its own.
    public var designator: LogicalUnitDesignator?
    public var peripheralDeviceType: UInt8
    public var blockByteCount: UInt32

    init(_ buffer: ByteBuffer) {
        let start = buffer.readerIndex
        func byte(_ offset: Int) -> UInt8 { buffer.getInteger(at: start + offset) ?? 0 }
        peripheralDeviceType = byte(1) & 0x1F
        blockByteCount = (buffer.getInteger(at: start + 28) ?? 0) & 0x00FF_FFFF
        let count = Int(byte(7))
        // Only association 00b is about the logical unit itself.
        if byte(5) & 0x30 == 0, count > 0, count <= Self.maximumDesignatorByteCount {
            let bytes = buffer.getBytes(at: start + 8, length: count)
            designator = bytes.map { LogicalUnitDesignator(codeSet: byte(4) & 0x0F, type: byte(5) & 0x0F, bytes: $0) }
        }
    }
}

/// What is copied from where to where (SPC-4, 6.4.6.3).
public struct CopySegmentDescriptor: Hashable, Sendable {
    static let typeCode: UInt8 = 0x02
    static let byteCount = 28
    static let statedByteCount: UInt16 = 24
    /// Where fields are in the descriptor, for field pointers.
    public static let sourceIndexOffset: UInt16 = 4
    public static let destinationIndexOffset: UInt16 = 6
    public static let sourceAddressOffset: UInt16 = 12
    public static let destinationAddressOffset: UInt16 = 20

    /// Indices into the CSCD descriptors.
    public var source: Int
    public var destination: Int
    public var blockCount: UInt16
    public var sourceAddress: UInt64
    public var destinationAddress: UInt64
}

/// The parameter list of EXTENDED COPY(LID1).
public struct ExtendedCopyParameterList: Hashable, Sendable {
    /// LIST ID USAGE (SPC-4, 6.4.3.2).
    public enum ListIdentifierUsage: UInt8, Sendable {
        /// Results are held until they are fetched.
        case hold = 0
        /// Results may be discarded.
        case discard = 2
        /// There is no list identifier, so nothing can be asked later.
        case none = 3
    }

    static let headerByteCount = 16

    public var listIdentifier: UInt8
    public var usage: ListIdentifierUsage
    public var targets: [CopyTargetDescriptor]
    public var segments: [CopySegmentDescriptor]

    /// The list in `buffer`, or the sense data that says what is wrong with it. Nothing has been copied then.
    public static func parse(_ buffer: ByteBuffer) throws(SenseData) -> Self {
        let start = buffer.readerIndex
        guard buffer.readableBytes >= headerByteCount, let identifier: UInt8 = buffer.getInteger(at: start),
            let flags: UInt8 = buffer.getInteger(at: start + 1), let targetBytes: UInt16 = buffer.getInteger(at: start + 2),
            let segmentBytes: UInt32 = buffer.getInteger(at: start + 8), let inlineBytes: UInt32 = buffer.getInteger(at: start + 12)
        else { throw .parameterListLength }
        guard let usage = ListIdentifierUsage(rawValue: flags >> 3 & 0x03) else {
            throw .invalidFieldInParameterList(byte: 1, bit: 4)
        }
        if usage == .none && identifier != 0 { throw .invalidFieldInParameterList(byte: 0) }
        if inlineBytes > 0 { throw SenseData(.illegalRequest, .inlineDataLengthExceeded) }
        guard Int(targetBytes) + Int(segmentBytes) <= CopyLimits.maximumDescriptorListByteCount,
            headerByteCount + Int(targetBytes) + Int(segmentBytes) <= buffer.readableBytes,
            var targetList = buffer.getSlice(at: start + headerByteCount, length: Int(targetBytes)),
            var segmentList = buffer.getSlice(at: start + headerByteCount + Int(targetBytes), length: Int(segmentBytes))
        else { throw .parameterListLength }
        return Self(
            listIdentifier: identifier, usage: usage, targets: try readTargets(&targetList),
            segments: try readSegments(&segmentList, offset: headerByteCount + Int(targetBytes)))
    }

    private static func readTargets(_ list: inout ByteBuffer) throws(SenseData) -> [CopyTargetDescriptor] {
        var targets: [CopyTargetDescriptor] = []
        while list.readableBytes > 0 {
            if targets.count == CopyLimits.maximumTargetDescriptors { throw SenseData(.illegalRequest, .tooManyTargetDescriptors) }
            guard list.getInteger(at: list.readerIndex) == CopyTargetDescriptor.typeCode else {
                throw SenseData(.illegalRequest, .unsupportedTargetDescriptorTypeCode)
            }
            guard let descriptor = list.readSlice(length: CopyTargetDescriptor.byteCount) else { throw .parameterListLength }
            targets.append(CopyTargetDescriptor(descriptor))
        }
        return targets
    }

    private static func readSegments(_ list: inout ByteBuffer, offset: Int) throws(SenseData) -> [CopySegmentDescriptor] {
        var segments: [CopySegmentDescriptor] = []
        while list.readableBytes > 0 {
            if segments.count == CopyLimits.maximumSegmentDescriptors { throw SenseData(.illegalRequest, .tooManySegmentDescriptors) }
            let at = list.readerIndex
            guard list.getInteger(at: at) == CopySegmentDescriptor.typeCode else {
                throw SenseData(.illegalRequest, .unsupportedSegmentDescriptorTypeCode)
            }
            if let stated: UInt16 = list.getInteger(at: at + 2), stated != CopySegmentDescriptor.statedByteCount {
                throw .invalidFieldInParameterList(byte: offset + segments.count * CopySegmentDescriptor.byteCount + 2)
            }
            guard let source: UInt16 = list.getInteger(at: at + 4), let destination: UInt16 = list.getInteger(at: at + 6),
                let count: UInt16 = list.getInteger(at: at + 10), let sourceAddress: UInt64 = list.getInteger(at: at + 12),
                let destinationAddress: UInt64 = list.getInteger(at: at + 20),
                list.readSlice(length: CopySegmentDescriptor.byteCount) != nil
            else { throw .parameterListLength }
            segments.append(
                CopySegmentDescriptor(
                    source: Int(source), destination: Int(destination), blockCount: count, sourceAddress: sourceAddress,
                    destinationAddress: destinationAddress))
        }
        return segments
    }
}

extension LogicalUnitIdentity {
    /// True when the designator is one that vital product data page 83h gives for the logical unit.
    public func isDesignated(by designator: LogicalUnitDesignator) -> Bool {
        guard var page = VitalProductData.page(0x83, identity: self, limits: BlockLimits()), page.readSlice(length: 4) != nil else {
            return false
        }
        while let codeSet: UInt8 = page.readInteger(), let type: UInt8 = page.readInteger(), page.readInteger(as: UInt8.self) != nil,
            let count: UInt8 = page.readInteger(), let bytes = page.readBytes(length: Int(count))
        {
            if type & 0x30 == 0,
                designator == LogicalUnitDesignator(codeSet: codeSet & 0x0F, type: type & 0x0F, bytes: bytes)
            {
                return true
            }
        }
        return false
    }
}
