import Testing

@testable import Link

@Suite struct BulkWorkTests {
    private static let frameBytes = 16384
    private static let framesAnInterval = BulkWork.intervalBytes / frameBytes
    private var work = BulkWork()
    private var now: Int64 = 0
    private var processor: Int64 = 0

    /// Frames, each of which takes the thread so long, with some of that for compression.
    private mutating func run(_ frames: Int, processor: Int64, compressing: Int64, pause: Int64 = 0) {
        for _ in 0..<frames {
            now += processor + pause
            self.processor += processor
            let time = self.processor
            work.count(byteCount: Self.frameBytes, compressingNanoseconds: compressing, now: now) { time }
        }
    }

    @Test mutating func whatCompressingTakesIsNoPartOfIt() throws {
        run(1, processor: 0, compressing: 0)
        run(Self.framesAnInterval - 1, processor: 6 * 16384, compressing: 4 * 16384)
        #expect(work.load == nil)
        run(1, processor: 6 * 16384, compressing: 4 * 16384)
        #expect(work.load?.nanosecondsPerByte == 2)
        run(20 * Self.framesAnInterval, processor: 9 * 16384, compressing: 4 * 16384)
        #expect(abs(try #require(work.load?.nanosecondsPerByte) - 5) < 0.1)
    }

    /// Compressing is measured by a clock that goes on while another thread has the processor.
    @Test mutating func itIsNeverBelowNothing() {
        run(1, processor: 0, compressing: 0)
        run(Self.framesAnInterval, processor: 16384, compressing: 3 * 16384)
        #expect(work.load?.nanosecondsPerByte == 0)
    }

    @Test mutating func whatAThreadDoesWhileThereIsLittleBulkDoesNotCount() {
        run(1, processor: 0, compressing: 0)
        run(Self.framesAnInterval, processor: 2 * 16384, compressing: 0)
        #expect(work.load?.nanosecondsPerByte == 2)
        run(1, processor: 50_000_000, compressing: 0, pause: BulkWork.longestInterval)
        run(Self.framesAnInterval, processor: 2 * 16384, compressing: 0)
        #expect(work.load?.nanosecondsPerByte == 2)
    }

    /// A thread that is busy for so much of the time besides has the rest to spare.
    @Test mutating func whatIsLeftOfTheTimeIsKnown() throws {
        run(1, processor: 0, compressing: 0)
        run(20 * Self.framesAnInterval, processor: 40_000, compressing: 10_000, pause: 60_000)
        #expect(abs(try #require(work.load?.spareShare) - 0.7) < 0.01)
        run(40 * Self.framesAnInterval, processor: 40_000, compressing: 0)
        #expect(try #require(work.load?.spareShare) < 0.01)
    }

    @Test func theThreadHasAClock() {
        let start = BulkWork.threadNanoseconds()
        var sum: UInt64 = 0
        while BulkWork.threadNanoseconds() - start < 1_000_000 { sum &+= 1 }
        #expect(start > 0 && sum > 0)
    }
}
