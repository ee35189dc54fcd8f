import CFuzz
import Foundation

/// What a run of one parser found.
public struct FuzzReport {
    public let parser: String
    public let inputs: Int
    public let seconds: Double
    /// Inputs that had an outcome of their own.
    public let outcomes: Int
    /// How much resident memory grew after the first tenth of the inputs, in bytes, without the inputs that the run itself keeps.
    public let growthBytes: Int
    /// The highest resident memory of the process so far, in bytes.
    public let peakBytes: Int
}

/// What went wrong, with what brings it back.
public struct FuzzFailure: Error, CustomStringConvertible {
    public let parser: String
    public let seed: UInt64
    public let number: Int
    public let reason: String
    public let input: [UInt8]

    public var description: String {
        let digits = input.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
        return "\(parser), seed \(seed), input \(number): \(reason)\n\(digits)"
    }
}

/// Runs changed inputs through a parser. The seed and the corpus decide every input.
public struct FuzzRun {
    /// Inputs with an outcome of their own that are kept to be changed further; at the limit they replace each other.
    static let poolMax = 2_000
    /// The resident memory may grow by so much after the first tenth of a run.
    static let growthBytesMax = 48 << 20
    /// The resident memory of the process: no input makes a parser take more.
    static let peakBytesMax = 512 << 20

    public let inputs: Int
    public let seed: UInt64
    public let corpus: Corpus

    public init(inputs: Int, seed: UInt64, corpus: Corpus) {
        self.inputs = inputs
        self.seed = seed
        self.corpus = corpus
    }

    /// Runs one parser. Throws `FuzzFailure`, and ends the process with a report when the parser crashes or hangs.
    public func run(_ type: any FuzzTarget.Type) throws -> FuzzReport {
        let target = type.init()
        let stored = try corpus.inputs(of: type.name)
        if stored.isEmpty { throw FuzzFinding("there is no corpus of \(type.name) in \(corpus.directory.path)") }
        // A corpus may be older than the encoders: what they write now is tried too.
        let seeds = stored + (try type.seeds()).filter { !stored.contains($0) }
        var pool = Pool(seeds)
        var name = Fingerprint()
        name.add(type.name)
        var mutator = Mutator(
            random: SeededGenerator(seed: seed ^ name.value), dictionary: type.dictionary, inputBytesMax: type.inputBytesMax)
        let count = max(seeds.count, inputs / type.cost)
        let began = ContinuousClock.now
        var base = Memory.now.resident - pool.byteCount
        for number in 0..<count {
            let input = number < seeds.count ? seeds[number] : next(&mutator, pool, target)
            let outcome = try run(target, input, number)
            pool.take(input, outcome, &mutator.random)
            if number == count / 10 { base = Memory.now.resident - pool.byteCount }
        }
        let seconds = (ContinuousClock.now - began) / .seconds(1)
        let memory = Memory.now
        let report = FuzzReport(
            parser: type.name, inputs: count, seconds: seconds, outcomes: pool.outcomes,
            growthBytes: memory.resident - pool.byteCount - base,
            peakBytes: memory.peak)
        if report.growthBytes > Self.growthBytesMax || report.peakBytes > Self.peakBytesMax {
            throw FuzzFinding("\(type.name): the memory grew by \(report.growthBytes >> 20) MiB, its peak is \(report.peakBytes >> 20) MiB")
        }
        return report
    }

    /// Runs one input as it is.
    public static func replay(_ type: any FuzzTarget.Type, _ input: [UInt8]) throws {
        _ = try FuzzRun(inputs: 1, seed: 0, corpus: Corpus(path: "")).run(type.init(), input, 0)
    }

    private func next(_ mutator: inout Mutator, _ pool: Pool, _ target: any FuzzTarget) -> [UInt8] {
        var input = mutator.mutate(pool.pick(&mutator.random), partner: pool.pick(&mutator.random))
        if mutator.random.below(2) == 0 { target.repair(&input) }
        return input
    }

    private func run(_ target: any FuzzTarget, _ input: [UInt8], _ number: Int) throws -> UInt64 {
        try input.withUnsafeBufferPointer { bytes in
            type(of: target).name.utf8CString.withUnsafeBufferPointer { name in
                causeway_fuzz_note(name.baseAddress, bytes.baseAddress, bytes.count)
                defer { causeway_fuzz_note(nil, nil, 0) }
                do {
                    return Result<UInt64, FuzzFailure>.success(try target.run(input))
                } catch {
                    return .failure(
                        FuzzFailure(parser: type(of: target).name, seed: seed, number: number, reason: "\(error)", input: input))
                }
            }
        }.get()
    }
}

/// The inputs that are changed: the corpus, and what had an outcome of its own.
private struct Pool {
    private var inputs: [[UInt8]]
    private let corpusCount: Int
    private var seen: Set<UInt64> = []
    /// What the inputs take.
    private(set) var byteCount = 0

    init(_ seeds: [[UInt8]]) {
        inputs = seeds
        corpusCount = seeds.count
        byteCount = seeds.reduce(0) { $0 + $1.count }
    }

    var outcomes: Int { seen.count }

    func pick(_ random: inout SeededGenerator) -> [UInt8] {
        // A third of the inputs begin with the corpus, however large the pool is.
        random.below(3) == 0 ? inputs[random.below(corpusCount)] : inputs[random.below(inputs.count)]
    }

    mutating func take(_ input: [UInt8], _ outcome: UInt64, _ random: inout SeededGenerator) {
        // The number of outcomes is bounded too: a parser that is alive has enough of them by then.
        guard seen.count < 100 * FuzzRun.poolMax, seen.insert(outcome).inserted else { return }
        byteCount += input.count
        if inputs.count - corpusCount < FuzzRun.poolMax {
            inputs.append(input)
        } else {
            let index = corpusCount + random.below(FuzzRun.poolMax)
            byteCount -= inputs[index].count
            inputs[index] = input
        }
    }
}

private struct Memory {
    var resident = 0
    var peak = 0

    static var now: Memory {
        var resident: UInt64 = 0
        var peak: UInt64 = 0
        causeway_fuzz_memory(&resident, &peak)
        return Memory(resident: Int(clamping: resident), peak: Int(clamping: peak))
    }
}

/// Reports crashes and hangs of this process, and bounds its memory.
public enum FuzzWatch {
    /// Address space: far above what a run needs, far below what a wrong length can ask for.
    static let addressSpaceBytes: UInt64 = 8 << 30

    public static func start(secondsPerInput: UInt32) {
        causeway_fuzz_watch(".", secondsPerInput)
        _ = causeway_fuzz_limit_memory(addressSpaceBytes)
    }
}
