import NIOCore

// The life of a SCSI command in a session:
//
//   arrived --(prepare)--> collecting --(all Data-Out is here)--> executing --(complete)--> gone
//      |                       |  ^ R2T, Data-Out                     |
//      +---- abort: gone       +---- abort: gone                      +---- abort: silent, gone at complete

/// Names a task of a session. A handle of a task that is gone names nothing, even when its place was taken again.
public struct TaskHandle: Hashable, Sendable {
    let index: Int
    let generation: UInt32
}

/// Why the transport ends a command that no logical unit has seen, or will not see.
public enum TransportFailure: Equatable, Sendable {
    /// A Data-Out PDU arrived with a wrong digest.
    case dataDigest
    /// Data-Out PDUs were out of sequence.
    case dataSequence
    /// More unsolicited data than was agreed.
    case unexpectedUnsolicitedData
    /// Fewer or more bytes than an R2T asked for.
    case incorrectAmountOfData
}

/// A SCSI command that is not answered yet.
public struct SessionTask {
    /// How far the command is.
    public enum Phase: Equatable, Sendable {
        case arrived
        case collecting
        case executing
    }

    /// An R2T whose data is not all there.
    struct Solicitation {
        var targetTransferTag: UInt32
        var end: Int
        var nextDataSN: UInt32 = 0
    }

    public let lun: UInt64
    public let initiatorTaskTag: UInt32
    public let cdbHigh: UInt64
    public let cdbLow: UInt64
    /// True for CDBs of more than 16 bytes, whose rest is not kept.
    public let hasExtendedCDB: Bool
    public let reads: Bool
    public let writes: Bool
    /// The task attribute of the command.
    public let attribute: UInt8
    /// The ExpectedDataTransferLength of the initiator.
    public let expectedByteCount: Int
    public internal(set) var phase = Phase.arrived
    /// True when the command is never answered.
    public internal(set) var isAborted = false

    let isImmediate: Bool
    let bidirectionalReadByteCount: UInt32?
    /// How many bytes are collected before the command runs; known after `prepare`.
    var wantedByteCount = 0
    var data = ByteBuffer()
    /// How many bytes came, which is also the offset of the next one: data arrives in order.
    var receivedByteCount = 0
    var isUnsolicitedOpen: Bool
    var unsolicitedDataSN: UInt32 = 0
    var solicitations: [Solicitation] = []
    var solicitedByteCount = 0
    var r2tSN: UInt32 = 0
    var abortTokens: [UInt32] = []

    init(_ command: SCSICommandPDU) {
        lun = command.lun
        initiatorTaskTag = command.initiatorTaskTag
        cdbHigh = command.cdbHigh
        cdbLow = command.cdbLow
        hasExtendedCDB = command.extendedCDB.readableBytes > 0
        reads = command.reads
        writes = command.writes
        attribute = command.attribute
        expectedByteCount = Int(command.expectedDataTransferLength)
        isImmediate = command.isImmediate
        bidirectionalReadByteCount = command.bidirectionalReadLength
        data = command.data
        receivedByteCount = command.data.readableBytes
        isUnsolicitedOpen = command.writes && !command.isFinal
    }

    /// The most bytes of Data-Out that may still come unasked.
    func unsolicitedLimit(_ parameters: SessionParameters) -> Int { min(parameters.firstBurstLength, expectedByteCount) }

    /// The bytes that the command may hold in memory while it collects `wanted` bytes.
    func heldByteCount(wanted: Int, _ parameters: SessionParameters) -> Int {
        let unsolicited = isUnsolicitedOpen ? unsolicitedLimit(parameters) : 0
        return max(receivedByteCount, unsolicited, min(wanted, expectedByteCount))
    }

    /// What became of a Data-Out PDU.
    enum Taken {
        /// The task runs or has failed: its data may still be on its way, and is dropped without a word.
        case dropped
        /// The PDU is not one of the task's.
        case rejected
        case added
        /// It ended what was asked for, or what may come unasked.
        case sequenceEnded
        case failed(TransportFailure)
    }

    /// Takes a Data-Out PDU of the task, if it is the one that must come next.
    mutating func take(_ pdu: DataOut, _ parameters: SessionParameters) -> Taken {
        if phase == .executing { return .dropped }
        // Section 11.7.4: with a Target Transfer Tag, the LUN is that of the R2T.
        guard pdu.targetTransferTag == BasicHeader.reservedTag || pdu.lun == lun else { return .rejected }
        guard Int(pdu.bufferOffset) == receivedByteCount else { return .failed(.dataSequence) }
        return pdu.targetTransferTag == BasicHeader.reservedTag ? takeUnsolicited(pdu, parameters) : takeSolicited(pdu)
    }

