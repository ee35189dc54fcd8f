import Compression
import Testing

@testable import Link

@Suite struct CompressionChooserTests {
    /// What a method makes of a frame of 16 KiB: what it leaves of it, nil when it does not pay, and the time.
    typealias Outcome = (rest: Double?, nanoseconds: Int64)

    /// As measured on programs and text.
    static let programs: [CompressionMethod: Outcome] = [
        .lz4: (0.53, 18_000), .zstandard1: (0.40, 60_000), .zstandard3: (0.39, 90_000), .zstandard5: (0.37, 230_000),
    ]
    static let noise: [CompressionMethod: Outcome] = [
        .lz4: (nil, 2000), .zstandard1: (nil, 10_000), .zstandard3: (nil, 10_000), .zstandard5: (nil, 10_000),
    ]

    private var chooser: CompressionChooser
    private(set) var chosen: [CompressionMethod?: Int] = [:]
    private(set) var comparisons = 0

    init() { chooser = CompressionChooser(.throughput) }

    /// Runs frames of 16 KiB through the chooser.
    private mutating func run(
        _ frames: Int, line: Double, _ outcomes: [CompressionMethod: Outcome], looksRandom: Bool = false, load: BulkLoad? = nil
    ) {
        chosen = [:]
        for _ in 0..<frames {
            let choice = chooser.choose(byteCount: 16384, lineBytesPerSecond: line, load: load) { looksRandom }
            chosen[choice?.method, default: 0] += 1
            guard let choice, let outcome = outcomes[choice.method] else { continue }
            let bytes = { (outcome: Outcome) in outcome.rest.map { Int($0 * 16384) } }
            if let comparison = choice.comparison, let other = outcomes[comparison] {
                comparisons += 1
                chooser.recordComparison(
                    comparison, inputBytes: 16384, outputBytes: bytes(other), nanoseconds: other.nanoseconds, chosen: choice.method,
                    chosenBytes: bytes(outcome))
            }
            chooser.record(
                choice.method, inputBytes: 16384, outputBytes: bytes(outcome), nanoseconds: outcome.nanoseconds, looksRandom: looksRandom)
        }
    }

    /// 10 Mbit/s to 4 Gbit/s: the denser, the slower the line; and only what the processor keeps up with.
    @Test(arguments: [
        (1.25e6, CompressionMethod?.some(.zstandard5)), (6e6, .zstandard5), (25e6, .zstandard3), (45e6, .zstandard1), (125e6, .lz4),
        (5e9, nil),
    ])
    mutating func bulkTakesTheDensestThatTheProcessorKeepsUpWith(line: Double, expected: CompressionMethod?) {
        run(2000, line: line, Self.programs)
        run(2000, line: line, Self.programs)
        #expect(chosen[expected, default: 0] > 1900, "\(chosen)")
    }

    /// A thread with little else to do has time for a denser method on a faster line; one with much to do for each byte has not.
    @Test(arguments: [(16e6, 1.0, CompressionMethod?.some(.zstandard5)), (25e6, 12.0, .zstandard1), (6e6, 90.0, .lz4), (25e6, 60.0, nil)])
    mutating func whatElseTheProcessorHasToDoDecides(line: Double, work: Double, expected: CompressionMethod?) {
        let load = BulkLoad(nanosecondsPerByte: work, spareShare: 0)
        run(2000, line: line, Self.programs, load: load)
        run(2000, line: line, Self.programs, load: load)
        #expect(chosen[expected, default: 0] > 1900, "\(chosen)")
    }

    /// Frames that go as they are seem to take a thread long that has other things to do. It compresses again all the same.
    @Test mutating func otherWorkDoesNotKeepBulkFromBeingCompressed() {
        let busy = BulkLoad(nanosecondsPerByte: 64, spareShare: 0.2)
        run(2000, line: 12.5e6, Self.noise, load: busy)
        run(2000, line: 12.5e6, Self.programs, load: busy)
        run(2000, line: 12.5e6, Self.programs, load: busy)
        #expect(chosen[nil, default: 0] == 0 && chosen[.zstandard1, default: 0] > 1900, "\(chosen)")
    }

    @Test func whoWaitsForAFrameIsNotMadeToWaitForTheDensest() {
        var tests = Self()
        tests.chooser = CompressionChooser(.latency)
        tests.run(4000, line: 25e6, Self.programs)
        #expect(tests.chosen[.zstandard1, default: 0] > 3000, "\(tests.chosen)")
        tests.run(4000, line: 250e6, Self.programs)
        #expect(tests.chosen[.lz4, default: 0] > 3000, "\(tests.chosen)")
    }

