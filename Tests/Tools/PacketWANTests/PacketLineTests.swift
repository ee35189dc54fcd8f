import LoadGenerator
import NIOCore
import Testing

@testable import PacketWAN

/// One direction of the line, with the time in the test's hand.
struct PacketLineTests {
    private let start = NIODeadline.uptimeNanoseconds(1_000_000_000)

    private func line(seed: UInt64 = 1, _ change: (inout LineConditions) -> Void = { _ in }) -> PacketLine {
        var conditions = LineConditions()
        change(&conditions)
        return PacketLine(conditions: conditions, random: SeededGenerator(seed: seed))
    }

    private func packet(_ handle: Int, _ byteCount: Int = 1500) -> PacketLine.Packet {
        .init(handle: handle, byteCount: byteCount)
    }

    /// All that arrives by `end`, each with the time at which it was due.
    private func drain(_ line: inout PacketLine, until end: NIODeadline = .distantFuture) -> [(handle: Int, time: NIODeadline)] {
        var found: [(Int, NIODeadline)] = []
        while let next = line.nextArrival, next <= end {
            #expect(line.nextDue(now: next - .nanoseconds(1)) == nil)
            guard let packet = line.nextDue(now: next) else {
                Issue.record("nothing is due at the time that was told")
                return found
            }
            found.append((packet.handle, next))
        }
        return found
    }

    @Test func aLineWithoutLimitsDeliversAtOnce() {
        var line = line()
        #expect(line.offer(packet(7), now: start) == .taken)
        #expect(line.nextArrival == start)
        #expect(line.nextDue(now: start) == packet(7))
        #expect(line.nextDue(now: start) == nil)
        #expect(line.nextArrival == nil && line.packetsInTransit == 0 && line.queuedByteCount == 0)
        #expect(line.counts.deliveredBytes == 1500 && line.counts.carriedBytes == 1500)
    }

    @Test func aTrainTakesTheTimeOfAllItsPackets() {
        var line = line {
            $0.bytesPerSecond = 1_000_000
            $0.queueBytes = 70_000
        }
        _ = line.offer(.init(handle: 1, byteCount: 66_000, packetCount: 44), now: start)
        #expect(line.offer(.init(handle: 2, byteCount: 6_000, packetCount: 4), now: start) == .dropped)
        #expect(line.offer(packet(3), now: start) == .taken)
        #expect(drain(&line).map(\.time) == [start + .microseconds(66_000), start + .microseconds(67_500)])
        #expect(line.counts.offeredPackets == 49 && line.counts.droppedPackets == 4)
        line.advance(now: start + .seconds(1))
        #expect(line.counts.carriedPackets == 45 && line.counts.deliveredPackets == 45 && line.counts.carriedBytes == 67_500)
    }

