import Compression

// Whether a frame is compressed, and how. All times are measured, in averages, in nanoseconds for a byte of input: what a method takes, how
// much of a byte it leaves, and what a byte takes on the line. What counts depends on who waits:
//
//   somebody waits for this frame     time + rest x line             until its last byte has left
//   many frames follow one another    max(2 x time, rest x line)     the line and the processor work side by side, and the processor has
//                                                                    about as much to do for a byte besides compressing it
//
// None costs what a byte takes on the line. Each method is compared now and then with the one in use, on the same frame: so it is known how
// much more or less it would leave of what is sent now.
//
// Frames that go through a stream of compression can't be compared so: the stream would not be the same afterwards. What a stream makes of a
// method's time and rest is kept as two factors of each method, which are measured when it is compared, by compressing the frame on its own as
// well; all else is kept as it would be without a stream.
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
    /// One measurement of what a stream makes of a method counts for no more than this, nor less than its inverse: a thread may be interrupted.
    private static let streamFactorMax = 4.0
    /// What the processor does for a byte, in times of what compressing it takes.
    private static let workFactor = 2.0

    private struct Experience {
        /// Output over input.
        var rest: Double
        /// Nanoseconds for a byte of input.
        var nanosecondsPerByte: Double
        /// The last measurement took so much longer that it may say nothing.
        var isInDoubt = false
        /// What a stream makes of the rest, and of the time.
        var streamRest = 1.0
        var streamTime = 1.0
    }

    private let goal: Goal
    /// By the numbers of the methods. What programs and text give, until there is experience.
    private var experiences = [
        Experience(rest: 0.55, nanosecondsPerByte: 1.5), Experience(rest: 0.42, nanosecondsPerByte: 4, streamRest: 0.95, streamTime: 1.2),
        Experience(rest: 0.41, nanosecondsPerByte: 6, streamRest: 0.9, streamTime: 2.4),
        Experience(rest: 0.39, nanosecondsPerByte: 14, streamRest: 0.9, streamTime: 1.4),
    ]
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
    ///   - inStream: it may go through a stream of compression, where the method is Zstandard.
    ///   - looksRandom: asked only when that matters.
    public mutating func choose(
        byteCount: Int, lineBytesPerSecond: Double, inStream: Bool = false, looksRandom: () -> Bool = { false }
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
        let line = 1e9 / (lineBytesPerSecond > 0 ? lineBytesPerSecond : Self.unknownLine)
        framesSinceComparison += 1
        let (best, cost) = best(line, inStream)
        guard cost < line else {
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

    private func best(_ line: Double, _ inStream: Bool) -> (method: CompressionMethod, cost: Double) {
        var best = (method: CompressionMethod.lz4, cost: Double.infinity)
        for method in CompressionMethod.allCases {
            let cost = cost(experiences[method.rawValue], line, inStream)
            if cost < best.cost { best = (method, cost) }
        }
        return best
    }

    private func cost(_ experience: Experience, _ line: Double, _ inStream: Bool) -> Double {
        let time = experience.nanosecondsPerByte * (inStream ? experience.streamTime : 1)
        let rest = experience.rest * (inStream ? experience.streamRest : 1)
        return switch goal {
        case .latency: time + rest * line
        case .throughput: max(Self.workFactor * time, rest * line)
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
        let (streamRest, streamTime) =
            inStream ? (experiences[method.rawValue].streamRest, experiences[method.rawValue].streamTime) : (1, 1)
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
        let rest = min(1, Double(outputBytes) / Double(inputBytes) / streamRest)
        experiences[method.rawValue].rest += (rest - experiences[method.rawValue].rest) / 8
        if looksRandom { isProbeRight = false }
        pause = 0
    }

    /// Records what a method made of a frame in a stream and on its own.
    public mutating func recordStream(
        _ method: CompressionMethod, bytes: Int, nanoseconds: Int64, aloneBytes: Int, aloneNanoseconds: Int64
    ) {
        guard bytes > 0, aloneBytes > 0, nanoseconds > 0, aloneNanoseconds > 0 else { return }
        func learn(_ factor: inout Double, _ measured: Double) {
            let bounded = min(max(measured, 1 / Self.streamFactorMax), Self.streamFactorMax)
            factor += (bounded - factor) / 8
        }
        learn(&experiences[method.rawValue].streamRest, Double(bytes) / Double(aloneBytes))
        learn(&experiences[method.rawValue].streamTime, Double(nanoseconds) / Double(aloneNanoseconds))
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
        // One frame may be unlike the others, but what one method leaves of it and what another does go together.
        guard let outputBytes, let chosenBytes, chosenBytes > 0 else { return }
        let rest = min(1, experiences[chosen.rawValue].rest * Double(outputBytes) / Double(chosenBytes))
        experiences[method.rawValue].rest += (rest - experiences[method.rawValue].rest) / 2
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
