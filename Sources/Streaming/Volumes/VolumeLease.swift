import Blocks

// Who may write to a disk (W7).
//
// A lease names one edge, one write log and one incarnation of the process that has that log open.
// Its generation grows whenever any of them changes, and the journal at home refuses points that
// carry another generation. The checks below find the two ways in which history can split: a log
// that is older than what home has already received (somebody put back a copy of the cloud
// edge's disk), and a home that is older than what the log has already dropped (somebody put back
// a copy of the on-prem state). Both are refused; merging them would mix two histories.

/// What a cloud edge says of its write log when it opens a volume.
public struct VolumeOpenRequest: Equatable, Sendable, Codable {
    /// The volume's identifier, 32 hexadecimal digits.
    public var volume: String
    /// The identity of the write log, 32 hexadecimal digits.
    public var logIdentifier: String
    /// Random, new for each start of the process that has the log open.
    public var incarnation: UInt64
    /// The oldest point that the log still holds or will seal next.
    public var oldestPoint: PointNumber
    /// The newest point that the log has sealed, 0 for none.
    public var lastSealedPoint: PointNumber

    public init(
        volume: String, logIdentifier: String, incarnation: UInt64, oldestPoint: PointNumber, lastSealedPoint: PointNumber
    ) {
        self.volume = volume
        self.logIdentifier = logIdentifier
        self.incarnation = incarnation
        self.oldestPoint = oldestPoint
        self.lastSealedPoint = lastSealedPoint
    }
}

/// What home answers.
public struct VolumeOpenReply: Equatable, Sendable, Codable {
    /// The generation that each point must carry.
    public var generation: LeaseGeneration
    /// The last point that is durable at home; the log may forget up to here.
    public var receivedPoint: PointNumber
    /// The last point that is on the disk.
    public var appliedPoint: PointNumber

    public init(generation: LeaseGeneration, receivedPoint: PointNumber, appliedPoint: PointNumber) {
        self.generation = generation
        self.receivedPoint = receivedPoint
        self.appliedPoint = appliedPoint
    }
}

/// Why a volume was not opened.
public enum VolumeOpenRefusal: Error, Equatable, Sendable {
    /// The edge has another write log than the one that holds this volume's unsent writes.
    case logLost
    /// The write log is older than what home has received: it is a copy from the past.
    case logFromThePast(received: PointNumber, lastSealed: PointNumber)
    /// Home lacks points that the write log has already dropped: the on-prem state is a copy from the past.
    case homeFromThePast(received: PointNumber, oldest: PointNumber)

    /// What the operator reads.
    public var explanation: String {
        switch self {
        case .logLost:
            return "this edge's write log is not the one that holds the volume's unsent writes; if that log is lost for good, "
                + "detach the volume with --force (its unsent writes are given up) and attach it again"
        case .logFromThePast(let received, let lastSealed):
            return "the edge's write log ends at point \(lastSealed), but point \(received) is already at home: the log is an old copy; "
                + "put the newest one back, or detach the volume with --force and attach it again"
        case .homeFromThePast(let received, let oldest):
            return "home has points up to \(received), but the edge's write log starts at point \(oldest): the on-prem state is an old "
                + "copy; put the newest one back, or detach the volume with --force and accept the disk as it is"
        }
    }
}

/// The lease on one disk, as home keeps it. A value: whoever changes it makes it durable before acting on it.
public struct VolumeLease: Equatable, Sendable {
    /// Grows with each new writer.
    public private(set) var generation: LeaseGeneration
    /// The write log that holds the unsent writes, once an edge has opened the volume.
    public private(set) var logIdentifier: String?
    /// The process that has the log open.
    public private(set) var incarnation: UInt64?

    public init(generation: LeaseGeneration, logIdentifier: String? = nil, incarnation: UInt64? = nil) {
        self.generation = generation
        self.logIdentifier = logIdentifier
        self.incarnation = incarnation
    }

    /// Lets the log and the process of `request` write, if their history is the one that home knows.
    /// - Returns: true when the lease changed, so that it must be made durable before the answer goes out.
    public mutating func open(_ request: VolumeOpenRequest, receivedPoint: PointNumber) throws(VolumeOpenRefusal) -> Bool {
        if let known = logIdentifier, known != request.logIdentifier { throw .logLost }
        if request.lastSealedPoint < receivedPoint {
            throw .logFromThePast(received: receivedPoint, lastSealed: request.lastSealedPoint)
        }
        if request.oldestPoint > receivedPoint, request.oldestPoint - receivedPoint > 1, !isPlanted(.acceptsOldDisk) {
            throw .homeFromThePast(received: receivedPoint, oldest: request.oldestPoint)
        }
        if logIdentifier == request.logIdentifier, incarnation == request.incarnation { return false }
        logIdentifier = request.logIdentifier
        incarnation = request.incarnation
        generation &+= 1
        return true
    }
}
