import Blocks
import Disks
import Files
import LocalFiles
import NIOCore

/// What a point journal of an on-prem edge holds.
public struct OfflineJournal: Codable, Equatable, Sendable {
    /// One point file.
    public struct Point: Codable, Equatable, Sendable {
        public let number: UInt64
        /// `received`: whole, and applied to the disk when the daemon starts. `held`: whole, and not applied before all volumes of its
        /// group have theirs. `leftOver`: on the disk already. `incomplete`: was on
        /// its way, and is sent again.
        public let state: JournalReport.PointState
        public let pieces: Int
        public let bytes: UInt64
        /// The number of the cut of its group; missing for one that carries none.
        public let cut: UInt64?
    }

    /// The journal's directory, called like the disk.
    public let directory: String
    /// The identifier of the attachment; missing in a journal that was never used.
    public let volume: String?
    /// The last point that the position file vouches for as received, and the last that is on the disk.
    public let received: UInt64?
    public let applied: UInt64?
    public let points: [Point]
    /// The number of the last cut of its group that the disk has gone to; missing for none.
    public let cut: UInt64?
    /// The files of points that an attachment that was ended by force left held. They are on no disk, and nobody applies them.
    public let keptFiles: [String]
    /// What no crash leaves: a daemon does not open the journal with it.
    public let damages: [OfflineDamage]
}

extension StateDirectoryGuard {
    /// Holds a state directory against daemons, or says that one uses it.
    static func hold(_ path: String) throws(OfflineError) -> StateDirectoryGuard {
        let directory: OpenDirectory
        do throws(FileSystemError) { directory = try OpenDirectory(path) } catch {
            throw OfflineError("the state directory can't be read: \(error)")
        }
        do throws(StateDirectoryError) { return try StateDirectoryGuard(directory: directory) } catch {
            throw OfflineError("\(error)", action: "What is in use changes while it is read: stop causewayd first.")
        }
    }
}

/// Reads the journals of an on-prem edge whose daemon does not run. Nothing is written.
public actor JournalVerifier {
    /// Where an on-prem edge keeps the journals of its disks.
    private static let place = "journals"

    private nonisolated let loop: OfflineLoop

    public nonisolated var unownedExecutor: UnownedSerialExecutor { loop.eventLoop.executor.asUnownedSerialExecutor() }

    public init(loop: OfflineLoop = .shared) {
        self.loop = loop
    }

    /// Reads the journals of all disks below a state directory, which is held against daemons meanwhile.
    public func verify(state path: String) async throws -> [OfflineJournal] {
        let guarding = try StateDirectoryGuard.hold(path)
        let names: [String]
        do throws(FileSystemError) { names = try OpenDirectory("\(path)/\(Self.place)").list() } catch {
            throw OfflineError("there are no journals in \(path): \(error)", action: "Name the state directory of an on-prem edge.")
        }
        var journals: [OfflineJournal] = []
        for name in names.sorted() where !name.hasPrefix(".") {
            journals.append(try await read("\(path)/\(Self.place)/\(name)"))
        }
        withExtendedLifetime(guarding) {}
        return journals
    }

    /// Reads one journal. When it lies in a state directory, that is held against daemons meanwhile.
    public func verify(directory path: String) async throws -> OfflineJournal {
        let guarding = try StateDirectoryGuard.hold("\(path)/../..")
        defer { withExtendedLifetime(guarding) {} }
        return try await read(path)
    }

    private func read(_ path: String) async throws(OfflineError) -> OfflineJournal {
        let directory: OpenDirectory
        do throws(FileSystemError) { directory = try OpenDirectory(path) } catch { throw OfflineError("\(error)") }
        let files = LocalDirectory(directory, eventLoop: loop.eventLoop, threadPool: loop.threadPool, isReadOnly: true)
        let report: JournalReport
        do throws(StorageFileError) { report = try await completed { JournalReader.read(directory: files, completion: $0) } } catch {
            throw OfflineError("the journal \(path) can't be read: \(error)")
        }
        return OfflineJournal(
            directory: path, volume: report.volume?.description, received: report.position?.received, applied: report.position?.applied,
            points: report.points.map {
                .init(
                    number: $0.number, state: $0.state, pieces: $0.pieceCount, bytes: $0.byteCount,
                    cut: $0.group.flatMap { $0.isCut ? $0.number : nil })
            },
            cut: report.cut?.number, keptFiles: report.keptFiles,
            damages: report.damages.map { OfflineDamage(file: "\(path)/\($0.file)", offset: $0.offset, message: $0.text) })
    }
}
