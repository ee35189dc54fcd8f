import Blocks
import NIOCore
import Testing

@testable import LinkProtocol

/// A bulk read fills a line while small reads ask beside it: what the line carries, how long its queue is, and how
/// long the small ones take.
@Suite struct DelayWindowTests {
    struct Line: Sendable, CustomTestStringConvertible {
        var name: String
        var megabitsPerSecond: Double
        var roundTripMicroseconds: Int64
        var milliseconds: Int64
        var connections = 2
        /// Short lines are allowed this much in any case: a frame's own time and the receiver's timer are not short there.
        var queueAllowanceMicroseconds: Int64 = 0
        /// What compression leaves of a frame.
        var rest = 1.0
        /// Both ends are busy: see `SimulatedLine.Shape`.
        var leastWork = TimeAmount.nanoseconds(0)

        var testDescription: String { name }
    }

    static let lines = [
        Line(name: "50 Mbit/s, 80 ms", megabitsPerSecond: 50, roundTripMicroseconds: 80_000, milliseconds: 25_000),
        Line(
            name: "50 Mbit/s, 80 ms, one connection", megabitsPerSecond: 50, roundTripMicroseconds: 80_000, milliseconds: 8000,
            connections: 1),
        Line(name: "10 Mbit/s, 20 ms", megabitsPerSecond: 10, roundTripMicroseconds: 20_000, milliseconds: 25_000),
        Line(name: "1 Gbit/s, 1 ms", megabitsPerSecond: 1000, roundTripMicroseconds: 1000, milliseconds: 2000),
        Line(name: "500 Mbit/s, 40 ms", megabitsPerSecond: 500, roundTripMicroseconds: 40_000, milliseconds: 2500),
        Line(
            name: "10 Gbit/s, 50 us", megabitsPerSecond: 10_000, roundTripMicroseconds: 50, milliseconds: 150,
            queueAllowanceMicroseconds: 2000),
        Line(
            name: "50 Mbit/s, 80 ms, compressed to a third", megabitsPerSecond: 50, roundTripMicroseconds: 80_000, milliseconds: 8000,
            rest: 1 / 3),
        Line(
            name: "100 Mbit/s, 40 ms, compressed to a fifth", megabitsPerSecond: 100, roundTripMicroseconds: 40_000, milliseconds: 8000,
            rest: 1 / 5),
        Line(
            name: "100 Mbit/s, 40 ms, compressed to a third by ends that are busy", megabitsPerSecond: 100, roundTripMicroseconds: 40_000,
            milliseconds: 8000, rest: 1 / 3, leastWork: .microseconds(250)),
        Line(
            name: "100 Mbit/s, 100 ms, compressed to a third by ends that are busy", megabitsPerSecond: 100, roundTripMicroseconds: 100_000,
            milliseconds: 12_000, rest: 1 / 3, leastWork: .microseconds(250)),
    ]

    struct Outcome {
        var goodput: Double
        var queueP99: UInt64
        var smallLatencies: [UInt64]
    }

    static func measure(_ line: Line, warmUp: TimeAmount) -> Outcome {
        let rate = line.megabitsPerSecond * 125_000
        let roundTrip = TimeAmount.microseconds(line.roundTripMicroseconds)
        let simulated = SimulatedLine(
            .init(
                rate: rate, roundTrip: roundTrip, queue: max(roundTrip, .microseconds(line.queueAllowanceMicroseconds)),
                rest: line.rest, leastWork: line.leastWork),
            seed: 3)
        let home = simulated.session(.acceptor)
        let data = ByteBuffer(repeating: 1, count: LinkLimits.pieceBytes)
        func fill() {
            while home.isWritable(.demand, isBulk: true), let piece = data.getSlice(at: 0, length: home.preferredPieceBytes) {
                _ = home.enqueue(.readData(read: 0, offset: 0, data: piece), .demand, isBulk: true)
            }
        }
        var asked: [UInt64: UInt64] = [:]
        var outcome = Outcome(goodput: 0, queueP99: 0, smallLatencies: [])
        simulated.onAction = { end, action in
            switch (end, action) {
            case (.acceptor, .sessionStarted), (.acceptor, .becameWritable(.demand)): fill()
            case (.acceptor, .deliver(.readRequest(let read, _, _), _)):
                _ = home.enqueue(.readData(read: read, offset: 0, data: ByteBuffer(repeating: 2, count: 4096)), .demand)
            case (.initiator, .deliver(.readData(let read, _, _), _)):
                if let start = asked.removeValue(forKey: read) {
                    outcome.smallLatencies.append(simulated.now.uptimeNanoseconds - start)
                }
            default: break
            }
        }
        for _ in 0..<line.connections { simulated.connect() }
        simulated.run(for: warmUp)
        simulated.queueDelays = [[], []]
        let before = simulated.bytesArrived[1]
        let duration = TimeAmount.milliseconds(line.milliseconds)
        let count: UInt64 = 100
        for read in 1...count {
            simulated.schedule(after: .nanoseconds(duration.nanoseconds / Int64(count + 2) * Int64(read))) {
                asked[read] = simulated.now.uptimeNanoseconds
                _ = simulated.session(.initiator).enqueue(
                    .readRequest(read: read, volume: MessageCodecTests.volume, range: MessageCodecTests.range(0, 8)), .demand)
            }
        }
        simulated.run(for: duration)
        outcome.goodput = Double(simulated.bytesArrived[1] - before) / (Double(line.milliseconds) / 1000 * rate / line.rest)
        let delays = simulated.queueDelays[1].sorted()
        outcome.queueP99 = delays.isEmpty ? 0 : delays[delays.count * 99 / 100]
        return outcome
    }

