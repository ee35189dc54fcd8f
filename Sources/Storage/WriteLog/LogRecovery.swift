import Blocks
import Ciphers
import NIOCore

// How a log is found again:
//
//     list ──► for each file, oldest first: open ──► header ──► batches, window by window
//                    │ the row of batches breaks: torn batch, or a file that does not continue it
//                    ▼
//          what comes later is discarded; only its claims about durability are looked at
//     settle ──► cut the torn end off ──► sync what stays ──► remove what is discarded
//            ──► make the file that goes on, with a new salt ──► remove parts without batches
//
// Nothing of this may run twice with a different result, so each step is durable before the next.

/// What recovery found, ready to go on.
struct RecoveredLog<Directory: StorageDirectory> {
    let volume: VolumeIdentifier
    let logIdentifier: LogIdentifier
    let epochs: [LogEpoch]
    let map: ExtentMap<LogExtent>
    let nextSequence: UInt64
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
    let key: SecretKey
    let now: NIODeadline
    let firstEpoch: PointNumber
    let encoding: LogEncoding
    var random: RandomSource
    private let completion: (Result<RecoveredLog<Directory>, WriteLogError>) -> Void

    var names: [Name] = []
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
    /// An epoch at the start whose first parts were removed already: it had been released.
    var vanishingEpoch: PointNumber?

    init(
        directory: Directory, volume: VolumeIdentifier, key: SecretKey, random: RandomSource, now: NIODeadline,
        firstEpoch: PointNumber,
        completion: @escaping (Result<RecoveredLog<Directory>, WriteLogError>) -> Void
    ) {
        self.directory = directory
        self.volume = volume
        self.key = key
        self.random = random
        self.now = now
        self.firstEpoch = firstEpoch
        self.completion = completion
        encoding = LogEncoding(volume: volume)
    }

    // MARK: Files

    func start() {
        directory.list { [self] result in
            step(result) { names in
                self.names = names.compactMap { name in
                    LogFormat.parse(fileName: name).map { (name, $0.epoch, $0.part) }
                }
                self.names.sort { ($0.epoch, $0.part) < ($1.epoch, $1.part) }
                self.examine(at: 0)
            }
        }
    }

    private func examine(at index: Int) {
        guard index < names.count else { return settle() }
        let name = names[index]
        directory.open(name.text, create: false) { [self] result in
            step(result) { file in
                file.size { result in
                    self.step(result) { size in
                        file.read(at: 0, byteCount: LogFormat.headerBytes) { result in
                            self.step(result) { self.examine($0, of: file, size: size, at: index) }
                        }
                    }
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
                return fail(.corrupt("\(name.text) has format version \(version), which this program does not know"))
            }
            // A header that is not there ends the row, as a file does that a crash left half made. The
            // only file of a log may be one too, but one with batches had its header made durable before.
            if expected == nil, names.count > 1 || size > UInt64(LogFormat.headerBytes) {
                return fail(.corrupt("the header of \(name.text), the oldest file, is damaged"))
            }
            return discard(name, then: index)
        }
        guard header.volume == volume else {
            opened.close()
            return fail(.foreign(header.volume))
        }
        guard let cipher = authenticate(header, bytes) else { return opened.close() }
        guard header.epoch == name.epoch, header.part == name.part else {
            opened.close()
            return fail(.corrupt("\(name.text) holds epoch \(header.epoch), part \(header.part)"))
        }
        take(LogFile(file: opened, name: name.text, epoch: name.epoch, cipher: cipher), header, size: size, at: index)
    }

    /// The cipher of a file whose header is authentic; nil after a failure was reported.
    private func authenticate(_ header: LogFileHeader, _ bytes: ByteBuffer) -> BlockCipher? {
        do throws(CipherError) {
            let cipher = BlockCipher(key: try key.derive(salt: header.salt, purpose: LogFormat.keyPurpose))
            if LogFileHeader.isAuthentic(bytes, cipher: cipher) { return cipher }
            fail(.wrongKey)
        } catch {
            fail(.cipher("\(error)"))
        }
        return nil
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
            return fail(.corrupt("\(file.name) belongs to log \(header.log), and the files before it to \(logIdentifier)"))
        }
        logIdentifier = header.log
        let batches = LogScanner(file: file, size: size, encoding: encoding)
        if !isBroken, continues(header) {
            if epochs.last?.number != header.epoch {
                epochs.append(LogEpoch(number: header.epoch))
                lastParts = []
            }
            epochs[epochs.count - 1].files.append(file)
            epochs[epochs.count - 1].firstBatch = header.epochFirstBatch
            expected = header.firstBatch
            var part = Part(file: file, number: header.part, size: size)
            batches.scan(from: header.firstBatch) { [self] event in
                switch event {
                case .batch(let batch):
                    part.batchCount += 1
                    if let error = apply(batch) {
                        fail(error)
                        return false
                    }
                    return true
                case .claim(let sequence):
                    claimedDurable = max(claimedDurable, sequence)
                    return true
                case .failed(let error):
                    fail(error)
                    return false
                case .end(let offset):
                    file.writeOffset = offset
                    lastParts.append(part)
                    examine(at: index + 1)
                    return false
                }
            }
        } else {
            isBroken = true
            claimedDurable = max(claimedDurable, header.durableThrough)
            discard(names[index], then: index)
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
        for (index, record) in batch.records.enumerated() {
            if isPlanted(.forgetsZeroesInRecovery), record.kind == .zeroes { continue }
            if record.kind == .seal {
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
        switch result {
        case .success(let value): next(value)
        case .failure(let error): fail(.file(error))
        }
    }

    func fail(_ error: WriteLogError) { completion(.failure(error)) }
    func succeed(_ log: RecoveredLog<Directory>) { completion(.success(log)) }
}
