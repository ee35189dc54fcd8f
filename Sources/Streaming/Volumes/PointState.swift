import Blocks
import DequeModule
import LinkProtocol
import NIOCore
import WriteLog

// Where the points of a volume are on their way home.
//
//   sealed (log) -> sent -> received (home's journal) -> promoted (cache), released (log)
//                                                     -> applied (home's disk)
//
// Points are sent in order, one at a time, up to `inFlightMax` ahead of what home has received.
// A point that was received is promoted: its blocks go into the cache, or are forgotten there,
// durably, before the log lets go of it; so at no moment is an older block the newest one known.

/// The sending of one point, piece by piece.
struct PointTransmission {
    /// How much is read from the log at once.
    static let readSectorsMax: UInt64 = 128

    let point: PointNumber
    private let segments: [LogSegment]
    private var index = 0
    private var position: UInt64
    private var digest = PointDigest()

    init(point: PointNumber, segments: [LogSegment]) {
        self.point = point
        self.segments = segments
        position = segments.first?.range.start ?? 0
    }

    /// The next run to send: zeroes as far as they reach, data in runs of `readSectorsMax`. Nil at the end.
    mutating func nextRun() -> LogSegment? {
        guard index < segments.count else { return nil }
        let segment = segments[index]
        if case .zeroes = segment.content { return nextZeroes(from: segment.range.start) }
        let end = min(segment.range.end, position + Self.readSectorsMax)
        let run = segment.clipped(to: SectorRange(from: position, to: end))
        if end == segment.range.end {
            index += 1
            position = index < segments.count ? segments[index].range.start : end
        } else {
            position = end
        }
        return run
    }

    /// Zeroes that touch go as one run, so that home frees whole blocks of its file system where two of them share one.
    private mutating func nextZeroes(from start: UInt64) -> LogSegment {
        var end = start
        while index < segments.count, segments[index].range.start == end, case .zeroes = segments[index].content {
            end = segments[index].range.end
            index += 1
        }
        position = index < segments.count ? segments[index].range.start : end
        return LogSegment(range: SectorRange(from: start, to: end), content: .zeroes)
    }

    /// The messages that carry a run of data, in pieces of about `pieceBytes`.
    mutating func messages(for range: SectorRange, data: ByteBuffer, pieceBytes: Int, volume: VolumeIdentifier) -> [LinkMessage] {
        let pieceSectors = max(1, UInt64(pieceBytes / BlockGeometry.sectorBytes))
        var data = data
        var messages: [LinkMessage] = []
        var start = range.start
        while start < range.end {
            let piece = SectorRange(from: start, to: min(range.end, start + pieceSectors))
            guard let bytes = data.readSlice(length: piece.byteCount) else { break }
            digest.add(piece, data: bytes)
            messages.append(.pointData(volume: volume, point: point, start: piece.start, data: bytes))
            start = piece.end
        }
        return messages
    }

    /// The message that carries a run of zeroes.
    mutating func message(forZeroes range: SectorRange, volume: VolumeIdentifier) -> LinkMessage {
        digest.addZeroes(range)
        return .pointZeroes(volume: volume, point: point, range: range)
    }

    /// The message that ends the point.
    func commit(volume: VolumeIdentifier) -> LinkMessage {
        .pointCommit(volume: volume, point: point, pieces: digest.pieceCount, digest: digest.value)
    }
}

/// Someone who waits until everything written before a moment has come to some place.
struct PointWaiter {
    let point: PointNumber
    let progress: PointProgress
    let completion: (Result<PointNumber, BlockDeviceError>) -> Void
}

/// Someone who wants a point of a volume whose group is not there yet.
struct AwaitingSeal {
    let seal: PointSeal?
    let progress: PointProgress
    let completion: (Result<PointNumber, BlockDeviceError>) -> Void
}

/// The points of one volume.
struct PointState {
    /// How many points may be on the line or in home's hands before the first is received.
    static let inFlightMax: UInt64 = 4
    /// How long a point that home could not take waits before it is sent again.
    static let retryDelay: TimeAmount = .seconds(1)

    /// What home carries in its lease; each point states it.
    var generation: LeaseGeneration = 0
    var received: PointNumber = 0
    var applied: PointNumber = 0
    /// The last point whose every message was handed to the link in this session.
    var sent: PointNumber = 0
    var transmission: PointTransmission?
    /// Messages that the link has not taken yet.
    var outbox = Deque<LinkMessage>()
    /// True while a run is being read from the log.
    var isReading = false
    /// Counts sessions, so that a read that belongs to a lost one is ignored.
    var session: UInt64 = 0
    /// Not before then is anything sent: home asked for patience.
    var pausedUntil: NIODeadline?
    var isSealing = false
    /// The cache is taking the blocks of a received point.
    var isPromoting = false
    /// What the point carries of its group that the log is letting go of: a crash may bring it back until that is durable.
    var cutLeavingLog: GroupPoint?
    var waiters: [PointWaiter] = []
    /// Those who wait for the volume's group; bounded together with `waiters`.
    var sealsAwaitingGroup: [AwaitingSeal] = []

    mutating func sessionLost() {
        session &+= 1
        transmission = nil
        outbox.removeAll()
        isReading = false
        sent = received
        pausedUntil = nil
    }

    mutating func opened(_ reply: VolumeOpenReply) {
        sessionLost()
        generation = reply.generation
        sent = reply.receivedPoint
    }

    /// The point to send next, if one is sealed and the limits allow it.
    func nextToSend(lastSealed: PointNumber) -> PointNumber? {
        let next = max(sent, received) + 1
        return next <= lastSealed && next - received <= Self.inFlightMax ? next : nil
    }

    /// True while a sealed point waits whose sending has not begun.
    func isWaitingToSend(lastSealed: PointNumber) -> Bool {
        max(sent, received, transmission?.point ?? 0) < lastSealed
    }

    /// Takes out the waiters whose wish has come true.
    mutating func fulfilledWaiters(sealed: PointNumber) -> [PointWaiter] {
        let isFulfilled: (PointWaiter) -> Bool = { [received, applied] waiter in
            switch waiter.progress {
            case .sealed: return waiter.point <= sealed
            case .received: return waiter.point <= received
            case .applied: return waiter.point <= applied
            }
        }
        let fulfilled = waiters.filter(isFulfilled)
        if !fulfilled.isEmpty { waiters.removeAll(where: isFulfilled) }
        return fulfilled
    }
}
