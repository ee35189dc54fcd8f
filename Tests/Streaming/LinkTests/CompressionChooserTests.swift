import Compression
import Testing

@testable import Link

@Suite struct CompressionChooserTests {
    /// Runs frames of 16 KiB through a chooser, with compressors of given ratio and speed.
    static func run(
        _ frames: Int, line: Double, lz4: (ratio: Double?, nanoseconds: Int64), zstandard: (ratio: Double?, nanoseconds: Int64)
    ) -> [CompressionAlgorithm?: Int] {
        var chooser = CompressionChooser()
        var chosen: [CompressionAlgorithm?: Int] = [:]
        for _ in 0..<frames {
            let choice = chooser.choose(byteCount: 16384, lineBytesPerSecond: line)
            chosen[choice, default: 0] += 1
            guard let choice else { continue }
            let outcome = choice == .lz4 ? lz4 : zstandard
            chooser.record(
                choice, inputBytes: 16384, outputBytes: outcome.ratio.map { Int($0 * 16384) }, nanoseconds: outcome.nanoseconds)
        }
        return chosen
    }

    static let lz4 = (ratio: Optional(0.53), nanoseconds: Int64(18_000))
    static let zstandard = (ratio: Optional(0.40), nanoseconds: Int64(31_000))

    @Test func aSlowLineGetsTheDenserAlgorithm() {
        let chosen = Self.run(1000, line: 6e6, lz4: Self.lz4, zstandard: Self.zstandard)
        #expect(chosen[.zstandard, default: 0] > 950)
    }

    @Test func aFasterLineGetsTheFasterAlgorithm() {
        let chosen = Self.run(1000, line: 250e6, lz4: Self.lz4, zstandard: Self.zstandard)
        #expect(chosen[.lz4, default: 0] > 900)
    }

    @Test func aLineFasterThanTheCompressorsGetsNone() {
        let chosen = Self.run(10_000, line: 5e9, lz4: Self.lz4, zstandard: Self.zstandard)
        #expect(chosen[CompressionAlgorithm?.none, default: 0] > 9900)
    }

    @Test func dataThatDoesNotShrinkIsTriedEverMoreRarely() {
        let chosen = Self.run(10_000, line: 6e6, lz4: (nil, 2000), zstandard: (nil, 10_000))
        #expect(chosen[CompressionAlgorithm?.none, default: 0] > 9800)
        #expect(chosen[CompressionAlgorithm?.none, default: 0] < 10_000)
    }

    @Test func smallFramesGoAsTheyAre() {
        var chooser = CompressionChooser()
        #expect(chooser.choose(byteCount: 100, lineBytesPerSecond: 1e6) == nil)
    }
}
