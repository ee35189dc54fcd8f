import Blocks
import Ciphers
import NIOCore

// How a log is found again:
//
//     list ──► for each file, oldest first: open ──► sync, and forget what memory has of it ──► header ──► batches, window by window
//                    │ the row of batches breaks: torn batch, or a file that does not continue it
//                    ▼
//          what comes later is discarded; only its claims about durability are looked at
//     settle ──► sync the names that were found ──► cut the torn end off ──► sync what stays ──► remove what is discarded
//            ──► make the file that goes on, with a new salt ──► remove parts without batches ──► take over the spares
//
// Nothing of this may run twice with a different result, so each step is durable before the next.
//
// A log that is only read (`LogReader`) is found the same way and not settled. What keeps one that is to be served from opening
// ends the row there, and is kept as damage: what is before it is still good.

/// What recovery found, ready to go on.
struct RecoveredLog<Directory: StorageDirectory> {
    let volume: VolumeIdentifier
    let logIdentifier: LogIdentifier
    let epochs: [LogEpoch]
    let map: ExtentMap<LogExtent>
    let nextSequence: UInt64
    /// Files that wait for an epoch, and the highest number in the name of one.
    let spares: [LogSpare]
    let spareNumber: UInt64
}

/// What a log is found for.
enum LogRecoveryPurpose<Directory: StorageDirectory> {
    /// To be served: it is settled, and does not open when anything is wrong with it.
    case serving(random: RandomSource, firstEpoch: PointNumber, completion: (Result<RecoveredLog<Directory>, WriteLogError>) -> Void)
    /// To be read: nothing is written. With `verifiesData` the data of every batch is opened too.
    case reading(verifiesData: Bool, completion: (WriteLogError?) -> Void)
}

final class LogRecovery<Directory: StorageDirectory> {
    typealias Name = (text: String, epoch: PointNumber, part: UInt32)

    /// What a part holds that belongs to the log.
    struct Part {
        let file: LogFile
        let number: UInt32
        var batchCount = 0
        var size: UInt64
    }

    let directory: Directory
    let volume: VolumeIdentifier
    let keys: DataKeys
    let now: NIODeadline
    let encoding: LogEncoding
    var random = RandomSource.system
    private let purpose: LogRecoveryPurpose<Directory>

    var names: [Name] = []
    /// Files that wait for an epoch.
    var spareNames: [String] = []
    var logIdentifier: LogIdentifier?
    var epochs: [LogEpoch] = []
    var map = ExtentMap<LogExtent>()
    /// The parts of the epoch at the end, with their files.
    var lastParts: [Part] = []
    /// The sequence that the next batch must have; nil before the first file.
    var expected: UInt64?
    /// The row is broken: everything later is discarded.
    var isBroken = false
    var discarded: [String] = []
    /// The last batch that anything found says was durable.
    var claimedDurable: UInt64 = 0
    /// The last batch of the row that is known to have been flushed: later ones may have been, and nothing says so.
    var knownDurable: UInt64 = 0
    /// An epoch at the start whose first parts were removed already: it had been released.
    var vanishingEpoch: PointNumber?
    /// Where the row ends: in the last file that belongs to it.
    var rowEnd: (file: String, offset: UInt64)?
    /// When the log is only read: what is wrong with it, at most `damagesMax`, and what is in the way of a whole batch at the end.
    var damages: [LogDamage] = []
    var tornTail: LogDamage?

    /// Damages that are told one by one; the first of them ends the row, and those behind it are files that can't be used.
    static var damagesMax: Int { 100 }

    init(
        directory: Directory, volume: VolumeIdentifier, keys: DataKeys, now: NIODeadline, purpose: LogRecoveryPurpose<Directory>
    ) {
        self.directory = directory
        self.volume = volume
        self.keys = keys
        self.now = now
        self.purpose = purpose
        encoding = LogEncoding(volume: volume)
    }

    // MARK: Files

    func start() {
        directory.list { [self] result in
            step(result) { names in
                self.names = names.compactMap { name in
                    LogFormat.parse(fileName: name).map { (name, $0.epoch, $0.part) }
                }
                self.spareNames = names.filter { LogFormat.parse(spareName: $0) != nil }.sorted()
                self.names.sort { ($0.epoch, $0.part) < ($1.epoch, $1.part) }
                self.examine(at: 0)
            }
        }
    }

    private func examine(at index: Int) {
        guard index < names.count else { return end() }
        let name = names[index]
        let unreadable = { [self] (error: StorageFileError) in reject(.file(error), name.text) { self.discard(name, then: index) } }
        directory.open(name.text, create: false) { [self] result in
            step(result, otherwise: unreadable) { file in
                forgetMemory(of: file) { result in
                    self.step(result, otherwise: unreadable) { self.readHeader(of: file, at: index, otherwise: unreadable) }
                }
            }
        }
    }

