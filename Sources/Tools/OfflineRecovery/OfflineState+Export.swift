import Blocks
import CloudOnlyDisk
import Files
import LocalFiles
import NIOCore
import WriteLog

// An export, step by step:
//
//     read the log ──► choose the points ──► make the image: a copy of the base, or holes, under a temporary name; or open the disk itself
//                  ──► put the points over it, oldest first, then what is cloud-only ──► make it durable ──► give it its name

/// Where an export goes.
public enum ExportDestination: Sendable {
    /// A new image file at a path: a copy of `base`, or holes where no write is. It takes another file's place only with `replaces`.
    case image(path: String, base: String?, replaces: Bool)
    /// An image or a device that is there, and that nobody uses.
    case inPlace(path: String)

    var path: String {
        switch self {
        case .image(let path, _, _), .inPlace(let path): path
        }
    }
}

/// Where an export ends.
public enum ExportEnd: Equatable, Sendable {
    /// With the last write that arrived.
    case lastWrite
    /// With a sealed point.
    case point(UInt64)
    /// With the volume's part of the last cut of its group that the logs of all its volumes hold: images of each that end so are of one
    /// instant.
    case lastCut
}

/// What an export did.
public struct OfflineExport: Codable, Equatable, Sendable {
    /// The volume's name.
    public let volume: String
    /// The image.
    public let image: String
    /// The size of the image in bytes.
    public let imageBytes: UInt64
    /// The points that were put over the base, oldest first.
    public let points: [UInt64]
    /// The number of the group's cut that the image is at, and the volume's point in it; missing when it was not asked for.
    public let cut: UInt64?
    public let cutPoint: UInt64?
    /// False when the last one was not sealed: the image has all writes that arrived, and may be between two commands of the machine's
    /// file systems, as after a power cut.
    public let endsSealed: Bool
    /// The bytes written, and those that were made zero.
    public let writtenBytes: UInt64
    public let zeroedBytes: UInt64
    /// The file that says which ranges are in the image, when there was no base.
    public let map: String?
    /// The bytes of cloud-only writes that were put over the points.
    public let cloudOnlyBytes: UInt64
    /// The volume has a cloud-only disk, whose writes are not in the image.
    public let lacksCloudOnlyWrites: Bool
}

extension OfflineState {
    /// The largest piece that is read and written at a time.
    private static let pieceSectors: UInt64 = 2048

    /// Puts the unsent points of a volume over an image.
    /// - Parameters:
    ///   - name: the name of the volume, or its identifier, or the directory of its log where there are several.
    ///   - end: the last point that counts.
    ///   - cloudOnly: what is cloud-only is put over them, as a machine sees it. Nobody knows what that was at an earlier point, so only
    ///     with `lastWrite`.
    public func export(
        volume name: String, through end: ExportEnd = .lastWrite, to destination: ExportDestination, cloudOnly: Bool = true
    ) async throws -> OfflineExport {
        let (place, key) = try place(of: name)
        let log = try await readLog(place, key)
        let cut = end == .lastCut ? try await lastCut(of: key) : nil
        let points = try points(of: log, through: end, cut?.point(of: key.identifier))
        let disk = cloudOnly && end == .lastWrite ? try await openCloudOnlyDisk(beside: place, key) : nil
        let contents = points.map { log.contents(of: $0.number) }
        // The disk may have grown since the key was exported.
        let sectorCount = contents.joined().reduce(max(key.sectorCount, disk.map(endOfHeld) ?? 0)) { max($0, $1.range.end) }
        let image = try await openImage(destination, byteCountMin: sectorCount * UInt64(BlockGeometry.sectorBytes))
        do {
            var written = WrittenExtent()
            for segments in contents { try await put(segments, of: log, over: image, &written) }
            let cloudOnlyBytes = try await put(disk, sectorCount: image.sectorCount, over: image, &written)
            try await synchronize(image)
            let map = try finish(destination, image, written.ranges)
            return OfflineExport(
                volume: key.name, image: destination.path, imageBytes: image.sectorCount * UInt64(BlockGeometry.sectorBytes),
                points: points.map(\.number), cut: cut?.number, cutPoint: cut?.point(of: key.identifier),
                endsSealed: points.last?.isSealed ?? true, writtenBytes: written.dataBytes,
                zeroedBytes: written.zeroedBytes, map: map, cloudOnlyBytes: cloudOnlyBytes,
                lacksCloudOnlyWrites: disk == nil && hasCloudOnlyDisk(place))
        } catch {
            image.close()
            if case .image(let path, _, _) = destination { try? OutputName(path).discard() }
            throw error
        }
    }

