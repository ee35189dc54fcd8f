import NIOCore
import SCSI

/// Names an I_T nexus, one initiator session at this target, to a logical unit. The target chooses the numbers.
public struct NexusIdentifier: Hashable, Sendable {
    public let rawValue: UInt64

    public init(_ rawValue: UInt64) { self.rawValue = rawValue }
}

/// A command on its way through a logical unit, with the data that came for it.
public struct SCSITask: Sendable {
    /// How a task stands to the others (SAM-5, Task attributes). ACA is not among them, as INQUIRY data says.
    public enum Attribute: Sendable {
        case simple
        /// After all earlier tasks that touch the medium, before all later ones.
        case ordered
        /// Before the tasks that still wait.
        case headOfQueue
    }

    public let nexus: NexusIdentifier
    public let command: SCSICommand
    /// What ABORT TASK will call it: the initiator task tag in iSCSI.
    public var tag: UInt64
    public var attribute: Attribute
    /// The Data-Out that arrived, at most what `expectedTransfer(of:)` asks for.
    public var dataOut: ByteBuffer?
    /// How much the initiator offered to send, which may be more than was asked of it (EDTL in iSCSI).
    public var offeredByteCount: Int?
    /// Its place among the tasks of the unit, from `admit` on; a task without one is admitted when it is executed.
    var place: UInt64?
    /// How often the tasks of the nexus had been aborted when it was admitted.
    var abortCount: UInt64 = 0

    public init(
        nexus: NexusIdentifier, command: SCSICommand, tag: UInt64 = 0, attribute: Attribute = .simple,
        dataOut: ByteBuffer? = nil, offeredByteCount: Int? = nil
    ) {
        self.nexus = nexus
        self.command = command
        self.tag = tag
        self.attribute = attribute
        self.dataOut = dataOut
        self.offeredByteCount = offeredByteCount
    }
}

/// How a command ended.
public struct SCSIResponse: Equatable, Sendable {
    public var status: SCSIStatus
    /// With CHECK CONDITION; already in the format that the initiator chose.
    public var sense: SenseData?
    public var dataIn: ByteBuffer?

    public init(status: SCSIStatus, sense: SenseData? = nil, dataIn: ByteBuffer? = nil) {
        self.status = status
        self.sense = sense
        self.dataIn = dataIn
    }

    /// GOOD without data.
    public static let good = SCSIResponse(status: .good)

    /// GOOD with data.
    public static func good(_ dataIn: ByteBuffer) -> SCSIResponse { SCSIResponse(status: .good, dataIn: dataIn) }

    /// CHECK CONDITION with sense data.
    public static func checkCondition(_ sense: SenseData) -> SCSIResponse {
        SCSIResponse(status: .checkCondition, sense: sense)
    }
}

/// Whether a command may be carried out.
public enum SCSIAdmission: Sendable {
    /// It may: collect its Data-Out, put it into the task, and execute that.
    case accepted(SCSITask)
    /// It may not: answer this, and take no Data-Out.
    case rejected(SCSIResponse)
}

/// The tasks that a task management function is about (SAM-5, 7).
public enum SCSITaskSelection: Hashable, Sendable {
    /// ABORT TASK.
    case task(nexus: NexusIdentifier, tag: UInt64)
    /// ABORT TASK SET.
    case nexus(NexusIdentifier)
    /// CLEAR TASK SET.
    case all

    func names(_ nexus: NexusIdentifier, tag: UInt64) -> Bool {
        switch self {
        case .task(let named, let namedTag): named == nexus && namedTag == tag
        case .nexus(let named): named == nexus
        case .all: true
        }
    }
}
