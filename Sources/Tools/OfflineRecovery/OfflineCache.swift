import Blocks
import Ciphers
import Files
import LocalFiles
import NIOCore
import SecureCache

/// What the cache of a cloud edge holds, and what of it is as it was written.
public struct OfflineCache: Codable, Equatable, Sendable {
    /// What the records say of a volume, and what was found of that.
    public struct Volume: Codable, Equatable, Sendable {
        /// The identifier of the attachment.
        public let identifier: String
        /// Known from the key; missing without one.
        public let name: String?
        /// The generation of the key that its blocks are under, and those that were at hand.
        public let keyGeneration: UInt64
        public let keyGenerationsGiven: [UInt64]
        /// The cache has everything of the volume's points up to this one.
        public let point: UInt64
        /// There is no key for it: which blocks the cache has of it is hidden.
        public let isHidden: Bool
        /// Blocks with data, and blocks that are known to be zeroes.
        public let blocks: UInt64
        public let zeroBlocks: UInt64
        /// Of the blocks with data: those that are what was written, those that are not, and those that a run that ended had not
        /// written yet.
        public let authentic: UInt64
        public let damaged: UInt64
        public let unwritten: UInt64
    }

    /// A file of records.
    public struct RecordFile: Codable, Equatable, Sendable {
        public let name: String
        /// `whole`; `torn`, with an end as a crash leaves it; `unfinished`, as a crash leaves it; `unused`; or `damaged`.
        public let state: CacheReport.RecordFile.State
        public let fragments: Int
        public let bytes: UInt64
    }

    /// A block that is not what was written.
    public struct BlockDamage: Codable, Equatable, Sendable {
        public let kind: CacheBlockDamage.Kind
        /// Where in the file of the blocks, in bytes.
        public let offset: UInt64
        public let volume: String
        public let block: UInt64
    }

    /// The file or device of the blocks, its size, and the version of its format.
    public let path: String
    public let bytes: UInt64
    public let version: UInt16
    public let recordFiles: [RecordFile]
    /// Why the records tell nothing, so that a daemon begins without blocks; missing when they do.
    public let loss: String?
    public let volumes: [Volume]
    /// Segments with blocks.
    public let segments: Int
    /// Blocks that are not what was written, by what is wrong with them.
    public let damagedBlocks: [String: UInt64]
    /// The first of them, and the first of all else that is wrong.
    public let blockDamages: [BlockDamage]
    public let damages: [OfflineDamage]
    /// False when something is wrong that no crash of the daemon leaves.
    public let isWhole: Bool

    /// What was not read, and which keys that takes; nil when all of it was read.
    public var lackOfKeys: String? {
        let hidden = volumes.filter(\.isHidden)
        if hidden.isEmpty { return nil }
        let wanted = hidden.prefix(Self.namedMax).map { volume in
            let given = volume.keyGenerationsGiven.map(String.init).joined(separator: ", ")
            return
                "\(volume.name.map { "\($0) (\(volume.identifier))" } ?? volume.identifier) needs its key of generation \(volume.keyGeneration), and "
                + (given.isEmpty ? "there is none for it" : "there is only that of generation \(given)")
        }
        let more = hidden.count > Self.namedMax ? "; and \(hidden.count - Self.namedMax) more" : ""
        return "\(hidden.count) of \(volumes.count) volumes in the cache \(path) were not read: \(wanted.joined(separator: "; "))\(more)"
    }

    /// So many volumes are named that were not read.
    private static let namedMax = 20
}

