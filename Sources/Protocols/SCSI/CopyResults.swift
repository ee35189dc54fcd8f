import NIOCore

// What RECEIVE COPY RESULTS tells of the copies that one initiator has asked of a logical unit (SPC-4, 6.18 to 6.21).
//
//   begin --> in progress --end--> held --a later copy with the same list identifier, or sixteen others--> gone
//
// Nothing here holds data of a copy: block to block segments leave none.

/// The service actions of RECEIVE COPY RESULTS that go with EXTENDED COPY(LID1).
public enum ReceiveCopyResultsAction: UInt8, Sendable, CaseIterable {
    case copyStatus = 0x00
    case receiveData = 0x01
    case operatingParameters = 0x03
    case failedSegmentDetails = 0x04
}

/// How far a copy has come, and how it ended.
public struct CopyResult: Hashable, Sendable {
    /// COPY STATUS (SPC-4, 6.18).
    public enum Status: UInt8, Sendable {
        case inProgress = 0
        case completed = 1
        case failed = 2
    }

    public var status = Status.inProgress
    /// Segment descriptors that are done.
    public var segmentCount: UInt16 = 0
    /// Bytes that were written.
    public var byteCount: UInt64 = 0
    /// How the EXTENDED COPY command ended, when it failed.
    public var failure: (status: SCSIStatus, sense: SenseData?)? {
        get { failedStatus.map { ($0, failedSense) } }
        set { (failedStatus, failedSense) = (newValue?.status, newValue?.sense) }
    }
    private var failedStatus: SCSIStatus?
    private var failedSense: SenseData?

    public init() {}
}

/// The copies of one I_T nexus, by list identifier. A pure value, bounded by `CopyLimits.maximumHeldResults`.
public struct CopyResults: Sendable {
    private var entries: [(identifier: UInt8, result: CopyResult)] = []

    public init() {}

    /// Notes a new copy; what an earlier one of that identifier left is forgotten.
    public mutating func begin(_ identifier: UInt8) throws(SenseData) {
        if let index = entries.firstIndex(where: { $0.identifier == identifier }) {
            if entries[index].result.status == .inProgress { throw SenseData(.illegalRequest, .operationInProgress) }
            entries.remove(at: index)
        }
        if entries.count >= CopyLimits.maximumHeldResults, let index = entries.firstIndex(where: { $0.result.status != .inProgress }) {
            entries.remove(at: index)
        }
        entries.append((identifier, CopyResult()))
    }

    /// Notes how far a copy has come.
    public mutating func update(_ identifier: UInt8, _ result: CopyResult) {
        guard let index = entries.firstIndex(where: { $0.identifier == identifier }) else { return }
        entries[index].result = result
    }

    /// The answer to RECEIVE COPY RESULTS, whole; the caller cuts it to the allocation length.
    public func report(_ action: ReceiveCopyResultsAction, _ identifier: UInt8) throws(SenseData) -> ByteBuffer {
        if action == .operatingParameters { return Self.operatingParameters }
        guard let result = entries.first(where: { $0.identifier == identifier })?.result else { throw .invalidFieldInCDB(byte: 2) }
        switch action {
        case .copyStatus, .operatingParameters: return Self.copyStatus(result)
        case .receiveData:
            // Held data is there when the copy has ended, and then there is none.
            if result.status == .inProgress { throw .invalidFieldInCDB(byte: 2) }
            return ByteBuffer(integer: UInt32(0))
        case .failedSegmentDetails:
            if result.status == .inProgress { throw .invalidFieldInCDB(byte: 2) }
            return Self.failedSegmentDetails(result)
        }
    }

    /// COPY STATUS (SPC-4, 6.18).
    private static func copyStatus(_ result: CopyResult) -> ByteBuffer {
        // Bytes while they fit, then units of 1 MiB (SPC-4, TRANSFER COUNT UNITS).
        let narrow = UInt32(exactly: result.byteCount)
        var buffer = ByteBuffer()
        buffer.writeInteger(UInt32(8))
        buffer.writeInteger(result.status.rawValue)
        buffer.writeInteger(result.segmentCount)
        buffer.writeInteger(UInt8(narrow == nil ? 0x02 : 0x00))
        buffer.writeInteger(narrow ?? UInt32(clamping: result.byteCount >> 20))
        return buffer
    }

