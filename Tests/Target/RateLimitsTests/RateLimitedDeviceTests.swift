import Blocks
import NIOCore
import Testing

@testable import RateLimits

@Suite struct RateLimitedDeviceTests {
    @Test("the rate is kept exactly, after the burst", arguments: [1, 32])
    func operations(depth: Int) {
        let load = SimulatedLoad(latency: .microseconds(100), limits: RateLimits(operationsPerSecond: 500, burstOperations: 2_000))
        load.read(depth: depth)
        load.run(.seconds(10))
        // A depth of 1 at 100 µs does the burst at 10,000 a second, and 500 a second come in meanwhile.
        #expect(abs(load.operations - 7_000) <= depth + 1)
        load.stop()
    }

    @Test("without a burst the rate holds from the first second on, also when timers are late")
    func steady() {
        for step in [TimeAmount.microseconds(100), .milliseconds(7)] {
            let load = SimulatedLoad(limits: RateLimits(operationsPerSecond: 1_000))
            load.read(depth: 32)
            load.run(.seconds(4), step: step)
            // A tenth of a second's worth is the burst that nobody asked for.
            #expect(abs(load.operations - 4_100) <= 8, "\(step)")
            load.stop()
        }
    }

    @Test("a rate that divides no second loses nothing to rounding or to late timers")
    func rounding() {
        let load = SimulatedLoad(limits: RateLimits(operationsPerSecond: 7, burstOperations: 1))
        load.read(depth: 4)
        load.run(.seconds(1_000), step: .milliseconds(13))
        #expect(abs(load.operations - 7_001) <= 1)
        load.stop()
    }

    @Test("bytes are limited, whatever the size of the requests", arguments: [8, 256, 8_192] as [UInt64])
    func bytes(sectors: UInt64) {
        let load = SimulatedLoad(latency: .microseconds(50), limits: RateLimits(bytesPerSecond: 50 << 20, burstBytes: 1 << 20))
        load.read(depth: 4, sectors: sectors)
        load.run(.seconds(4))
        let moved = Double(load.operations) * Double(sectors) * 512
        #expect(abs(moved - Double(201 << 20)) <= Double(sectors) * 512 + 4_096)
        load.stop()
    }

    @Test("both limits hold at once: the tighter one decides")
    func both() {
        let load = SimulatedLoad(limits: RateLimits(operationsPerSecond: 1_000, burstOperations: 1, bytesPerSecond: 2 << 20, burstBytes: 1))
        load.read(depth: 8)
        load.run(.seconds(10))
        // 2 MiB/s are 512 blocks a second.
        #expect(abs(load.operations - 5_120) <= 2)
        load.stop()
        let small = SimulatedLoad(limits: RateLimits(operationsPerSecond: 1_000, burstOperations: 1, bytesPerSecond: 2 << 20))
        small.read(depth: 8, sectors: 1)
        small.run(.seconds(10))
        #expect(abs(small.operations - 10_001) <= 1)
        small.stop()
    }

    @Test("reads and writes share the limit fairly")
    func fairness() {
        let load = SimulatedLoad(latency: .microseconds(20), limits: RateLimits(operationsPerSecond: 2_000))
        load.write(depth: 8)
        load.read(depth: 8)
        load.run(.seconds(5))
        #expect(abs(load.reads - load.writes) <= 200, "\(load.reads) reads, \(load.writes) writes")
        load.stop()
    }

    @Test("limits change, fall and rise under load, and waiting requests follow at once")
    func changes() {
        let load = SimulatedLoad(limits: RateLimits(operationsPerSecond: 100, burstOperations: 1))
        load.read(depth: 16)
        load.run(.seconds(2))
        #expect(abs(load.operations - 201) <= 1)
        var before = load.operations
        load.device.limit(RateLimits(operationsPerSecond: 1_000, burstOperations: 1))
        load.run(.seconds(2))
        #expect(abs(load.operations - before - 2_000) <= 2)
        before = load.operations
        load.device.limit(RateLimits(operationsPerSecond: 10, burstOperations: 1))
        load.run(.seconds(2))
        #expect(abs(load.operations - before - 20) <= 1)
        // Setting the same limit again and again is not a way around it.
        before = load.operations
        for _ in 0..<200 {
            load.device.limit(RateLimits(operationsPerSecond: 10, burstOperations: 5))
            load.run(.milliseconds(10))
        }
        #expect(abs(load.operations - before - 20) <= 2)
        load.stop()
        #expect(load.device.waitingCount == 0)
    }

