import Blocks
import LinkProtocol
import NIOCore
import Testing
import WriteLog

@testable import Volumes

/// When points are sealed, and what of them crosses the link.
@Suite struct VolumePointTests {
    /// Home that is slower than the line says so again and again: reads that are under way must not be asked anew each time.
    @Test("a point that home has no room for is sent again in the same session, and nothing is opened anew")
    func noRoomAtHome() throws {
        let bench = try VolumeBench()
        bench.connect()
        for number in 0..<2 as Range<UInt64> {
            bench.write(block: number)
            bench.volume.seal(until: .sealed) { _ in }
            bench.scheduler.runUntilIdle()
        }
        var isRead = false
        bench.volume.read(SectorRange(block: 9)) { _ in isRead = true }
        let asked = bench.sent.last
        guard case .readRequest(let read, _, _)? = asked else {
            Issue.record("nothing was asked of home")
            return
        }
        bench.sent = []
        let points = { bench.sent.compactMap { if case .pointBegin(_, _, let point) = $0 { point } else { nil } } }
        for attempt in 0..<3 {
            bench.volume.receive(.pointRefused(volume: bench.identifier, point: 1, refusal: .noSpace))
            // The second was on its way behind it.
            bench.volume.receive(.pointRefused(volume: bench.identifier, point: 2, refusal: .outOfSequence))
            bench.pass(.milliseconds(500))
            #expect(points().count == attempt * 2, "home asked for patience")
            bench.pass(.seconds(1))
            #expect(points().suffix(2) == [1, 2])
        }
        #expect(!bench.events.contains(.needsOpen))
        bench.volume.receive(.pointReceived(volume: bench.identifier, point: 1))
        bench.volume.receive(.pointReceived(volume: bench.identifier, point: 2))
        #expect(bench.volume.pointNumbers.received == 2)
        bench.volume.receive(.readZeroes(read: read, offset: 0, byteCount: 4096))
        #expect(isRead, "the question is the one that was asked at first")
    }

    @Test("a machine that reads what is damaged of its unsent writes stops the volume, and the operator is told at once")
    func damagedWrite() throws {
        let bench = try VolumeBench()
        bench.write(block: 3, fill: 1)
        bench.write(block: 5, fill: 2)
        let file = try #require(
            bench.machine.directory("log").names.filter { $0.hasPrefix("epoch-") }.last.flatMap { bench.machine.directory("log").file($0) })
        // The first write's data begins behind the file's header and the batch's.
        file.flipBit(at: 4096 + 700)
        bench.machine.faults.residentPercent = 0
        var result: Result<ByteBuffer, BlockDeviceError>?
        bench.volume.read(SectorRange(block: 3)) { result = $0 }
        bench.scheduler.runUntilIdle()
        guard case .failure(.medium) = result else { return #expect(Bool(false), "\(String(describing: result))") }
        let reasons = bench.events.compactMap { if case .stopped(let reason) = $0 { reason } else { nil } }
        #expect(reasons.count == 1 && reasons[0].contains("write log"), "\(reasons)")
        #expect(bench.volume.refusal != nil)
    }

    @Test("flushed overwrites of the same blocks within one point cross the link once a block")
    func consolidation() throws {
        let policy = VolumePolicy(recoveryPointObjective: .seconds(3_600))
        let bench = try VolumeBench(sectorCount: 16_384, policy: policy)
        bench.connect()
        // A flush that all writes of a burst share: what counts is how often a block is written in the point.
        for round in 0..<20 as Range<UInt64> {
            for block in 0..<100 as Range<UInt64> {
                let range = SectorRange(block: block * 7 % 100)
                bench.volume.write(
                    range, data: ByteBuffer(repeating: UInt8(round), count: range.byteCount),
                    durability: block % 50 == 49 ? .durable : .ordered
                ) { _ in }
                if block % 50 == 49 { bench.scheduler.runUntilIdle() }
            }
            bench.volume.tick()
        }
        #expect(bench.sent.isEmpty)
        bench.volume.seal(until: .received) { _ in }
        bench.scheduler.runUntilIdle()
        #expect(bench.pointsBegun == [1])
        #expect(bench.pointBytes == 100 * BlockGeometry.blockBytes)
        let stale = bench.sent.contains { message in
            if case .pointData(_, _, _, let data) = message { data.readableBytesView.contains { $0 != 19 } } else { false }
        }
        #expect(!stale, "the newest content of each block crosses")
    }

