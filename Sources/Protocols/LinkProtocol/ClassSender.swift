import Blocks
import DequeModule
import NIOCore

/// A frame that was sent and is kept until it is acknowledged.
struct SentFrame {
    enum State {
        case inFlight
        /// Its connection was lost; it waits to be sent again.
        case waitingAgain
        case acknowledged
    }

    var state = State.inFlight
    /// The encoded frame, not compressed; empty once acknowledged.
    var bytes: ByteBuffer
    let cost: Int
    var wireBytes: Int
    var connection: ConnectionIdentifier
    var sentAt: NIODeadline
    var inFlightWhenSent: Int
    /// The round trip of a frame that was sent twice says nothing.
    var wasSentAgain = false
}

/// A frame that was never sent, whose sequence is still 0.
struct QueuedFrame {
    var bytes: ByteBuffer
    /// The volume whose data it carries, if that is known.
    let volume: VolumeIdentifier?
    /// It belongs to more than anybody waits for as a whole.
    let isBulk: Bool
}

/// What one end sends in a class: the queue, what is on its way, credit. A class, because a session asks its senders for each frame who
/// has one: of a value in an array the question would copy all queues' references.
final class ClassSender {
    let trafficClass: TrafficClass
    /// `bulk` is used by demand only.
    private var queue = Deque<QueuedFrame>()
    private var bulkQueue = Deque<QueuedFrame>()
    private var queuedPlainBytes = 0
    private var queuedBulkBytes = 0
    /// Frames of `queue` that somebody waits for, one by one.
    private var queuedCalls = 0
    /// The cost of frames that are on their way or wait to be sent again.
    private(set) var unacknowledgedBytes = 0
    private var again = Deque<UInt64>()

    private var sent = Deque<SentFrame>()
    /// The sequence of `sent.first`.
    private(set) var firstSequence: UInt64 = 0
    private var spentCredit: UInt64 = 0
    private var credit: UInt64
    /// The limit was reached, and the layers above wait to hear when there is room.
    var wasFull = false
    /// The same, for bulk where that has a limit of its own.
    var wasFullForBulk = false

    init(_ trafficClass: TrafficClass) {
        self.trafficClass = trafficClass
        self.credit = UInt64(LinkLimits.bytesBeforeGrant(trafficClass))
    }

    var nextSequence: UInt64 { firstSequence + UInt64(sent.count) }
    var outstandingBytes: Int { queuedBytes + unacknowledgedBytes }
    var queuedBytes: Int { queuedPlainBytes + queuedBulkBytes }

    /// What bulk leaves to others: room in `demand`, so that a short answer always finds some.
    private func reserve(_ isBulk: Bool) -> Int { isBulk ? LinkLimits.outstandingBytes(trafficClass) / 4 : 0 }

    /// The same of the credit, of which some receivers grant no more than there is at the beginning.
    private func creditReserve(_ lane: Lane) -> Int { lane == .bulkDemand ? LinkLimits.bytesBeforeGrant(.demand) / 4 : 0 }

    private func isSeparate(_ isBulk: Bool) -> Bool { isBulk && trafficClass == .demand }

    func isFull(isBulk: Bool) -> Bool {
        if isBulk, trafficClass == .control, hasEnoughBulk { return true }
        let isBulk = isSeparate(isBulk)
        return (isBulk ? queuedBulkBytes : queuedPlainBytes) >= LinkLimits.queuedBytes(trafficClass)
            || outstandingBytes >= LinkLimits.outstandingBytes(trafficClass) - reserve(isBulk)
    }

    /// In the class of calls bulk has no queue of its own: it keeps the order, and leaves most of the room.
    private var hasEnoughBulk: Bool {
        queuedPlainBytes >= LinkLimits.controlBulkBytes
            || outstandingBytes >= LinkLimits.outstandingBytes(.control) - reserve(true)
    }

    /// Bulk is refused earlier than the rest, and told apart from it when there is room again: one may go on filling its queue for as long as the
    /// other waits.
    var hasLimitForBulk: Bool { trafficClass == .control || trafficClass == .demand }

