import Compression

// Whether a frame is compressed, and how. All times are measured, in averages, in nanoseconds for a byte of input: what a method takes, how
// much of a byte it leaves, and what a byte takes on the line. What counts depends on who waits:
//
//   somebody waits for this frame     time + rest x line             until its last byte has left
//   many frames follow one another    max(time + work, rest x line)  the line and the processor work side by side, and the processor has
//                                                                    other work, too, which is measured (`BulkWork`)
//
// None costs what a byte takes on the line. How much is left of a byte changes from frame to frame, for all methods alike; what one leaves
// against another hardly does. So what the data gives is known once, and of each method how it compares with the others: now and then one is
// compared with the one in use, on the same frame.
//
// Frames that go through a stream of compression can't be compared so: the stream would not be the same afterwards. What a stream makes of a
// method's time and rest is kept as two factors of each method, which are measured when it is compared, by compressing the frame on its own as
// well; all else is kept as it would be without a stream. A stream whose method changes begins anew, with nothing to remember: so it changes
// for what is clearly better only.
//
// Data that does not shrink is recognised by a look at it (`RandomnessProbe`); and by trying: after every try that did not pay twice as many
// frames go unchanged before the next try, up to a limit.

/// Chooses the compression of the frames of one class. Pure: times are measured by its owner.
public struct CompressionChooser: Sendable {
    /// What the frames of a class are for.
    public enum Goal: Sendable {
        /// Somebody waits for each.
        case latency
        /// As many as possible, one after the other.
        case throughput
    }

    /// What to do with a frame.
    public struct Choice: Equatable, Sendable {
        /// How it is compressed.
        public var method: CompressionMethod
        /// Compress it so, too, and record that first.
        public var comparison: CompressionMethod?
    }

    /// Payloads below this are sent as they are.
    public static let smallestBytes = 256
    /// The most frames that go unchanged between two tries.
    static let longestPause = 64
    /// How often another method is compared with the chosen one, in frames.
    static let comparisonInterval = 64
    /// What is assumed of a line that was not measured yet, in bytes a second: 100 Mbit/s.
    static let unknownLine = 12.5e6
    /// A measurement that took so many times what was expected counts only if the one after it did, too.
    private static let outlier = 3.0
    /// One measurement of the time that a stream makes of a method's counts for no more than this, nor less than its inverse: a thread may be
    /// interrupted.
    private static let streamFactorMax = 4.0
    /// For how much less a stream changes its method, in parts of what the one in use costs.
    private static let leastGainOfChange = 1.0 / 64
    /// What one frame counts among those on which methods were compared.
    private static let comparisonWeight = 1.0 / 16
    /// A thread is not planned to be busy for longer than three quarters of the time: what somebody waits for comes in between, and frames don't
    /// come one by one.
    private static let spareFactor = 4.0 / 3

    /// What a byte takes besides compressing it, in nanoseconds.
    private struct Pace {
        /// On the line.
        var line: Double
        /// And what else the processor does.
        var load: BulkLoad?

        /// What a byte takes of a processor that has nothing else in the way, at most.
        func processorTime(compressing time: Double) -> Double {
            guard let load else { return 2 * time }
            return min(time + load.nanosecondsPerByte, load.spareShare > 0 ? time / load.spareShare : .infinity)
        }
    }

    private struct Experience {
        /// What it leaves of a frame, in times of what the others leave of it: `rest` times this is its output over its input.
        var relativeRest: Double
        /// Nanoseconds for a byte of input.
        var nanosecondsPerByte: Double
        /// The last measurement took so much longer that it may say nothing.
        var isInDoubt = false
        /// What a stream makes of the rest, and of the time.
        var streamRest = Quotient(1)
        var streamTime = Quotient(1)
    }

    /// Of two quantities that were measured on the same frames: large frames, and those that take long, count for more.
    private struct Quotient {
        /// Of frames of 16 KiB, or that took so many nanoseconds.
        private var divisor = 16384.0
        private var dividend: Double

        init(_ value: Double) { dividend = value * divisor }

        var value: Double { dividend / divisor }