    @Test(arguments: lines) func aBulkReadFillsTheLineAndLeavesTheQueueShort(_ line: Line) {
        let outcome = Self.measure(line, warmUp: .nanoseconds(line.roundTripMicroseconds < 1000 ? 2_000_000 : 4_000_000_000))
        let roundTrip = UInt64(line.roundTripMicroseconds * 1000)
        let slowest = outcome.smallLatencies.max() ?? .max
        let figures: Comment =
            "goodput \(outcome.goodput), queue p99 \(outcome.queueP99 / 1000) us, slowest small read \(slowest / 1000) us"
        #expect(outcome.goodput >= 0.92, figures)
        #expect(outcome.queueP99 <= max(roundTrip / 2, UInt64(line.queueAllowanceMicroseconds * 1000)), figures)
        #expect(outcome.smallLatencies.count == 100)
        #expect(slowest <= max(roundTrip * 2, UInt64(line.queueAllowanceMicroseconds * 1000)), figures)
    }

    /// Home, which sends long answers as fast as they go.
    private static func sendBulk(on line: SimulatedLine) -> LinkSession {
        let home = line.session(.acceptor)
        let data = ByteBuffer(repeating: 1, count: LinkLimits.pieceBytes)
        line.onAction = { end, action in
            guard end == .acceptor, action == .sessionStarted || action == .becameWritable(.demand) else { return }
            while home.isWritable(.demand, isBulk: true), let piece = data.getSlice(at: 0, length: home.preferredPieceBytes) {
                _ = home.enqueue(.readData(read: 0, offset: 0, data: piece), .demand, isBulk: true)
            }
        }
        return home
    }

    /// What arrives in `milliseconds` on a line that was used for ten seconds and then changed, after another `settling`.
    static func goodputAfterChange(to shape: SimulatedLine.Shape, settling: TimeAmount) -> Double {
        let line = SimulatedLine(.init(rate: 6_250_000, roundTrip: .milliseconds(40), queue: .milliseconds(40)), seed: 4)
        let home = Self.sendBulk(on: line)
        for _ in 0..<2 { line.connect() }
        line.run(for: .seconds(10))
        line.shape = shape
        line.run(for: settling)
        let before = line.bytesArrived[1]
        line.queueDelays = [[], []]
        line.run(for: .seconds(5))
        let delays = line.queueDelays[1].sorted()
        let median = delays.isEmpty ? .max : delays[delays.count / 2]
        #expect(median < UInt64(shape.roundTrip.nanoseconds / 2), "\(shape), window \(home.statistics.windowBytes)")
        return Double(line.bytesArrived[1] - before) / (5 * shape.rate)
    }

    /// What the connections hold back while they begin is no queue of the line.
    @Test(arguments: [5, 40, 100, 200]) func aLineIsSoonFullThoughTCPBeginsSlowly(milliseconds: Int64) {
        let roundTrip = TimeAmount.milliseconds(milliseconds)
        let line = SimulatedLine(.init(rate: 12_500_000, roundTrip: roundTrip, queue: roundTrip, startsSlowly: true), seed: 5)
        let home = Self.sendBulk(on: line)
        for _ in 0..<4 { line.connect() }
        var share = 0.0
        var rounds = 0
        while share < 0.9, rounds < 60 {
            let before = line.bytesArrived[1]
            line.run(for: roundTrip)
            share = Double(line.bytesArrived[1] - before) / (12_500_000 * Double(roundTrip.nanoseconds) / 1e9)
            rounds += 1
        }
        #expect(rounds <= 16, "full after \(rounds) round trips, window \(home.statistics.windowBytes)")
        line.queueDelays = [[], []]
        line.run(for: .seconds(3))
        let delays = line.queueDelays[1].sorted()
        #expect(
            delays[delays.count / 2] < max(4_000_000, UInt64(roundTrip.nanoseconds / 32)),
            "the median of the queue is \(delays[delays.count / 2] / 1000) us")
    }

    @Test func theWindowFollowsALineThatBecomesFasterOrSlower() {
        let faster = Self.goodputAfterChange(
            to: .init(rate: 25_000_000, roundTrip: .milliseconds(40), queue: .milliseconds(40)), settling: .seconds(3))
        #expect(faster > 0.9)
        let slower = Self.goodputAfterChange(
            to: .init(rate: 1_250_000, roundTrip: .milliseconds(40), queue: .milliseconds(40)), settling: .seconds(3))
        #expect(slower > 0.9)
    }

    @Test func theWindowFollowsALineThatBecomesLongerOrShorter() {
        let longer = Self.goodputAfterChange(
            to: .init(rate: 6_250_000, roundTrip: .milliseconds(120), queue: .milliseconds(120)), settling: .seconds(20))
        #expect(longer > 0.9)
        let shorter = Self.goodputAfterChange(
            to: .init(rate: 6_250_000, roundTrip: .milliseconds(10), queue: .milliseconds(10)), settling: .seconds(45))
        #expect(shorter > 0.9)
    }
}
