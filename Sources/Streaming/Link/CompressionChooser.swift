import Compression

// Whether a frame is compressed, and how. What counts is the time until the last byte of a frame has left: the time
// that the compressor takes and the time that its output takes on the line. Both are measured, in averages:
//
//   none        bytes x line
//   LZ4, Zstd   bytes x (own time + ratio x line)
//
// Data that does not shrink is recognised by trying: after every try that did not pay twice as many frames go
// unchanged before the next try, up to a limit.

/// Chooses the compression of the frames of one stream. Pure: times are measured by its owner.
public struct CompressionChooser: Sendable {
    /// Payloads below this are sent as they are.
    public static let smallestBytes = 256
    /// The most frames that go unchanged between two tries.
    static let longestPause = 64
    /// How often the algorithm that is not the chosen one is tried, in frames.
    static let comparisonInterval = 64
    /// What is assumed of a line that was not measured yet, in bytes a second: 100 Mbit/s.
    static let unknownLine = 12.5e6

    private struct Experience {
        /// Output over input.
        var ratio: Double
        /// Nanoseconds for a byte of input.
        var nanosecondsPerByte: Double
    }

    private var lz4 = Experience(ratio: 0.6, nanosecondsPerByte: 1.5)
    private var zstandard = Experience(ratio: 0.45, nanosecondsPerByte: 4)
    private var pause = 0
    private var framesToSkip = 0
    private var framesSinceComparison = 0

    public init() {}

    /// What to try on the next frame.
    public mutating func choose(byteCount: Int, lineBytesPerSecond: Double) -> CompressionAlgorithm? {
        guard byteCount >= Self.smallestBytes else { return nil }
        if framesToSkip > 0 {
            framesToSkip -= 1
            return nil
        }
        let line = 1e9 / (lineBytesPerSecond > 0 ? lineBytesPerSecond : Self.unknownLine)
        let costs = (
            none: line, lz4: lz4.nanosecondsPerByte + lz4.ratio * line,
            zstandard: zstandard.nanosecondsPerByte + zstandard.ratio * line
        )
        let best: CompressionAlgorithm = costs.lz4 <= costs.zstandard ? .lz4 : .zstandard
        guard min(costs.lz4, costs.zstandard) < costs.none else {
            // The line is too fast for what the data gives. Look again later: either may change.
            framesToSkip = Self.longestPause - 1
            framesSinceComparison += 1
            return framesSinceComparison % 4 == 0 ? best : nil
        }
        framesSinceComparison += 1
        if framesSinceComparison % Self.comparisonInterval == 0 { return best == .lz4 ? .zstandard : .lz4 }
        return best
    }

    /// Records a try.
    /// - Parameter outputBytes: nil when it did not pay.
    public mutating func record(_ algorithm: CompressionAlgorithm, inputBytes: Int, outputBytes: Int?, nanoseconds: Int64) {
        guard inputBytes > 0 else { return }
        let ratio = Double(outputBytes ?? inputBytes) / Double(inputBytes)
        let time = Double(max(0, nanoseconds)) / Double(inputBytes)
        func learn(_ experience: inout Experience) {
            // A try that did not pay says how the data is now, not how good the algorithm is.
            if outputBytes != nil { experience.ratio += (ratio - experience.ratio) / 8 }
            experience.nanosecondsPerByte += (time - experience.nanosecondsPerByte) / 16
        }
        if algorithm == .lz4 { learn(&lz4) } else { learn(&zstandard) }
        if outputBytes == nil {
            pause = min(max(1, pause * 2), Self.longestPause)
            framesToSkip = pause
        } else {
            pause = 0
        }
    }
}