    var hasRoomForBulkAgain: Bool {
        if trafficClass == .demand {
            return queuedBulkBytes <= LinkLimits.queuedBytes(.demand) / 2
                && outstandingBytes <= LinkLimits.outstandingBytes(.demand) / 8 * 5
        }
        // One frame may still wait: who sends is called in time for the next.
        return queuedPlainBytes <= FrameHeader.byteCount + LinkLimits.framePayloadBytes
            && outstandingBytes <= LinkLimits.outstandingBytes(.control) / 8 * 5
    }

    var hasRoomAgain: Bool {
        // Bulk in `demand` leaves a quarter of what may be outstanding.
        queuedPlainBytes <= LinkLimits.queuedBytes(trafficClass) / 2
            && outstandingBytes <= LinkLimits.outstandingBytes(trafficClass) / 8 * (trafficClass == .demand ? 7 : 5)
    }

    /// Queues a message, cut into frames when it is too long for one.
    func enqueue(_ message: LinkMessage, isBulk: Bool, of volume: VolumeIdentifier?) -> Bool {
        let byteCount = message.encodedBytes
        guard message.isEncodable, byteCount <= LinkLimits.framePayloadBytes || trafficClass.isOrdered else { return false }
        if byteCount <= LinkLimits.framePayloadBytes {
            var frame = Self.begin(trafficClass, payloadBytes: byteCount, hasMore: false)
            message.encode(into: &frame)
            append(QueuedFrame(bytes: frame, volume: volume, isBulk: isBulk))
            return true
        }
        var whole = ByteBuffer()
        whole.reserveCapacity(byteCount)
        message.encode(into: &whole)
        while let part = whole.readSlice(length: min(LinkLimits.framePayloadBytes, whole.readableBytes)), part.readableBytes > 0 {
            var frame = Self.begin(trafficClass, payloadBytes: part.readableBytes, hasMore: whole.readableBytes > 0)
            frame.writeImmutableBuffer(part)
            append(QueuedFrame(bytes: frame, volume: volume, isBulk: isBulk))
        }
        return true
    }

    private static func begin(_ trafficClass: TrafficClass, payloadBytes: Int, hasMore: Bool) -> ByteBuffer {
        var frame = ByteBuffer()
        frame.reserveCapacity(FrameHeader.byteCount + payloadBytes)
        FrameHeader(kind: .data, trafficClass: trafficClass, hasMore: hasMore, payloadBytes: payloadBytes).encode(into: &frame)
        return frame
    }

    private func append(_ frame: QueuedFrame) {
        if isSeparate(frame.isBulk) {
            queuedBulkBytes += frame.bytes.readableBytes
            bulkQueue.append(frame)
        } else {
            queuedPlainBytes += frame.bytes.readableBytes
            if !frame.isBulk { queuedCalls += 1 }
            queue.append(frame)
        }
    }

    /// True when the lane has something to send, whether or not it may.
    func isWaiting(_ lane: Lane) -> Bool {
        lane == .bulkDemand ? !bulkQueue.isEmpty : !queue.isEmpty || !again.isEmpty
    }

    /// The size of the frame that would be sent next in the lane; nil when there is none, or no credit for it.
    func head(_ lane: Lane) -> Int? {
        if lane != .bulkDemand, let sequence = again.first { return sent[Int(sequence - firstSequence)].cost }
        guard let frame = lane == .bulkDemand ? bulkQueue.first : queue.first, sent.count < LinkLimits.windowFrames,
            spentCredit &+ UInt64(frame.bytes.readableBytes + creditReserve(lane)) <= credit
        else { return nil }
        return frame.bytes.readableBytes
    }

    /// In the class of calls: the frame that `head` spoke of is a call's, or a call is behind it, or it is sent again.
    func isHeadCall(_ lane: Lane) -> Bool { lane == .control && (!again.isEmpty || queuedCalls > 0) }