        mutating func learn(_ measured: Double, of whole: Double) {
            dividend += (measured - dividend) * comparisonWeight
            divisor += (whole - divisor) * comparisonWeight
        }
    }

    private let goal: Goal
    /// Of a byte of the latest frames, what a method with a relative rest of 1 would leave. What programs and text give, until there is
    /// experience; so are all that follow.
    private var rest = 0.42
    /// By the numbers of the methods.
    private var experiences = [
        Experience(relativeRest: 1.3, nanosecondsPerByte: 1.5),
        Experience(relativeRest: 1, nanosecondsPerByte: 4, streamRest: Quotient(0.95), streamTime: Quotient(1.2)),
        Experience(relativeRest: 0.97, nanosecondsPerByte: 6, streamRest: Quotient(0.9), streamTime: Quotient(2.4)),
        Experience(relativeRest: 0.93, nanosecondsPerByte: 14, streamRest: Quotient(0.9), streamTime: Quotient(1.4)),
    ]
    /// What frames that go through streams are compressed with.
    private var streamMethod: CompressionMethod?
    private var pause = 0
    private var framesToSkip = 0
    private var framesSinceComparison = 0
    private var nextComparison = 0
    private var randomFrames = 0
    /// Frames that look random did not shrink when one was tried.
    private var isProbeRight = true

    public init(_ goal: Goal) { self.goal = goal }

    /// What to do with the next frame; nil to send it as it is.
    /// - Parameters:
    ///   - load: what the processor has to do besides; as much as compressing takes, while that is not known.
    ///   - inStream: it may go through a stream of compression, where the method is Zstandard.
    ///   - looksRandom: asked only when that matters.
    public mutating func choose(
        byteCount: Int, lineBytesPerSecond: Double, load: BulkLoad? = nil, inStream: Bool = false,
        looksRandom: () -> Bool = { false }
    ) -> Choice? {
        guard byteCount >= Self.smallestBytes else { return nil }
        if framesToSkip > 0 {
            framesToSkip -= 1
            return nil
        }
        if looksRandom() {
            randomFrames += 1
            if isProbeRight, randomFrames % Self.longestPause != 0 { return nil }
        }
        let pace = Pace(line: 1e9 / (lineBytesPerSecond > 0 ? lineBytesPerSecond : Self.unknownLine), load: load)
        framesSinceComparison += 1
        let (best, cost) = inStream ? bestInStream(pace) : best(pace, inStream: false)
        guard cost < pace.line else {
            // The line is too fast for what the data gives. Look again later, at each method in turn: either may change.
            framesToSkip = Self.longestPause - 1
            guard framesSinceComparison % 4 == 0 else { return nil }
            let next = other(than: best)
            return framesSinceComparison % 8 == 0 ? Choice(method: next, comparison: best) : Choice(method: best, comparison: next)
        }
        guard framesSinceComparison >= Self.comparisonInterval else { return Choice(method: best) }
        framesSinceComparison = 0
        return Choice(method: best, comparison: other(than: best))
    }

    private mutating func bestInStream(_ pace: Pace) -> (method: CompressionMethod, cost: Double) {
        let best = best(pace, inStream: true)
        if let streamMethod {
            let cost = cost(of: streamMethod, pace, inStream: true)
            if best.cost > cost * (1 - Self.leastGainOfChange) { return (streamMethod, cost) }
        }
        streamMethod = best.method
        return best
    }

    private func best(_ pace: Pace, inStream: Bool) -> (method: CompressionMethod, cost: Double) {
        var best = (method: CompressionMethod.lz4, cost: Double.infinity)
        for method in CompressionMethod.allCases {
            let cost = cost(of: method, pace, inStream: inStream)
            if cost < best.cost { best = (method, cost) }
        }
        return best
    }

    private func cost(of method: CompressionMethod, _ pace: Pace, inStream: Bool) -> Double {
        let experience = experiences[method.rawValue]
        let time = experience.nanosecondsPerByte * (inStream ? experience.streamTime.value : 1)
        let rest = rest * experience.relativeRest * (inStream ? experience.streamRest.value : 1)
        return switch goal {
        case .latency: time + rest * pace.line
        case .throughput: max(pace.processorTime(compressing: time) * Self.spareFactor, rest * pace.line)
        }
    }

