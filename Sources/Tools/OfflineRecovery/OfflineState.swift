import Blocks
import Ciphers
import Files
import LocalFiles
import NIOCore
import WriteLog

/// The state directory of a cloud edge whose daemon does not run. Nothing in it is written.
public actor OfflineState {
    /// Where a cloud edge keeps the logs of its volumes, and those of volumes that it had to let go.
    static let places = ["volumes", "retired"]
    /// The cloud-only disk of a volume, beside its log.
    static let cloudOnlyDirectory = "cloud-only"

    nonisolated let loop: OfflineLoop
    nonisolated let directory: OpenDirectory
    /// Keeps daemons from starting meanwhile.
    private let guarding: StateDirectoryGuard
    /// By identifier.
    let keys: [VolumeIdentifier: RecoveryKey]

    public nonisolated var unownedExecutor: UnownedSerialExecutor { loop.eventLoop.executor.asUnownedSerialExecutor() }

    /// Opens the directory, and keeps daemons off it as long as this object lives. Refuses while one uses it.
    public init(path: String, keys: [RecoveryKey], loop: OfflineLoop = .shared) throws(OfflineError) {
        self.loop = loop
        self.keys = Dictionary(keys.map { ($0.identifier, $0) }) { _, last in last }
        do throws(FileSystemError) { directory = try OpenDirectory(path) } catch {
            throw OfflineError("the state directory can't be read: \(error)")
        }
        do throws(StateDirectoryError) { guarding = try StateDirectoryGuard(directory: directory) } catch {
            throw OfflineError("\(error)", action: "Offline tools read what no daemon writes: stop causewayd first.")
        }
    }

    /// A directory with the log of a volume.
    struct LogPlace {
        let identifier: VolumeIdentifier
        /// Below the state directory: `volumes/IDENTIFIER`.
        let name: String
        let directory: OpenDirectory
    }

    /// All directories with logs, those of served volumes first.
    func logPlaces() throws(OfflineError) -> [LogPlace] {
        var found: [LogPlace] = []
        for place in Self.places {
            do throws(FileSystemError) {
                for name in try OpenDirectory("\(directory.path)/\(place)").list().sorted() {
                    // One that was retired while an older one of the same name was there has a number behind it.
                    guard let identifier = VolumeIdentifier(hexadecimal: String(name.prefix { $0 != "." })) else { continue }
                    let path = "\(place)/\(name)"
                    found.append(
                        LogPlace(identifier: identifier, name: path, directory: try OpenDirectory("\(directory.path)/\(path)")))
                }
            } catch {
                if !error.isNotFound { throw OfflineError("\(error)") }
            }
        }
        return found
    }

    func files(of place: LogPlace) -> LocalDirectory {
        LocalDirectory(place.directory, eventLoop: loop.eventLoop, threadPool: loop.threadPool, isReadOnly: true)
    }

    /// True when there is a cloud-only disk beside the log.
    func hasCloudOnlyDisk(_ place: LogPlace) -> Bool {
        // A directory whose names can't be read has no log that can be read either.
        (try? place.directory.list().contains(Self.cloudOnlyDirectory)) ?? false
    }

    func openLog(_ place: LogPlace, _ key: RecoveryKey, verifiesData: Bool) async throws(WriteLogError) -> LogReader<LocalDirectory> {
        let files = files(of: place)
        return try await completed {
            LogReader.open(directory: files, volume: place.identifier, keys: key.keys, verifiesData: verifiesData, completion: $0)
        }
    }
}

/// What a state directory holds of one volume.
public struct OfflineVolume: Codable, Equatable, Sendable {
    /// One point of its log.
    public struct Point: Codable, Equatable, Sendable {
        public let number: UInt64
        /// Closed between whole commands. The one that is not was gathering writes when the edge ended.
        public let sealed: Bool
        /// The data in it after overlaps were removed.
        public let bytes: UInt64
        public let batches: UInt64
        /// What its files take.
        public let fileBytes: UInt64
        /// The number of the cut of its group; missing for one that carries none.
        public let cut: UInt64?
    }

