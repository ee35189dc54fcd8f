import Glibc

// What the thread of a link has to do besides compressing bulk: read it from where it is, sign it, encrypt it, hand it to the kernel; and serve
// whoever else it serves. Only together with that can be told what a denser method would cost: a thread that is idle half of the time has time for
// one. It is the processor time of the thread while so many bytes went through, less what compressing took of it, in an average.
//
// How much of that belongs to the bulk can't be told, so it is known in two ways: for a byte, as if all were for the bulk and grew with it; and as a
// share of the time, as if none were. A method pays when it does by either: a thread that is busy with other things would seem to take long for each
// byte of a slow line, most of all for bytes that are not compressed.

/// What the thread of a link does besides compressing bulk.
public struct BulkLoad: Equatable, Sendable {
    /// In nanoseconds of the processor for a byte of bulk before compression.
    public var nanosecondsPerByte: Double
    /// The part of the time that is left for compressing, from 0 to 1.
    public var spareShare: Double

    public init(nanosecondsPerByte: Double, spareShare: Double) {
        self.nanosecondsPerByte = nanosecondsPerByte
        self.spareShare = spareShare
    }
}

/// Measures it. Pure: the clocks are its owner's.
struct BulkWork {
    /// What is measured at once, in bytes.
    static let intervalBytes = 1 << 20
    /// An interval that took longer counts for nothing, in nanoseconds: the line was slow, or there was little bulk, and the thread had other
    /// things to do.
    static let longestInterval: Int64 = 1_000_000_000
    /// What one interval counts among those that were measured.
    private static let weight = 1.0 / 4

    /// Nil until there was an interval.
    private(set) var load: BulkLoad?
    private var byteCount = 0
    private var compressingNanoseconds: Int64 = 0
    private var start: (now: Int64, processor: Int64)?

    /// Counts a frame.
    /// - Parameters:
    ///   - compressingNanoseconds: what compressing it took, as a comparison of methods as well.
    ///   - now: of a clock that goes on, in nanoseconds.
    ///   - processor: the processor time of the thread, in nanoseconds; asked for once in an interval.
    mutating func count(byteCount: Int, compressingNanoseconds: Int64, now: Int64, processor: () -> Int64) {
        self.byteCount += byteCount
        self.compressingNanoseconds += compressingNanoseconds
        guard let start else { return begin(now, processor()) }
        guard self.byteCount >= Self.intervalBytes || now - start.now > Self.longestInterval else { return }
        let end = processor()
        if now - start.now <= Self.longestInterval {
            learn(other: max(0, Double(end - start.processor - self.compressingNanoseconds)), elapsed: Double(max(1, now - start.now)))
        }
        begin(now, end)
    }

    private mutating func learn(other nanoseconds: Double, elapsed: Double) {
        let measured = BulkLoad(nanosecondsPerByte: nanoseconds / Double(byteCount), spareShare: max(0, 1 - nanoseconds / elapsed))
        guard var load else { return load = measured }
        load.nanosecondsPerByte += (measured.nanosecondsPerByte - load.nanosecondsPerByte) * Self.weight
        load.spareShare += (measured.spareShare - load.spareShare) * Self.weight
        self.load = load
    }

    private mutating func begin(_ now: Int64, _ processor: Int64) {
        start = (now, processor)
        (byteCount, compressingNanoseconds) = (0, 0)
    }

    /// The processor time of the calling thread, in nanoseconds.
    static func threadNanoseconds() -> Int64 {
        var time = timespec()
        // Linux has this clock for every thread.
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
        return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
    }
}
