import DequeModule
import LoadGenerator
import NIOCore

// One direction of a line, without devices and clocks.
//
//      offer              queue of a router            the line
//   ──────────────▶ │ waits until the line   │ ──▶ │ delay, jitter,      │ ──▶ nextDue
//         │         │ is free: departure     │     │ loss, late ones     │
//         ▼         └ queuedByteCount        ┘     └ packetsInTransit    ┘
//    no room: dropped
//
// When a packet departs and arrives is known when it is offered. So there are three lists: the departures, only to know how full the
// queue is; the arrivals of those that keep their order; and the few that are late. A packet that will be lost is in the
// first only: it takes room and time as any other. What is lost of a train is known when it arrives. Time inside is "line time", which stands
// still while the line holds.
//
// Nothing is allocated for a packet: the lists keep their storage.

/// One direction of an emulated line, packet by packet.
public struct PacketLine: Sendable {
    /// A packet, or a train of packets that are together from one end to the other; by what its owner calls it.
    public struct Packet: Hashable, Sendable {
        /// The owner's name for its bytes.
        public var handle: Int
        /// Its length with the IP header, of a train with all of them. What counts is at most `byteCountMaximum`.
        public var byteCount: Int
        /// How many packets it is.
        public var packetCount: UInt64

        public init(handle: Int, byteCount: Int, packetCount: Int = 1) {
            self.handle = handle
            self.byteCount = min(max(byteCount, 0), Self.byteCountMaximum)
            self.packetCount = UInt64(clamping: max(packetCount, 1))
        }

        /// The longest IP packet twice over: so long is a train with the headers of all its packets, unless they are very short.
        public static let byteCountMaximum = 131_070
    }

    /// What becomes of a packet that is offered.
    public enum Fate: Hashable, Sendable {
        /// It will arrive.
        case taken
        /// The queue has no room.
        case dropped
        /// The line loses it, or is cut. Its owner needs its bytes no more.
        case lost
    }

    /// What passed until now.
    public struct Counts: Hashable, Sendable {
        /// Packets and bytes that were offered.
        public var offeredPackets: UInt64 = 0
        public var offeredBytes: UInt64 = 0
        /// Packets and bytes that left the queue for the line, the lost ones too: what a router would have counted.
        public var carriedPackets: UInt64 = 0
        public var carriedBytes: UInt64 = 0
        /// Packets and bytes that arrived.
        public var deliveredPackets: UInt64 = 0
        public var deliveredBytes: UInt64 = 0
        /// Packets for which the queue had no room.
        public var droppedPackets: UInt64 = 0
        /// Packets that the loss model took.
        public var lostPackets: UInt64 = 0
        /// Packets that a cut took.
        public var cutPackets: UInt64 = 0
        /// Packets that arrive late.
        public var latePackets: UInt64 = 0
        /// The most bytes that ever waited.
        public var queuedBytesPeak = 0
    }

    private struct Departure {
        var time: NIODeadline
        var byteCount: Int
        var packetCount: UInt64
    }
    private struct Arrival {
        var time: NIODeadline
        var packet: Packet
    }

    /// What the line is like for packets that come from now on.
    public var conditions: LineConditions
    public private(set) var state = LineState.up
    public private(set) var counts = Counts()
    /// Bytes that wait for the line.
    public private(set) var queuedByteCount = 0
    /// Packets that were taken and have not arrived; each train counts as one.
    public var packetsInTransit: Int { arrivals.count + late.count }

    private var random: SeededGenerator
    private var loss = LossState()
    private var drift = DelayDrift()
    private var departures = Deque<Departure>()
    private var arrivals = Deque<Arrival>()
    /// Those that are overtaken, the first to arrive last.
    private var late: [Arrival] = []

    private var lineFreeAt = NIODeadline.uptimeNanoseconds(0)
    /// What `lineFreeAt` leaves out: a fraction of a nanosecond, in units of 1 / bytesPerSecond.
    private var lineFreeFraction: UInt64 = 0
    private var fractionRate: UInt64 = 0
    private var lastArrival = NIODeadline.uptimeNanoseconds(0)
    private var heldSince: NIODeadline?
    private var heldTime = TimeAmount.zero

    /// A line that decides by `random` what is left to chance.
    public init(conditions: LineConditions, random: SeededGenerator) {
        self.conditions = conditions
        self.random = random
        departures.reserveCapacity(1024)
        arrivals.reserveCapacity(1024)
    }

    /// Takes a packet, or says why not. Only one that is `taken` comes out again.
    public mutating func offer(_ packet: Packet, now: NIODeadline) -> Fate {
        counts.offeredPackets &+= packet.packetCount
        counts.offeredBytes &+= UInt64(packet.byteCount)
        if state == .cut {
            counts.cutPackets &+= packet.packetCount
            return .lost
        }
        let time = lineTime(now)
        advance(to: time)
        if queuedByteCount + packet.byteCount > conditions.queueByteLimit, queuedByteCount > 0 {
            counts.droppedPackets &+= packet.packetCount
            return .dropped
        }
        let departure = departureTime(of: packet.byteCount, now: time)
        departures.append(Departure(time: departure, byteCount: packet.byteCount, packetCount: packet.packetCount))
        queuedByteCount += packet.byteCount
        advance(to: time)
        counts.queuedBytesPeak = max(counts.queuedBytesPeak, queuedByteCount)
        if packet.packetCount == 1, loss.losesNext(conditions.loss, random: &random) {
            counts.lostPackets &+= 1
            return .lost
        }
        schedule(packet, departure: departure)
        return .taken
    }