    /// The identifier of the attachment.
    public let identifier: String
    /// Known from the key; missing without one.
    public let name: String?
    /// Where the log is, below the state directory.
    public let directory: String
    /// The edge served it: it had not put the log aside.
    public var isServed: Bool { directory.hasPrefix(OfflineState.places[0] + "/") }
    public internal(set) var files = 0
    /// What the files take.
    public internal(set) var bytes: UInt64 = 0
    /// The oldest and the newest point that have a file; the newest need not hold a write.
    public internal(set) var oldestPoint: UInt64?
    public internal(set) var newestPoint: UInt64?
    /// The points with writes, oldest first; missing without a key that opens them.
    public internal(set) var points: [Point]?
    /// The last batch of writes, and the last one that a flush is known to have covered.
    public internal(set) var lastBatch: UInt64?
    public internal(set) var lastFlushedBatch: UInt64?
    /// What is wrong with the log: it can be read up to the first of these.
    public internal(set) var damages: [OfflineDamage] = []
    /// The rest of a write that was on its way when the edge ended. No flush covered it, as far as the log tells.
    public internal(set) var tornTail: OfflineDamage?
    /// Files that are not part of the log any more.
    public internal(set) var unusedFiles: [String] = []
    /// There is a cloud-only disk beside the log: what was written to it is in no point, and not looked at.
    public internal(set) var hasCloudOnlyDisk = false

    /// True when the log could be read with a key.
    public var isOpen: Bool { points != nil }
}

extension OfflineState {
    /// What the directory holds of each volume. Without a key for it that is what the plaintext headers say.
    /// - Parameter verifiesData: opens every byte of the logs, too.
    public func volumes(verifiesData: Bool = false) async throws -> [OfflineVolume] {
        var volumes: [OfflineVolume] = []
        for place in try logPlaces() { volumes.append(try await describe(place, verifiesData: verifiesData)) }
        return volumes
    }

    private func describe(_ place: LogPlace, verifiesData: Bool) async throws -> OfflineVolume {
        let files = files(of: place)
        let outline: LogOutline
        do throws(StorageFileError) { outline = try await completed { LogReader.outline(of: files, completion: $0) } } catch {
            throw OfflineError("the log in \(place.name) can't be read: \(error)")
        }
        let key = keys[place.identifier]
        var volume = OfflineVolume(identifier: place.identifier.description, name: key?.name, directory: place.name)
        volume.hasCloudOnlyDisk = hasCloudOnlyDisk(place)
        volume.files = outline.fileCount
        volume.bytes = outline.byteCount
        volume.oldestPoint = outline.epochs?.lowerBound
        volume.newestPoint = outline.epochs?.upperBound
        volume.damages = outline.damages.map { damage($0, in: place) }
        guard let key else { return volume }
        do throws(WriteLogError) {
            let log = try await openLog(place, key, verifiesData: verifiesData)
            take(log, in: place, into: &volume)
        } catch {
            volume.damages.append(damage(LogDamage(file: "", offset: 0, text: Self.text(error, key)), in: place))
        }
        return volume
    }

    private func take(_ log: LogReader<LocalDirectory>, in place: LogPlace, into volume: inout OfflineVolume) {
        volume.points = log.points.map {
            .init(
                number: $0.number, sealed: $0.isSealed, bytes: $0.byteCount, batches: $0.batchCount, fileBytes: $0.fileBytes,
                cut: $0.attributes?.group.flatMap { $0.isCut ? $0.number : nil })
        }
        volume.lastBatch = log.lastBatch
        volume.lastFlushedBatch = log.lastFlushedBatch
        volume.damages = log.damages.map { damage($0, in: place) }
        volume.tornTail = log.tornTail.map { damage($0, in: place) }
        volume.unusedFiles = log.unusedFiles
    }

    private func damage(_ damage: LogDamage, in place: LogPlace) -> OfflineDamage {
        let file = damage.file.isEmpty ? "" : "/\(damage.file)"
        return OfflineDamage(file: "\(place.directory.path)\(file)", offset: damage.offset, message: damage.text)
    }

    static func text(_ error: WriteLogError, _ key: RecoveryKey) -> String {
        guard error == .wrongKey else { return error.text }
        return
            "the key of volume \(key.name) in the key file does not open it: the log is of another attachment, or the key of another edge"
    }
}
