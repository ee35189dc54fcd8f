import Blocks
import NIOCore

/// The classes of traffic on a link, in the order in which they are served (X2).
public enum TrafficClass: UInt8, CaseIterable, Sendable, Comparable {
    /// Reads that a machine is waiting for. Delivered as they come, in no order.
    case demand = 0
    /// Calls between the edges. Delivered in order.
    case control = 1
    /// Points on their way home. Delivered in order.
    case writeBehind = 2
    /// Blocks that will probably be read. Delivered as they come.
    case prefetch = 3
    /// Everything that may take its time. Delivered in order.
    case migration = 4

    public static func < (left: TrafficClass, right: TrafficClass) -> Bool { left.rawValue < right.rawValue }
}

/// How a read at home ended.
public enum ReadStatus: UInt8, Sendable {
    case success = 0
    /// The volume is not open for this edge, or its lease went to another.
    case notOpen = 1
    case outOfRange = 2
    /// The disk at home failed.
    case medium = 3
    /// The other side is too busy to take the request now.
    case busy = 4
}

/// Why a point was refused at home.
public enum PointRefusal: UInt8, Sendable {
    /// The generation is older than the lease's: another writer has taken over (W7).
    case fenced = 0
    /// The volume is not open for this edge.
    case notOpen = 1
    /// The number is not the one that follows the last received point.
    case outOfSequence = 2
    /// Count, size or digest differ from what arrived; send it again.
    case damaged = 3
    /// The journal at home has no room; send it again later.
    case noSpace = 4
    /// The disk or the journal at home failed.
    case medium = 5
}

/// Why a connection through a tunnel was broken off.
public enum TunnelReset: UInt8, Sendable, Error {
    /// One of the two TCP connections was.
    case aborted = 0
    /// There is no such tunnel for this edge.
    case unknown = 1
    /// The service can't be reached.
    case unreachable = 2
    /// There are too many connections.
    case busy = 3
    /// The other edge sent more than it may, or what makes no sense.
    case violation = 4
}

/// A run of sectors in an `allocationReply`; where it begins follows from those before it.
public struct AllocationRun: Equatable, Sendable {
    /// How many sectors; at least one, less than 2^63.
    public var sectorCount: UInt64
    /// What they have.
    public var allocation: Allocation

    public init(sectorCount: UInt64, allocation: Allocation) {
        self.sectorCount = sectorCount
        self.allocation = allocation
    }

    /// The run of an extent.
    public init(_ extent: AllocationExtent) { self.init(sectorCount: extent.range.count, allocation: extent.allocation) }
}

/// What the edges say to each other: the payload of a frame of the link.
///
/// Reads are idempotent and are asked again when a session is lost; points are numbered and are
/// sent again until they are received. So nothing here needs more of the link than that it
/// delivers each message of a session once.
public enum LinkMessage: Equatable, Sendable {
    /// A call: `method` names it, `body` is JSON in UTF-8. Answered by exactly one `reply` with the same `call`.
    case request(call: UInt64, method: String, body: ByteBuffer)
    /// The answer to a call: `status` is an HTTP status, `body` is JSON (a problem document unless 2xx).
    case reply(call: UInt64, status: UInt16, body: ByteBuffer)
    /// Something happened that has no answer (`method` names it).
    case notice(method: String, body: ByteBuffer)

    /// Asks for the bytes of `range`. `read` is chosen by the asker and comes back with the data.
    case readRequest(read: UInt64, volume: VolumeIdentifier, range: SectorRange)
    /// A piece of an answer: `data` belongs at `offset` bytes from the start of the range. The pieces
    /// of one answer may arrive in any order; the asker counts bytes.
    case readData(read: UInt64, offset: UInt32, data: ByteBuffer)
    /// A piece of an answer that is all zeroes.
    case readZeroes(read: UInt64, offset: UInt32, byteCount: UInt32)
    /// A piece of an answer: blocks of the asker's cache that the sender takes for equal, from `block` of the volume `source` on, one for each
    /// digest (version 4 and later). The asker compares, and asks for the bytes of those that it has not, or not with this digest.
    case readReferences(read: UInt64, offset: UInt32, source: VolumeIdentifier, block: UInt64, digests: [BlockDigest])
    /// Asks for the bytes of `range` themselves, which belong at `offset` of the answer to `read`: what stood there instead was of no use
    /// (version 4 and later).
    case readPlainRequest(read: UInt64, volume: VolumeIdentifier, range: SectorRange, offset: UInt32)
    /// The whole answer, when it failed.
    case readFailed(read: UInt64, status: ReadStatus)