    /// FAILED SEGMENT DETAILS (SPC-4, 6.21); no details when the copy did not fail.
    private static func failedSegmentDetails(_ result: CopyResult) -> ByteBuffer {
        guard let failure = result.failure else { return ByteBuffer(integer: UInt32(0)) }
        var sense = ByteBuffer()
        failure.sense?.write(into: &sense)
        var buffer = ByteBuffer()
        buffer.writeInteger(UInt32(clamping: 56 + sense.readableBytes))
        buffer.writeRepeatingByte(0, count: 52)
        buffer.writeInteger(failure.status.rawValue)
        buffer.writeInteger(UInt8(0))
        buffer.writeInteger(UInt16(clamping: sense.readableBytes))
        buffer.writeImmutableBuffer(sense)
        return buffer
    }

    /// OPERATING PARAMETERS (SPC-4, 6.20).
    static var operatingParameters: ByteBuffer {
        let descriptorTypes = [CopySegmentDescriptor.typeCode, CopyTargetDescriptor.typeCode]
        var buffer = ByteBuffer()
        buffer.writeInteger(UInt32(40 + descriptorTypes.count))
        // SNLID: a copy without a list identifier is taken.
        buffer.writeInteger(UInt32(0x0100_0000))
        buffer.writeInteger(UInt16(CopyLimits.maximumTargetDescriptors))
        buffer.writeInteger(UInt16(CopyLimits.maximumSegmentDescriptors))
        buffer.writeInteger(UInt32(CopyLimits.maximumDescriptorListByteCount))
        buffer.writeInteger(CopyLimits.maximumSegmentByteCount)
        // No inline data, no held data, no stream devices.
        buffer.writeRepeatingByte(0, count: 14)
        buffer.writeInteger(UInt16(CopyLimits.maximumConcurrentCopies))
        buffer.writeInteger(UInt8(CopyLimits.maximumConcurrentCopies))
        buffer.writeInteger(CopyLimits.segmentGranularity)
        buffer.writeRepeatingByte(0, count: 5)
        buffer.writeInteger(UInt8(descriptorTypes.count))
        buffer.writeBytes(descriptorTypes)
        return buffer
    }
}

extension VitalProductData {
    /// Page 8Fh (SPC-4, 7.8.17): the commands, limits and descriptors of third-party copies.
    static func thirdPartyCopy() -> ByteBuffer {
        var body = ByteBuffer()
        let actions = ReceiveCopyResultsAction.allCases.map(\.rawValue)
        // Supported commands: each with its service actions.
        let commands: [UInt8] =
            [OperationCode.extendedCopy.rawValue, 1, 0x00] + [OperationCode.receiveCopyResults.rawValue, UInt8(actions.count)] + actions
        writeCopyDescriptor(0x0001, [UInt8(commands.count)] + commands, into: &body)
        var parameters = ByteBuffer(repeating: 0, count: 4)
        parameters.writeInteger(UInt16(CopyLimits.maximumTargetDescriptors))
        parameters.writeInteger(UInt16(CopyLimits.maximumSegmentDescriptors))
        parameters.writeInteger(UInt32(CopyLimits.maximumDescriptorListByteCount))
        parameters.writeRepeatingByte(0, count: 16)
        writeCopyDescriptor(0x0004, Array(parameters.readableBytesView), into: &body)
        writeCopyDescriptor(0x0008, [2, CopySegmentDescriptor.typeCode, CopyTargetDescriptor.typeCode], into: &body)
        var general = ByteBuffer()
        general.writeInteger(UInt32(CopyLimits.maximumConcurrentCopies))
        general.writeInteger(UInt32(CopyLimits.maximumConcurrentCopies))
        general.writeInteger(CopyLimits.maximumSegmentByteCount)
        general.writeInteger(CopyLimits.segmentGranularity)
        general.writeRepeatingByte(0, count: 19)
        writeCopyDescriptor(0x8001, Array(general.readableBytesView), into: &body)
        return body
    }

    /// A third-party copy descriptor, filled to a multiple of four.
    private static func writeCopyDescriptor(_ type: UInt16, _ content: [UInt8], into body: inout ByteBuffer) {
        let padding = (4 - content.count % 4) % 4
        body.writeInteger(type)
        body.writeInteger(UInt16(clamping: content.count + padding))
        body.writeBytes(content)
        body.writeRepeatingByte(0, count: padding)
    }
}
