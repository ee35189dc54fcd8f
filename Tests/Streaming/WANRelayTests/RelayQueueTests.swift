import NIOCore
import Testing

@testable import WANRelay

/// One direction of the line, with the time in the test's hand.
struct RelayQueueTests {
    private let start = NIODeadline.uptimeNanoseconds(1_000_000_000)

    private func bytes(_ count: Int, _ value: UInt8 = 7) -> RelayQueue.Segment {
        .init(connection: 1, content: .bytes(ByteBuffer(repeating: value, count: count)))
    }

    private func drain(_ queue: inout RelayQueue, _ now: NIODeadline) -> Int {
        var count = 0
        while let segment = queue.nextDue(now: now) { count += segment.byteCount }
        return count
    }

    @Test func aLineWithoutLimitsDeliversAtOnceAndWhole() {
        var queue = RelayQueue(conditions: RelayConditions())
        queue.enqueue(bytes(10_000), now: start)
        #expect(queue.nextDelivery == start)
        #expect(queue.nextDue(now: start) == bytes(10_000))
        #expect(queue.nextDue(now: start) == nil)
        #expect(queue.inTransitByteCount == 0)
    }

    @Test func bytesArriveHalfARoundTripLater() {
        var queue = RelayQueue(conditions: RelayConditions(roundTrip: .milliseconds(80)))
        queue.enqueue(bytes(100), now: start)
        #expect(queue.nextDelivery == start + .milliseconds(40))
        #expect(queue.nextDue(now: start + .milliseconds(40) - .nanoseconds(1)) == nil)
        #expect(queue.nextDue(now: start + .milliseconds(40)) == bytes(100))
    }

    @Test func theRateSpacesSegments() {
        // 1,460,000 bytes a second: one packet each millisecond.
        var queue = RelayQueue(conditions: RelayConditions(roundTrip: .milliseconds(10), bytesPerSecond: 1_460_000))
        queue.enqueue(bytes(1460 * 4), now: start)
        for millisecond in 1...4 {
            let arrival = start + .milliseconds(Int64(millisecond) + 5)
            #expect(queue.nextDelivery == arrival)
            #expect(drain(&queue, arrival - .nanoseconds(1)) == 0)
            #expect(drain(&queue, arrival) == 1460)
        }
        #expect(queue.nextDelivery == nil)
    }

    @Test(arguments: [1_000, 6_250_000, 12_500_000, 1_250_000_000] as [UInt64])
    func overALongTimeTheRateIsExact(rate: UInt64) {
        var queue = RelayQueue(conditions: RelayConditions(roundTrip: .milliseconds(80), bytesPerSecond: rate))
        let total = 1 << 20
        var sent = 0
        while sent < total {
            queue.enqueue(bytes(16 * 1024), now: start)
            sent += 16 * 1024
        }
        var last = start
        var received = 0
        while let next = queue.nextDelivery {
            last = next
            received += drain(&queue, next)
        }
        let seconds = Double((last - start - .milliseconds(40)).nanoseconds) / 1e9
        let expected = Double(total) / Double(rate)
        #expect(received == total)
        #expect(seconds >= expected && seconds < expected * 1.001)
    }

    @Test func theQueueHoldsOneRoundTripAndThenHasNoRoom() {
        let conditions = RelayConditions(roundTrip: .milliseconds(100), bytesPerSecond: 10_000_000)
        #expect(conditions.queueByteLimit == 1_000_000)
        var queue = RelayQueue(conditions: conditions)
        while queue.hasRoom(now: start) { queue.enqueue(bytes(16 * 1024), now: start) }
        #expect(queue.queuedByteCount >= 1_000_000 && queue.queuedByteCount < 1_000_000 + 16 * 1024)
        // What stands behind a full queue waits a whole further round trip.
        queue.enqueue(.init(connection: 2, content: .endOfStream), now: start)
        let departure = queue.nextDeparture
        #expect(departure != nil)
        // After 20 ms the line has carried 200,000 bytes, and none has arrived yet.
        let hasRoom = queue.hasRoom(now: start + .milliseconds(20))
        #expect(hasRoom)
        #expect(queue.queuedByteCount <= 820_000)
        #expect(queue.inTransitByteCount >= 1_000_000)
        #expect(queue.queuedByteCountPeak >= 1_000_000)
    }

