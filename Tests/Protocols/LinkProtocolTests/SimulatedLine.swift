import Blocks
import Foundation
import NIOCore

@testable import LinkProtocol

/// A seeded generator (SplitMix64).
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = state
        value = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
        return value ^ (value >> 31)
    }
}

/// One of the two ends of a simulated line.
enum End: Int, CaseIterable {
    case initiator = 0
    case acceptor = 1

    var other: End { self == .initiator ? .acceptor : .initiator }
}

/// Two sessions joined by a line with a rate, a delay and a queue, in simulated time.
///
/// The line is a FIFO for each direction that all connections share. When its queue is full, connections stop being
/// writable, as they do when a router pushes back through TCP.
final class SimulatedLine {
    struct Shape {
        /// Bytes a second.
        var rate: Double
        var roundTrip: TimeAmount
        /// How long the queue may become.
        var queue: TimeAmount
        /// What compression leaves of a data frame, of one.
        var rest = 1.0
        /// The share of packets of 1,448 bytes that TCP has to send again, a round trip later; what comes behind one on its connection waits.
        var loss = 0.0
        /// Which of them.
        var lossSeed: UInt64 = 77
        /// Each connection begins with ten packets in a round trip, and twice as many in each one that follows.
        var startsSlowly = false
        /// How long a data frame takes at least to leave its connection, as where TCP spreads it over its share of the line.
        var leastHold = TimeAmount.nanoseconds(0)
        /// Both ends are busy: what arrives is looked at this much later at least, on average four times as much, and now and then ten times as
        /// much again. Pings come when there is little to do.
        var leastWork = TimeAmount.nanoseconds(0)
    }

    private struct Event {
        let time: UInt64
        let order: UInt64
        let run: () -> Void
    }

    private(set) var time: UInt64 = 1_000_000_000
    var now: NIODeadline { .uptimeNanoseconds(time) }
    var shape: Shape
    var sessions: [LinkSession]
    var onAction: (End, LinkAction) -> Void = { _, _ in }
    /// What a data frame waited in the queue, in nanoseconds, by direction.
    var queueDelays: [[UInt64]] = [[], []]
    var bytesArrived: [Int] = [0, 0]
    private(set) var open: Set<UInt64> = []
    private(set) var steps = 0

    private var freeAt: [UInt64] = [0, 0]
    /// When the last frame of a connection arrives, by direction and connection.
    private var arrivesAt: [[UInt64: UInt64]] = [[:], [:]]
    /// What TCP lets through in a round trip, and when the last frame will have left it, by direction and connection.
    private var allowances: [[UInt64: (bytes: Double, freeAt: UInt64)]] = [[:], [:]]
    private var losses: SeededGenerator
    /// When an end has looked at what arrived last.
    private var lookedAt: [UInt64] = [0, 0]
    private var heap: [Event] = []
    private var order: UInt64 = 0
    private var nextConnection: UInt64 = 1
    private var tickScheduled: [UInt64] = [.max, .max]
    private var tickedAt: UInt64 = 0
    private var ticksAtOnce = 0

    init(_ shape: Shape, seed: UInt64, times: LinkTimes = LinkTimes()) {
        self.shape = shape
        losses = SeededGenerator(seed: shape.lossSeed)
        var generator = SeededGenerator(seed: seed)
        let first = SeededGenerator(seed: generator.next())
        let second = SeededGenerator(seed: generator.next())
        sessions = [
            LinkSession(role: .initiator, times: times, random: Self.source(first)),
            LinkSession(role: .acceptor, times: times, random: Self.source(second)),
        ]
    }

    static func source(_ generator: SeededGenerator) -> RandomSource {
        var generator = generator
        return RandomSource { generator.next() }
    }

    func session(_ end: End) -> LinkSession { sessions[end.rawValue] }

    // The heap of events.

    func schedule(after delay: TimeAmount, _ run: @escaping () -> Void) {
        schedule(at: time + UInt64(max(0, delay.nanoseconds)), run)
    }

    private func schedule(at moment: UInt64, _ run: @escaping () -> Void) {
        order += 1
        heap.append(Event(time: max(moment, time), order: order, run: run))
        var child = heap.count - 1
        while child > 0, isBefore(child, (child - 1) / 2) {
            heap.swapAt(child, (child - 1) / 2)
            child = (child - 1) / 2
        }
    }

    private func isBefore(_ left: Int, _ right: Int) -> Bool {
        (heap[left].time, heap[left].order) < (heap[right].time, heap[right].order)
    }

    private func popEvent() -> Event? {
        guard let first = heap.first else { return nil }
        let last = heap.removeLast()
        if heap.isEmpty { return first }
        heap[0] = last
        var parent = 0
        while true {
            var least = parent
            for child in [2 * parent + 1, 2 * parent + 2] where child < heap.count && isBefore(child, least) { least = child }
            if least == parent { return first }
            heap.swapAt(parent, least)
            parent = least
        }
    }

    /// Runs until `duration` has passed, or until `done`.
    func run(for duration: TimeAmount, until done: () -> Bool = { false }) {
        let end = time + UInt64(duration.nanoseconds)
        for end in End.allCases { pump(end) }
        while !done(), let event = popEvent() {
            if event.time > end {
                schedule(at: event.time, event.run)
                break
            }
            time = event.time
            steps += 1
            event.run()
            for end in End.allCases { pump(end) }
        }
        if !done() { time = max(time, end) }
    }

    // Connections.

    @discardableResult
    func connect() -> UInt64 {
        let identifier = nextConnection
        nextConnection += 1
        open.insert(identifier)
        for end in End.allCases { session(end).connectionOpened(ConnectionIdentifier(identifier), now: now) }
        for end in End.allCases { pump(end) }
        return identifier
    }

