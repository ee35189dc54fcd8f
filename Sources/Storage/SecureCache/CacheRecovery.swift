import Blocks
import Ciphers
import NIOCore

// How a cache is found again:
//
//     header of the blocks file ─► record files by their numbers, the highest first ─► the base: a checkpoint that is complete, or a
//     journal that begins anew ─► the journals from its number on, each as far as the next one says that it counts
//       ─► read again and replayed: first what happened to segments, then everything
//
// A journal in the middle that is missing or shorter than the next one says means that changes are lost, and nobody knows what
// they would have hidden: the cache begins without blocks. The end of the last journal may be torn, and only that.

/// What recovery found, ready to go on.
struct RecoveredCache<File: StorageFile> {
    var identifier: UInt64
    var geometry: CacheGeometry
    var index: CacheIndex
    var segments: [CacheSegment]
    var queues: CacheQueues
    var salts: CacheSalts
    var salt: Int
    var ownersCipher: BlockCipher
    var ownersInMemory: [Int: [CacheOwner]]
    var shared = CacheSharedBlocks()
    var journal: CacheJournal<File>
    var nextSequence: UInt64
    /// Segments behind the cache's end that were used when it was larger.
    var segmentsBeyond: [UInt32]
    /// Volumes that were there and whose keys were not at hand: they are gone.
    var volumesWithoutKey: [CacheVolume]
    /// Why records that were there could not be used; nil when all was well.
    var loss: String?
    /// The files that count: a checkpoint, unless a journal began anew, and the journals, each as far as it counts.
    var files: (checkpoint: CacheRecordFileExtent?, journals: [CacheRecordFileExtent])
    /// The device failed, so nothing was found, and nothing is to be written.
    var unusable: StorageFileError?
}

final class CacheRecovery<Directory: StorageDirectory> {
    typealias File = Directory.File

    private let file: File
    private let directory: Directory
    private let keys: CacheKeys
    private let byteCount: UInt64
    private let limits: CacheLimits
    private let isReadOnly: Bool
    private var random: RandomSource
    private let completion: (Result<RecoveredCache<File>, CacheError>) -> Void

    private var header = CacheHeader(segmentBytes: 0, identifier: 0)
    private var geometry = CacheGeometry(byteCount: 0, segmentBytes: CacheFormat.segmentBytesMin)
    private var checkpoints: Set<UInt64> = []
    private var journals: Set<UInt64> = []
    private var loss: String?
    private var unusable: StorageFileError?

    /// - Parameter isReadOnly: that nothing is to be changed, for somebody who only looks: what is no cache, or fails, is an error then.
    init(
        file: File, directory: Directory, byteCount: UInt64, keys: CacheKeys, limits: CacheLimits, random: RandomSource,
        isReadOnly: Bool = false, completion: @escaping (Result<RecoveredCache<File>, CacheError>) -> Void
    ) {
        self.file = file
        self.directory = directory
        self.byteCount = byteCount
        self.keys = keys
        self.limits = limits
        self.random = random
        self.isReadOnly = isReadOnly
        self.completion = completion
    }

    /// A cache that can't be read costs its blocks, never service: without one word from the device it is empty, and stays so.
    /// Only a full file system is told, and may be tried again: nothing is wrong with it.
    private func fail(_ error: StorageFileError) {
        if case .noSpace = error { return completion(.failure(.file(error))) }
        if isReadOnly { return completion(.failure(.file(error))) }
        let segmentBytes = CacheGeometry.segmentBytes(forCacheOf: byteCount, atMost: limits.segmentBytes)
        header = CacheHeader(segmentBytes: UInt32(segmentBytes), identifier: random.next())
        geometry = CacheGeometry(byteCount: byteCount, segmentBytes: segmentBytes)
        guard isLargeEnough() else { return }
        unusable = error
        end(CacheReplay(geometry: geometry, keys: keys), nil, [], number: 1)
    }

    private func isLargeEnough() -> Bool {
        if geometry.segmentCount >= CacheFormat.segmentsMin { return true }
        let needed = UInt64(CacheFormat.segmentsMin * Int(header.segmentBytes) + CacheFormat.headerBytes)
        completion(.failure(.tooSmall(bytesNeeded: needed)))
        return false
    }

    // MARK: The header

    func start() {
        file.read(at: 0, byteCount: CacheFormat.headerBytes) { [self] result in
            switch result {
            case .failure(let error): fail(error)
            case .success(let bytes):
                let known = usable(CacheHeader(parsing: bytes))
                let segmentBytes = CacheGeometry.segmentBytes(forCacheOf: byteCount, atMost: limits.segmentBytes)
                header = known ?? CacheHeader(segmentBytes: UInt32(segmentBytes), identifier: random.next())
                geometry = CacheGeometry(byteCount: byteCount, segmentBytes: Int(header.segmentBytes))
                // A cache that was made larger has segments of which it needs some, whatever size it is given.
                if known != nil { geometry.segmentCount = max(geometry.segmentCount, CacheFormat.segmentsMin) }
                if isReadOnly { return known == nil ? fail(.failed("there is no header of a cache")) : listFiles() }
                guard isLargeEnough() else { return }
                if header.version == CacheFormat.version, known != nil { return listFiles() }
                // An earlier version is to know that there may be what it can't read.
                header.version = CacheFormat.version
                file.write(header.encoded(), at: 0) { [self] result in
                    if case .failure(let error) = result { return fail(error) }
                    listFiles()
                }
            }
        }
    }