    /// The next method in turn.
    private mutating func other(than best: CompressionMethod) -> CompressionMethod {
        let others = CompressionMethod.allCases.filter { $0 != best }
        nextComparison = (nextComparison + 1) % others.count
        return others[nextComparison]
    }

    /// Records what came of a choice.
    /// - Parameters:
    ///   - outputBytes: nil when it did not pay.
    ///   - inStream: the frame went through a stream.
    public mutating func record(
        _ method: CompressionMethod, inputBytes: Int, outputBytes: Int?, nanoseconds: Int64, inStream: Bool = false,
        looksRandom: Bool = false
    ) {
        guard inputBytes > 0 else { return }
        let streamTime = inStream ? experiences[method.rawValue].streamTime.value : 1
        learn(method, time: Double(max(0, nanoseconds)) / Double(inputBytes) / streamTime)
        guard let outputBytes else {
            if looksRandom {
                isProbeRight = true
            } else {
                pause = min(max(1, pause * 2), Self.longestPause)
                framesToSkip = pause
            }
            return
        }
        // A try that did not pay says how the data is now, not how good the method is.
        // What a stream leaves of a frame depends on those before it, and is learnt where it is compared.
        if !inStream { learnRest(method, inputBytes: inputBytes, outputBytes: outputBytes) }
        if looksRandom { isProbeRight = false }
        pause = 0
    }

    private mutating func learnRest(_ method: CompressionMethod, inputBytes: Int, outputBytes: Int) {
        let left = min(1, Double(outputBytes) / Double(inputBytes))
        rest += (left / experiences[method.rawValue].relativeRest - rest) / 8
    }

    /// Records what a method made of a frame in a stream and on its own.
    public mutating func recordStream(
        _ method: CompressionMethod, inputBytes: Int, bytes: Int, nanoseconds: Int64, aloneBytes: Int, aloneNanoseconds: Int64
    ) {
        guard inputBytes > 0, bytes > 0, aloneBytes > 0, nanoseconds > 0, aloneNanoseconds > 0 else { return }
        learnRest(method, inputBytes: inputBytes, outputBytes: aloneBytes)
        let alone = Double(aloneNanoseconds)
        let time = min(max(Double(nanoseconds), alone / Self.streamFactorMax), alone * Self.streamFactorMax)
        experiences[method.rawValue].streamRest.learn(Double(bytes), of: Double(aloneBytes))
        experiences[method.rawValue].streamTime.learn(time, of: alone)
    }

    /// Records what another method made of a frame.
    /// - Parameters:
    ///   - outputBytes: nil when it did not pay.
    ///   - chosenBytes: what the chosen method made of it, on its own; nil when it did not pay.
    public mutating func recordComparison(
        _ method: CompressionMethod, inputBytes: Int, outputBytes: Int?, nanoseconds: Int64, chosen: CompressionMethod, chosenBytes: Int?
    ) {
        guard inputBytes > 0 else { return }
        learn(method, time: Double(max(0, nanoseconds)) / Double(inputBytes))
        guard let outputBytes, let chosenBytes, outputBytes > 0, chosenBytes > 0 else { return }
        let relative = experiences[chosen.rawValue].relativeRest * Double(outputBytes) / Double(chosenBytes)
        experiences[method.rawValue].relativeRest += (relative - experiences[method.rawValue].relativeRest) * Self.comparisonWeight
    }

    private mutating func learn(_ method: CompressionMethod, time: Double) {
        var experience = experiences[method.rawValue]
        defer { experiences[method.rawValue] = experience }
        let limit = Self.outlier * experience.nanosecondsPerByte
        if time > limit, !experience.isInDoubt {
            // Once in a while the thread is interrupted, and for long: that says nothing of the method.
            experience.isInDoubt = true
            return
        }
        experience.isInDoubt = false
        // Nothing makes a method seem faster than it is.
        let weight = time < experience.nanosecondsPerByte ? 1.0 / 8 : 1.0 / 16
        experience.nanosecondsPerByte += (min(time, limit) - experience.nanosecondsPerByte) * weight
    }
}
