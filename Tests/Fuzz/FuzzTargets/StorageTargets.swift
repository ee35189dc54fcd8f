import Blocks
import Checksums
import Ciphers
import CloudOnlyDisk
import Disks
import NIOCore
import SecureCache
import WriteLog

// Recovery from files that somebody has changed. The attacker has no key, so what is sealed can't be made anew; all
// that is read before the key is asked, and how much of it is believed, is under test. What is recovered is then used.

private let fuzzVolume = VolumeIdentifier(high: 1, low: 2)

private func fuzzKey(_ byte: UInt8) throws -> SecretKey { try SecretKey([UInt8](repeating: byte, count: SecretKey.byteCount)) }

private func seededSource() -> RandomSource {
    var random = SeededGenerator(seed: 99)
    return RandomSource { random.next() }
}

/// The directory of a write log. Input: its files.
public final class WriteLogTarget: FuzzTarget {
    public static let name = "write-log"
    public static let inputBytesMax = 48 << 10
    public static let cost = 20

    public init() {}

    private typealias Log = WriteLog<MemoryDirectory>

    private static func open(_ directory: MemoryDirectory, _ queue: MemoryQueue) throws -> Result<Log, WriteLogError>? {
        var result: Result<Log, WriteLogError>?
        Log.open(
            directory: directory, volume: fuzzVolume, keys: DataKeys(try fuzzKey(7)), limits: WriteLogLimits(), random: seededSource(),
            now: .uptimeNanoseconds(1)
        ) { result = $0 }
        try queue.run()
        return result
    }

    /// What someone finds wrong who only reads; nil when the key opens nothing.
    private static func damages(_ directory: MemoryDirectory, _ queue: MemoryQueue) throws -> Int? {
        var result: Result<LogReader<MemoryDirectory>, WriteLogError>?
        LogReader.open(directory: directory, volume: fuzzVolume, keys: DataKeys(try fuzzKey(7))) { result = $0 }
        try queue.run()
        guard let result else { throw FuzzFinding("a reader never ended") }
        return (try? result.get())?.damages.count
    }

    private static func input(of directory: MemoryDirectory) -> [UInt8] {
        FileInput.encode(directory.files.sorted { $0.key < $1.key }.map { ($0.key, $0.value.bytes) })
    }

    public static func seeds() throws -> [[UInt8]] {
        let queue = MemoryQueue()
        let directory = MemoryDirectory(queue: queue)
        var seeds: [[UInt8]] = []
        guard let log = try open(directory, queue) else { return [] }
        let opened = try log.get()
        for round in UInt64(0)..<3 {
            let range = SectorRange(from: round * 8, to: round * 8 + 4)
            opened.append(range, data: ByteBuffer(repeating: UInt8(round + 1), count: range.byteCount), now: .uptimeNanoseconds(2)) { _ in }
            opened.appendZeroes(SectorRange(from: 100, to: 108), now: .uptimeNanoseconds(2)) { _ in }
            opened.flush { _ in }
            try queue.run()
            seeds.append(input(of: directory))
            opened.seal(now: .uptimeNanoseconds(3)) { _ in }
            try queue.run()
        }
        // The files of points that are home take the next epochs: older batches are behind the last ones then, and a file waits.
        for round in UInt64(4)..<6 {
            opened.release(through: opened.lastSealedPoint) { _ in }
            try queue.run()
            opened.append(
                SectorRange(from: round, to: round + 1), data: ByteBuffer(repeating: UInt8(round), count: 512), now: .uptimeNanoseconds(2)
            ) { _ in }
            opened.flush { _ in }
            try queue.run()
            seeds.append(input(of: directory))
            opened.seal(now: .uptimeNanoseconds(3)) { _ in }
            try queue.run()
        }
        return seeds
    }

    public func run(_ input: [UInt8]) throws -> UInt64 {
        let queue = MemoryQueue()
        let directory = MemoryDirectory(queue: queue)
        for file in FileInput.decode(input) { directory.add(file.name, file.bytes) }
        var fingerprint = Fingerprint()
        let damages = try Self.damages(directory, queue)
        switch try Self.open(directory, queue) {
        case nil: throw FuzzFinding("the recovery never ended")
        case .failure(let error)?: fingerprint.add(String(describing: error).prefix { !$0.isNumber }.count)
        case .success(let log)?:
            if damages != 0 { throw FuzzFinding("a reader finds fault with a log that opens") }
            fingerprint.add(log.lastSealedPoint)
            fingerprint.add(log.statistics.fileBytes)
            // What was recovered is read, and the log goes on.
            for segment in log.segments(in: SectorRange(from: 0, to: 256)) {
                log.read(segment) { result in
                    if case .success(let data) = result { fingerprint.add(data.readableBytes) } else { fingerprint.add(1) }
                }
            }
            log.append(SectorRange(from: 0, to: 1), data: ByteBuffer(repeating: 1, count: 512), now: .uptimeNanoseconds(4)) { _ in }
            log.flush { result in
                if case .success = result { fingerprint.add(2) }
            }
            try queue.run()
        }
        return fingerprint.value
    }