    /// The header of a cache that can be as small as its device; another one begins anew.
    private func usable(_ header: CacheHeader?) -> CacheHeader? {
        guard let header, let device = limits.deviceBytes else { return header }
        let isLargeEnough = CacheGeometry(byteCount: device, segmentBytes: Int(header.segmentBytes)).segmentCount >= CacheFormat.segmentsMin
        return isLargeEnough ? header : nil
    }

    // MARK: The base

    private func listFiles() {
        directory.list { [self] result in
            switch result {
            case .failure(let error): fail(error)
            case .success(let names):
                for name in names {
                    guard let (isCheckpoint, number) = CacheFileName.parse(name), number < .max / 2 else { continue }
                    if isCheckpoint { checkpoints.insert(number) } else { journals.insert(number) }
                }
                tryBase(of: checkpoints.union(journals).sorted(by: >)[...])
            }
        }
    }

    /// Looks for the newest base among the numbers, descending.
    private func tryBase(of numbers: ArraySlice<UInt64>) {
        guard let number = numbers.first else { return finish(nil, []) }
        read(checkpoints.contains(number) ? CacheFileName.checkpoint(number) : nil) { [self] checkpoint in
            let isBase = checkpoint.map { $0.isComplete && isOurs($0, .checkpoint, number) } ?? false
            read(journals.contains(number) ? CacheFileName.journal(number) : nil) { [self] journal in
                if let journal, isOurs(journal, isBase ? nil : .firstJournal, number) {
                    return followJournals(base: isBase ? checkpoint : nil, [journal])
                }
                if isBase { return lost("\(CacheFileName.checkpoint(number)) is whole, and the journal that begins with it is not") }
                tryBase(of: numbers.dropFirst())
            }
        }
    }

    private func isOurs(_ extent: CacheRecordFileExtent, _ kind: CacheRecordFileHeader.Kind?, _ number: UInt64) -> Bool {
        let header = extent.header
        return header.number == number && header.cache == self.header.identifier && header.segmentBytes == self.header.segmentBytes
            && (kind == nil ? header.kind != .checkpoint : header.kind == kind)
    }

    /// Finds how far a record file is whole.
    private func read(_ name: String?, _ next: @escaping (CacheRecordFileExtent?) -> Void) {
        guard let name else { return next(nil) }
        directory.open(name, create: false) { [self] result in
            let file: File
            switch result {
            case .success(let opened): file = opened
            case .failure(.notFound): return next(nil)
            case .failure(let error): return fail(error)
            }
            let reader = CacheRecordReader(file: file, key: keys.cache) { [self] result in
                file.close()
                switch result {
                case .success(let extent): next(extent)
                case .failure(let error): fail(error)
                }
            }
            if isReadOnly { return reader.start() }
            // What is in the page cache only must not change any more once something is built on it.
            file.synchronize { _ in reader.start() }
        }
    }

    // MARK: The journals

    /// Reads the journals behind the last of `row`, as long as each goes on where the one before ends.
    private func followJournals(base: CacheRecordFileExtent?, _ row: [CacheRecordFileExtent]) {
        guard let last = row.last else { return lost("there is no journal") }
        let number = last.header.number + 1
        guard journals.contains(number) else { return finish(base, row) }
        read(CacheFileName.journal(number)) { [self] journal in
            var row = row
            guard let journal, isOurs(journal, .journal, number) else {
                // Its beginning never became durable, so nothing of it did. But then nothing came after it either.
                let isLast = !journals.contains(number + 1)
                return isLast ? finish(base, row) : lost("\(CacheFileName.journal(number)) can't be read, and there are later ones")
            }
            guard row[row.count - 1].cut(to: journal.header.predecessorFragments, chain: journal.header.predecessorTag) else {
                return lost("\(CacheFileName.journal(number - 1)) is not whole as far as it counts")
            }
            followJournals(base: base, row + [journal])
        }
    }

    /// Changes are missing.
    private func lost(_ reason: String) {
        loss = reason
        finish(nil, [])
    }

    // MARK: Ending