    @Test("the objective in bytes seals as soon as so much was written, and a new one holds at once")
    func bytes() throws {
        let bench = try VolumeBench(
            sectorCount: 16_384, policy: VolumePolicy(recoveryPointObjective: .seconds(3_600), sealBytes: 1 << 20))
        bench.connect()
        for block in 0..<255 as Range<UInt64> { bench.write(block: block) }
        bench.pass(.milliseconds(100))
        #expect(bench.pointsBegun.isEmpty)
        bench.write(block: 255)
        bench.pass(.milliseconds(100))
        #expect(bench.pointsBegun == [1])
        for block in 0..<16 as Range<UInt64> { bench.write(block: block) }
        bench.pass(.milliseconds(100))
        #expect(bench.pointsBegun == [1])
        bench.volume.policy.sealBytes = 64 << 10
        bench.pass(.milliseconds(100))
        #expect(bench.pointsBegun == [1, 2])
    }

    /// Behind a line that carries less than is written, an overwrite in the point that gathers crosses no more.
    @Test("while a sealed point waits to be sent, the next one goes on gathering, up to a factor")
    func merging() throws {
        let policy = VolumePolicy(recoveryPointObjective: .seconds(1), sealBytes: 1 << 20)
        let bench = try VolumeBench(sectorCount: 16_384, policy: policy)
        // The line is down.
        for block in 0..<256 as Range<UInt64> { bench.write(block: block) }
        bench.pass(.milliseconds(100))
        #expect(bench.volume.unsent.points == 1)
        for block in 256..<512 as Range<UInt64> { bench.write(block: block) }
        bench.pass(.milliseconds(100))
        #expect(bench.volume.unsent.points == 1, "a point waits: size alone seals no second one yet")
        for block in 512..<1_280 as Range<UInt64> { bench.write(block: block) }
        bench.pass(.milliseconds(100))
        #expect(bench.volume.unsent.points == 2, "four times the size does")
        bench.write(block: 0)
        bench.pass(.seconds(3))
        #expect(bench.volume.unsent.points == 2, "and so it is with time")
        bench.pass(.seconds(2))
        #expect(bench.volume.unsent.points == 3)
        // Up again: what waits goes home in order, and then points are as small as the policy says.
        bench.connect()
        bench.scheduler.runUntilIdle()
        #expect(bench.pointsBegun == [1, 2, 3])
        for point in 1...3 as ClosedRange<UInt64> { bench.home(has: point) }
        #expect(bench.volume.unsent.points == 0)
        bench.write(block: 9)
        bench.pass(.milliseconds(1_200))
        #expect(bench.pointsBegun == [1, 2, 3, 4])
    }

    @Test("a seal that is asked for does not wait for the one before it")
    func asked() throws {
        let bench = try VolumeBench(sectorCount: 16_384)
        for block in 0..<3 as Range<UInt64> {
            bench.write(block: block)
            var point: PointNumber?
            bench.volume.seal(until: .sealed) { point = try? $0.get() }
            bench.scheduler.runUntilIdle()
            #expect(point == block + 1)
        }
    }

    @Test("what home has received is not offered again, while the log still holds it")
    func received() throws {
        let bench = try VolumeBench()
        bench.connect()
        #expect(bench.volume.openRequest(incarnation: 1).oldestPoint == 1)
        bench.write(block: 1)
        bench.volume.seal(until: .received) { _ in }
        bench.scheduler.runUntilIdle()
        #expect(bench.volume.openRequest(incarnation: 1).oldestPoint == 1)
        #expect(bench.volume.unsent.bytes == 4_096 && bench.volume.unsent.points == 1)
        // The cache is not asked yet: nothing has run since. A home that knows less than it said is an old copy.
        bench.volume.receive(.pointReceived(volume: bench.identifier, point: 1))
        #expect(bench.volume.logFill.usedBytes > 0, "the log still holds it")
        #expect(bench.volume.unsent.bytes == 0 && bench.volume.unsent.points == 0 && bench.volume.unsent.oldestAppendAt == nil)
        #expect(bench.volume.openRequest(incarnation: 1).oldestPoint == 2)
    }

