import Blocks
import Ciphers
import NIOCore

/// Something in the files of a log that should not be there, or that is missing.
public struct LogDamage: Equatable, Sendable {
    /// The name of the file.
    public let file: String
    /// Where in the file, in bytes.
    public let offset: UInt64
    /// What is wrong, for people.
    public let text: String

    public init(file: String, offset: UInt64, text: String) {
        self.file = file
        self.offset = offset
        self.text = text
    }
}

/// One point of a log, as a reader finds it.
public struct LogPointSummary: Equatable, Sendable {
    /// Its number.
    public let number: PointNumber
    /// It was closed between whole commands. The one that is not is the last: it gathered writes when the log was left.
    public let isSealed: Bool
    /// The bytes of data that it holds after overlaps were removed; zeroes count nothing.
    public let byteCount: UInt64
    /// How many batches it has.
    public let batchCount: UInt64
    /// The bytes of its files up to the end of the last good batch.
    public let fileBytes: UInt64
    /// What its seal carries; nil for nothing, and for one that is not sealed.
    public let attributes: PointAttributes?
}

/// What the files of a log tell to someone without its key.
public struct LogOutline: Equatable, Sendable {
    /// The volume that the first good header names, and the log.
    public internal(set) var volume: VolumeIdentifier?
    public internal(set) var logIdentifier: LogIdentifier?
    /// The oldest and the newest epoch; the newest need not hold a write.
    public internal(set) var epochs: ClosedRange<PointNumber>?
    public internal(set) var fileCount = 0
    /// The bytes of all files, with what may stand ahead of the batches.
    public internal(set) var byteCount: UInt64 = 0
    /// Files whose header is damaged.
    public internal(set) var damages: [LogDamage] = []
}

/// A log that nobody serves, read by whoever has the key. Nothing is written to its directory, not even what opening it to serve
/// it would repair: the row of batches is found in the same way, and ends where it ends for a daemon.
///
/// A daemon does not open a log that is damaged. A reader opens it and says what is wrong; what it holds is what is before the first
/// damage. All calls are made on one event loop, where all completions run too, possibly before the call returns.
public final class LogReader<Directory: StorageDirectory> {
    /// The volume whose writes these are.
    public let volume: VolumeIdentifier
    /// The name of the log; nil when no file of it could be used.
    public let logIdentifier: LogIdentifier?
    /// The points, oldest first. One that has not a single write is left out.
    public let points: [LogPointSummary]
    /// The last point that was sealed; 0 when nothing tells it.
    public let lastSealedPoint: PointNumber
    /// The last batch of the row, and the last one that a flush is known to have covered; 0 for none. Later ones may have been flushed too:
    /// a batch says what was durable before it was written.
    public let lastBatch: UInt64
    public let lastFlushedBatch: UInt64
    /// What keeps a daemon from opening the log, the first ones of it. The row ends before the first.
    public let damages: [LogDamage]
    /// What stands behind the last good batch, when it is the rest of one: what a crash leaves of a write that was on its way.
    public let tornTail: LogDamage?
    /// Files that are not part of the row: leftovers of a release, and what comes behind the end.
    public let unusedFiles: [String]

    private let encoding: LogEncoding
    private let epochs: [LogEpoch]

    private init(_ recovery: LogRecovery<Directory>) {
        volume = recovery.volume
        logIdentifier = recovery.logIdentifier
        encoding = recovery.encoding
        epochs = recovery.epochs.filter { $0.hasWrites || $0.isSealed }
        // The last epoch gathers writes, unless its seal is the last that there is.
        lastSealedPoint = recovery.epochs.last.map { $0.isSealed ? $0.number : $0.number - 1 } ?? 0
        lastBatch = (recovery.expected ?? 1) &- 1
        lastFlushedBatch = min(recovery.knownDurable, lastBatch)
        damages = recovery.damages
        tornTail = recovery.tornTail
        unusedFiles = recovery.discarded
        points = Self.summaries(of: epochs, lastBatch: lastBatch)
    }

    private static func summaries(of epochs: [LogEpoch], lastBatch: UInt64) -> [LogPointSummary] {
        epochs.map { epoch in
            let first = epoch.firstBatch ?? lastBatch
            let last = epoch.sealBatch ?? lastBatch
            return LogPointSummary(
                number: epoch.number, isSealed: epoch.isSealed, byteCount: epoch.byteCount,
                batchCount: last >= first ? last - first + 1 : 0,
                fileBytes: epoch.files.reduce(0) { $0 + $1.writeOffset }, attributes: epoch.attributes)
        }
    }

