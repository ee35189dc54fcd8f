import Blocks
import NIOCore
import SimulatedStorage
import Testing

@testable import WriteLog

/// A log near its bound, and a bound that changes while the log serves.
@Suite struct WriteLogAdmissionTests {
    /// Writers that ask for as much as they get, over a line that brings one point after the other home.
    private final class Bench {
        let harness: LogHarness
        let log: Log
        let writers: Int
        /// Bytes that the line carries a second.
        var lineRate: UInt64
        private(set) var latencies: [TimeAmount] = []
        private(set) var failures = 0
        /// How full the log was at each write, in percent.
        private(set) var fills: [Double] = []
        private var next: UInt64 = 0
        private var carriesUntil: NIODeadline?
        private var isSealing = false

        init(bound: UInt64, lineRate: UInt64, writers: Int, seed: UInt64 = 11) throws {
            harness = try LogHarness(seed: seed)
            harness.machine.faults.atOncePercent = 100
            harness.limits = WriteLogLimits(logBytesMax: bound)
            log = try harness.open()
            self.lineRate = lineRate
            self.writers = writers
            log.onAdmissionDue = { [unowned self] due in
                harness.scheduler.schedule(after: due - harness.scheduler.now) { [unowned self] in log.admitDue(now: harness.scheduler.now)
                }
            }
        }

        private var now: NIODeadline { harness.scheduler.now }

        func start() {
            for _ in 0..<writers { write() }
            pass()
        }

        /// One write of 4 KiB, and the next when it is done: a guest at a fixed queue depth, which thinks for 20 ms.
        private func write() {
            let begun = now
            next += 1
            let range = SectorRange(from: next % 4_096 * 8, to: next % 4_096 * 8 + 8)
            log.append(range, data: ByteBuffer(repeating: 7, count: range.byteCount), now: begun) { [unowned self] result in
                if case .failure = result { failures += 1 }
                latencies.append(now - begun)
                fills.append(Double(log.usedBytes) / Double(log.limits.logBytesMax) * 100)
                harness.scheduler.schedule(after: .milliseconds(20)) { [unowned self] in write() }
            }
        }

        /// What the volume does each 50 ms: time, seals, and the line.
        private func pass() {
            log.observe(now: now)
            if !isSealing, log.wantsSeal || log.currentEpochBytes > 32 << 10 {
                isSealing = true
                log.seal(now: now) { [unowned self] _ in isSealing = false }
            }
            carry()
            harness.scheduler.schedule(after: .milliseconds(50)) { [unowned self] in pass() }
        }

        private func carry() {
            guard lineRate > 0 else { return carriesUntil = nil }
            guard let point = log.sealedPoints.first else { return }
            if let until = carriesUntil {
                if now < until { return }
                carriesUntil = nil
                return log.release(through: point.number) { [unowned self] _ in carry() }
            }
            carriesUntil = now + .nanoseconds(Int64(point.byteCount * 1_000_000_000 / lineRate))
        }

        func run(seconds: Int64) {
            let end = now + .seconds(seconds)
            _ = harness.scheduler.run(until: end)
        }

        /// Forgets what was measured so far.
        func reset() {
            latencies = []
            fills = []
        }

        var sorted: [TimeAmount] { latencies.sorted() }
    }

    @Test func writersSlowDownToWhatTheLineCarries() throws {
        let bench = try Bench(bound: 1 << 20, lineRate: 64 << 10, writers: 4)
        bench.start()
        bench.run(seconds: 40)
        bench.reset()
        bench.run(seconds: 30)
        let rate = Double(bench.latencies.count) * 4_096 / 30
        #expect(abs(rate - Double(64 << 10)) < Double(64 << 10) * 0.2, "admitted \(Int(rate)) bytes a second")
        // Four writers of 4 KiB at 64 KiB/s: 250 ms each. None meets a wall, none gets far more than its share.
        let sorted = bench.sorted
        #expect(sorted[sorted.count / 2] > .milliseconds(80) && sorted[sorted.count / 2] < .milliseconds(500))
        #expect((sorted.last ?? .zero) < .seconds(2), "the slowest write took \(sorted.last ?? .zero)")
        #expect(bench.fills.allSatisfy { $0 > 70 && $0 < 100 })
        #expect(bench.failures == 0 && !bench.log.isWaitingForSpace)
    }

