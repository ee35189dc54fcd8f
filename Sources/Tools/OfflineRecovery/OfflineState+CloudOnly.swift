import Blocks
import Ciphers
import CloudOnlyDisk
import Files
import LocalFiles
import NIOCore
import WriteLog

extension OfflineState {
    /// The cloud-only disk of a volume, as a daemon would have it when it starts; nothing of that reaches the files.
    typealias OfflineCloudOnlyDisk = CloudOnlyDisk<OverlayDirectory<LocalDirectory>>

    /// The end of the last sector that a cloud-only disk holds; 0 when it holds none.
    func endOfHeld(by disk: OfflineCloudOnlyDisk) -> UInt64 {
        var (low, high) = (UInt64(0), UInt64(Int64.max) / UInt64(BlockGeometry.sectorBytes))
        let end = high
        while low < high {
            let middle = low + (high - low) / 2
            if disk.holds(overlapping: SectorRange(from: middle, to: end)) { low = middle + 1 } else { high = middle }
        }
        return low
    }

    /// Opens the cloud-only disk beside a log; nil when there is none.
    func openCloudOnlyDisk(beside place: LogPlace, _ key: RecoveryKey) async throws -> OfflineCloudOnlyDisk? {
        guard hasCloudOnlyDisk(place) else { return nil }
        let path = "\(place.directory.path)/\(Self.cloudOnlyDirectory)"
        let directory: OpenDirectory
        do throws(FileSystemError) { directory = try OpenDirectory(path) } catch { throw OfflineError("\(error)") }
        var failure = WriteLogError.wrongKey
        // Its files do not say which key they are under.
        for generation in key.keys.generations {
            guard let dataKey = key.keys[generation] else { continue }
            let local = LocalDirectory(directory, eventLoop: loop.eventLoop, threadPool: loop.threadPool, isReadOnly: true)
            let files = OverlayDirectory(local, eventLoop: loop.eventLoop)
            // One whose files are missing is not made: an empty one would pass for it.
            let names: [String]
            do throws(StorageFileError) { names = try await completed { files.list(completion: $0) } } catch {
                throw OfflineError("\(error)")
            }
            if names.isEmpty { return nil }
            do throws(WriteLogError) {
                return try await completed {
                    OfflineCloudOnlyDisk.open(
                        directory: files, volume: place.identifier, sectorCount: key.sectorCount, key: dataKey, random: .system,
                        clock: { .now() }, completion: $0)
                }
            } catch {
                failure = error
                guard error.isOfKey else { break }
            }
        }
        throw OfflineError(
            "the cloud-only disk in \(path) can't be read: \(Self.text(failure, key))",
            action: "Put the newest copy of that directory back, or leave its writes out with --without-cloud-only.")
    }
}
