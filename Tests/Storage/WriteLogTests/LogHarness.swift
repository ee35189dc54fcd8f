import Blocks
import Ciphers
import NIOCore
import SimulatedStorage
import Testing

@testable import WriteLog

typealias Log = WriteLog<SimulatedDirectory>

/// A machine with one log, and a model of what was written to it.
final class LogHarness {
    let scheduler: Scheduler
    let machine: SimulatedMachine
    var keys: DataKeys
    let volume = VolumeIdentifier(high: 0x1122_3344_5566_7788, low: 0x99aa_bbcc_ddee_ff00)
    /// Writers meet a wall and no slope, unless a test says otherwise.
    var limits = WriteLogLimits(slowingPercent: 100)
    var log: Log?

    init(seed: UInt64 = 1) throws {
        scheduler = Scheduler(seed: seed)
        machine = SimulatedMachine(scheduler: scheduler)
        keys = DataKeys(try SecretKey([UInt8](repeating: 7, count: 32)))
    }

    var random: SeededRandom { scheduler.random }
    var directory: SimulatedDirectory { machine.directory("log") }

    /// Opens the log and waits for it.
    @discardableResult
    func open(volume: VolumeIdentifier? = nil) throws -> Log {
        var result: Result<Log, WriteLogError>?
        Log.open(
            directory: directory, volume: volume ?? self.volume, keys: keys, limits: limits, random: random.source,
            now: scheduler.now
        ) { result = $0 }
        scheduler.runUntilIdle()
        let log = try #require(result, "the log never opened").get()
        self.log = log
        return log
    }

    func openError(volume: VolumeIdentifier? = nil) -> WriteLogError? {
        var result: Result<Log, WriteLogError>?
        Log.open(
            directory: directory, volume: volume ?? self.volume, keys: keys, limits: limits, random: random.source,
            now: scheduler.now
        ) { result = $0 }
        scheduler.runUntilIdle()
        switch result {
        case .failure(let error): return error
        case .success(let log): opened = log
        case nil: Issue.record("the log never opened")
        }
        return nil
    }

    /// What `openError` opened when there was no error.
    var opened: Log?

    /// Puts bytes into a file of the log's directory, as if they had always been there.
    func write(_ bytes: [UInt8], to name: String) throws {
        var result: Result<Void, StorageFileError>?
        directory.open(name, create: true) { opened in
            guard case .success(let file) = opened else { return }
            file.write(ByteBuffer(bytes: bytes), at: 0) { written in
                file.synchronize { _ in self.directory.synchronize { _ in result = written } }
            }
        }
        scheduler.runUntilIdle()
        try #require(result).get()
    }

    /// Calls something that completes, and waits for it.
    func wait<Value>(_ call: (@escaping (Result<Value, WriteLogError>) -> Void) -> Void) throws -> Value {
        var result: Result<Value, WriteLogError>?
        call { result = $0 }
        scheduler.runUntilIdle()
        return try #require(result, "a call never completed").get()
    }

    func append(_ range: SectorRange, fill: UInt8) throws {
        let log = try #require(self.log)
        let data = ByteBuffer(repeating: fill, count: range.byteCount)
        try wait { log.append(range, data: data, now: scheduler.now, completion: $0) }
    }

    func flush() throws {
        let log = try #require(self.log)
        try wait { log.flush(completion: $0) }
    }

    func seal() throws -> PointNumber {
        let log = try #require(self.log)
        return try wait { log.seal(now: scheduler.now, completion: $0) }
    }

    func release(through point: PointNumber) throws {
        let log = try #require(self.log)
        try wait { log.release(through: point, completion: $0) }
    }

    /// All sectors of a range as the log's overlay shows them; nil where it holds none.
    func overlay(_ range: SectorRange, resident: Bool = false) throws -> [[UInt8]?] {
        let log = try #require(self.log)
        return try contents(of: log.segments(in: range), in: range)
    }