    /// The checksums of plain headers: of the first 140 bytes of a file, and of each batch.
    public func repair(_ input: inout [UInt8]) { ChecksumRepair.repair(&input, [140, 44]) }
}

/// The records of the cache. Input: its directory; the blocks file has its header and nothing else.
public final class SecureCacheTarget: FuzzTarget {
    public static let name = "secure-cache"
    public static let inputBytesMax = 32 << 10
    public static let cost = 40
    private static let cacheBytes: UInt64 = 8 * (64 << 10)

    public init() {}

    private typealias Cache = SecureCache<MemoryDirectory>

    private static func open(_ directory: MemoryDirectory, _ queue: MemoryQueue) throws -> Result<Cache, CacheError>? {
        var result: Result<Cache, CacheError>?
        var limits = CacheLimits(segmentBytes: 64 << 10)
        limits.journalBytes = 4 << 10
        // The same identifier each time, so that records fit the file.
        let volumeKey = try fuzzKey(7)
        Cache.open(
            file: MemoryFile([], queue: queue), directory: directory, byteCount: cacheBytes,
            keys: CacheKeys(cache: try fuzzKey(9)) { volume, _ in volume == fuzzVolume ? volumeKey : nil }, limits: limits,
            random: seededSource()
        ) { result = $0 }
        try queue.run()
        return result
    }

    public static func seeds() throws -> [[UInt8]] {
        let queue = MemoryQueue()
        let directory = MemoryDirectory(queue: queue)
        var seeds: [[UInt8]] = [[]]
        for run in UInt64(0)..<2 {
            guard let cache = try open(directory, queue)?.get() else { continue }
            cache.attach(volume: fuzzVolume, key: try fuzzKey(7), generation: 1)
            for round in UInt64(0)..<8 {
                for block in 0..<8 {
                    cache.insert(fuzzVolume, block: round * 80 + UInt64(block), data: ByteBuffer(repeating: UInt8(block), count: 4096))
                }
                cache.insertZeroes(fuzzVolume, blocks: 1000..<2000 - run)
                cache.invalidate(fuzzVolume, blocks: 1500..<1600)
                cache.synchronize { _ in }
                try queue.run()
                if round % 3 == 2 {
                    seeds.append(FileInput.encode(directory.files.sorted { $0.key < $1.key }.map { ($0.key, $0.value.bytes) }))
                }
            }
        }
        return seeds
    }

    public func run(_ input: [UInt8]) throws -> UInt64 {
        let queue = MemoryQueue()
        let directory = MemoryDirectory(queue: queue)
        for file in FileInput.decode(input) { directory.add(file.name, file.bytes) }
        var fingerprint = Fingerprint()
        switch try Self.open(directory, queue) {
        case nil: throw FuzzFinding("the recovery never ended")
        case .failure(let error)?: fingerprint.add(String(describing: error).count)
        case .success(let cache)?:
            cache.attach(volume: fuzzVolume, key: try fuzzKey(7), generation: 1)
            for run in cache.residentRuns(fuzzVolume, blocks: 0..<2048) {
                fingerprint.add(run.lowerBound)
                let destination = ReadDestination(byteCount: run.count * BlockGeometry.blockBytes)
                cache.read(fuzzVolume, blocks: run, into: destination, at: 0) { result in
                    if case .success = result { fingerprint.add(destination.take().readableBytes) } else { fingerprint.add(1) }
                }
            }
            cache.insert(fuzzVolume, block: 3000, data: ByteBuffer(repeating: 3, count: 4096))
            cache.synchronize { _ in }
            try queue.run()
            fingerprint.add(cache.residentRuns(fuzzVolume, blocks: 3000..<3001).count)
        }
        return fingerprint.value
    }

    /// The checksum of a record file's header.
    public func repair(_ input: inout [UInt8]) { ChecksumRepair.repair(&input, [104]) }
}

