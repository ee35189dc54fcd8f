import Blocks
import Ciphers
import NIOCore

// How a cache is judged that nobody has open, without a byte being changed:
//
//     header ─► the key that opens the records ─► each file of records by itself ─► recovery, as a start would do it, over files that
//     are only read ─► segment by segment: owners, blocks in the order in which they lie (CacheVerifier+Blocks.swift)
//
// In memory are the index, as in a daemon, and a piece of a segment. What a crash leaves is told apart from damage where that can be:
// a journal's torn end, a checkpoint that was never completed, and blocks of a segment that was being filled, behind the last that is
// whole. After a power cut a little more may be missing than those, and is told as damage: nothing says whether it was ever there.

/// Reads a cache, and judges all of it.
public final class CacheVerifier<Directory: StorageDirectory> {
    public typealias File = Directory.File
    public typealias Completion = (Result<CacheReport, CacheVerificationError>) -> Void

    let file: File
    private let directory: Directory
    private let keys: [SecretKey]
    private let volumeKey: (VolumeIdentifier, KeyGeneration) -> SecretKey?
    private let random: RandomSource
    let onProgress: (UInt64) -> Void
    let completion: Completion

    var report = CacheReport(version: 0, segmentBytes: 0, byteCount: 0)
    private var names: [String] = []
    /// The first file of records that the device does not give.
    private var unreadable: String?
    /// What is known once the records have been read.
    var found: RecoveredCache<File>?
    var key: SecretKey? { didSet { sharing = key.flatMap { CacheSharing(key: $0) } } }
    private(set) var sharing: CacheSharing?
    /// Blocks that are still to be judged.
    var blocksLeft: UInt64 = 0
    /// Segments whose owners the file does not tell: they come last.
    var withoutOwners: [Int] = []
    var scratch = ByteBuffer()

    /// - Parameters:
    ///   - file: the file or device of the blocks; nothing is written to it.
    ///   - directory: the records; nothing is written there.
    ///   - keys: keys of caches, of which the one is taken that opens the records.
    ///   - volumeKey: the key of a volume of a generation, if it is at hand.
    ///   - random: for what a start would need.
    ///   - onProgress: hears how many bytes of blocks are left to be read.
    public init(
        file: File, directory: Directory, keys: [SecretKey],
        volumeKey: @escaping (VolumeIdentifier, KeyGeneration) -> SecretKey?,
        random: RandomSource, onProgress: @escaping (UInt64) -> Void = { _ in }, completion: @escaping Completion
    ) {
        self.file = file
        self.directory = directory
        self.keys = keys
        self.volumeKey = volumeKey
        self.random = random
        self.onProgress = onProgress
        self.completion = completion
    }

    func fail(_ error: StorageFileError) { completion(.failure(.file(error))) }

    /// Unwraps what a file has answered, or ends.
    func value<Value>(_ result: Result<Value, StorageFileError>) -> Value? {
        switch result {
        case .success(let value): return value
        case .failure(let error):
            fail(error)
            return nil
        }
    }

    // MARK: The header

    /// Begins. The completion gets what was found.
    public func start() {
        file.read(at: 0, byteCount: CacheFormat.headerBytes) { [self] result in
            guard let bytes = value(result) else { return }
            guard CacheSignature.begins(bytes.readableBytesView) else { return completion(.failure(.noCache)) }
            guard let header = CacheHeader(parsing: bytes) else {
                let version: UInt16? = bytes.getInteger(at: bytes.readerIndex + 8)
                guard let version, !CacheFormat.versionsRead.contains(version) else {
                    report.note(CacheDamage(file: nil, offset: 0, text: "the header can't be read: a daemon begins without blocks"))
                    return completion(.success(report))
                }
                return completion(.failure(.version(version)))
            }
            report.version = header.version
            report.segmentBytes = Int(header.segmentBytes)
            measure()
        }
    }

    private func measure() {
        file.size { [self] result in
            guard let size = value(result) else { return }
            report.byteCount = size
            directory.list { [self] result in
                guard let names = value(result) else { return }
                let files = names.compactMap { name in CacheFileName.parse(name).map { (name: name, $0.number, $0.isCheckpoint) } }
                self.names = files.sorted { ($0.1, $0.2 ? 0 : 1) < ($1.1, $1.2 ? 0 : 1) }.map(\.name)
                findKey(self.names[...])
            }
        }
    }

    /// How many segments the file or device has room for.
    private var segmentCount: Int { CacheGeometry(byteCount: report.byteCount, segmentBytes: report.segmentBytes).segmentCount }

    // MARK: Records

