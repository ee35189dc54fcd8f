import Blocks
import Ciphers
import CloudOnlyDisk
import Files
import Foundation
import LocalFiles
import NIOCore
import Testing
import WriteLog

@testable import OfflineRecovery

/// One log in a real directory, written as a cloud edge writes it.
actor LogWriter {
    nonisolated let loop = OfflineLoop.shared
    private let directory: OpenDirectory
    private let volume: VolumeIdentifier
    private let key: SecretKey
    private var log: WriteLog<LocalDirectory>?

    nonisolated var unownedExecutor: UnownedSerialExecutor { loop.eventLoop.executor.asUnownedSerialExecutor() }

    init(directory: OpenDirectory, volume: VolumeIdentifier, key: SecretKey) {
        self.directory = directory
        self.volume = volume
        self.key = key
    }

    private func opened() async throws -> WriteLog<LocalDirectory> {
        if let log { return log }
        let files = LocalDirectory(directory, eventLoop: loop.eventLoop, threadPool: loop.threadPool)
        let log: WriteLog<LocalDirectory> = try await completed {
            WriteLog.open(directory: files, volume: volume, keys: DataKeys(key), random: .system, now: .now(), completion: $0)
        }
        self.log = log
        return log
    }

    func write(_ range: SectorRange, fill: UInt8) async throws {
        let log = try await opened()
        try await completed {
            log.append(range, data: ByteBuffer(repeating: fill, count: range.byteCount), now: .now(), completion: $0)
        }
    }

    func writeZeroes(_ range: SectorRange) async throws {
        let log = try await opened()
        try await completed { log.appendZeroes(range, now: .now(), completion: $0) }
    }

    func flush() async throws {
        let log = try await opened()
        try await completed { log.flush(completion: $0) }
    }

    func seal(carrying attributes: PointAttributes? = nil) async throws -> PointNumber {
        let log = try await opened()
        return try await completed { log.seal(now: .now(), attributes: attributes, completion: $0) }
    }

    func hasWrites() async throws -> Bool { try await opened().hasUnsealedWrites }

    func release(through point: PointNumber) async throws {
        let log = try await opened()
        try await completed { log.release(through: point, completion: $0) }
    }

    /// Lets go of the log without closing it, as a process that is killed.
    func abandon() { log = nil }
}

/// A cloud-only disk in a real directory, written as a cloud edge writes it.
actor CloudOnlyWriter {
    nonisolated let loop = OfflineLoop.shared
    private let directory: OpenDirectory
    private let key: RecoveryKey
    private var disk: CloudOnlyDisk<LocalDirectory>?

    nonisolated var unownedExecutor: UnownedSerialExecutor { loop.eventLoop.executor.asUnownedSerialExecutor() }

    init(directory: OpenDirectory, key: RecoveryKey) {
        self.directory = directory
        self.key = key
    }

    private func opened() async throws -> CloudOnlyDisk<LocalDirectory> {
        if let disk { return disk }
        let files = LocalDirectory(directory, eventLoop: loop.eventLoop, threadPool: loop.threadPool)
        let disk: CloudOnlyDisk<LocalDirectory> = try await completed {
            CloudOnlyDisk.open(
                directory: files, volume: key.identifier, sectorCount: key.sectorCount, key: key.keys.newestKey, random: .system,
                clock: { .now() }, completion: $0)
        }
        self.disk = disk
        return disk
    }

    func write(_ start: UInt64, _ count: UInt64, fill: UInt8) async throws {
        let (disk, range) = (try await opened(), SectorRange(from: start, to: start + count))
        try await completed { disk.write(range, data: ByteBuffer(repeating: fill, count: range.byteCount), completion: $0) }
    }

    func writeZeroes(_ start: UInt64, _ count: UInt64) async throws {
        let disk = try await opened()
        try await completed { disk.writeZeroes(SectorRange(from: start, to: start + count), completion: $0) }
    }

    func flush() async throws {
        let disk = try await opened()
        try await completed { disk.flush(completion: $0) }
    }

    /// Brings all to the files.
    func drain() async throws {
        let disk = try await opened()
        disk.drain()
        while disk.statistics.drainedEpochs == 0 { try await Task.sleep(for: .milliseconds(5)) }
    }

    /// Gives the files back; what is not drained stays in the journal, and nothing is changed any more.
    func close() async throws {
        guard let disk else { return }
        self.disk = nil
        try await completed { disk.close(completion: $0) }
    }
}

/// A cloud edge's state directory with some logs, and a model of their disks.
final class OfflineWorld {
    static let sectorCount: UInt64 = 512

    let path: String
    var keys: [String: RecoveryKey] = [:]
    private var writers: [String: LogWriter] = [:]
    /// Each volume's disk after each sealed point, and as it is now.
    var disks: [String: [UInt8]] = [:]
    var sealed: [String: [PointNumber: [UInt8]]] = [:]