    /// Reads the log in `directory`.
    /// - Parameter verifiesData: opens the data of every batch too. Without it, data is opened when it is read.
    public static func open(
        directory: Directory, volume: VolumeIdentifier, keys: DataKeys, verifiesData: Bool = false,
        completion: @escaping (Result<LogReader, WriteLogError>) -> Void
    ) {
        var recovery: LogRecovery<Directory>?
        recovery = LogRecovery(
            directory: directory, volume: volume, keys: keys, now: .uptimeNanoseconds(0),
            purpose: .reading(verifiesData: verifiesData) { error in
                defer { recovery = nil }
                if let error { return completion(.failure(error)) }
                if let recovery { completion(.success(LogReader(recovery))) }
            })
        recovery?.start()
    }

    /// What a point holds: each sector once, in ascending order. Empty for a point that is not in `points`.
    public func contents(of point: PointNumber) -> [LogSegment] {
        guard let epoch = epochs.first(where: { $0.number == point }) else { return [] }
        var segments: [LogSegment] = []
        segments.reserveCapacity(epoch.map.count)
        epoch.map.forEach { segments.append(LogSegment(range: $0.range, content: $0.value.content)) }
        return segments
    }

    /// Reads and opens the bytes of a segment.
    public func read(_ segment: LogSegment, completion: @escaping (Result<ByteBuffer, WriteLogError>) -> Void) {
        guard case .data(let location) = segment.content else {
            return completion(.success(ByteBuffer(repeating: 0, count: segment.range.byteCount)))
        }
        encoding.read(segment.range, location.extent, completion: completion)
    }
}

extension LogReader {
    /// Reads the plaintext headers of the log's files: what can be told without a key. A file that can't be read is damage.
    public static func outline(of directory: Directory, completion: @escaping (Result<LogOutline, StorageFileError>) -> Void) {
        directory.list { result in
            switch result {
            case .failure(let error): completion(.failure(error))
            case .success(let all):
                let names = all.filter { LogFormat.parse(fileName: $0) != nil }.sorted()
                outline(of: directory, names[...], LogOutline(), completion)
            }
        }
    }

    private static func outline(
        of directory: Directory, _ names: ArraySlice<String>, _ found: LogOutline,
        _ completion: @escaping (Result<LogOutline, StorageFileError>) -> Void
    ) {
        guard let name = names.first, let (epoch, _) = LogFormat.parse(fileName: name) else { return completion(.success(found)) }
        var outline = found
        outline.fileCount += 1
        outline.epochs = (outline.epochs?.lowerBound ?? epoch)...max(epoch, outline.epochs?.upperBound ?? epoch)
        let damaged = { (error: StorageFileError) in
            outline.damages.append(LogDamage(file: name, offset: 0, text: "it can't be read: \(error)"))
            Self.outline(of: directory, names.dropFirst(), outline, completion)
        }
        let goOn = { (size: UInt64, header: ByteBuffer) in
            outline.byteCount += size
            if let header = try? LogFileHeader(parsing: header) {
                outline.volume = outline.volume ?? header.volume
                outline.logIdentifier = outline.logIdentifier ?? header.log
            } else {
                outline.damages.append(LogDamage(file: name, offset: 0, text: "its header is not whole, or of another version"))
            }
            Self.outline(of: directory, names.dropFirst(), outline, completion)
        }
        directory.open(name, create: false) { result in
            let file: Directory.File
            switch result {
            case .success(let opened): file = opened
            case .failure(let error): return damaged(error)
            }
            file.size { size in
                file.read(at: 0, byteCount: LogFormat.headerBytes) { header in
                    file.close()
                    switch (size, header) {
                    case (.success(let size), .success(let header)): goOn(size, header)
                    case (.failure(let error), _), (_, .failure(let error)): damaged(error)
                    }
                }
            }
        }
    }
}

extension LogSegment {
    /// The first `count` sectors, and what is left; nil when nothing is.
    public func split(afterSectors count: UInt64) -> (first: LogSegment, rest: LogSegment?) {
        guard count < range.count else { return (self, nil) }
        let middle = range.start + count
        let rest: LogContent =
            switch content {
            case .zeroes: .zeroes
            case .absent: .absent
            case .data(let location): .data(LogLocation(extent: location.extent.dropping(sectors: count)))
            }
        return (
            LogSegment(range: SectorRange(from: range.start, to: middle), content: content),
            LogSegment(range: SectorRange(from: middle, to: range.end), content: rest)
        )
    }
}