    /// Takes the key that has sealed the header of one of the files that can be read.
    private func findKey(_ names: ArraySlice<String>) {
        guard let name = names.last else {
            return completion(.failure(self.names.isEmpty ? .noRecords(segmentCount: segmentCount) : .wrongKey))
        }
        directory.open(name, create: false) { [self] result in
            guard case .success(let file) = result else { return findKey(names.dropLast()) }
            file.read(at: 0, byteCount: CacheRecordFileHeader.byteCount) { [self] result in
                file.close()
                guard case .success(let bytes) = result else { return findKey(names.dropLast()) }
                key = CacheRecordFileHeader(parsing: bytes).flatMap { header in
                    keys.first { key in
                        let derived = try? key.derive(salt: header.salt, purpose: CacheFormat.recordsPurpose)
                        return derived.map { header.isAuthentic(bytes, cipher: BlockCipher(key: $0)) } ?? false
                    }
                }
                if let key { checkRecords(self.names[...], key) } else { findKey(names.dropLast()) }
            }
        }
    }

    private func checkRecords(_ names: ArraySlice<String>, _ key: SecretKey) {
        guard let name = names.first else { return recover(key) }
        let take = { [self] (result: Result<CacheRecordCheck<File>.Outcome, StorageFileError>) in
            var outcome = CacheRecordCheck<File>.Outcome()
            switch result {
            case .success(let found): outcome = found
            case .failure(let error):
                // What the other files tell is worth knowing all the same.
                outcome.state = .damaged
                outcome.damage = "it can't be read: \(error)"
                unreadable = unreadable ?? name
            }
            report.recordFiles.append(
                .init(name: name, state: outcome.state, fragmentCount: outcome.fragmentCount, byteCount: outcome.byteCount))
            if let text = outcome.damage { report.note(CacheDamage(file: name, offset: outcome.byteCount, text: text)) }
            checkRecords(names.dropFirst(), key)
        }
        directory.open(name, create: false) { result in
            switch result {
            case .failure(let error): take(.failure(error))
            case .success(let file):
                CacheRecordCheck(file: file, key: key) { result in
                    file.close()
                    take(result)
                }.start()
            }
        }
    }

    private func recover(_ key: SecretKey) {
        // No record says how large the cache is. Segments that were being filled may lie behind the end of the file.
        let room = UInt64(CacheFormat.segmentsMin * report.segmentBytes)
        let recovery = CacheRecovery(
            file: file, directory: directory, byteCount: report.byteCount + room,
            keys: CacheKeys(cache: key, volume: volumeKey), limits: CacheLimits(), random: random, isReadOnly: true
        ) { [self] result in
            switch result {
            case .success(let found): take(found)
            case .failure(.file(let error)):
                guard let unreadable else { return fail(error) }
                // A daemon that meets this begins without blocks.
                report.loss = "\(unreadable) can't be read, and it counts"
                completion(.success(report))
            case .failure(let error): fail(.failed("\(error)"))
            }
        }
        recovery.start()
    }

    private func take(_ found: RecoveredCache<File>) {
        report.loss = found.loss
        settleRecordFiles(found)
        let hidden = Set(found.volumesWithoutKey.map(\.ordinal))
        for volume in (found.index.volumes.values + found.volumesWithoutKey).sorted(by: { $0.ordinal < $1.ordinal }) {
            report.volumes.append(
                .init(
                    identifier: volume.identifier, keyGeneration: volume.keyGeneration, current: volume.current,
                    isHidden: hidden.contains(volume.ordinal), blockCount: volume.map.count,
                    zeroBlockCount: volume.zeroes.sectorCount / BlockGeometry.sectorsPerBlock))
        }
        self.found = found
        blocksLeft = found.index.blockCount
        judgeSegments(from: 0)
    }

    /// What a file is worth depends on whether recovery takes it.
    private func settleRecordFiles(_ found: RecoveredCache<File>) {
        let taken = found.files.journals.map { CacheFileName.journal($0.header.number) }
        let base = found.files.checkpoint.map { CacheFileName.checkpoint($0.header.number) }
        var isUnimportant: Set<String> = []
        for (index, file) in report.recordFiles.enumerated() {
            // A journal that another one continues is whole as far as that one says.
            if taken.dropLast().contains(file.name) {
                report.recordFiles[index].state = .whole
                isUnimportant.insert(file.name)
            } else if found.loss == nil, file.name != base, !taken.contains(file.name), file.state != .unfinished {
                report.recordFiles[index].state = .unused
                isUnimportant.insert(file.name)
            }
        }
        report.damages.removeAll { $0.file.map(isUnimportant.contains) ?? false }
    }
}