    @Test("requests that wait begin in the order in which they came")
    func order() {
        let load = SimulatedLoad(limits: RateLimits(operationsPerSecond: 10, burstOperations: 1))
        var expected: [TimedDevice.Call] = []
        for sector in 0..<30 as Range<UInt64> {
            let range = SectorRange(from: sector, to: sector + 1)
            switch sector % 3 {
            case 0:
                load.device.read(range) { _ in }
                expected.append(.read(range))
            case 1:
                load.device.write(range, data: ByteBuffer(), durability: .durable) { _ in }
                expected.append(.write(range))
            default:
                load.device.writeZeroes(range, durability: .ordered) { _ in }
                expected.append(.zeroes(range))
            }
        }
        load.run(.seconds(3))
        #expect(load.base.calls == expected)
        #expect(load.device.throttleStatistics.operations == 29)
        #expect(load.device.throttleStatistics.waitNanoseconds == (1...29).reduce(0) { $0 + UInt64($1) * 100_000_000 })
    }

    @Test("a flush passes those that wait, because it need not cover them")
    func flush() {
        let load = SimulatedLoad(limits: RateLimits(operationsPerSecond: 1, burstOperations: 1))
        let range = SectorRange(from: 0, to: 8)
        var acknowledged: [String] = []
        load.device.write(range, data: ByteBuffer(), durability: .ordered) { _ in acknowledged.append("first") }
        load.device.write(range, data: ByteBuffer(), durability: .ordered) { _ in acknowledged.append("second") }
        load.device.flush { _ in acknowledged.append("flush") }
        #expect(acknowledged == ["first", "flush"])
        load.run(.seconds(1))
        #expect(acknowledged == ["first", "flush", "second"])
        #expect(load.base.calls == [.write(range), .flush, .write(range)])
    }

    @Test("a read from memory counts, and overtakes nobody")
    func resident() {
        let load = SimulatedLoad(limits: RateLimits(operationsPerSecond: 10, burstOperations: 2))
        load.base.isResident = true
        let range = SectorRange(from: 0, to: 8)
        var buffer = ByteBuffer()
        #expect(load.device.readIfResident(range, into: &buffer))
        #expect(load.device.readIfResident(range, into: &buffer))
        #expect(!load.device.readIfResident(range, into: &buffer))
        #expect(buffer.readableBytes == 2 * 4_096)
        var isRead = false
        load.device.read(range) { _ in isRead = true }
        load.run(.milliseconds(99))
        #expect(!load.device.readIfResident(range, into: &buffer) && !isRead)
        load.run(.milliseconds(1))
        #expect(isRead)
        // What is not in memory costs nothing here: the read that follows pays.
        load.run(.milliseconds(100))
        load.base.isResident = false
        #expect(!load.device.readIfResident(range, into: &buffer))
        load.base.isResident = true
        #expect(load.device.readIfResident(range, into: &buffer))
        load.device.limit(nil)
        for _ in 0..<100 { #expect(load.device.readIfResident(range, into: &buffer)) }
    }

    @Test("who waits too long, and who finds the queue full, is told to try again")
    func bounds() {
        let load = SimulatedLoad(limits: RateLimits(operationsPerSecond: 1, burstOperations: 1))
        let range = SectorRange(from: 0, to: 8)
        var served = 0
        var refused: [NIODeadline] = []
        for _ in 0..<RequestQueue.requestsMax + 3 {
            load.device.read(range) { result in
                guard case .failure(let error) = result else { return served += 1 }
                if case .busy = error { refused.append(load.loop.now) } else { Issue.record("\(error)") }
            }
        }
        #expect(served == 1 && refused.count == 2)
        load.run(.seconds(60))
        #expect(served == 21)
        #expect(refused.count == RequestQueue.requestsMax + 3 - 21)
        #expect(refused.dropFirst(2).allSatisfy { $0 == .uptimeNanoseconds(0) + RequestQueue.waitMax })
        #expect(load.device.throttleStatistics.refused == UInt64(refused.count))
        #expect(load.device.waitingCount == 0)
    }

    @Test("lifting the limit lets everybody go, in order")
    func lift() {
        let load = SimulatedLoad(limits: RateLimits(operationsPerSecond: 1, burstOperations: 1))
        var order: [Int] = []
        for number in 0..<20 { load.device.read(SectorRange(from: 0, to: 8)) { _ in order.append(number) } }
        #expect(order == [0])
        load.device.limit(RateLimits())
        #expect(order == Array(0..<20))
        #expect(load.device.throttleStatistics.operations == 19)
    }
}
