import Blocks
import Ciphers
import NIOCore
import WriteLog

// How a cloud-only disk is found again:
//
//     journal recovers ──► files are opened or made, their names durable ──► header: read, or made and durable
//         ──► pages, window by window ──► serve; sealed epochs of the journal are drained again
//
// The header ties the files to the journal whose numbers are in their nonces: with another journal a number would come twice.

/// What opening has found.
struct OpenedCloudOnlyDisk<Directory: StorageDirectory> {
    typealias Files = (blocks: Directory.File, seals: Directory.File, presence: Directory.File)

    let journal: WriteLog<Directory>
    let files: Files
    let blockCipher: BlockCipher
    let presenceCipher: BlockCipher
    var presence = PresenceMap()
}

extension CloudOnlyDisk {
    /// Opens the disk in `directory`, which it has for itself, or makes one there.
    /// - Parameter key: the volume's data key; what seals the files is derived from it.
    public static func open(
        directory: Directory, volume: VolumeIdentifier, key: SecretKey, limits: CloudOnlyLimits = CloudOnlyLimits(),
        random: RandomSource, clock: @escaping () -> NIODeadline, completion: @escaping (Result<CloudOnlyDisk, WriteLogError>) -> Void
    ) {
        let opening = CloudOnlyOpening(directory: directory, volume: volume, key: key, random: random) { result in
            completion(result.map { CloudOnlyDisk($0, limits: limits, clock: clock) })
        }
        opening.start(limits: limits.journal, now: clock())
    }
}

private final class CloudOnlyOpening<Directory: StorageDirectory> {
    typealias Opened = OpenedCloudOnlyDisk<Directory>

    /// How much of the presence file is read at once: 512 MiB of the disk.
    private static var windowBytes: Int { 1 << 20 }

    private let directory: Directory
    private let volume: VolumeIdentifier
    private let key: SecretKey
    private var random: RandomSource
    private let completion: (Result<Opened, WriteLogError>) -> Void

    init(
        directory: Directory, volume: VolumeIdentifier, key: SecretKey, random: RandomSource,
        completion: @escaping (Result<Opened, WriteLogError>) -> Void
    ) {
        self.directory = directory
        self.volume = volume
        self.key = key
        self.random = random
        self.completion = completion
    }

    func start(limits: WriteLogLimits, now: NIODeadline) {
        let journalKey: SecretKey
        do throws(CipherError) {
            journalKey = try key.derive(salt: CloudOnlyFormat.salt(of: volume), purpose: CloudOnlyFormat.journalPurpose)
        } catch {
            return completion(.failure(.cipher("\(error)")))
        }
        WriteLog.open(directory: directory, volume: volume, key: journalKey, limits: limits, random: random, now: now) { [self] result in
            switch result {
            case .success(let journal): openFiles(journal)
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
                                    step(result) { readHeader(journal, (blocks, seals, presence)) }
                                }
                            }
                        }
                    }
                }
            }
        }
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
                guard CloudOnlyHeader.isAuthentic(bytes, cipher: opened.blockCipher) else { return completion(.failure(.wrongKey)) }
                guard header.journal == journal.logIdentifier else {
                    return completion(
                        .failure(.corrupt("the cloud-only disk belongs to journal \(header.journal), not \(journal.logIdentifier)")))
                }
                files.presence.size { [self] result in step(result) { readPages(opened, from: 0, size: $0) } }
            }
        }
    }

    private func makeHeader(_ journal: WriteLog<Directory>, _ files: Opened.Files) {
        let header = CloudOnlyHeader(
            volume: volume, journal: journal.logIdentifier, salt: random.bytes(CloudOnlyFormat.saltBytes))
        guard let opened = makeCiphers(header, journal, files) else { return }
        guard let bytes = header.encoded(cipher: opened.blockCipher) else {
            return completion(.failure(.cipher("AES-256-GCM refused to seal a header")))
        }
        files.blocks.write(bytes, at: 0) { [self] result in
            step(result) {
                files.blocks.synchronize { [self] result in step(result) { completion(.success(opened)) } }
            }
        }
    }

    private func makeCiphers(_ header: CloudOnlyHeader, _ journal: WriteLog<Directory>, _ files: Opened.Files) -> Opened? {
        do throws(CipherError) {
            return Opened(
                journal: journal, files: files,
                blockCipher: BlockCipher(key: try key.derive(salt: header.salt, purpose: CloudOnlyFormat.blocksPurpose)),
                presenceCipher: BlockCipher(key: try key.derive(salt: header.salt, purpose: CloudOnlyFormat.presencePurpose)))
        } catch {
            completion(.failure(.cipher("\(error)")))
            return nil
        }
    }

    // MARK: Pages

    private func readPages(_ found: Opened, from offset: UInt64, size: UInt64) {
        guard offset < size else { return completion(.success(found)) }
        found.files.presence.read(at: offset, byteCount: Self.windowBytes) { [self] result in
            step(result) { window in
                var opened = found
                let encoding = CloudOnlyEncoding(volume: volume)
                var window = window
                var number = offset / UInt64(CloudOnlyFormat.pageBytes)
                while window.readableBytes > 0 {
                    let page = window.readSlice(length: min(CloudOnlyFormat.pageBytes, window.readableBytes)) ?? ByteBuffer()
                    guard take(page, number: number, encoding, &opened) else {
                        return completion(.failure(.corrupt("page \(number) of the cloud-only disk is not what was written there")))
                    }
                    number += 1
                }
                readPages(opened, from: offset + UInt64(Self.windowBytes), size: size)
            }
        }
    }

    /// Takes the newer of a page's two slots; false when what was written there is lost. A bad slot is one that a crash has torn as long
    /// as an epoch that changes the page is still in the journal: then it is written again, and the other slot is what it was before.
    private func take(_ bytes: ByteBuffer, number: UInt64, _ encoding: CloudOnlyEncoding, _ opened: inout Opened) -> Bool {
        if bytes.readableBytesView.allSatisfy({ $0 == 0 }) { return true }
        var newest: (epoch: PointNumber, page: PresencePage)?
        var badSlots = 0
        for slot in 0..<2 {
            let place = bytes.readerIndex + slot * CloudOnlyFormat.slotBytes
            let length = min(CloudOnlyFormat.slotBytes, bytes.writerIndex - place)
            guard length > 0, let content = bytes.getSlice(at: place, length: length),
                content.readableBytesView.contains(where: { $0 != 0 })
            else { continue }
            guard var found = encoding.decode(content, number: number, cipher: opened.presenceCipher) else {
                badSlots += 1
                continue
            }
            found.page.slot = slot
            if newest.map({ $0.epoch < found.epoch }) ?? true { newest = found }
        }
        if let newest { opened.presence.restore(newest.page, number: number) }
        let sectors = SectorRange(
            from: number * PresencePage.sectorCount, to: (number + 1) * PresencePage.sectorCount)
        return badSlots == 0 || badSlots == 1 && opened.journal.hasUnsent(overlapping: sectors)
    }
}