    /// Takes the frame that `head` spoke of. Of one that is sent again the volume is not known any more.
    func take(_ lane: Lane, on connection: ConnectionIdentifier, inFlight: Int, now: NIODeadline) -> QueuedFrame? {
        if lane != .bulkDemand, let sequence = again.popFirst() {
            let index = Int(sequence - firstSequence)
            sent[index].state = .inFlight
            sent[index].wasSentAgain = true
            sent[index].connection = connection
            sent[index].sentAt = now
            sent[index].wireBytes = sent[index].cost
            return QueuedFrame(bytes: sent[index].bytes, volume: nil, isBulk: false)
        }
        guard var frame = lane == .bulkDemand ? bulkQueue.popFirst() : queue.popFirst() else { return nil }
        frame.bytes.setInteger(nextSequence, at: frame.bytes.readerIndex + FrameHeader.byteCount - 8)
        let cost = frame.bytes.readableBytes
        if lane == .bulkDemand { queuedBulkBytes -= cost } else { queuedPlainBytes -= cost }
        if lane != .bulkDemand, !frame.isBulk { queuedCalls -= 1 }
        unacknowledgedBytes += cost
        spentCredit &+= UInt64(cost)
        sent.append(
            SentFrame(
                bytes: frame.bytes, cost: cost, wireBytes: cost, connection: connection, sentAt: now, inFlightWhenSent: inFlight + cost)
        )
        return frame
    }

    /// Corrects the size on the line of a frame that was just taken.
    /// - Returns: by how much it is smaller than was counted.
    func setWireBytes(_ byteCount: Int, sequence: UInt64) -> Int {
        guard sequence >= firstSequence, sequence < nextSequence else { return 0 }
        let index = Int(sequence - firstSequence)
        guard sent[index].state == .inFlight else { return 0 }
        let saved = sent[index].wireBytes - byteCount
        sent[index].wireBytes = byteCount
        sent[index].inFlightWhenSent -= saved
        return saved
    }

    /// Takes the other side's position; `arrived` is called for each frame that was not known to have arrived.
    func acknowledge(_ position: ClassPosition, arrived: (SentFrame) -> Void) throws(LinkViolation) {
        guard position.next <= nextSequence else { throw LinkViolation("an acknowledgement of what was never sent") }
        credit = max(credit, position.credit)
        if position.next > firstSequence {
            for index in 0..<Int(position.next - firstSequence) { markArrived(index, arrived) }
        }
        for (word, bits) in position.arrived.enumerated() where bits != 0 {
            for bit in 0..<64 where bits & (1 << UInt64(bit)) != 0 {
                let (sequence, overflow) = position.next.addingReportingOverflow(UInt64(word * 64 + bit))
                guard !overflow, sequence < nextSequence else { throw LinkViolation("an acknowledgement of what was never sent") }
                if sequence >= firstSequence { markArrived(Int(sequence - firstSequence), arrived) }
            }
        }
        // What waits to be sent again is looked up by its place in `sent`, so it goes first.
        dropAcknowledgedAgain()
        while let first = sent.first, first.state == .acknowledged {
            sent.removeFirst()
            firstSequence += 1
        }
    }

    private func markArrived(_ index: Int, _ arrived: (SentFrame) -> Void) {
        if sent[index].state == .acknowledged { return }
        arrived(sent[index])
        sent[index].state = .acknowledged
        sent[index].bytes = ByteBuffer()
        unacknowledgedBytes -= sent[index].cost
    }

    private func dropAcknowledgedAgain() {
        if again.contains(where: { sent[Int($0 - firstSequence)].state == .acknowledged }) {
            again.removeAll { sent[Int($0 - firstSequence)].state == .acknowledged }
        }
    }

    /// Everything that was on its way on a lost connection waits to be sent again.
    func connectionLost(_ connection: ConnectionIdentifier, lost: (SentFrame) -> Void) {
        var found = false
        for index in sent.indices where sent[index].state == .inFlight && sent[index].connection == connection {
            lost(sent[index])
            sent[index].state = .waitingAgain
            again.append(firstSequence + UInt64(index))
            found = true
        }
        if found { again.sort() }
    }
}