    private mutating func takeUnsolicited(_ pdu: DataOut, _ parameters: SessionParameters) -> Taken {
        guard isUnsolicitedOpen else { return .failed(.unexpectedUnsolicitedData) }
        guard pdu.dataSN == unsolicitedDataSN else { return .failed(.dataSequence) }
        guard receivedByteCount + pdu.data.readableBytes <= unsolicitedLimit(parameters) else {
            return .failed(.incorrectAmountOfData)
        }
        append(pdu.data)
        unsolicitedDataSN &+= 1
        solicitedByteCount = receivedByteCount
        guard pdu.isFinal else { return .added }
        isUnsolicitedOpen = false
        return .sequenceEnded
    }

    private mutating func takeSolicited(_ pdu: DataOut) -> Taken {
        guard let asked = solicitations.first, asked.targetTransferTag == pdu.targetTransferTag, asked.nextDataSN == pdu.dataSN
        else { return .failed(.dataSequence) }
        let end = receivedByteCount + pdu.data.readableBytes
        guard end <= asked.end, pdu.isFinal == (end == asked.end) else { return .failed(.incorrectAmountOfData) }
        append(pdu.data)
        guard pdu.isFinal else {
            solicitations[0].nextDataSN &+= 1
            return .added
        }
        solicitations.removeFirst()
        return .sequenceEnded
    }

    /// Adds data that is known to come next. One piece that is all there is stays a slice; several are joined.
    mutating func append(_ piece: ByteBuffer) {
        if data.readableBytes == 0 {
            if piece.readableBytes >= wantedByteCount || phase == .arrived {
                data = piece
            } else {
                data = ByteBufferAllocator().buffer(capacity: wantedByteCount)
                data.writeImmutableBuffer(piece)
            }
        } else {
            let missing = wantedByteCount - data.readableBytes
            if missing > 0 { data.reserveCapacity(minimumWritableBytes: missing) }
            data.writeImmutableBuffer(piece)
        }
        receivedByteCount += piece.readableBytes
    }
}

/// The tasks of a session: a table whose places are used again, and the way from tag to place.
struct SessionTaskTable {
    private struct Place {
        var task: SessionTask?
        var generation: UInt32 = 0
    }

    private var places: [Place] = []
    private var free: [Int] = []
    private var byTag: [UInt32: Int] = [:]

    var count: Int { byTag.count }

    subscript(_ handle: TaskHandle) -> SessionTask? {
        get {
            guard places.indices.contains(handle.index), places[handle.index].generation == handle.generation else { return nil }
            return places[handle.index].task
        }
    }

    /// Changes a task in its place, without a copy.
    mutating func update<Result>(_ handle: TaskHandle, _ body: (inout SessionTask) -> Result) -> Result? {
        guard places.indices.contains(handle.index), places[handle.index].generation == handle.generation,
            places[handle.index].task != nil
        else { return nil }
        return places[handle.index].task.modify(body)
    }

    func handle(tag: UInt32) -> TaskHandle? {
        guard let index = byTag[tag] else { return nil }
        return TaskHandle(index: index, generation: places[index].generation)
    }

    mutating func insert(_ task: SessionTask) -> TaskHandle {
        let index: Int
        if let last = free.popLast() {
            index = last
        } else {
            index = places.count
            places.append(Place())
        }
        places[index].task = task
        byTag[task.initiatorTaskTag] = index
        return TaskHandle(index: index, generation: places[index].generation)
    }

    mutating func remove(_ handle: TaskHandle) -> SessionTask? {
        guard places.indices.contains(handle.index), places[handle.index].generation == handle.generation,
            let task = places[handle.index].task
        else { return nil }
        places[handle.index].task = nil
        places[handle.index].generation &+= 1
        free.append(handle.index)
        byTag.removeValue(forKey: task.initiatorTaskTag)
        return task
    }

    /// The handles of all tasks.
    var handles: [TaskHandle] {
        places.indices.filter { places[$0].task != nil }.map { TaskHandle(index: $0, generation: places[$0].generation) }
    }
}

extension Optional {
    /// Changes the wrapped value in place.
    fileprivate mutating func modify<Result>(_ body: (inout Wrapped) -> Result) -> Result? {
        switch self {
        case .none: return nil
        case .some(var value):
            // Taken out first, so that buffers inside are uniquely referenced while they change.
            self = .none
            let result = body(&value)
            self = .some(value)
            return result
        }
    }
}