    /// The log of a volume, and the key that opens it. Of two copies nobody knows which is meant: the one is newer, the other may be whole.
    private func place(of name: String) throws(OfflineError) -> (LogPlace, RecoveryKey) {
        let places = try logPlaces()
        if let named = places.first(where: { $0.name == name }) { return (named, try key(of: named.identifier.description)) }
        let key = try key(of: name)
        let found = places.filter { $0.identifier == key.identifier }
        guard let place = found.first else {
            throw OfflineError("there is no log of volume \(key.name) (\(key.identifier)) in \(directory.path)")
        }
        guard found.count == 1 else {
            throw OfflineError(
                "there are \(found.count) logs of volume \(key.name) in \(directory.path)",
                action: "Name one by its directory, as causeway recover list shows them: \(found.map(\.name).joined(separator: ", ")).")
        }
        return (place, key)
    }

    private func key(of name: String) throws(OfflineError) -> RecoveryKey {
        let found = keys.values.filter { $0.name == name || $0.identifier.description == name }
        guard let key = found.first else {
            throw OfflineError("the key files have no key for a volume \(name)", action: "causeway recover list shows what there is.")
        }
        guard found.count == 1 else {
            throw OfflineError(
                "the key files have \(found.count) keys for volume \(name), of different attachments",
                action: "Name one by its identifier: \(found.map(\.identifier.description).sorted().joined(separator: ", ")).")
        }
        return key
    }

    /// Opens a log without reading its data, or says why it can't be.
    func readLog(_ place: LogPlace, _ key: RecoveryKey) async throws(OfflineError) -> LogReader<LocalDirectory> {
        do throws(WriteLogError) { return try await openLog(place, key, verifiesData: false) } catch {
            throw OfflineError("the log in \(place.directory.path) can't be read: \(Self.text(error, key))")
        }
    }

    private func points(
        of log: LogReader<LocalDirectory>, through end: ExportEnd, _ cutPoint: PointNumber?
    ) throws(OfflineError) -> [LogPointSummary] {
        // The log may have let go of the volume's part of a cut that others hold: then there is nothing to put over the base.
        if let cutPoint { return log.points.filter { $0.isSealed && $0.number <= cutPoint } }
        let sealed = log.points.filter(\.isSealed).map(\.number)
        let known =
            sealed.isEmpty ? "the log has no sealed point" : "the log has the sealed points \(sealed[0]) to \(sealed[sealed.count - 1])"
        if case .point(let through) = end {
            guard sealed.contains(through) else { throw OfflineError("there is no sealed point \(through): \(known)") }
            return log.points.filter { $0.number <= through }
        }
        if let damage = log.damages.first {
            throw OfflineError(
                "the log is damaged: \(damage.file) at \(damage.offset): \(damage.text)",
                action: "Writes behind that are lost. What is before it can be exported up to a point with --through: \(known).")
        }
        return log.points
    }

    // MARK: The image

    /// What has been put over an image.
    private struct WrittenExtent {
        var ranges = WrittenRanges()
        var dataBytes: UInt64 = 0
        var zeroedBytes: UInt64 = 0
    }

    private func openImage(_ destination: ExportDestination, byteCountMin: UInt64) async throws -> LocalDisk {
        switch destination {
        case .inPlace(let path):
            let disk = try await openDisk(path)
            guard disk.sectorCount * UInt64(BlockGeometry.sectorBytes) >= byteCountMin else {
                disk.close()
                throw OfflineError(
                    "\(path) has \(disk.sectorCount * UInt64(BlockGeometry.sectorBytes)) bytes, and the volume has \(byteCountMin)",
                    action: "Make it larger first, or name the right disk.")
            }
            return disk
        case .image(let path, let base, let replaces):
            guard byteCountMin > 0 || base != nil else {
                throw OfflineError("there is nothing to export: no writes, no base, and no size in the key file")
            }
            let output = try OutputName(path)
            if !replaces, try output.exists() { throw OutputName.exists(path) }
            let (threadPool, loop) = (loop.threadPool, loop.eventLoop)
            let copy = threadPool.runIfActive(eventLoop: loop) {
                let file = try output.create()
                if let base {
                    // A disk that an edge serves would be between two points.
                    try ImageCopy.copy(try OpenFile.readingAlone(base), to: file, byteCountMin: byteCountMin)
                } else {
                    try file.truncate(to: byteCountMin)
                }
            }
            do { try await copy.get() } catch {
                try? output.discard()
                if let error = error as? FileSystemError, error.isLocked {
                    throw OfflineError(
                        "\(base ?? path) is in use: an edge that serves it may put points on it", action: "Stop the on-prem daemon first.")
                }
                throw OfflineError("\(path) can't be made: \(error)")
            }
            return try await openDisk(output.temporaryPath)
        }
    }