    @Test(arguments: [1, 2, 3] as [UInt64]) func aTrainLosesItsPacketsOneByOne(seed: UInt64) {
        var line = line(seed: seed) { $0.loss = .random(0.1) }
        for handle in 0..<1_000 { #expect(line.offer(.init(handle: handle, byteCount: 30_000, packetCount: 20), now: start) == .taken) }
        var lost = 0
        while let train = line.nextDue(now: start + .seconds(1)) {
            for _ in 0..<Int(train.packetCount) where line.losesOfTrain(1_500) { lost += 1 }
        }
        // Four standard deviations of a binomial distribution.
        #expect(abs(lost - 2_000) < 4 * 43)
        #expect(line.counts.lostPackets == lost && line.counts.deliveredPackets == 20_000 - lost)
        #expect(line.counts.deliveredBytes == (20_000 - lost) * 1_500)
    }

    @Test func onlyFastLinesThatShuffleNothingCarryTrains() {
        var conditions = LineConditions()
        #expect(conditions.carriesTrains)
        conditions.bytesPerSecond = LineConditions.trainsFrom
        conditions.roundTrip = .milliseconds(10)
        conditions.loss = .random(0.01)
        #expect(conditions.carriesTrains)
        for change: (inout LineConditions) -> Void in [
            { $0.bytesPerSecond = 12_500_000 }, { $0.queueBytes = 100_000 }, { $0.reorder = 0.01 },
            { $0.jitter = .milliseconds(1) },
        ] {
            var changed = conditions
            change(&changed)
            #expect(!changed.carriesTrains)
        }
    }

    @Test func delayIsHalfARoundTrip() {
        var line = line { $0.roundTrip = .milliseconds(40) }
        _ = line.offer(packet(1), now: start)
        _ = line.offer(packet(2), now: start + .milliseconds(1))
        #expect(drain(&line).map(\.time) == [start + .milliseconds(20), start + .milliseconds(21)])
    }

    /// Rates whose packets take no whole number of nanoseconds.
    @Test(arguments: [1_250_000, 12_500_000, 125_000_000, 7, 333_333, 999_999_937] as [UInt64])
    func aBusyLineHasItsRateExactly(rate: UInt64) {
        var line = line {
            $0.bytesPerSecond = rate
            $0.queueBytes = .max
        }
        var bytes: UInt64 = 0
        for index in 0..<5_000 {
            let size = 40 + index * 7 % 1461
            bytes += UInt64(size)
            #expect(line.offer(packet(index, size), now: start) == .taken)
        }
        let arrivals = drain(&line)
        #expect(arrivals.map(\.handle) == Array(0..<5_000))
        // Rounded down once, not five thousand times.
        let expected = start + .nanoseconds(Int64(bytes * 1_000_000_000 / rate))
        #expect(arrivals.last?.time == expected)
    }

    @Test func anIdleLineIsNotPaidForLater() {
        var line = line { $0.bytesPerSecond = 1_500_000 }
        _ = line.offer(packet(1), now: start)
        _ = line.offer(packet(2), now: start + .seconds(5))
        #expect(drain(&line).map(\.time) == [start + .milliseconds(1), start + .seconds(5) + .milliseconds(1)])
    }

    @Test func aFullQueueDropsWhatComesAndNothingElse() {
        var line = line {
            $0.bytesPerSecond = 1_500_000
            $0.queueBytes = 15_000
        }
        let fates = (0..<12).map { line.offer(packet($0), now: start) }
        #expect(fates == Array(repeating: .taken, count: 10) + [.dropped, .dropped])
        #expect(line.queuedByteCount == 15_000 && line.counts.queuedBytesPeak == 15_000)
        // A packet takes a millisecond: then there is room for one, and a small one fits beside none.
        #expect(line.offer(packet(12), now: start + .microseconds(999)) == .dropped)
        #expect(line.offer(packet(13), now: start + .milliseconds(1)) == .taken)
        #expect(line.offer(packet(14, 40), now: start + .milliseconds(1)) == .dropped)
        #expect(drain(&line).map(\.handle) == Array(0..<10) + [13])
        #expect(line.counts.droppedPackets == 4 && line.counts.offeredPackets == 15)
    }

    @Test func aPacketLargerThanTheQueueGoesThroughAnEmptyOne() {
        var line = line {
            $0.bytesPerSecond = 1_500_000
            $0.queueBytes = 0
        }
        #expect(line.offer(packet(1), now: start) == .taken)
        #expect(line.offer(packet(2), now: start) == .dropped)
        #expect(line.offer(packet(3), now: start + .milliseconds(1)) == .taken)
    }

    @Test func theQueueIsARoundTripUnlessTold() {
        var conditions = LineConditions()
        #expect(conditions.queueByteLimit == .max)
        conditions.bytesPerSecond = 12_500_000
        conditions.roundTrip = .milliseconds(40)
        #expect(conditions.queueByteLimit == 500_000)
        conditions.roundTrip = .milliseconds(1)
        #expect(conditions.queueByteLimit == LineConditions.queueBytesMinimum)
        conditions.queueBytes = 10
        #expect(conditions.queueByteLimit == 10)
        conditions = LineConditions()
        conditions.bytesPerSecond = .max
        conditions.roundTrip = .hours(1_000_000)
        #expect(conditions.queueByteLimit == .max)
    }

    @Test func lostPacketsTakeTheirTime() {
        var line = line {
            $0.bytesPerSecond = 1_500_000
            $0.loss = .random(1)
        }
        #expect(line.offer(packet(1), now: start) == .lost)
        #expect(line.queuedByteCount == 1500)
        line.conditions.loss = .none
        _ = line.offer(packet(2), now: start)
        #expect(drain(&line).map(\.time) == [start + .milliseconds(2)])
        line.advance(now: start + .milliseconds(2))
        #expect(line.counts.carriedPackets == 2 && line.counts.lostPackets == 1 && line.counts.deliveredPackets == 1)
    }

    @Test(arguments: [1, 2, 3, 4] as [UInt64])
    func orderIsKeptUnderJitter(seed: UInt64) {
        var line = line(seed: seed) {
            $0.roundTrip = .milliseconds(20)
            $0.jitter = .milliseconds(5)
        }
        for index in 0..<1_000 { _ = line.offer(packet(index), now: start + .microseconds(Int64(index) * 100)) }
        let arrivals = drain(&line)
        #expect(arrivals.map(\.handle) == Array(0..<1_000))
        let delays = arrivals.map { ($0.time - (start + .microseconds(Int64($0.handle) * 100))).nanoseconds }
        #expect(delays.allSatisfy { $0 >= 5_000_000 && $0 <= 15_000_000 })
        #expect(Set(delays).count > 20)
    }

    /// On a line that is never idle the delay is what was asked for in the middle, with the deviation that it says: it is no constant one.
    @Test(arguments: [1, 2, 3] as [UInt64], [2, 5])
    func jitterOfAFullLineHasItsMeanAndDeviation(seed: UInt64, milliseconds: Int64) {
        var line = line(seed: seed) {
            $0.roundTrip = .milliseconds(40)
            $0.jitter = .milliseconds(milliseconds)
            $0.bytesPerSecond = 12_500_000
        }
        // A packet takes 120 µs; one comes as each leaves. In 60 s there are 3,000 legs of the drift, or more.
        let gap = TimeAmount.microseconds(120)
        var delays: [Double] = []
        var last = start
        for index in 0..<500_000 {
            let now = start + .nanoseconds(gap.nanoseconds * Int64(index))
            #expect(line.offer(packet(index), now: now) == .taken)
            while let next = line.nextArrival, next <= now, let packet = line.nextDue(now: next) {
                let departure = start + .nanoseconds(gap.nanoseconds * Int64(packet.handle + 1))
                delays.append(Double((next - departure).nanoseconds) / 1e6)
                // None overtakes, and none catches up by more than half of the time between them.
                if packet.handle > 0 { #expect(next - last >= .nanoseconds(gap.nanoseconds / 2 - 2)) }
                last = next
            }
        }
        let mean = delays.reduce(0, +) / Double(delays.count)
        let deviation = (delays.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(delays.count)).squareRoot()
        let jitter = Double(milliseconds)
        #expect(abs(mean - 20) < 0.05 * jitter, "\(mean)")
        #expect(abs(deviation / jitter - (2.0 / 9).squareRoot()) < 0.02, "\(deviation)")
        #expect(delays.allSatisfy { abs($0 - 20) <= jitter })
    }

    @Test func jitterOfSinglePacketsIsEven() {
        var line = line(seed: 2) {
            $0.roundTrip = .milliseconds(20)
            $0.jitter = .milliseconds(5)
        }
        var sum = 0.0
        for index in 0..<10_000 {
            let now = start + .milliseconds(Int64(index) * 100)
            _ = line.offer(packet(index), now: now)
            sum += drain(&line).reduce(0) { $0 + Double(($1.time - now).nanoseconds) }
        }
        // The mean of so many has a standard deviation of 29 µs.
        #expect(abs(sum / 10_000 - 10_000_000) < 115_000)
    }

    @Test func aDelayThatShrinksKeepsTheOrder() {
        var line = line { $0.roundTrip = .milliseconds(100) }
        _ = line.offer(packet(1), now: start)
        line.conditions.roundTrip = .zero
        _ = line.offer(packet(2), now: start + .milliseconds(1))
        #expect(drain(&line).map(\.handle) == [1, 2])
    }

    @Test func latePacketsAreOvertaken() {
        var line = line {
            $0.roundTrip = .milliseconds(20)
            $0.reorder = 0.05
            $0.reorderDelay = .milliseconds(3)
        }
        for index in 0..<4_000 { _ = line.offer(packet(index), now: start + .milliseconds(Int64(index))) }
        let arrivals = drain(&line)
        #expect(arrivals.map(\.handle).sorted() == Array(0..<4_000))
        let late = arrivals.filter { $0.time - (start + .milliseconds(Int64($0.handle))) == .milliseconds(13) }
        #expect(late.count == Int(line.counts.latePackets) && abs(late.count - 200) < 60)
        #expect(
            arrivals.count - late.count
                == arrivals.filter { $0.time - (start + .milliseconds(Int64($0.handle))) == .milliseconds(10) }.count)
        #expect(zip(arrivals, arrivals.dropFirst()).allSatisfy { $0.time <= $1.time })
        #expect(arrivals.map(\.handle) != Array(0..<4_000))
    }

    @Test func aCutLosesWhatIsThereAndWhatComes() {
        var line = line {
            $0.bytesPerSecond = 1_500_000
            $0.roundTrip = .milliseconds(20)
            $0.reorder = 0.5
        }
        for index in 0..<20 { _ = line.offer(packet(index), now: start) }
        var lost: [Int] = []
        line.setState(.cut, now: start + .milliseconds(5)) { lost.append($0.handle) }
        #expect(lost.sorted() == Array(0..<20))
        #expect(line.nextArrival == nil && line.queuedByteCount == 0 && line.packetsInTransit == 0)
        #expect(line.offer(packet(20), now: start + .milliseconds(6)) == .lost)
        line.conditions.reorder = 0
        line.setState(.up, now: start + .seconds(1)) { _ in Issue.record("nothing is left to lose") }
        #expect(line.offer(packet(21), now: start + .seconds(1)) == .taken)
        #expect(drain(&line).map(\.time) == [start + .seconds(1) + .milliseconds(11)])
        #expect(line.counts.cutPackets == 21)
    }

    @Test func aLineThatHoldsGoesOnWhereItWas() {
        var line = line {
            $0.bytesPerSecond = 1_500_000
            $0.roundTrip = .milliseconds(20)
            $0.queueBytes = 4_500
        }
        _ = line.offer(packet(1), now: start)
        line.setState(.hold, now: start + .milliseconds(5)) { _ in Issue.record("a line that holds loses nothing") }
        #expect(line.nextArrival == nil)
        #expect(line.nextDue(now: start + .seconds(9)) == nil)
        let fates = (2..<6).map { line.offer(packet($0), now: start + .seconds(1)) }
        #expect(fates == [.taken, .taken, .taken, .dropped])
        line.setState(.up, now: start + .seconds(10)) { _ in }
        // The first had 6 ms to go; the others depart one millisecond after the other.
        let resumed = start + .seconds(10)
        #expect(drain(&line).map(\.time) == [6, 11, 12, 13].map { resumed + .milliseconds($0) })
    }

    @Test func holdingTwiceIsHoldingOnce() {
        var line = line { $0.roundTrip = .milliseconds(20) }
        _ = line.offer(packet(1), now: start)
        line.setState(.hold, now: start + .milliseconds(1)) { _ in }
        line.setState(.hold, now: start + .milliseconds(2)) { _ in }
        line.setState(.up, now: start + .milliseconds(3)) { _ in }
        #expect(drain(&line).map(\.time) == [start + .milliseconds(12)])
    }

    @Test func theSameSeedGivesTheSameFates() {
        func fates(_ seed: UInt64) -> [PacketLine.Fate] {
            var line = line(seed: seed) { $0.loss = .bursts(0.1, meanLength: 3) }
            return (0..<500).map { line.offer(packet($0), now: start) }
        }
        #expect(fates(4) == fates(4))
        #expect(fates(4) != fates(5))
    }

    @Test func aRateThatChangesCountsFromThenOn() {
        var line = line { $0.bytesPerSecond = 1_500_000 }
        _ = line.offer(packet(1), now: start)
        line.conditions.bytesPerSecond = 3_000_000
        _ = line.offer(packet(2), now: start)
        line.conditions.bytesPerSecond = nil
        _ = line.offer(packet(3), now: start)
        #expect(drain(&line).map { ($0.time - start).nanoseconds } == [1_000_000, 1_500_000, 1_500_000])
    }
}