    /// What is found counts as durable from then on, so it has to come from the medium: a process before this one may have ended because a sync
    /// had failed.
    private func forgetMemory(of file: Directory.File, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        if case .reading = purpose { return completion(.success(())) }
        if isPlanted(.trustsMemoryAfterFailedSync) { return completion(.success(())) }
        file.synchronizeAndForget(completion: completion)
    }

    private func readHeader(of file: Directory.File, at index: Int, otherwise unreadable: @escaping (StorageFileError) -> Void) {
        file.size { [self] result in
            step(result, otherwise: unreadable) { size in
                file.read(at: 0, byteCount: LogFormat.headerBytes) { result in
                    self.step(result, otherwise: unreadable) { self.examine($0, of: file, size: size, at: index) }
                }
            }
        }
    }

    private func examine(_ bytes: ByteBuffer, of opened: Directory.File, size: UInt64, at index: Int) {
        let name = names[index]
        let header: LogFileHeader
        do throws(LogFileHeader.ParseError) {
            header = try LogFileHeader(parsing: bytes)
        } catch {
            opened.close()
            if case .unknownVersion(let version) = error {
                return reject(.corrupt("\(name.text) has format version \(version), which this program does not know"), name.text) {
                    self.discard(name, then: index)
                }
            }
            // A header that is not there ends the row, as a file does that a crash left half made. The
            // only file of a log may be one too, but one with batches had its header made durable before.
            if expected == nil, names.count > 1 || size > UInt64(LogFormat.headerBytes) {
                return reject(.corrupt("the header of \(name.text), the oldest file, is damaged"), name.text) {
                    self.discard(name, then: index)
                }
            }
            return discard(name, then: index)
        }
        let file: LogFile
        do throws(WriteLogError) {
            file = LogFile(file: opened, name: name.text, header: header, cipher: try authenticate(header, bytes, name))
        } catch {
            opened.close()
            return reject(error, name.text) { self.discard(name, then: index) }
        }
        take(file, header, size: size, at: index)
    }

    /// The cipher of a file whose header is authentic, and that of the file that it stands in.
    private func authenticate(_ header: LogFileHeader, _ bytes: ByteBuffer, _ name: Name) throws(WriteLogError) -> BlockCipher {
        guard header.volume == volume else { throw .foreign(header.volume) }
        guard let key = keys[header.keyGeneration] else { throw .missingKey(header.keyGeneration) }
        let cipher: BlockCipher
        do throws(CipherError) {
            cipher = BlockCipher(key: try key.derive(salt: header.salt, purpose: LogFormat.keyPurpose))
        } catch {
            throw .cipher("\(error)")
        }
        guard LogFileHeader.isAuthentic(bytes, cipher: cipher) else { throw .wrongKey }
        guard header.epoch == name.epoch, header.part == name.part else {
            throw .corrupt("\(name.text) holds epoch \(header.epoch), part \(header.part)")
        }
        return cipher
    }

    /// Decides whether a file continues the row, and reads its batches.
    private func take(_ file: LogFile, _ header: LogFileHeader, size: UInt64, at index: Int) {
        if expected == nil, header.firstBatch != header.epochFirstBatch {
            vanishingEpoch = header.epoch
        }
        if vanishingEpoch == header.epoch {
            discarded.append(file.name)
            return examine(at: index + 1)
        }
        if let logIdentifier, header.log != logIdentifier {
            let error = WriteLogError.corrupt("\(file.name) belongs to log \(header.log), and the files before it to \(logIdentifier)")
            return reject(error, file.name) { self.discard(self.names[index], then: index) }
        }
        logIdentifier = header.log
        if !isBroken, continues(header) {
            let batches = LogScanner(file: file, size: size, encoding: encoding, verifiesData: verifiesData)
            if epochs.last?.number != header.epoch {
                epochs.append(LogEpoch(number: header.epoch))
                lastParts = []
            }
            epochs[epochs.count - 1].files.append(file)
            epochs[epochs.count - 1].firstBatch = header.epochFirstBatch
            expected = header.firstBatch
            scan(batches, Part(file: file, number: header.part, size: size), header, at: index)
        } else {
            isBroken = true
            claimedDurable = max(claimedDurable, header.durableThrough)
            discard(names[index], then: index)
        }
    }