    func contents(of segments: [LogSegment], in range: SectorRange) throws -> [[UInt8]?] {
        let log = try #require(self.log)
        var sectors = [[UInt8]?](repeating: nil, count: Int(range.count))
        for segment in segments {
            var buffer = ByteBuffer(string: "ahead")
            if log.readIfResident(segment, into: &buffer) {
                buffer.moveReaderIndex(forwardBy: 5)
            } else {
                #expect(buffer.readableBytes == 5, "a read that failed must leave the buffer alone")
                buffer = try wait { log.read(segment, completion: $0) }
            }
            #expect(buffer.readableBytes == segment.range.byteCount)
            for sector in 0..<Int(segment.range.count) {
                sectors[Int(segment.range.start - range.start) + sector] = buffer.readBytes(length: 512)
            }
        }
        return sectors
    }

    /// What a reader sees of a log that nobody has open: all points over each other; nil where none has a sector.
    func readOffline(_ range: SectorRange) throws -> [[UInt8]?] {
        let names = directory.names
        let reader: LogReader<SimulatedDirectory> = try wait {
            LogReader.open(directory: directory, volume: volume, keys: keys, verifiesData: true, completion: $0)
        }
        #expect(reader.damages.isEmpty, "\(reader.damages)")
        var sectors = [[UInt8]?](repeating: nil, count: Int(range.count))
        for segment in reader.points.flatMap({ reader.contents(of: $0.number) }) {
            var bytes = try wait { reader.read(segment, completion: $0) }
            for sector in segment.range.start..<segment.range.end {
                let content = bytes.readBytes(length: 512)
                if range.start <= sector, sector < range.end { sectors[Int(sector - range.start)] = content }
            }
        }
        #expect(directory.names == names, "a reader has changed the directory")
        return sectors
    }

    func crash(power: Bool) {
        if power { machine.cutPower() } else { machine.killProcess() }
        log = nil
    }
}

extension SimulatedDirectory {
    /// What its files take.
    var byteCount: UInt64 { names.reduce(0) { $0 + UInt64(file($1)?.content.count ?? 0) } }
    /// The files that wait for an epoch.
    var spares: [String] { names.filter { $0.hasPrefix("spare-") } }
}

func range(_ start: UInt64, _ count: UInt64) -> SectorRange { SectorRange(from: start, to: start + count) }

extension Result {
    var isSuccess: Bool { if case .success = self { true } else { false } }
}

extension LogHarness {
    /// Writes `count` blocks of one point, seals and releases it.
    @discardableResult
    func point(blocks count: UInt64, fill: UInt8) throws -> PointNumber {
        for number in 0..<count { try append(range(number * 8, 8), fill: fill) }
        let number = try seal()
        try release(through: number)
        return number
    }

    /// Seals points of some blocks each and lets go of all at once, so that their files come back together.
    func points(_ count: Int, blocks: UInt64, fill: UInt8) throws {
        for _ in 0..<count {
            for number in 0..<blocks { try append(range(number * 8, 8), fill: fill) }
            _ = try seal()
        }
        try release(through: try #require(log).lastSealedPoint)
    }

    /// Lets the log do what it does now and then.
    func tend() throws {
        try #require(log).observe(now: scheduler.now)
        scheduler.runUntilIdle()
    }

    func header(_ name: String) throws -> LogFileHeader {
        try LogFileHeader(parsing: ByteBuffer(bytes: try #require(directory.file(name)).content.prefix(4096)))
    }

    /// What the log says that its files take is what they take.
    func checkAccounts(_ log: Log) throws {
        #expect(log.statistics.fileBytes == directory.byteCount)
        let content = (log.epochs.flatMap(\.files) + log.releases.flatMap(\.files)).reduce(UInt64(0)) { $0 + $1.writeOffset }
        #expect(log.usedBytes == content + UInt64(log.statistics.unwrittenBytes))
    }
}
