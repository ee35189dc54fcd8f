import ArgumentParser
import Glibc
import LoadGenerator

struct RunCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run", abstract: "Reads and writes volumes and reports throughput and latency.")

    @Argument(help: "iscsi://[user[%secret]@]host[:port]/target/lun; several URLs are several volumes.")
    var urls: [String]

    @Option(
        name: .customLong("read"), help: "Percentage of reads; the rest are writes. Without any of --read, --write, --mix: 100.")
    var readPercent: Int?
    @Flag(name: .customLong("write"), help: "Only writes.")
    var writeOnly = false
    @Option(name: .customLong("mix"), help: "Reads and writes in percent, such as 70/30.")
    var mix: String?
    @Option(help: "random, sequential, zipf (theta 0.99) or zipf:THETA.")
    var pattern = "random"
    @Option(help: "Bytes in each read and write.")
    var blockSize = "4KiB"
    @Option(help: "Commands outstanding on each connection.")
    var queueDepth = 32
    @Option(help: "Sessions with each volume.")
    var connections = 1
    @Option(help: "SYNCHRONIZE CACHE after every N writes to a volume.")
    var flushEvery = 0
    @Option(help: "Percentage of writes with FUA.")
    var fua = 0
    @Option(help: "At most so many reads and writes a second, all together.")
    var rateIops: UInt64?
    @Option(help: "At most so many bytes a second, all together.")
    var rateBytes: String?
    @Option(help: "How long to run (10s unless --bytes or --operations says when to stop).")
    var runtime: String?
    @Option(help: "Stop after so many bytes.")
    var bytes: String?
    @Option(help: "Stop after so many reads and writes.")
    var operations: UInt64?
    @Option(help: "Load without measuring for so long first.")
    var ramp = "0s"
    @Option(help: "The part of the volume to use, in bytes, such as 0-1GiB.")
    var range: String?
    @Option(help: "Seed of positions, kinds and data.")
    var seed: UInt64 = 1
    @Option(help: ArgumentHelp("Stamp writes, check reads, keep what was promised in STATEFILE.", valueName: "statefile"))
    var verify: String?
    @Option(help: "What the volume held before the job of the state file began.", completion: .file())
    var original: String?
    @Option(help: "When a session breaks or the target is not ready, keep trying for so long.")
    var reconnect = "0s"
    @Flag(help: "A session that breaks loses nothing that was acknowledged: with --verify, a loss is an error, flushed or not.")
    var targetKeepsWrites = false
    @Option(help: "Go on after so many failed I/Os.")
    var maxErrors = 0
    @Flag(inversion: .prefixedNo, help: "Flush at the end of a verifying run.")
    var finalFlush = true
    @Flag(help: "Ask for CRC32C header digests.")
    var headerDigest = false
    @Option(help: "A command without an answer for so long breaks its session.")
    var timeout = "30s"
    @Flag(help: "Report as JSON.")
    var json = false
    @Flag(help: "A line each second on standard error (the default on a terminal).")
    var live = false

    func run() throws {
        let plan = try makePlan()
        let runner: LoadRunner
        do {
            runner = try LoadRunner(plan)
            try runner.run()
        } catch let error as LoadError {
            printError("causeway-load: \(error)")
            throw LoadExit.inputOutputFailed
        }
        let report = runner.report()
        print(json ? report.json() : report.text(), terminator: "")
        for mismatch in runner.mismatches { printError("verification failed: \(mismatch)") }
        if !runner.mismatches.isEmpty { throw LoadExit.verificationFailed }
        if let failure = runner.failure { printError("causeway-load: \(failure)") }
        if runner.failure != nil || runner.errorCount > 0 { throw LoadExit.inputOutputFailed }
    }

    private func makePlan() throws -> LoadPlan {
        var plan = LoadPlan()
        for url in urls where !url.hasPrefix("iscsi://") { throw ValidationError("'\(url)' is not an iscsi:// URL") }
        plan.urls = urls
        plan.readPercent = try readShare()
        guard let access = AccessPattern(pattern) else {
            throw ValidationError("--pattern is random, sequential, zipf or zipf:THETA")
        }
        plan.pattern = access
        let block = try size(blockSize, "--block-size")
        guard block > 0, block % 512 == 0, block <= LoadPlan.maximumBlockBytes else {
            throw ValidationError("--block-size is a multiple of 512 up to 16MiB")
        }
        plan.blockBytes = Int(block)
        guard (1...LoadPlan.maximumQueueDepth).contains(queueDepth) else { throw ValidationError("--queue-depth is 1 to 4096") }
        guard (1...LoadPlan.maximumConnections).contains(connections) else { throw ValidationError("--connections is 1 to 256") }
        guard (0...100).contains(fua) else { throw ValidationError("--fua is a percentage") }
        guard flushEvery >= 0, maxErrors >= 0 else { throw ValidationError("--flush-every and --max-errors are not negative") }
        (plan.queueDepth, plan.connections) = (queueDepth, connections)
        (plan.flushEvery, plan.forceUnitAccessPercent) = (flushEvery, fua)
        plan.operationsPerSecond = rateIops
        plan.bytesPerSecond = try rateBytes.map { try size($0, "--rate-bytes") }
        plan.byteLimit = try bytes.map { try size($0, "--bytes") }
        plan.operationLimit = operations
        plan.runtimeNanoseconds = try runtime.map { try duration($0, "--runtime") }
        if plan.runtimeNanoseconds == nil && bytes == nil && operations == nil { plan.runtimeNanoseconds = 10_000_000_000 }
        plan.rampNanoseconds = try duration(ramp, "--ramp")
        if let range {
            guard let parsed = Quantities.byteRange(range), parsed.lowerBound % 512 == 0 else {
                throw ValidationError("--range is START-END in bytes, such as 0-1GiB, the start on a sector")
            }
            plan.range = parsed
        }
        if verify != nil && urls.count != 1 { throw ValidationError("--verify takes one URL: a state file is about one volume") }
        (plan.stateFile, plan.originalFile, plan.seed) = (verify, original, seed)
        plan.targetKeepsWrites = targetKeepsWrites
        plan.reconnectNanoseconds = try duration(reconnect, "--reconnect")
        (plan.maximumErrors, plan.finalFlush, plan.headerDigest) = (maxErrors, finalFlush, headerDigest)
        let timeout = try duration(timeout, "--timeout")
        guard timeout >= 1_000_000_000 else { throw ValidationError("--timeout is at least 1s") }
        plan.commandTimeoutSeconds = Int32(clamping: timeout / 1_000_000_000)
        plan.live = live || isatty(STDERR_FILENO) == 1
        return plan
    }

    private func readShare() throws -> Int {
        if [readPercent != nil, writeOnly, mix != nil].filter({ $0 }).count > 1 {
            throw ValidationError("--read, --write and --mix exclude each other")
        }
        if writeOnly { return 0 }
        if let mix {
            let parts = mix.split(separator: "/").compactMap { Int($0) }
            guard parts.count == 2, parts[0] >= 0, parts[1] >= 0, parts[0] <= 100, parts[0] + parts[1] == 100 else {
                throw ValidationError("--mix is READS/WRITES in percent, such as 70/30")
            }
            return parts[0]
        }
        let percent = readPercent ?? 100
        guard (0...100).contains(percent) else { throw ValidationError("--read is a percentage") }
        return percent
    }
}

private func size(_ text: String, _ option: String) throws -> UInt64 {
    guard let value = Quantities.bytes(text) else { throw ValidationError("\(option): '\(text)' is not a size") }
    return value
}

private func duration(_ text: String, _ option: String) throws -> UInt64 {
    guard let value = Quantities.nanoseconds(text) else { throw ValidationError("\(option): '\(text)' is not a duration") }
    return value
}
