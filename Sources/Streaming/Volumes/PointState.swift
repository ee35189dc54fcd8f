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
    /// Home is sent all bytes, and no names of blocks.
    let isPlain: Bool

    init(point: PointNumber, segments: [LogSegment], isPlain: Bool) {
        self.point = point
        self.segments = segments
        self.isPlain = isPlain
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

    /// The message that names blocks of `source` in place of bytes: of whole blocks from sector `start` on, four of them a piece.
    mutating func message(
        for blocks: [(data: ByteBuffer, digest: BlockDigest)], from start: UInt64, source: BlockPlace, volume: VolumeIdentifier
    ) -> LinkMessage {
        for first in stride(from: 0, to: blocks.count, by: LinkLimits.blocksPerNamedPiece) {
            let piece = blocks[first..<min(blocks.count, first + LinkLimits.blocksPerNamedPiece)]
            var data = ByteBuffer()
            for block in piece { data.writeImmutableBuffer(block.data) }
            let sector = start + UInt64(first) * BlockGeometry.sectorsPerBlock
            digest.add(SectorRange(from: sector, to: sector + UInt64(piece.count) * BlockGeometry.sectorsPerBlock), data: data)
        }
        return .pointReferences(
            volume: volume, point: point, start: start, source: source.volume, block: source.block, digests: blocks.map(\.digest))
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

/// A run of a point on its way from the log to the outbox.
private struct PointRead {
    let range: SectorRange
    /// Nil while it is being read, and for zeroes.
    var data: ByteBuffer?
    var isReady = false
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
    /// How much of a point may be read ahead of what the link takes, in bytes; what is begun with less may go beyond it by one run. A volume has
    /// that much ready for its turn (`SendingTurns.quantumBytes`), and the same again while it has that turn.
    static let readAheadBytesMax = 128 << 10
    /// How many messages may wait for the link when more is read ahead: zeroes cost no reads and no data.
    static let outboxMax = 64
    /// How many runs of a point may be read from the log at once, or wait there for one before them.
    static let readsMax = 16
    /// Blocks of points under way that are remembered for others to be named after them; further ones are not.
    static let sentBlocksMax = 1 << 14
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
    /// Runs that are being read from the log or wait for one that is, in the order in which they are sent.
    private var reads = Deque<PointRead>()
    /// True while the runs that come next wait for a read.
    var isReading: Bool { !reads.isEmpty }
    /// The number of the first of them; they are counted within a session.
    private var firstRead = 0
    /// Blocks of points that home has not applied yet.
    private var sentBlocks = Deque<(point: PointNumber, digest: BlockDigest, block: UInt64)>()
    /// Bytes that home has asked for and the link has not taken yet: no more than one message names.
    var pieces = Deque<LinkMessage>()
    /// How often home has asked for bytes of a point that was named, and of which.
    var pieceRequests = (point: PointNumber(0), count: 0)
    /// The point that is sent without names: with them it did not arrive as it was sent.
    var plainPoint: PointNumber?
    /// Data in the outbox or on its way there.
    private var preparedBytes = 0
    /// Counts sessions, so that a read that belongs to a lost one is ignored.
    var session: UInt64 = 0
    /// Not before then is anything sent: home asked for patience.
    var pausedUntil: NIODeadline?
    /// The point that home had no room for: it is sent again in the same session, when the pause is over.
    var postponedPoint: PointNumber?
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
        reads.removeAll()
        pieces.removeAll()
        sentBlocks.removeAll()
        firstRead = 0
        preparedBytes = 0
        sent = received
        pausedUntil = nil
        postponedPoint = nil
    }

    /// Home has no room for a point, and nothing else is wrong: all that it has not received is sent again, when the pause is over.
    mutating func postpone(_ point: PointNumber, until deadline: NIODeadline) {
        sessionLost()
        pausedUntil = deadline
        postponedPoint = point
    }

    /// The pause after `postpone` is over.
    mutating func goOn() {
        (pausedUntil, postponedPoint) = (nil, nil)
        sent = received
    }

    mutating func opened(_ reply: VolumeOpenReply) {
        sessionLost()
        generation = reply.generation
        sent = reply.receivedPoint
    }

    /// The link has taken the first message of the outbox.
    mutating func messageWasSent() {
        switch outbox.popFirst() {
        case .pointData(_, _, _, let data)?: preparedBytes -= data.readableBytes
        case .pointReferences(_, _, _, _, _, let digests)?: preparedBytes -= digests.count * BlockGeometry.blockBytes
        default: break
        }
    }

    /// A point has brought a block that home has on its disk once it has applied the point.
    mutating func noteBlock(of point: PointNumber, _ digest: BlockDigest, _ block: UInt64) {
        if sentBlocks.count < Self.sentBlocksMax { sentBlocks.append((point, digest, block)) }
    }

    /// The next block that home has now.
    mutating func nextBlockAtHome() -> (digest: BlockDigest, block: UInt64)? {
        guard let first = sentBlocks.first, first.point <= applied else { return nil }
        sentBlocks.removeFirst()
        return (first.digest, first.block)
    }

    /// True when one more run may be taken before those before it have been sent.
    var mayReadAhead: Bool { reads.count < Self.readsMax && preparedBytes < Self.readAheadBytesMax && outbox.count < Self.outboxMax }

    /// Begins with one more run; the number is what `readEnded` is told.
    mutating func addRead(of run: LogSegment) -> Int {
        if case .data = run.content { preparedBytes += run.range.byteCount }
        reads.append(PointRead(range: run.range))
        return firstRead + reads.count - 1
    }

    /// A run of this session has been read; nil for zeroes.
    mutating func readEnded(_ number: Int, with data: ByteBuffer?) {
        let index = number - firstRead
        guard reads.indices.contains(index) else { return }
        reads[index].data = data
        reads[index].isReady = true
    }

    /// Takes out the first run if it is ready.
    mutating func nextRead() -> (range: SectorRange, data: ByteBuffer?)? {
        guard let first = reads.first, first.isReady else { return nil }
        reads.removeFirst()
        firstRead += 1
        return (first.range, first.data)
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
