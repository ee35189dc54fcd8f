import Blocks
import Ciphers
import NIOCore
import SimulatedStorage
import Testing
import WriteLog

@testable import CloudOnlyDisk

typealias Disk = CloudOnlyDisk<SimulatedDirectory>

/// A machine with one cloud-only disk.
final class DiskHarness {
    let scheduler: Scheduler
    let machine: SimulatedMachine
    var key: SecretKey
    let volume = VolumeIdentifier(high: 0x1122_3344_5566_7788, low: 0x99aa_bbcc_ddee_ff00)
    var limits = CloudOnlyLimits(
        journal: WriteLogLimits(logBytesMax: 4 << 20, batchBytesMax: 32 << 10, slowingPercent: 100), drainBytes: 64 << 10,
        drainAge: .milliseconds(200))
    /// The size of the volume.
    var sectorCount: UInt64 = 1 << 14
    var disk: Disk?
    /// Ticks go on for the life of one disk.
    private var life = 0

    init(seed: UInt64 = 1) throws {
        scheduler = Scheduler(seed: seed)
        machine = SimulatedMachine(scheduler: scheduler)
        key = try SecretKey([UInt8](repeating: 7, count: 32))
    }

    var random: SeededRandom { scheduler.random }
    var directory: SimulatedDirectory { machine.directory("cloud-only") }

    func openResult(volume: VolumeIdentifier? = nil, expecting expected: CloudOnlyMark? = nil) throws -> Result<Disk, WriteLogError> {
        var result: Result<Disk, WriteLogError>?
        Disk.open(
            directory: directory, volume: volume ?? self.volume, sectorCount: sectorCount, key: key, expecting: expected, limits: limits,
            random: random.source, clock: { [scheduler] in scheduler.now }
        ) { result = $0 }
        _ = scheduler.run(until: scheduler.now + .seconds(60)) { result != nil }
        return try #require(result, "the disk never opened")
    }

    @discardableResult
    func open() throws -> Disk {
        let disk = try openResult().get()
        self.disk = disk
        life += 1
        tick(life)
        return disk
    }

    private func tick(_ life: Int) {
        guard life == self.life else { return }
        disk?.tick()
        disk?.retryJournal()
        scheduler.schedule(after: .milliseconds(50)) { [weak self] in self?.tick(life) }
    }

    func crash(power: Bool) {
        life += 1
        disk = nil
        if power { machine.cutPower() } else { machine.killProcess() }
    }

    /// Puts other bytes in the place of a file, durably, as whoever restores a copy does.
    func replace(_ name: String, with content: [UInt8]) {
        directory.open(name, create: true) { result in
            guard case .success(let file) = result else { return }
            file.truncate(to: 0) { _ in file.write(ByteBuffer(bytes: content), at: 0) { _ in file.synchronize { _ in } } }
        }
        directory.synchronize { _ in }
        _ = scheduler.run(until: scheduler.now + .seconds(1))
    }

    /// Calls something that completes, and waits for it.
    func wait<Value>(_ call: (@escaping (Result<Value, WriteLogError>) -> Void) -> Void) throws -> Value {
        var result: Result<Value, WriteLogError>?
        call { result = $0 }
        _ = scheduler.run(until: scheduler.now + .seconds(60)) { result != nil }
        return try #require(result, "a call never completed").get()
    }

    func write(_ range: SectorRange, fill: UInt8) throws {
        let disk = try #require(self.disk)
        try wait { disk.write(range, data: ByteBuffer(repeating: fill, count: range.byteCount), completion: $0) }
    }

    func flush() throws {
        let disk = try #require(self.disk)
        try wait { disk.flush(completion: $0) }
    }

    /// Lets time pass until nothing is in the journal any more.
    func drain() throws {
        let disk = try #require(self.disk)
        let isDone = scheduler.run(until: scheduler.now + .seconds(60)) { !disk.journal.hasWrites && !disk.isDraining }
        try #require(isDone, "the journal was not drained: \(String(describing: disk.failure))")
    }

    /// All sectors of a range as the disk shows them; nil where it holds none.
    func contents(_ range: SectorRange) throws -> [[UInt8]?] {
        let disk = try #require(self.disk)
        var sectors = [[UInt8]?](repeating: nil, count: Int(range.count))
        let segments = disk.segments(in: range)
        #expect(segments.reduce(0) { $0 + $1.range.count } == disk.heldSectors(in: range))
        #expect(disk.holds(overlapping: range) == !segments.isEmpty)
        for segment in segments {
            // Each is looked up anew: what was looked up before another one was read may have been drained meanwhile.
            for segment in disk.segments(in: segment.range) {
                var buffer = ByteBuffer()
                if !disk.readIfResident(segment, into: &buffer) { buffer = try wait { disk.read(segment, completion: $0) } }
                #expect(buffer.readableBytes == segment.range.byteCount)
                for sector in segment.range.start..<segment.range.end { sectors[Int(sector - range.start)] = buffer.readBytes(length: 512) }
            }
        }
        return sectors
    }
}

func range(_ start: UInt64, _ count: UInt64) -> SectorRange { SectorRange(from: start, to: start + count) }

func filled(_ fill: UInt8) -> [UInt8] { [UInt8](repeating: fill, count: 512) }