    private func finish(_ base: CacheRecordFileExtent?, _ row: [CacheRecordFileExtent]) {
        let highest = checkpoints.union(journals).max() ?? 0
        let number = (row.last?.header.number ?? highest) + 1
        if loss == nil, row.isEmpty, highest > 0 { loss = "there is no checkpoint that is whole, and no journal that began anew" }
        if isReadOnly { return settle(base, row, number: number) }
        file.synchronize { [self] result in
            if case .failure(let error) = result { return fail(error) }
            // Those behind are of runs that died before they counted; those before the base have had their time.
            remove(numbers: { [first = row.first?.header.number] in $0 >= number || $0 < first ?? number }) { [self] in
                settle(base, row, number: number)
            }
        }
    }

    private func remove(numbers isSuperfluous: (UInt64) -> Bool, _ next: @escaping () -> Void) {
        var names = checkpoints.filter(isSuperfluous).map(CacheFileName.checkpoint)[...]
        names += journals.filter(isSuperfluous).map(CacheFileName.journal)
        func removeNext() {
            guard let name = names.popFirst() else { return next() }
            directory.remove(name) { _ in removeNext() }
        }
        removeNext()
    }

    // MARK: Replaying

    private func settle(_ base: CacheRecordFileExtent?, _ row: [CacheRecordFileExtent], number: UInt64) {
        let replay = CacheReplay(geometry: geometry, keys: keys)
        replayFiles(row[...], { replay.countEvents(in: $0) }) { [self] in
            replayFiles([base].compactMap { $0 }[...], { replay.apply($0, isCheckpoint: true) }) { [self] in
                replayFiles(row[...], { replay.apply($0, isCheckpoint: false) }) { [self] in
                    end(replay, base, row, number: number)
                }
            }
        }
    }

    /// Gives all that counts of some files to `onRecords`, in order.
    private func replayFiles(
        _ files: ArraySlice<CacheRecordFileExtent>, _ onRecords: @escaping (CacheFragmentRecords) -> Void, then next: @escaping () -> Void
    ) {
        guard let first = files.first else { return next() }
        let number = first.header.number
        directory.open(first.header.kind == .checkpoint ? CacheFileName.checkpoint(number) : CacheFileName.journal(number), create: false) {
            [self] result in
            let file: File
            switch result {
            case .success(let opened): file = opened
            case .failure(let error): return fail(error)
            }
            CacheRecordReader(file: file, key: keys.cache, fragmentsMax: first.chains.count, onRecords: onRecords) { [self] result in
                file.close()
                if case .failure(let error) = result { return fail(error) }
                // It was whole a moment ago.
                guard case .success(let extent?) = result, extent.chains == first.chains else {
                    return lost("a file of records is not what it was a moment ago")
                }
                replayFiles(files.dropFirst(), onRecords, then: next)
            }.start()
        }
    }

    private func end(_ replay: CacheReplay, _ base: CacheRecordFileExtent?, _ row: [CacheRecordFileExtent], number: UInt64) {
        // What they say could hide what others say.
        if replay.hasUnreadRecords { return lost("there are records that this version can't read") }
        let salt = replay.salts.nextNumber
        let bytes = random.bytes(CacheFormat.saltBytes)
        replay.salts.add(bytes, number: salt)
        let ownersCipher: BlockCipher
        do throws(CipherError) {
            ownersCipher = BlockCipher(key: try keys.cache.derive(salt: bytes, purpose: CacheFormat.ownersPurpose))
        } catch {
            return completion(.failure(.cipher("\(error)")))
        }
        let journal = CacheJournal<File>(
            number: number, predecessor: (UInt32(row.last?.chains.count ?? 0), row.last?.chains.last ?? CacheChain()),
            startsAnew: row.isEmpty, byteCount: row.reduce(0) { $0 + $1.byteCount }, fileCount: row.count,
            checkpointBytes: base?.byteCount ?? 0)
        completion(
            .success(
                replay.recovered(
                    identifier: header.identifier, salt: salt, ownersCipher: ownersCipher, journal: journal, loss: loss,
                    files: (base, row), unusable: unusable)))
    }
}

extension SecureCache {
    /// Opens the cache whose blocks are in `file` and whose records are in `directory`, which it has for itself, or makes one there.
    ///
    /// The index is rebuilt from the last checkpoint and what the journals say since. When that is damaged, or was sealed under
    /// another key, the cache has no blocks. A cache may be opened with another size than before: what lies behind its end is gone.
    /// A division that does not fit is loosened, as `isLoosened` says.
    /// When the device fails the cache is opened empty and takes nothing; its statistics say `isDegraded`.
    public static func open(
        file: File, directory: Directory, byteCount: UInt64, keys: CacheKeys, limits: CacheLimits = CacheLimits(),
        division: CacheDivision = CacheDivision(), random: RandomSource, completion: @escaping (Result<SecureCache, CacheError>) -> Void
    ) {
        let recovery = CacheRecovery(
            file: file, directory: directory, byteCount: byteCount, keys: keys, limits: limits, random: random
        ) { result in
            completion(
                result.map {
                    SecureCache($0, file: file, directory: directory, keys: keys, limits: limits, division: division, random: random)
                })
        }
        recovery.start()
    }
}