/// The directory of a point journal. Input: its files.
public final class PointJournalTarget: FuzzTarget {
    public static let name = "point-journal"
    public static let inputBytesMax = 24 << 10
    public static let cost = 10
    private static let sectorCount: UInt64 = 256

    public init() {}

    private typealias Journal = PointJournal<MemoryFile, MemoryDirectory>

    private static func open(
        _ directory: MemoryDirectory, _ queue: MemoryQueue
    ) throws -> (Result<Journal, PointJournalError>?, MemoryFile) {
        let disk = MemoryFile([UInt8](repeating: 0, count: Int(sectorCount) * 512), queue: queue)
        var result: Result<Journal, PointJournalError>?
        Journal.open(disk: disk, sectorCount: sectorCount, directory: directory, volume: fuzzVolume) { result = $0 }
        try queue.run()
        return (result, disk)
    }

    public static func seeds() throws -> [[UInt8]] {
        let queue = MemoryQueue()
        let directory = MemoryDirectory(queue: queue)
        guard let journal = try open(directory, queue).0?.get() else { return [] }
        journal.setLease(3)
        var seeds: [[UInt8]] = []
        for point in PointNumber(1)...2 {
            guard try journal.begin(point: point, generation: 3) == .accepted else { continue }
            var digest = PointDigest()
            for (index, range) in [SectorRange(from: 0, to: 4), SectorRange(from: 16, to: 17), SectorRange(from: 40, to: 80)].enumerated() {
                if index == 2 {
                    digest.addZeroes(range)
                    try journal.addZeroes(range)
                } else {
                    let data = ByteBuffer(repeating: UInt8(point), count: range.byteCount)
                    digest.add(range, data: data)
                    try journal.addData(range, data: data)
                }
            }
            // The files as they are when the point is received and not yet applied.
            journal.commit(pieces: 3, digest: digest.value) { _ in
                seeds.append(FileInput.encode(directory.files.sorted { $0.key < $1.key }.map { ($0.key, $0.value.bytes) }))
            }
            try queue.run()
        }
        seeds.append(FileInput.encode(directory.files.sorted { $0.key < $1.key }.map { ($0.key, $0.value.bytes) }))
        return seeds
    }

    public func run(_ input: [UInt8]) throws -> UInt64 {
        let queue = MemoryQueue()
        let directory = MemoryDirectory(queue: queue)
        for file in FileInput.decode(input) { directory.add(file.name, file.bytes) }
        var fingerprint = Fingerprint()
        var hasBeenRead = false
        JournalReader.read(directory: directory) { _ in hasBeenRead = true }
        try queue.run()
        if !hasBeenRead { throw FuzzFinding("a reader never ended") }
        let (result, disk) = try Self.open(directory, queue)
        guard disk.bytes.count == Int(Self.sectorCount) * 512 else { throw FuzzFinding("the recovery changed the size of the disk") }
        switch result {
        case nil: throw FuzzFinding("the recovery never ended")
        case .failure(let error)?: fingerprint.add(String(describing: error).prefix { !$0.isNumber }.count)
        case .success(let journal)?:
            guard journal.position.applied <= journal.position.received else { throw FuzzFinding("more is applied than received") }
            fingerprint.add(journal.position.received)
            fingerprint.add(journal.position.applied)
            journal.read(SectorRange(from: 0, to: 16)) { if case .success(let data) = $0 { fingerprint.add(data.readableBytes) } }
            try queue.run()
        }
        return fingerprint.value
    }

    /// The checksums of headers, pieces, commits and positions.
    public func repair(_ input: inout [UInt8]) { ChecksumRepair.repair(&input, [60, 28, 52]) }
}

/// The directory of a cloud-only disk. Input: its files.
public final class CloudOnlyDiskTarget: FuzzTarget {
    public static let name = "cloud-only-disk"
    public static let inputBytesMax = 48 << 10
    public static let cost = 40

    public init() {}

    private typealias Disk = CloudOnlyDisk<MemoryDirectory>

    private static func open(_ directory: MemoryDirectory, _ queue: MemoryQueue) throws -> Result<Disk, WriteLogError>? {
        var result: Result<Disk, WriteLogError>?
        Disk.open(
            directory: directory, volume: fuzzVolume, sectorCount: 8, key: try fuzzKey(7), random: seededSource(),
            clock: { .uptimeNanoseconds(1) }
        ) { result = $0 }
        try queue.run()
        return result
    }