    /// Cuts a connection: what is on its way is lost, and the ends learn of it at different times.
    func cut(_ identifier: UInt64, lags: [TimeAmount] = [.nanoseconds(0), .nanoseconds(0)]) {
        guard open.remove(identifier) != nil else { return }
        for end in End.allCases {
            schedule(after: lags[end.rawValue]) { [unowned self] in
                session(end).connectionClosed(ConnectionIdentifier(identifier), now: now)
            }
        }
    }

    /// Lets the session act on what it was told.
    func pump(_ end: End) {
        let session = session(end)
        while true {
            drain(end)
            guard let transmission = session.nextTransmission(now: now) else { break }
            send(transmission, from: end)
        }
        drain(end)
        guard let deadline = session.nextDeadline, deadline.uptimeNanoseconds < tickScheduled[end.rawValue] else { return }
        let moment = max(deadline.uptimeNanoseconds, time)
        tickScheduled[end.rawValue] = moment
        schedule(at: moment) { [unowned self] in
            if tickScheduled[end.rawValue] == moment { tickScheduled[end.rawValue] = .max }
            ticksAtOnce = time == tickedAt ? ticksAtOnce + 1 : 0
            tickedAt = time
            // A deadline that neither `tick` nor a frame meets would keep a real loop busy, and this one where it is for ever.
            precondition(ticksAtOnce < 10_000, "the session wants to be called again and again at once")
            self.session(end).tick(now: now)
        }
    }

    private func drain(_ end: End) {
        while let action = session(end).nextAction() {
            if case .closeConnection(let identifier, _) = action { cut(identifier.value) }
            onAction(end, action)
        }
    }

    private func arrival(of byteCount: Int, on connection: UInt64, _ direction: Int) -> UInt64 {
        var moment = freeAt[direction] + UInt64(shape.roundTrip.nanoseconds / 2)
        if shape.loss > 0 {
            for _ in 0..<(byteCount + 1_447) / 1_448 where Double.random(in: 0..<1, using: &losses) < shape.loss {
                moment = max(moment, freeAt[direction] + UInt64(shape.roundTrip.nanoseconds / 2 * 3))
            }
            moment = max(moment, arrivesAt[direction][connection] ?? 0)
            arrivesAt[direction][connection] = moment
        }
        return moment
    }

    /// How long TCP holds a frame back, paced as BBR does when it begins.
    private func pace(_ byteCount: Int, on connection: ConnectionIdentifier, _ end: End) -> UInt64 {
        let direction = end.rawValue
        var allowance = allowances[direction][connection.value] ?? (14_480, 0)
        allowance.freeAt =
            max(allowance.freeAt, time) + UInt64(Double(byteCount) / (2.89 * allowance.bytes) * Double(shape.roundTrip.nanoseconds))
        allowances[direction][connection.value] = allowance
        let held = allowance.freeAt - time
        schedule(after: .nanoseconds(Int64(held) + shape.roundTrip.nanoseconds)) { [unowned self] in
            allowances[direction][connection.value]?.bytes += Double(byteCount)
        }
        if held > UInt64(shape.roundTrip.nanoseconds / 8) {
            session(end).connectionWritable(connection, false)
            schedule(at: allowance.freeAt) { [unowned self] in session(end).connectionWritable(connection, true) }
        }
        return held
    }

    private func lookAt(_ frame: Frame, on identifier: ConnectionIdentifier, from end: End) {
        let least = Double(shape.leastWork.nanoseconds)
        var wait = 0.0
        if least > 0, frame.header.kind == .data || frame.header.kind == .acknowledgement {
            wait = least * (1 - 3 * log(Double.random(in: 0.0001..<1, using: &losses)))
            if Int.random(in: 0..<100, using: &losses) == 0 { wait += 10 * least }
        }
        let moment = max(time + UInt64(wait), lookedAt[end.other.rawValue])
        lookedAt[end.other.rawValue] = moment
        schedule(at: moment) { [unowned self] in
            guard open.contains(identifier.value) else { return }
            if frame.header.kind == .data {
                bytesArrived[end.rawValue] += FrameHeader.byteCount + frame.payload.readableBytes
            }
            session(end.other).receive(frame, on: identifier, now: now)
        }
    }

    private func send(_ transmission: LinkTransmission, from end: End) {
        let identifier = transmission.connection
        guard open.contains(identifier.value) else { return }
        let direction = end.rawValue
        let wait = max(freeAt[direction], time) - time
        if transmission.header.kind == .data { queueDelays[direction].append(wait) }
        let wireBytes =
            transmission.header.kind == .data
            ? Int(Double(transmission.bytes.readableBytes) * shape.rest) : transmission.bytes.readableBytes
        session(end).compressed(transmission, wireBytes: wireBytes)
        let duration = UInt64(Double(wireBytes) / shape.rate * 1e9)
        freeAt[direction] = time + wait + duration
        let frame = transmission.frame
        let hold = transmission.header.kind == .data ? UInt64(shape.leastHold.nanoseconds) : 0
        let held = max(shape.startsSlowly ? pace(wireBytes, on: identifier, end) : 0, hold)
        schedule(at: arrival(of: wireBytes, on: identifier.value, direction) + held) { [unowned self] in
            lookAt(frame, on: identifier, from: end)
        }
        let limit = UInt64(shape.queue.nanoseconds)
        if freeAt[direction] > time + limit {
            session(end).connectionWritable(identifier, false)
            schedule(at: freeAt[direction] - limit) { [unowned self] in session(end).connectionWritable(identifier, true) }
        }
    }
}