    /// Asks what of `range` has storage at home (version 2 and later). `read` is from the same numbers as those of reads.
    case allocationRequest(read: UInt64, volume: VolumeIdentifier, range: SectorRange)
    /// The runs of sectors that follow one another from the start of the range on: a prefix of it. `readFailed` when it failed.
    case allocationReply(read: UInt64, runs: [AllocationRun])

    /// A point begins. Pieces follow in order, on the same stream, and `pointCommit` ends it.
    case pointBegin(volume: VolumeIdentifier, generation: LeaseGeneration, point: PointNumber)
    /// What the point carries besides its bytes (version 3 and later); right behind its `pointBegin`, if at all.
    case pointAttributes(volume: VolumeIdentifier, point: PointNumber, attributes: PointAttributes)
    /// The new bytes of a run of sectors (`data` is a whole number of sectors).
    case pointData(volume: VolumeIdentifier, point: PointNumber, start: UInt64, data: ByteBuffer)
    /// The new bytes of whole blocks from sector `start` on: the sender takes them for equal to those from `block` of the volume `source` on, as home
    /// has it, one for each digest (version 4 and later). Home compares, and asks for the bytes of those that differ.
    case pointReferences(
        volume: VolumeIdentifier, point: PointNumber, start: UInt64, source: VolumeIdentifier, block: UInt64, digests: [BlockDigest])
    /// Home: asks for the bytes of a part of the point itself, of whole blocks; what stood there instead was of no use (version 4 and later).
    case pointPieceRequest(volume: VolumeIdentifier, point: PointNumber, range: SectorRange)
    /// The answer, in the class of reads, ahead of what the point has besides: `data` is whole blocks from sector `start` on.
    case pointPiece(volume: VolumeIdentifier, point: PointNumber, start: UInt64, data: ByteBuffer)
    /// In place of that answer: there will be none. Home refuses the point, of which more may still be on its way (version 4 and later).
    case pointWithdrawn(volume: VolumeIdentifier, point: PointNumber)
    /// A run of sectors that now reads as zeroes.
    case pointZeroes(volume: VolumeIdentifier, point: PointNumber, range: SectorRange)
    /// The point is complete: it has this many pieces, and this digest (CRC-32C over the pieces, see docs/reference).
    case pointCommit(volume: VolumeIdentifier, point: PointNumber, pieces: UInt64, digest: UInt32)
    /// Home: the point is durable in the journal.
    case pointReceived(volume: VolumeIdentifier, point: PointNumber)
    /// Home: the point is on the disk, and durable there.
    case pointApplied(volume: VolumeIdentifier, point: PointNumber)
    /// Home: the point was not taken.
    case pointRefused(volume: VolumeIdentifier, point: PointNumber, refusal: PointRefusal)

    /// A TCP connection was made to the listening end of the tunnel `name`; the other end is to connect to its service (version 5 and later, as
    /// all of these). `stream` is chosen by the sender: odd at a cloud edge, even at home. The other end may send `window` bytes.
    case tunnelOpen(stream: UInt64, window: UInt32, name: String)
    /// The service took the connection; the other end may send it `window` bytes.
    case tunnelOpened(stream: UInt64, window: UInt32)
    /// Bytes of the connection, in order. `isShort`: more could have followed, had there been credit.
    case tunnelData(stream: UInt64, isShort: Bool, data: ByteBuffer)
    /// So many bytes more may be sent.
    case tunnelCredit(stream: UInt64, byteCount: UInt32)
    /// No bytes follow.
    case tunnelFinish(stream: UInt64)
    /// The connection was broken off, or never made.
    case tunnelReset(stream: UInt64, reason: TunnelReset)
}