    @Test func belowThreeQuartersNobodyWaits() throws {
        let bench = try Bench(bound: 1 << 20, lineRate: 0, writers: 1)
        bench.start()
        while bench.log.usedBytes < (1 << 20) / 100 * 72, bench.harness.scheduler.step() {}
        #expect(bench.log.statistics.waitedAppends == 0)
        #expect((bench.sorted.last ?? .zero) < .milliseconds(5))
    }

    @Test func aLineThatIsDownSlowsWritersBeforeTheWall() throws {
        let bench = try Bench(bound: 1 << 20, lineRate: 0, writers: 4)
        bench.start()
        bench.run(seconds: 60)
        #expect(bench.failures == 0)
        #expect(!bench.log.isWaitingForSpace, "a minute after three quarters there is still some room")
        bench.reset()
        // It is up again: writers go on as fast as it carries, with no restart.
        bench.lineRate = 64 << 10
        bench.run(seconds: 40)
        bench.reset()
        bench.run(seconds: 30)
        let rate = Double(bench.latencies.count) * 4_096 / 30
        #expect(abs(rate - Double(64 << 10)) < Double(64 << 10) * 0.25, "admitted \(Int(rate)) bytes a second")
        #expect(bench.failures == 0)
    }

    @Test func aFlushNeverWaitsForWritesThatArePutOff() throws {
        let bench = try Bench(bound: 512 << 10, lineRate: 0, writers: 8)
        bench.start()
        bench.run(seconds: 60)
        #expect(bench.log.statistics.waitingAppends > 0)
        let begun = bench.harness.scheduler.now
        var took: TimeAmount?
        bench.log.flush { _ in took = bench.harness.scheduler.now - begun }
        bench.run(seconds: 1)
        #expect(try #require(took) < .milliseconds(100))
    }

    @Test func aLargerBoundLetsWaitingWritesGoOnAtOnce() throws {
        let harness = try LogHarness()
        harness.limits.logBytesMax = 128 << 10
        let log = try harness.open()
        var completed = 0
        for number in 0..<64 as Range<UInt64> {
            log.append(range(number * 8, 8), data: ByteBuffer(repeating: 1, count: 4096), now: harness.scheduler.now) {
                if case .success = $0 { completed += 1 }
            }
            harness.scheduler.runUntilIdle()
        }
        #expect(completed < 32 && log.isWaitingForSpace)
        log.resize(logBytesMax: 1 << 20)
        harness.scheduler.runUntilIdle()
        #expect(completed == 64 && !log.isWaitingForSpace)
    }

    @Test func aSmallerBoundTakesEffectAsTheLogDrains() throws {
        let harness = try LogHarness()
        harness.limits.logBytesMax = 1 << 20
        let log = try harness.open()
        for number in 0..<64 as Range<UInt64> { try harness.append(range(number * 8, 8), fill: UInt8(number)) }
        let used = log.usedBytes
        log.resize(logBytesMax: 128 << 10)
        #expect(log.usedBytes == used, "nothing that is in it is touched")
        for number in 0..<64 as Range<UInt64> {
            #expect(try harness.overlay(range(number * 8, 1))[0]?.first == UInt8(number))
        }
        var result: Result<Void, WriteLogError>?
        log.append(range(0, 8), data: ByteBuffer(repeating: 99, count: 4096), now: harness.scheduler.now) { result = $0 }
        harness.scheduler.runUntilIdle()
        #expect(result == nil && log.isWaitingForSpace && log.wantsSeal)
        try harness.release(through: try harness.seal())
        #expect(throws: Never.self) { try #require(result).get() }
        #expect(log.usedBytes <= 128 << 10)
    }
}