    /// When the next packet arrives; nil when none is under way, or the line holds.
    public var nextArrival: NIODeadline? {
        if heldSince != nil { return nil }
        let time = [arrivals.first?.time, late.last?.time].lazy.compactMap { $0 }.min()
        return time.map { $0 + heldTime }
    }

    /// A packet that has arrived by `now`; nil when none has.
    public mutating func nextDue(now: NIODeadline) -> Packet? {
        let time = lineTime(now)
        let arrival: Arrival
        if let first = arrivals.first, first.time <= time, first.time <= late.last?.time ?? first.time {
            arrival = arrivals.removeFirst()
        } else if let first = late.last, first.time <= time {
            arrival = late.removeLast()
        } else {
            return nil
        }
        counts.deliveredPackets &+= arrival.packet.packetCount
        counts.deliveredBytes &+= UInt64(arrival.packet.byteCount)
        return arrival.packet
    }

    /// Whether the next packet of a train that has arrived is lost: it is asked for each of them in their order, with its bytes.
    public mutating func losesOfTrain(_ byteCount: Int) -> Bool {
        guard loss.losesNext(conditions.loss, random: &random) else { return false }
        counts.lostPackets &+= 1
        counts.deliveredPackets &-= 1
        counts.deliveredBytes &-= UInt64(clamping: byteCount)
        return true
    }

    /// Counts what has departed by now, so that `counts` and `queuedByteCount` are those of this moment.
    public mutating func advance(now: NIODeadline) { advance(to: lineTime(now)) }

    /// Cuts the line, has it hold, or restores it. `lose` is called with each packet that a cut takes from it.
    public mutating func setState(_ state: LineState, now: NIODeadline, lose: (Packet) -> Void) {
        if let since = heldSince {
            heldTime = heldTime + (now - since)
            heldSince = nil
        }
        self.state = state
        switch state {
        case .up: break
        case .hold: heldSince = now
        case .cut:
            for arrival in [arrivals.map { $0 }, late].joined() {
                counts.cutPackets &+= arrival.packet.packetCount
                lose(arrival.packet)
            }
            arrivals.removeAll(keepingCapacity: true)
            late.removeAll(keepingCapacity: true)
            departures.removeAll(keepingCapacity: true)
            queuedByteCount = 0
            lineFreeAt = .uptimeNanoseconds(0)
        }
    }

    // MARK: Times

    private func lineTime(_ now: NIODeadline) -> NIODeadline { (heldSince ?? now) - heldTime }

    private mutating func advance(to time: NIODeadline) {
        while let first = departures.first, first.time <= time {
            departures.removeFirst()
            queuedByteCount -= first.byteCount
            counts.carriedPackets &+= first.packetCount
            counts.carriedBytes &+= UInt64(first.byteCount)
        }
    }

    /// When the line has carried all before it and these bytes. Fractions of nanoseconds are carried over, so that a busy line has its rate exactly.
    private mutating func departureTime(of byteCount: Int, now: NIODeadline) -> NIODeadline {
        guard let rate = conditions.bytesPerSecond.map({ max($0, 1) }) else {
            lineFreeAt = max(now, lineFreeAt)
            return lineFreeAt
        }
        if lineFreeAt < now || fractionRate != rate {
            lineFreeAt = max(now, lineFreeAt)
            lineFreeFraction = 0
            fractionRate = rate
        }
        // The longest packet makes 6.6e13, the fraction less than a rate: no overflow below 1.8e19 bytes a second.
        let (sum, overflow) = (UInt64(byteCount) * 1_000_000_000).addingReportingOverflow(lineFreeFraction)
        let (quotient, remainder) = (overflow ? .max : sum).quotientAndRemainder(dividingBy: rate)
        lineFreeAt = lineFreeAt + .nanoseconds(Int64(clamping: quotient))
        lineFreeFraction = remainder
        return lineFreeAt
    }

    private mutating func schedule(_ packet: Packet, departure: NIODeadline) {
        var delay = conditions.oneWayDelay
        let jitter = conditions.limited(conditions.jitter)
        if jitter > .zero { delay = max(delay + drift.shift(at: departure, jitter: jitter, random: &random), .zero) }
        if conditions.reorder > 0, random.unit() < conditions.reorder {
            counts.latePackets &+= packet.packetCount
            insertLate(Arrival(time: departure + delay + conditions.limited(conditions.reorderDelay), packet: packet))
            return
        }
        // A delay that shrinks, because the conditions change, lets no packet overtake the one before.
        lastArrival = max(departure + delay, lastArrival)
        arrivals.append(Arrival(time: lastArrival, packet: packet))
    }

    private mutating func insertLate(_ arrival: Arrival) {
        // Most are the last to arrive, and there are few.
        let place = late.firstIndex { $0.time <= arrival.time } ?? late.endIndex
        late.insert(arrival, at: place)
    }
}
