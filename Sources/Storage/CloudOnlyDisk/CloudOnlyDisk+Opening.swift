import Blocks
import Ciphers
import NIOCore
import WriteLog

// How a cloud-only disk is found again:
//
//     journal recovers ──► files are opened or made, their names durable ──► header: read, or made and durable
//         ──► root ──► pages, window by window ──► serve; sealed epochs of the journal are drained again
//
// The header ties the files to their journal. Pages and root are taken as the last epoch that the journal has let go of left them: by then
// all of it was durable, so all of it must be there. What is lost, or older than that, keeps the disk from opening: what lies below it
// would be taken for the newest.

/// What opening has found.
struct OpenedCloudOnlyDisk<Directory: StorageDirectory> {
    typealias Files = (blocks: Directory.File, seals: Directory.File, presence: Directory.File)

    let journal: WriteLog<Directory>
    let files: Files
    let headerCipher: BlockCipher
    let blockCiphers: EraCiphers
    let presenceCiphers: EraCiphers
    var presence = PresenceMap()
    /// The root as it must come out, and the slot where it stands.
    var root = PresenceRoot(epochSum: 0, heldSectors: 0)
    var rootSlot = 0

    /// The last epoch that the journal has let go of.
    var released: PointNumber { journal.oldestEpoch - min(journal.oldestEpoch, 1) }
}

extension CloudOnlyDisk {
    /// Opens the disk in `directory`, which it has for itself, or makes one there.
    /// - Parameters:
    ///   - key: the volume's data key; what seals the files is derived from it.
    ///   - sectorCount: how large the volume is. A disk is only made where the file system takes a file as large: it would fail
    ///     in the middle of the machine's work else.
    ///   - expected: the disk that is known to have been there. Then none is made, and another one is refused, or an older copy of it.
    public static func open(
        directory: Directory, volume: VolumeIdentifier, sectorCount: UInt64, key: SecretKey, expecting expected: CloudOnlyMark? = nil,
        limits: CloudOnlyLimits = CloudOnlyLimits(), random: RandomSource, clock: @escaping () -> NIODeadline,
        completion: @escaping (Result<CloudOnlyDisk, WriteLogError>) -> Void
    ) {
        let opening = CloudOnlyOpening(
            directory: directory, volume: volume, sectorCount: sectorCount, key: key, expected: expected, random: random
        ) { result in
            completion(result.map { CloudOnlyDisk($0, limits: limits, clock: clock) })
        }
        let now = clock()
        guard expected != nil else { return opening.start(limits: limits.journal, now: now) }
        opening.findFiles { opening.start(limits: limits.journal, now: now) }
    }
}

private final class CloudOnlyOpening<Directory: StorageDirectory> {
    typealias Opened = OpenedCloudOnlyDisk<Directory>

    /// How much of the presence file is read at once: 512 MiB of the disk.
    private static var windowBytes: Int { 1 << 20 }

    private let directory: Directory
    private let volume: VolumeIdentifier
    private let sectorCount: UInt64
    private let key: SecretKey
    private let expected: CloudOnlyMark?
    private var random: RandomSource
    private let completion: (Result<Opened, WriteLogError>) -> Void

    init(
        directory: Directory, volume: VolumeIdentifier, sectorCount: UInt64, key: SecretKey, expected: CloudOnlyMark?,
        random: RandomSource,
        completion: @escaping (Result<Opened, WriteLogError>) -> Void
    ) {
        self.directory = directory
        self.volume = volume
        self.sectorCount = sectorCount
        self.key = key
        self.expected = expected
        self.random = random
        self.completion = completion
    }

    /// Nothing is made in the place of a disk that is known to have been there: its files may yet be put back.
    func findFiles(then next: @escaping () -> Void) {
        directory.list { [self] result in
            step(result) { names in
                var missing = [CloudOnlyFormat.blocksName, CloudOnlyFormat.sealsName, CloudOnlyFormat.presenceName]
                    .filter { !names.contains($0) }
                if !names.contains(where: WriteLogFiles.isName) { missing.append("the journal") }
                if missing.isEmpty { return next() }
                completion(.failure(.corrupt("of the cloud-only disk is missing: \(missing.joined(separator: ", "))")))
            }
        }
    }