    private func openDisk(_ path: String) async throws(OfflineError) -> LocalDisk {
        do throws(LocalDiskError) {
            return try await completed {
                LocalDisk.open(
                    path: path, eventLoop: loop.eventLoop, threadPool: loop.threadPool, options: .init(usesDirectIO: false), completion: $0)
            }
        } catch { throw OfflineError("\(error)") }
    }

    /// Writes the segments of one point. A segment may be as long as a command was, so it goes in pieces.
    private func put(
        _ segments: [LogSegment], of log: LogReader<LocalDirectory>, over image: LocalDisk, _ written: inout WrittenExtent
    ) async throws {
        for segment in segments {
            written.ranges.insert(segment.range)
            guard case .data = segment.content else {
                let range = segment.range
                try await write(range, image) {
                    image.writeZeroes(at: range.byteOffset, byteCount: UInt64(range.byteCount), completion: $0)
                }
                written.zeroedBytes += UInt64(range.byteCount)
                continue
            }
            var rest: LogSegment? = segment
            while let next = rest {
                let (piece, left) = next.split(afterSectors: Self.pieceSectors)
                let data: ByteBuffer
                do throws(WriteLogError) { data = try await completed { log.read(piece, completion: $0) } } catch {
                    throw OfflineError("the log can't be read: \(error.text)")
                }
                try await write(piece.range, image) { image.write(data, at: piece.range.byteOffset, completion: $0) }
                written.dataBytes += UInt64(piece.range.byteCount)
                rest = left
            }
        }
    }

    /// Writes what a cloud-only disk holds, and says how many bytes that are.
    private func put(
        _ disk: OfflineCloudOnlyDisk?, sectorCount: UInt64, over image: LocalDisk, _ written: inout WrittenExtent
    ) async throws -> UInt64 {
        guard let disk else { return 0 }
        var (position, held) = (UInt64(0), UInt64(0))
        while position < sectorCount {
            let window = SectorRange(from: position, to: min(sectorCount, position + Self.pieceSectors))
            position = window.end
            // Each is looked up anew: while one is read, others move from the journal to the files.
            var next = window.start
            while next < window.end, let segment = disk.segments(in: SectorRange(from: next, to: window.end), limit: 1).first {
                let range = segment.range
                next = range.end
                held += UInt64(range.byteCount)
                written.ranges.insert(range)
                if case .zeroes = segment.content {
                    try await write(range, image) {
                        image.writeZeroes(at: range.byteOffset, byteCount: UInt64(range.byteCount), completion: $0)
                    }
                    continue
                }
                let data: ByteBuffer
                do throws(WriteLogError) { data = try await completed { disk.read(segment, completion: $0) } } catch {
                    throw OfflineError("the cloud-only disk can't be read: \(error.text)")
                }
                try await write(range, image) { image.write(data, at: range.byteOffset, completion: $0) }
            }
        }
        return held
    }

    private func write(
        _ range: SectorRange, _ image: LocalDisk, _ call: (@escaping (Result<Void, StorageFileError>) -> Void) -> Void
    ) async throws(OfflineError) {
        do throws(StorageFileError) { try await completed(call) } catch {
            throw OfflineError("\(image.path) can't be written at \(range.byteOffset): \(error)")
        }
    }

    private func synchronize(_ image: LocalDisk) async throws(OfflineError) {
        do throws(StorageFileError) { try await completed { image.synchronize(completion: $0) } } catch {
            throw OfflineError("\(image.path) could not be made durable: \(error)")
        }
    }

    /// Gives a new image its name, and its map beside it. Returns the path of the map.
    private func finish(_ destination: ExportDestination, _ image: LocalDisk, _ ranges: WrittenRanges) throws -> String? {
        let imageBytes = image.sectorCount * UInt64(BlockGeometry.sectorBytes)
        image.close()
        guard case .image(let path, let base, let replaces) = destination else { return nil }
        let output = try OutputName(path)
        var map: String?
        if base == nil {
            let file = try OutputName(path + ".map")
            if !replaces, try file.exists() { throw OutputName.exists(path + ".map") }
            try file.write(Array(ranges.mapFile(byteCount: imageBytes).utf8))
            map = path + ".map"
        }
        try output.give(replaces: replaces)
        return map
    }
}