    /// A stream leaves less of a frame, and takes its time: what is measured of that decides, and is kept apart from what a method does by itself.
    @Test(arguments: [(6e6, 1.0, CompressionMethod.zstandard5), (6e6, 4.0, .zstandard3), (1e6, 4.0, .zstandard5)])
    mutating func whatAStreamTakesAndSavesDecides(line: Double, slower: Double, expected: CompressionMethod) {
        let single = Self.programs
        var chosen: [CompressionMethod: Int] = [:]
        for frame in 0..<8000 {
            guard let choice = chooser.choose(byteCount: 16384, lineBytesPerSecond: line, inStream: true),
                let outcome = single[choice.method], let rest = outcome.rest
            else { continue }
            if frame >= 6000 { chosen[choice.method, default: 0] += 1 }
            let isDense = choice.method == .zstandard5
            let stream = (
                rest: choice.method == .lz4 ? rest : rest * 0.9,
                nanoseconds: Int64(Double(outcome.nanoseconds) * (isDense ? slower : 1))
            )
            if let other = choice.comparison, let compared = single[other], let otherRest = compared.rest {
                chooser.recordStream(
                    choice.method, inputBytes: 16384, bytes: Int(stream.rest * 16384), nanoseconds: stream.nanoseconds,
                    aloneBytes: Int(rest * 16384),
                    aloneNanoseconds: outcome.nanoseconds)
                chooser.recordComparison(
                    other, inputBytes: 16384, outputBytes: Int(otherRest * 16384), nanoseconds: compared.nanoseconds, chosen: choice.method,
                    chosenBytes: Int(rest * 16384))
            }
            chooser.record(
                choice.method, inputBytes: 16384, outputBytes: Int(stream.rest * 16384), nanoseconds: stream.nanoseconds, inStream: true)
        }
        #expect(chosen[expected, default: 0] > 1900, "\(chosen)")
        // On their own, frames are chosen for as ever.
        run(2000, line: 25e6, Self.programs)
        run(2000, line: 25e6, Self.programs)
        #expect(self.chosen[.zstandard3, default: 0] > 1900, "\(self.chosen)")
    }

    /// Frames are unlike one another. A stream that changed its method for each would have nothing to remember.
    @Test(arguments: [(1.25e6, CompressionMethod.zstandard5), (25e6, .zstandard1)])
    mutating func framesThatVaryDoNotChangeTheMethod(line: Double, expected: CompressionMethod) {
        var random: UInt64 = 7
        // What is between 1 - spread and 1 + spread.
        func vary(_ spread: Double) -> Double {
            random = random &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return 1 + spread * (Double(random >> 33) / Double(1 << 30) - 1)
        }
        var changes = 0
        var last: CompressionMethod?
        var chosen: [CompressionMethod: Int] = [:]
        for frame in 0..<20_000 {
            let frameRest = vary(0.9)
            let outcome = { (method: CompressionMethod) -> Outcome in
                let usual = Self.programs[method] ?? (rest: 1, nanoseconds: 1)
                return ((usual.rest ?? 1) * frameRest * vary(0.05), Int64(Double(usual.nanoseconds) * vary(0.4)))
            }
            let choice = chooser.choose(byteCount: 16384, lineBytesPerSecond: line, inStream: true)
            guard let choice, let rest = outcome(choice.method).rest else { continue }
            if frame >= 4000 {
                if let last, choice.method != last { changes += 1 }
                chosen[choice.method, default: 0] += 1
            }
            last = choice.method
            let (bytes, nanoseconds) = (Int(rest * 16384), outcome(choice.method).nanoseconds)
            let streamBytes = Int(rest * 16384 * min(1, 0.9 * vary(0.5)))
            if let other = choice.comparison, case let compared = outcome(other), let otherRest = compared.rest {
                chooser.recordStream(
                    choice.method, inputBytes: 16384, bytes: streamBytes, nanoseconds: nanoseconds, aloneBytes: bytes,
                    aloneNanoseconds: outcome(choice.method).nanoseconds)
                chooser.recordComparison(
                    other, inputBytes: 16384, outputBytes: Int(otherRest * 16384), nanoseconds: compared.nanoseconds,
                    chosen: choice.method, chosenBytes: bytes)
            }
            chooser.record(choice.method, inputBytes: 16384, outputBytes: streamBytes, nanoseconds: nanoseconds, inStream: true)
        }
        #expect(changes <= 10 && chosen[expected, default: 0] > 15_000, "\(changes) changes, \(chosen)")
    }