    func start(limits: WriteLogLimits, now: NIODeadline) {
        let journalKey: SecretKey
        do throws(CipherError) {
            journalKey = try key.derive(salt: CloudOnlyFormat.salt(of: volume), purpose: CloudOnlyFormat.journalPurpose)
        } catch {
            return completion(.failure(.cipher("\(error)")))
        }
        WriteLog.open(
            directory: directory, volume: volume, keys: DataKeys(journalKey), limits: limits, random: random, now: now
        ) { [self] result in
            switch result {
            case .success(let journal):
                if let expected, journal.logIdentifier != expected.identifier {
                    return completion(.failure(.corrupt("the cloud-only disk is \(journal.logIdentifier), not \(expected.identifier)")))
                }
                if let expected, journal.oldestEpoch <= expected.epoch {
                    return completion(
                        .failure(.corrupt("the cloud-only disk is an old copy: it had drained epoch \(expected.epoch) of its journal once"))
                    )
                }
                openFiles(journal)
            case .failure(let error): completion(.failure(error))
            }
        }
    }

    private func step<Value>(_ result: Result<Value, StorageFileError>, _ next: (Value) -> Void) {
        switch result {
        case .success(let value): next(value)
        case .failure(let error): completion(.failure(.file(error)))
        }
    }

    private func openFiles(_ journal: WriteLog<Directory>) {
        directory.open(CloudOnlyFormat.blocksName, create: true) { [self] result in
            step(result) { blocks in
                directory.open(CloudOnlyFormat.sealsName, create: true) { [self] result in
                    step(result) { seals in
                        directory.open(CloudOnlyFormat.presenceName, create: true) { [self] result in
                            step(result) { presence in
                                directory.synchronize { [self] result in
                                    step(result) { makeDurable(journal, (blocks, seals, presence)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    /// What is read from now on is on the medium: after a sync that failed a header may be in memory only, and look as if it were there.
    private func makeDurable(_ journal: WriteLog<Directory>, _ files: Opened.Files) {
        files.blocks.synchronizeAndForget { [self] result in step(result) { readHeader(journal, files) } }
    }

    // MARK: The header

    private func readHeader(_ journal: WriteLog<Directory>, _ files: Opened.Files) {
        files.blocks.read(at: 0, byteCount: CloudOnlyFormat.headerBytes) { [self] result in
            step(result) { bytes in
                guard let header = CloudOnlyHeader(parsing: bytes) else {
                    // No epoch can have been drained: the header is durable before the first is.
                    if journal.oldestEpoch == 1 { return makeHeader(journal, files) }
                    return completion(.failure(.corrupt("the header of the cloud-only disk's blocks is damaged or missing")))
                }
                guard header.volume == volume else { return completion(.failure(.foreign(header.volume))) }
                guard let opened = makeCiphers(header, journal, files) else { return }
                guard CloudOnlyHeader.isAuthentic(bytes, cipher: opened.headerCipher) else { return completion(.failure(.wrongKey)) }
                guard header.journal == journal.logIdentifier else {
                    return completion(
                        .failure(.corrupt("the cloud-only disk belongs to journal \(header.journal), not \(journal.logIdentifier)")))
                }
                readRoot(opened)
            }
        }
    }

    private func makeHeader(_ journal: WriteLog<Directory>, _ files: Opened.Files) {
        let header = CloudOnlyHeader(
            volume: volume, journal: journal.logIdentifier, salt: random.bytes(CloudOnlyFormat.saltBytes))
        guard let opened = makeCiphers(header, journal, files) else { return }
        guard let bytes = header.encoded(cipher: opened.headerCipher) else {
            return completion(.failure(.cipher("AES-256-GCM refused to seal a header")))
        }
        files.blocks.truncate(to: CloudOnlyFormat.blockOffset(sectorCount)) { [self] result in
            step(result) {
                files.blocks.write(bytes, at: 0) { [self] result in
                    step(result) {
                        files.blocks.synchronize { [self] result in step(result) { completion(.success(opened)) } }
                    }
                }
            }
        }
    }

    private func makeCiphers(_ header: CloudOnlyHeader, _ journal: WriteLog<Directory>, _ files: Opened.Files) -> Opened? {
        do throws(CipherError) {
            let era = random.next()
            return Opened(
                journal: journal, files: files,
                headerCipher: BlockCipher(key: try key.derive(salt: header.salt, purpose: CloudOnlyFormat.headerPurpose)),
                blockCiphers: try EraCiphers(key: try key.derive(salt: header.salt, purpose: CloudOnlyFormat.blocksPurpose), era: era),
                presenceCiphers: try EraCiphers(
                    key: try key.derive(salt: header.salt, purpose: CloudOnlyFormat.presencePurpose), era: era))
        } catch {
            completion(.failure(.cipher("\(error)")))
            return nil
        }
    }

    // MARK: Pages

    private func readRoot(_ found: Opened) {
        // Nothing was drained yet: whatever pages hold is of an epoch that will be drained again.
        if found.released == 0 { return measure(found) }
        found.files.presence.read(at: 0, byteCount: CloudOnlyFormat.pageBytes) { [self] result in
            step(result) { bytes in
                var opened = found
                let encoding = CloudOnlyEncoding(volume: volume)
                for slot in 0..<2 {
                    guard let content = bytes.slot(slot), let found = encoding.decodeRoot(content, ciphers: opened.presenceCiphers),
                        found.epoch == opened.released
                    else { continue }
                    (opened.root, opened.rootSlot) = (found.root, slot)
                    return measure(opened)
                }
                completion(
                    .failure(
                        .corrupt(
                            "the cloud-only disk does not know of epoch \(opened.released), which its journal has let go of: "
                                + "files of it are damaged, missing, or an old copy")))
            }
        }
    }

    private func measure(_ found: Opened) {
        found.files.presence.size { [self] result in
            step(result) { readPages(found, from: CloudOnlyFormat.pageOffset(0), size: $0) }
        }
    }

    private func readPages(_ found: Opened, from offset: UInt64, size: UInt64) {
        guard offset < size else {
            if found.presence.root == found.root { return completion(.success(found)) }
            return completion(.failure(.corrupt("pages of the cloud-only disk are damaged, missing, or an old copy")))
        }
        found.files.presence.read(at: offset, byteCount: Self.windowBytes) { [self] result in
            step(result) { window in
                var opened = found
                var window = window
                var number = offset / UInt64(CloudOnlyFormat.pageBytes) - 1
                while window.readableBytes > 0 {
                    take(window.readSlice(length: min(CloudOnlyFormat.pageBytes, window.readableBytes)) ?? ByteBuffer(), number, &opened)
                    number += 1
                }
                readPages(opened, from: offset + UInt64(Self.windowBytes), size: size)
            }
        }
    }

    /// Takes the newer of a page's slots that is not of an epoch which will be drained again. A bad slot is what a crash has torn of
    /// such an epoch, or tells nothing any more; if it does, the root does not come out.
    private func take(_ bytes: ByteBuffer, _ number: UInt64, _ opened: inout Opened) {
        if bytes.readableBytesView.allSatisfy({ $0 == 0 }) { return }
        let encoding = CloudOnlyEncoding(volume: volume)
        var newest: PresencePage?
        for slot in 0..<2 {
            guard let content = bytes.slot(slot), var page = encoding.decode(content, number: number, ciphers: opened.presenceCiphers),
                page.epoch <= opened.released, page.epoch >= newest?.epoch ?? 0
            else { continue }
            page.slot = slot
            newest = page
        }
        if let newest { opened.presence.restore(newest, number: number) }
    }
}

extension ByteBuffer {
    /// One of the two slots of a page or of the root; nil when it is not there.
    fileprivate func slot(_ slot: Int) -> ByteBuffer? {
        getSlice(at: readerIndex + slot * CloudOnlyFormat.slotBytes, length: CloudOnlyFormat.slotBytes)
    }
}