    @Test func aSlowShortLineStillHasAMinimalQueue() {
        #expect(RelayConditions(roundTrip: .milliseconds(1), bytesPerSecond: 1_000_000).queueByteLimit == 64 * 1024)
        #expect(RelayConditions(roundTrip: .milliseconds(1)).queueByteLimit == .max)
    }

    @Test func aLineWithoutARateIsBoundedByWhatIsUnderWay() {
        var queue = RelayQueue(conditions: RelayConditions(roundTrip: .seconds(2)))
        var chunks = 0
        while queue.hasRoom(now: start) {
            queue.enqueue(bytes(1 << 20), now: start)
            chunks += 1
        }
        #expect(chunks == 64)
        #expect(queue.nextDeparture == nil)
        #expect(drain(&queue, start + .seconds(1)) == 64 << 20)
        let hasRoom = queue.hasRoom(now: start + .seconds(1))
        #expect(hasRoom)
    }

    @Test func aShorterDelayDoesNotReorder() {
        var queue = RelayQueue(conditions: RelayConditions(roundTrip: .milliseconds(100)))
        queue.enqueue(bytes(1, 1), now: start)
        queue.conditions = RelayConditions(roundTrip: .milliseconds(2))
        queue.enqueue(bytes(1, 2), now: start + .milliseconds(1))
        #expect(queue.nextDue(now: start + .milliseconds(49)) == nil)
        #expect(queue.nextDue(now: start + .milliseconds(50)) == bytes(1, 1))
        #expect(queue.nextDue(now: start + .milliseconds(50)) == bytes(1, 2))
    }

    @Test func aFrozenLineStandsStillAndGoesOnWhereItStopped() {
        var queue = RelayQueue(conditions: RelayConditions(roundTrip: .milliseconds(20)))
        queue.enqueue(bytes(5), now: start)
        queue.freeze(now: start + .milliseconds(4))
        let hasRoom = queue.hasRoom(now: start + .seconds(60))
        #expect(queue.isFrozen && queue.nextDelivery == nil && !hasRoom)
        #expect(queue.nextDue(now: start + .seconds(60)) == nil)
        queue.enqueue(bytes(6), now: start + .seconds(60))
        queue.thaw(now: start + .milliseconds(4) + .seconds(60))
        #expect(queue.nextDelivery == start + .seconds(60) + .milliseconds(10))
        #expect(drain(&queue, start + .seconds(60) + .milliseconds(14)) == 11)
    }

    @Test func aCutDestroysAndCounts() {
        var queue = RelayQueue(conditions: RelayConditions(roundTrip: .milliseconds(20), bytesPerSecond: 1_000_000))
        queue.enqueue(bytes(50_000), now: start)
        queue.removeAll()
        #expect(queue.droppedByteCount == 50_000 && queue.inTransitByteCount == 0 && queue.queuedByteCount == 0)
        #expect(queue.nextDelivery == nil && queue.nextDeparture == nil)
        queue.enqueue(bytes(1_000), now: start)
        #expect(queue.nextDelivery == start + .milliseconds(11))
    }

    @Test func extremeConditionsDoNotTrap() {
        for conditions in [
            RelayConditions(roundTrip: .hours(1_000_000), bytesPerSecond: 0),
            RelayConditions(roundTrip: .seconds(-5), bytesPerSecond: .max),
            RelayConditions(roundTrip: .nanoseconds(1), bytesPerSecond: 1),
        ] {
            var queue = RelayQueue(conditions: conditions)
            queue.enqueue(bytes(100_000), now: start)
            let hasRoom = queue.hasRoom(now: start)
            #expect(hasRoom == (queue.queuedByteCount < conditions.queueByteLimit))
            #expect(queue.nextDelivery != nil)
        }
    }
}
