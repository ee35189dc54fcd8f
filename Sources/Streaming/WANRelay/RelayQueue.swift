import DequeModule
import NIOCore

// One direction of a line, without sockets and clocks.
//
//      enqueue            queue of a router            the line
//   ──────────────▶ │ waits until the line   │ ──▶ │ travels for   │ ──▶ due
//                   │ is free: departure     │     │ one-way delay │
//                   └ queuedByteCount        ┘     └───────────────┘
//                   └ inTransitByteCount (both)                    ┘
//
// A segment departs when the line has carried everything before it and itself, and is due one
// one-way delay later. Both times are known when it is enqueued, so the queue keeps one list in
// order and two positions in it: the segments before `departedCount` are on the line, the others
// wait. Time inside is "line time", which stands still while the line is frozen.

/// One direction of an emulated line: a router's queue, a limited rate, a delay.
public struct RelayQueue {
    /// What travels.
    public enum Content: Equatable, Sendable {
        /// Bytes of a connection.
        case bytes(ByteBuffer)
        /// The sender will send no more (FIN).
        case endOfStream
        /// The sender's socket is gone.
        case closed
    }

    /// A piece of a connection's stream.
    public struct Segment: Equatable, Sendable {
        /// The connection, as numbered by the owner of the queue.
        public var connection: Int
        public var content: Content

        public init(connection: Int, content: Content) {
            self.connection = connection
            self.content = content
        }

        var byteCount: Int {
            if case .bytes(let buffer) = content { return buffer.readableBytes }
            return 0
        }
    }

    private struct Entry {
        var segment: Segment
        var departure: NIODeadline
        var delivery: NIODeadline
    }

    /// The bytes that may be in the queue and on the line together. A line without a limit of rate has no
    /// other bound; the reading of sockets stops here as it does at a full queue.
    public static let inTransitByteLimit = 64 * 1024 * 1024

    /// What the line is like for bytes that come from now on.
    public var conditions: RelayConditions
    /// Bytes that wait for the line.
    public private(set) var queuedByteCount = 0
    /// Bytes that wait or travel.
    public private(set) var inTransitByteCount = 0
    /// The most bytes that ever waited.
    public private(set) var queuedByteCountPeak = 0
    /// All bytes that came in.
    public private(set) var enteredByteCount: UInt64 = 0
    /// All bytes that came out.
    public private(set) var deliveredByteCount: UInt64 = 0
    /// All bytes that a cut destroyed.
    public private(set) var droppedByteCount: UInt64 = 0

    private var entries = Deque<Entry>()
    private var departedCount = 0
    private var lineFreeAt = NIODeadline.uptimeNanoseconds(0)
    private var lastDelivery = NIODeadline.uptimeNanoseconds(0)
    private var frozenAt: NIODeadline?
    private var frozenTime = TimeAmount.zero

    public init(conditions: RelayConditions) {
        self.conditions = conditions
    }

    /// True while nothing departs or arrives.
    public var isFrozen: Bool { frozenAt != nil }

    /// Takes what a socket gave. It is taken even when there is no room, for it was read already; ask `hasRoom` before reading.
    public mutating func enqueue(_ segment: Segment, now: NIODeadline) {
        guard case .bytes(var buffer) = segment.content else {
            append(segment, now: now)
            return
        }
        let limit = conditions.segmentByteLimit
        while let piece = buffer.readSlice(length: min(limit, buffer.readableBytes)), piece.readableBytes > 0 {
            append(Segment(connection: segment.connection, content: .bytes(piece)), now: now)
        }
    }

    private mutating func append(_ segment: Segment, now: NIODeadline) {
        advance(now: now)
        let byteCount = segment.byteCount
        let departure = max(lineTime(now), lineFreeAt) + conditions.transmissionTime(of: byteCount)
        // A delay that shrinks must not let later bytes overtake earlier ones.
        let delivery = max(departure + conditions.oneWayDelay, lastDelivery)
        lineFreeAt = departure
        lastDelivery = delivery
        entries.append(Entry(segment: segment, departure: departure, delivery: delivery))
        queuedByteCount += byteCount
        inTransitByteCount += byteCount
        enteredByteCount &+= UInt64(byteCount)
        advance(now: now)
        queuedByteCountPeak = max(queuedByteCountPeak, queuedByteCount)
    }

    /// True when the queue takes more bytes.
    public mutating func hasRoom(now: NIODeadline) -> Bool {
        advance(now: now)
        return !isFrozen && queuedByteCount < conditions.queueByteLimit && inTransitByteCount < Self.inTransitByteLimit
    }

    /// Takes out the next segment that has arrived at the far end, in order; nil when there is none yet.
    public mutating func nextDue(now: NIODeadline) -> Segment? {
        advance(now: now)
        guard !isFrozen, let first = entries.first, first.delivery <= lineTime(now) else { return nil }
        entries.removeFirst()
        departedCount -= 1
        inTransitByteCount -= first.segment.byteCount
        deliveredByteCount &+= UInt64(first.segment.byteCount)
        return first.segment
    }

    /// When the next segment arrives; nil when none is under way or the line is frozen.
    public var nextDelivery: NIODeadline? {
        if isFrozen { return nil }
        return entries.first.map { $0.delivery + frozenTime }
    }

    /// When the queue next becomes shorter; nil when nothing waits or the line is frozen.
    public var nextDeparture: NIODeadline? {
        if isFrozen || departedCount >= entries.count { return nil }
        return entries[departedCount].departure + frozenTime
    }

    /// Stops the line's time: nothing departs, nothing arrives.
    public mutating func freeze(now: NIODeadline) {
        if isFrozen { return }
        advance(now: now)
        frozenAt = now
    }

    /// Lets the line's time go on where it stopped.
    public mutating func thaw(now: NIODeadline) {
        guard let since = frozenAt else { return }
        frozenTime = frozenTime + max(now - since, .zero)
        frozenAt = nil
    }

    /// Destroys everything under way.
    public mutating func removeAll() {
        droppedByteCount &+= UInt64(inTransitByteCount)
        entries.removeAll()
        departedCount = 0
        queuedByteCount = 0
        inTransitByteCount = 0
        lineFreeAt = .uptimeNanoseconds(0)
        lastDelivery = .uptimeNanoseconds(0)
    }

    private func lineTime(_ now: NIODeadline) -> NIODeadline { (frozenAt ?? now) - frozenTime }

    /// Moves the segments whose departure has come from the queue to the line.
    private mutating func advance(now: NIODeadline) {
        let time = lineTime(now)
        while departedCount < entries.count, entries[departedCount].departure <= time {
            queuedByteCount -= entries[departedCount].segment.byteCount
            departedCount += 1
        }
    }
}