    init() throws {
        path = NSTemporaryDirectory() + "causeway-offline-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: path + "/state", withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    var state: String { path + "/state" }

    func add(_ name: String, number: UInt64, place: String = "volumes") throws {
        let identifier = VolumeIdentifier(high: 0x1122_3344_5566_7788, low: number)
        let key = try SecretKey((0..<32).map { UInt8(truncatingIfNeeded: UInt64($0) &* 7 &+ number) })
        keys[name] = RecoveryKey(name: name, identifier: identifier, sectorCount: Self.sectorCount, keys: DataKeys(key))
        let directory = try OpenDirectory("\(state)/\(place)/\(identifier)", create: true)
        writers[name] = LogWriter(directory: directory, volume: identifier, key: key)
        disks[name] = [UInt8](repeating: 0xee, count: Int(Self.sectorCount) * 512)
    }

    func writer(_ name: String) throws -> LogWriter { try #require(writers[name]) }
    func key(_ name: String) throws -> RecoveryKey { try #require(keys[name]) }

    func write(_ name: String, _ start: UInt64, _ count: UInt64, fill: UInt8) async throws {
        let range = SectorRange(from: start, to: start + count)
        if fill == 0 { try await writer(name).writeZeroes(range) } else { try await writer(name).write(range, fill: fill) }
        disks[name]?.replaceSubrange(Int(start) * 512..<Int(start + count) * 512, with: repeatElement(fill, count: Int(count) * 512))
    }

    func flush(_ name: String) async throws { try await writer(name).flush() }

    func seal(_ name: String) async throws {
        let point = try await writer(name).seal()
        sealed[name, default: [:]][point] = disks[name]
    }

    /// Makes a cut of a group of volumes, of which those in `lost` do not get their part into their logs: a power cut came first.
    func cut(_ names: [String], number: UInt64, lost: Set<String> = []) async throws {
        var members: [GroupPoint.Member] = []
        for name in names {
            let (last, isSealed) = (sealed[name]?.keys.max() ?? 0, try await writer(name).hasWrites())
            members.append(.init(volume: try key(name).identifier, point: isSealed ? last + 1 : last, isSealed: isSealed))
        }
        let cut = GroupPoint(group: GroupIdentifier(high: 9, low: 1), number: number, members: members)
        for (name, member) in zip(names, members) where member.isSealed && !lost.contains(name) {
            let point = try await writer(name).seal(carrying: PointAttributes(group: cut))
            try #require(point == member.point)
            sealed[name, default: [:]][point] = disks[name]
        }
    }

    /// Three sealed points of several flushed batches each, and an open one; the name's first byte makes the data differ.
    func fill(_ name: String) async throws {
        for point in 0..<3 {
            for write in 0..<4 {
                let step = UInt64(point * 4 + write)
                try await self.write(name, step * 11, 20, fill: UInt8(truncatingIfNeeded: 1 + step))
                try await flush(name)
            }
            try await write(name, UInt64(point) * 40, 9, fill: 0)
            try await seal(name)
        }
        try await write(name, 300, 33, fill: 0x77)
        try await flush(name)
        try await writer(name).abandon()
    }

    /// The files of a volume's log, oldest first.
    func logFiles(_ name: String) throws -> [String] {
        let directory = "\(state)/volumes/\(try key(name).identifier)"
        return try FileManager.default.contentsOfDirectory(atPath: directory).filter { $0.hasPrefix("epoch-") }.sorted()
            .map { "\(directory)/\($0)" }
    }

    func open(_ names: String...) throws -> OfflineState {
        try OfflineState(path: state, keys: try names.map { try key($0) })
    }

    /// A base image as the disk was before the first write.
    func base() throws -> String {
        let base = path + "/base.img"
        try Data(repeating: 0xee, count: Int(Self.sectorCount) * 512).write(to: URL(fileURLWithPath: base))
        return base
    }

    func bytes(_ path: String) throws -> [UInt8] { [UInt8](try Data(contentsOf: URL(fileURLWithPath: path))) }

    func change(_ file: String, _ body: (inout Data) -> Void) throws {
        var data = try Data(contentsOf: URL(fileURLWithPath: file))
        body(&data)
        let handle = try #require(FileHandle(forWritingAtPath: file))
        try handle.truncate(atOffset: 0)
        try handle.write(contentsOf: data)
        try handle.close()
    }

    /// Every file below the state directory with its bytes and times, to see that nothing was written.
    func snapshot() throws -> [String: String] {
        var found: [String: String] = [:]
        let paths = FileManager.default.enumerator(atPath: state)?.compactMap { $0 as? String } ?? []
        for name in paths {
            let attributes = try FileManager.default.attributesOfItem(atPath: "\(state)/\(name)")
            let bytes = (try? Data(contentsOf: URL(fileURLWithPath: "\(state)/\(name)"))) ?? Data()
            found[name] = "\(attributes[.modificationDate] ?? "") \(bytes.hashValue)"
        }
        return found
    }
}