    public static func seeds() throws -> [[UInt8]] {
        let queue = MemoryQueue()
        let directory = MemoryDirectory(queue: queue)
        guard let disk = try open(directory, queue)?.get() else { return [] }
        var seeds: [[UInt8]] = []
        for round in UInt64(0)..<3 {
            // Something in the journal, then in the files.
            let range = SectorRange(from: 2 + round, to: 7 + round)
            disk.write(range, data: ByteBuffer(repeating: UInt8(round + 1), count: range.byteCount)) { _ in }
            disk.writeZeroes(SectorRange(from: 8, to: 12)) { _ in }
            disk.remove(SectorRange(from: 10, to: 11)) { _ in }
            disk.flush { _ in }
            try queue.run()
            seeds.append(FileInput.encode(directory.files.sorted { $0.key < $1.key }.map { ($0.key, $0.value.bytes) }))
            disk.drain()
            try queue.run()
        }
        seeds.append(FileInput.encode(directory.files.sorted { $0.key < $1.key }.map { ($0.key, $0.value.bytes) }))
        return seeds
    }

    public func run(_ input: [UInt8]) throws -> UInt64 {
        let queue = MemoryQueue()
        let directory = MemoryDirectory(queue: queue)
        for file in FileInput.decode(input) { directory.add(file.name, file.bytes) }
        var fingerprint = Fingerprint()
        let whole = SectorRange(from: 0, to: 4_096)
        switch try Self.open(directory, queue) {
        case nil: throw FuzzFinding("the recovery never ended")
        case .failure(let error)?: fingerprint.add(String(describing: error).prefix { !$0.isNumber }.count)
        case .success(let disk)?:
            let segments = disk.segments(in: whole)
            guard segments.reduce(0, { $0 + $1.range.count }) == disk.heldSectors(in: whole) else {
                throw FuzzFinding("what is held and what is counted differ")
            }
            for segment in segments {
                disk.read(segment) { result in
                    if case .success(let data) = result { fingerprint.add(data.readableBytes) } else { fingerprint.add(1) }
                }
            }
            disk.write(SectorRange(from: 0, to: 1), data: ByteBuffer(repeating: 1, count: 512)) { _ in }
            disk.flush { result in
                if case .success = result { fingerprint.add(2) }
            }
            try queue.run()
            disk.drain()
            try queue.run()
            fingerprint.add(disk.heldSectors(in: whole))
        }
        return fingerprint.value
    }

    /// The checksums of the journal's headers and batches, and of the disk's header.
    public func repair(_ input: inout [UInt8]) { ChecksumRepair.repair(&input, [140, 44, 96]) }
}

/// Makes the checksums of a format right, wherever one can stand: behind a structure that begins with one of the format's words.
enum ChecksumRepair {
    /// What structures begin with, and how many bytes their checksum covers.
    private static let words: [(word: [UInt8], covered: Int)] = [
        (Array("CAUSELOG".utf8), 140), (Array("CLOB".utf8), 44), (Array("CWPOINT1".utf8), 60), (Array("PIEC".utf8), 28),
        (Array("CWPOSN01".utf8), 52), (Array("CAUSECAC".utf8), 32), (Array("CAUSEDSK".utf8), 96), (Array("CAUSECRD".utf8), 104),
    ]

    private static let batchOfLog = Array("CLOB".utf8)

    /// The salt in the header of the log's file that `position` is in; none when there is no such header.
    private static func salt(before position: Int, in input: [UInt8]) -> ArraySlice<UInt8> {
        let word = Array("CAUSELOG".utf8)
        for start in (0..<position).reversed() where input[start] == word[0] && input[start...].starts(with: word) {
            if start + 124 <= input.count { return input[start + 92..<start + 124] }
        }
        return []
    }

    static func repair(_ input: inout [UInt8], _ lengths: Set<Int>) {
        for (word, covered) in words where lengths.contains(covered) {
            guard input.count > covered + 4 else { continue }
            var position = 0
            while position + covered + 4 <= input.count {
                if input[position] == word[0], input[position..<position + word.count].elementsEqual(word) {
                    var crc = CRC32C()
                    // That of a batch of the log goes over the salt of its file too.
                    if word == batchOfLog, input[position + 5] == 2 { crc.update(ByteBuffer(bytes: salt(before: position, in: input))) }
                    crc.update(ByteBuffer(bytes: input[position..<position + covered]))
                    let checksum = crc.value
                    for byte in 0..<4 { input[position + covered + byte] = UInt8(truncatingIfNeeded: checksum >> UInt32(24 - 8 * byte)) }
                }
                position += 1
            }
        }
    }
}