/// Reads the cache of a cloud edge whose daemon does not run. Nothing is written.
public actor CacheScrub {
    private nonisolated let loop: OfflineLoop

    public nonisolated var unownedExecutor: UnownedSerialExecutor { loop.eventLoop.executor.asUnownedSerialExecutor() }

    public init(loop: OfflineLoop = .shared) {
        self.loop = loop
    }

    /// Reads every block that the keys open. The state directory and the file are held against daemons meanwhile.
    /// - Parameters:
    ///   - state: the state directory of a cloud edge, or a copy of it.
    ///   - path: the file or device of the cache's blocks.
    ///   - keys: the keys of caches; the one that fits is taken.
    ///   - volumes: the keys of volumes.
    ///   - onProgress: hears now and then how many bytes are left to be read.
    public func verify(
        state: String, path: String, keys: [SecretKey], volumes: [RecoveryKey], onProgress: @escaping @Sendable (UInt64) -> Void = { _ in }
    ) async throws -> OfflineCache {
        let guarding = try StateDirectoryGuard.hold(state)
        defer { withExtendedLifetime(guarding) {} }
        let directory: OpenDirectory
        let file: OpenFile
        do throws(FileSystemError) {
            directory = try OpenDirectory("\(state)/\(CacheRecordsDirectory.name)")
        } catch {
            throw OfflineError("\(state) has no records of a cache: \(error)", action: "Name the state directory of a cloud edge.")
        }
        do throws(FileSystemError) { file = try OpenFile.readingAlone(path) } catch {
            guard error.isLocked else {
                throw OfflineError("the cache can't be read: \(error)", action: "Name its file or device with --cache.")
            }
            throw OfflineError("the cache \(path) is in use", action: "Stop causewayd first.")
        }
        let byIdentifier = Dictionary(volumes.map { ($0.identifier, $0) }) { _, last in last }
        let records = LocalDirectory(directory, eventLoop: loop.eventLoop, threadPool: loop.threadPool, isReadOnly: true)
        let blocks = LocalFile(file, eventLoop: loop.eventLoop, threadPool: loop.threadPool)
        do throws(CacheVerificationError) {
            let report = try await completed { completion in
                CacheVerifier(
                    file: blocks, directory: records, keys: keys, volumeKey: { byIdentifier[$0]?.keys[$1] }, random: .system,
                    onProgress: onProgress, completion: completion
                ).start()
            }
            return OfflineCache(report, path: path, records: directory.path, keys: byIdentifier)
        } catch {
            throw OfflineError(error, path: path, records: directory.path)
        }
    }

}

extension OpenFile {
    /// Opens a file or device for reading that no daemon writes, and keeps them off it.
    static func readingAlone(_ path: String) throws(FileSystemError) -> OpenFile {
        let file = try OpenFile(path)
        if try file.information().kind == .blockDevice { return try OpenFile(path, [.exclusive]) }
        try file.lockShared()
        return file
    }
}

extension OfflineError {
    fileprivate init(_ error: CacheVerificationError, path: String, records: String) {
        switch error {
        case .noRecords(let segmentCount):
            self.init(
                "nothing was checked: \(path) is a cache of \(segmentCount) segments, and no records in \(records) say what they hold",
                action: "Put the records back. causewayd begins without blocks, and fetches them again.")
        case .noCache: self.init("\(path) is not a cache", action: "Name its file or device with --cache.")
        case .version(let version):
            self.init("the cache \(path) has version \(version)", action: "Use the causeway that came with the edge it is from.")
        case .wrongKey:
            self.init(
                "none of the keys opens the records of the cache \(path)",
                action: "causeway volume recovery-key --all at the on-prem edge writes the keys of its caches, too.")
        case .file(let error): self.init("the cache \(path) can't be read: \(error)")
        }
    }
}

extension OfflineCache {
    fileprivate init(_ report: CacheReport, path: String, records: String, keys: [VolumeIdentifier: RecoveryKey]) {
        self.init(
            path: path, bytes: report.byteCount, version: report.version,
            recordFiles: report.recordFiles.map {
                .init(name: $0.name, state: $0.state, fragments: $0.fragmentCount, bytes: $0.byteCount)
            },
            loss: report.loss,
            volumes: report.volumes.map {
                let given = keys[$0.identifier]?.keys.generations.sorted() ?? []
                return .init(
                    identifier: $0.identifier.description, name: keys[$0.identifier]?.name, keyGeneration: $0.keyGeneration,
                    keyGenerationsGiven: given, point: $0.current,
                    isHidden: $0.isHidden || !given.contains($0.keyGeneration), blocks: $0.blockCount, zeroBlocks: $0.zeroBlockCount,
                    authentic: $0.authentic,
                    damaged: $0.damaged,
                    unwritten: $0.unwritten)
            },
            segments: report.segmentCount,
            damagedBlocks: Dictionary(uniqueKeysWithValues: report.counts.map { ($0.key.rawValue, $0.value) }),
            blockDamages: report.blockDamages.map {
                .init(kind: $0.kind, offset: $0.offset, volume: keys[$0.volume]?.name ?? $0.volume.description, block: $0.block)
            },
            damages: report.damages.map {
                OfflineDamage(file: $0.file.map { "\(records)/\($0)" } ?? path, offset: $0.offset, message: $0.text)
            },
            isWhole: report.isWhole)
    }
}