    @Test mutating func oneFrameIn64IsCompared() {
        run(6400, line: 6e6, Self.programs)
        #expect(comparisons == 100)
    }

    /// The method that was the densest may not be for what comes next.
    @Test mutating func itFollowsTheData() {
        run(2000, line: 6e6, Self.programs)
        run(
            4000, line: 6e6,
            [.lz4: (0.10, 18_000), .zstandard1: (0.05, 60_000), .zstandard3: (0.06, 90_000), .zstandard5: (0.07, 230_000)])
        run(500, line: 6e6, [.lz4: (0.10, 18_000), .zstandard1: (0.05, 60_000), .zstandard3: (0.06, 90_000), .zstandard5: (0.07, 230_000)])
        #expect(chosen[.zstandard1, default: 0] > 450, "\(chosen)")
    }

    @Test mutating func dataThatDoesNotShrinkIsTriedEverMoreRarely() {
        run(10_000, line: 6e6, Self.noise)
        #expect((9800..<10_000).contains(chosen[nil, default: 0]), "\(chosen)")
    }

    /// What looks random is hardly tried, and does not keep other frames from being compressed.
    @Test mutating func whatLooksRandomIsSpared() {
        run(6400, line: 6e6, Self.noise, looksRandom: true)
        #expect(chosen[nil] == 6300, "\(chosen)")
        run(100, line: 6e6, Self.programs)
        #expect(chosen[nil, default: 0] == 0, "\(chosen)")
    }

    /// Data that repeats itself looks random and shrinks all the same: a try shows that.
    @Test mutating func aLookThatWasWrongIsNotTrusted() {
        run(200, line: 6e6, Self.programs, looksRandom: true)
        run(200, line: 6e6, Self.programs, looksRandom: true)
        #expect(chosen[nil, default: 0] == 0, "\(chosen)")
        run(200, line: 6e6, Self.noise, looksRandom: true)
        run(200, line: 6e6, Self.noise, looksRandom: true)
        #expect(chosen[nil, default: 0] > 190, "\(chosen)")
    }

    @Test mutating func smallFramesGoAsTheyAre() {
        #expect(chooser.choose(byteCount: 100, lineBytesPerSecond: 1e6) == nil)
    }

    /// A thread that was interrupted says nothing of the method.
    @Test mutating func oneSlowMeasurementIsForgotten() {
        run(2000, line: 150e6, Self.programs)
        chooser.record(.lz4, inputBytes: 16384, outputBytes: 8192, nanoseconds: 40_000_000)
        run(100, line: 150e6, Self.programs)
        #expect(chosen[.lz4, default: 0] > 98, "\(chosen)")
    }

    /// On a line that is nearly too fast: a machine that was busy for a while, with every method, ends compression no longer than that.
    @Test(arguments: [45e6, 125e6, 240e6])
    func whatWasSlowForAWhileIsUsedAgain(line: Double) {
        var tests = Self()
        tests.run(2000, line: line, Self.programs)
        tests.run(2000, line: line, Self.programs)
        let before = tests.chosen
        let busy = Self.programs.mapValues { (rest: $0.rest, nanoseconds: $0.nanoseconds * 8) }
        tests.run(2000, line: line, busy)
        tests.run(12_000, line: line, Self.programs)
        tests.run(2000, line: line, Self.programs)
        let usual = before.max { $0.value < $1.value }?.key ?? nil
        #expect(usual != nil && tests.chosen[usual, default: 0] > 1900, "\(before), then \(tests.chosen)")
    }

    /// What takes longer from now on is found out.
    @Test mutating func aSlowerProcessorIsNoticed() {
        run(2000, line: 150e6, Self.programs)
        #expect(chosen[.lz4, default: 0] > 1900)
        run(2000, line: 150e6, Self.programs.mapValues { (rest: $0.rest, nanoseconds: $0.nanoseconds * 10) })
        run(1000, line: 150e6, Self.programs.mapValues { (rest: $0.rest, nanoseconds: $0.nanoseconds * 10) })
        #expect(chosen[nil, default: 0] > 900, "\(chosen)")
    }
}