    @Test("a file system that takes no changes is told, and its end; writers and flushes are told to try again after the policy's time")
    func obstructed() throws {
        let bench = try VolumeBench()
        bench.write(block: 0, durability: .durable)
        bench.machine.faults.isReadOnly = true
        var written: Result<Void, BlockDeviceError>?
        var flushed: Result<Void, BlockDeviceError>?
        let range = SectorRange(block: 1)
        bench.volume.write(range, data: ByteBuffer(repeating: 2, count: range.byteCount), durability: .ordered) { written = $0 }
        bench.volume.flush { flushed = $0 }
        bench.pass(bench.volume.policy.writeTimeout - .seconds(1))
        #expect(bench.events == [.logObstructed(.readOnly)])
        #expect(written == nil && flushed == nil)
        bench.pass(.seconds(2))
        for result in [written, flushed] {
            guard case .failure(.noSpace) = result else {
                Issue.record("\(String(describing: result)) after the policy's time")
                continue
            }
        }
        bench.machine.faults.isReadOnly = false
        bench.machine.faults.capacityBytes = 0
        bench.pass(.seconds(2))
        bench.machine.faults.capacityBytes = .max
        bench.pass(.seconds(2))
        bench.volume.flush { flushed = $0 }
        bench.scheduler.runUntilIdle()
        #expect(throws: Never.self) { try #require(flushed).get() }
        #expect(bench.events.count == 3 && bench.events[1] == .logObstructed(.noSpace))
        guard case .logUnobstructed(let time)? = bench.events.last else {
            Issue.record("its end was not told")
            return
        }
        #expect(time > bench.volume.policy.writeTimeout && time < bench.volume.policy.writeTimeout + .seconds(6))
    }

    @Test("of a log whose file system is full nobody says when it will be")
    func noEstimateWhileFull() throws {
        let bench = try VolumeBench(limits: WriteLogLimits(logBytesMax: 64 << 20))
        for block in 0..<40 as Range<UInt64> {
            bench.write(block: block)
            bench.pass(.milliseconds(200))
        }
        #expect(bench.volume.logFill.timeUntilFull != nil)
        bench.machine.faults.capacityBytes = 0
        let range = SectorRange(block: 99)
        bench.volume.write(range, data: ByteBuffer(repeating: 2, count: range.byteCount), durability: .ordered) { _ in }
        bench.pass(.seconds(1))
        #expect(bench.volume.isLogFull && bench.volume.logFill.usedBytes < 1 << 20)
        #expect(bench.volume.logFill.timeUntilFull == nil)
        bench.machine.faults.capacityBytes = .max
        bench.pass(.seconds(2))
        #expect(bench.volume.logFill.timeUntilFull != nil)
    }

    @Test("a point whose seal took too long goes home when the file system takes changes again, though nothing more is written")
    func sealTooLate() throws {
        let bench = try VolumeBench()
        bench.connect()
        bench.write(block: 0, durability: .durable)
        bench.machine.faults.isReadOnly = true
        bench.pass(bench.volume.policy.recoveryPointObjective + bench.volume.policy.writeTimeout + .seconds(2))
        #expect(bench.pointsBegun.isEmpty)
        bench.machine.faults.isReadOnly = false
        bench.pass(.seconds(2))
        #expect(bench.pointsBegun == [1])
    }

    @Test("the owner hears of a log that fills, step by step, and of its end")
    func filling() throws {
        let bench = try VolumeBench(
            sectorCount: 1 << 20, policy: VolumePolicy(recoveryPointObjective: .seconds(3_600), sealBytes: 1 << 30),
            limits: WriteLogLimits(logBytesMax: 4 << 20))
        var told: [FillStep?] { bench.events.compactMap { if case .logFilling(let fill) = $0 { fill.step } else { nil } } }
        var block: UInt64 = 0
        func fill(to percent: UInt64) {
            while bench.volume.logFill.usedBytes < (4 << 20) / 100 * percent {
                bench.write(block: block)
                block += 1
                bench.pass(.milliseconds(50))
            }
        }
        fill(to: 51)
        #expect(told == [.half])
        guard case .logFilling(let half)? = bench.events.first(where: { if case .logFilling = $0 { true } else { false } }) else {
            Issue.record("nothing was told")
            return
        }
        #expect(half.sizeBytes == 4 << 20 && half.usedBytes >= 2 << 20)
        #expect(try #require(half.oldestAge) > .seconds(1))
        let until = try #require(half.timeUntilFull)
        #expect(until > .seconds(3) && until < .seconds(60), "\(until)")
        fill(to: 76)
        #expect(told == [.half, .threeQuarters])
        // Growing is the way out, and so is the line.
        bench.volume.resizeLog(to: 16 << 20)
        #expect(bench.events.contains { if case .logEased = $0 { true } else { false } })
        bench.volume.resizeLog(to: 4 << 20)
        #expect(told == [.half, .threeQuarters, .threeQuarters])
        bench.connect()
        bench.volume.seal(until: .received) { _ in }
        bench.scheduler.runUntilIdle()
        for point in 1...bench.volume.pointNumbers.lastSealed { bench.home(has: point) }
        bench.pass(.milliseconds(100))
        #expect(bench.events.count { if case .logEased = $0 { true } else { false } } == 2)
    }
}