    private func scan(_ batches: LogScanner, _ found: Part, _ header: LogFileHeader, at index: Int) {
        var part = found
        let ends = { [self] (offset: UInt64) in
            part.file.writeOffset = offset
            part.file.roomThrough = min(part.size, LogFormat.fileBytesMax)
            rowEnd = (part.file.name, offset)
            knownDurable = max(knownDurable, header.durableThrough, batches.durableThrough)
            if batches.endsTorn {
                tornTail = LogDamage(
                    file: part.file.name, offset: offset,
                    text: "batch \(expected ?? 0) is not whole; \(max(part.size, offset) - offset) bytes are not used")
            }
            lastParts.append(part)
            examine(at: index + 1)
        }
        let rejects = { [self] (error: WriteLogError, offset: UInt64) in reject(error, part.file.name, offset) { ends(offset) } }
        batches.scan(from: header.firstBatch) { [self] event in
            switch event {
            case .batch(let batch, let offset):
                part.batchCount += 1
                if let error = apply(batch) {
                    rejects(error, offset)
                    return false
                }
                return true
            case .claim(let sequence):
                claimedDurable = max(claimedDurable, sequence)
                return true
            case .failed(let error, let offset):
                rejects(error, offset)
                return false
            case .end(let offset):
                ends(offset)
                return false
            }
        }
    }

    /// True when a file comes next in the row.
    private func continues(_ header: LogFileHeader) -> Bool {
        guard let expected, let last = epochs.last else { return true }
        guard header.firstBatch == expected else { return false }
        if header.epoch == last.number { return last.sealBatch == nil && header.epochFirstBatch == last.firstBatch }
        return last.sealBatch != nil && header.epoch == last.number &+ 1
    }

    private func discard(_ name: Name, then index: Int) {
        isBroken = isBroken || expected != nil
        discarded.append(name.text)
        examine(at: index + 1)
    }

    /// Takes a batch into the maps, in journal order.
    private func apply(_ batch: LogBatch) -> WriteLogError? {
        let epoch = epochs[epochs.count - 1]
        guard epoch.sealBatch == nil else { return .corrupt("epoch \(epoch.number) goes on behind its seal") }
        epoch.countBatch(records: batch.records.count)
        for (index, record) in batch.records.enumerated() {
            if isPlanted(.forgetsZeroesInRecovery), record.kind == .zeroes { continue }
            if record.kind == .attributes { continue }
            if record.kind == .seal {
                do throws(LogAttributes.Damage) {
                    epoch.attributes = try LogAttributes.attributes(in: batch.records)
                } catch {
                    return .corrupt("what point \(epoch.number) carries can't be read")
                }
                epoch.sealBatch = batch.sequence
                epoch.sealedAt = now
                epoch.isSealed = true
            } else if let range = SectorRange(start: record.start, count: record.count) {
                let extent = LogExtent(batch: batch, record: UInt32(index), skip: 0)
                epoch.insert(range, extent, isData: record.kind == .data)
                map.insert(range, extent)
                if epoch.firstAppendAt == nil { epoch.firstAppendAt = now }
            }
        }
        expected = batch.sequence &+ 1
        return nil
    }

    // MARK: Ending

    /// Goes on with a value, or ends with the error of a file.
    func step<Value>(_ result: Result<Value, StorageFileError>, _ next: (Value) -> Void) {
        step(result, otherwise: { self.fail(.file($0)) }, next)
    }

    private func step<Value>(
        _ result: Result<Value, StorageFileError>, otherwise: (StorageFileError) -> Void, _ next: (Value) -> Void
    ) {
        switch result {
        case .success(let value): next(value)
        case .failure(let error): otherwise(error)
        }
    }

    /// A log that is to be served does not open with this error. One that is only read ends before it, and goes on with `next`;
    /// but for a key that opens nothing of it.
    private func reject(_ error: WriteLogError, _ file: String, _ offset: UInt64 = 0, then next: () -> Void) {
        guard case .reading = purpose, !error.isOfKey || expected != nil || isBroken else { return fail(error) }
        isBroken = true
        damage(LogDamage(file: file, offset: offset, text: error.text))
        next()
    }

    private func damage(_ damage: LogDamage) {
        if damages.count < Self.damagesMax { damages.append(damage) }
    }

    private var verifiesData: Bool { if case .reading(true, _) = purpose { true } else { false } }

    /// All files have been looked at.
    private func end() {
        switch purpose {
        case .serving(let random, let firstEpoch, _): settle(random: random, firstEpoch: firstEpoch)
        case .reading(_, let completion):
            if let expected, claimedDurable >= expected {
                damage(
                    LogDamage(
                        file: rowEnd?.file ?? "", offset: rowEnd?.offset ?? 0,
                        text: "batch \(claimedDurable) was durable, but the log ends before batch \(expected)"))
            }
            completion(nil)
        }
    }

    func fail(_ error: WriteLogError) {
        switch purpose {
        case .serving(_, _, let completion): completion(.failure(error))
        case .reading(_, let completion): completion(error)
        }
    }

    func succeed(_ log: RecoveredLog<Directory>) {
        if case .serving(_, _, let completion) = purpose { completion(.success(log)) }
    }
}
