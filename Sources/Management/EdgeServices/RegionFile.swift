import Blocks
import CloudOnlyDisk
import Files
import Foundation
import Volumes
import WriteLog

/// The write policy of a volume as it is kept beside its log, and its cloud-only disk: the directory, and which disk it is.
///
/// A file that can't be read keeps the volume from being served: with a policy that was made up, bytes would go home that must not. So
/// does a disk that is not there any more, or is another one: the bytes below it would be taken for the newest.
struct StoredRegions: Sendable {
    /// The name of the file, and of the directory.
    private static let fileName = "regions"
    private static let directoryName = "cloud-only"
    /// How far the disk has come, which is kept more often than the table: a file of its own, so that neither is in the other's way.
    private static let markName = "cloud-only-mark"
    private static let fileBytesMax = 256 << 10

    let table: RegionTable
    /// The cloud-only disk that the volume has; nil while it has none, or none that anything was written to.
    let disk: CloudOnlyMark?
    /// Nil while there has never been a cloud-only disk.
    let directory: OpenDirectory?

    /// Reads what is kept of the volume in `directory`.
    init(in directory: OpenDirectory) throws {
        let names = try directory.list()
        if names.contains(Self.fileName) {
            let bytes = try directory.readFile(Self.fileName, byteCountMax: Self.fileBytesMax)
            do {
                let stored = try JSONDecoder().decode(StoredTable.self, from: Data(bytes))
                table = try stored.table()
                disk = try stored.diskIdentifier().map { CloudOnlyMark(identifier: $0, epoch: Self.epoch(of: $0, names, directory)) }
            } catch {
                throw EdgeFailure(
                    .state,
                    "\(directory.path)/\(Self.fileName) is damaged: put a copy of it back, or remove it to have all writes go home")
            }
        } else {
            table = RegionTable()
            disk = nil
        }
        if disk != nil, !names.contains(Self.directoryName) {
            throw EdgeFailure(.state, "the cloud-only disk is missing: put \(directory.path)/\(Self.directoryName) back. \(Self.ifLost)")
        }
        self.directory = names.contains(Self.directoryName) ? try Self.makeDirectory(in: directory) : nil
    }

    /// What is left to do when the disk is gone for good.
    static let ifLost =
        "If it is lost for good, detach the volume with --force and attach it again: then the disk at home shows what it had in the "
        + "cloud-only ranges"

    /// The directory of the cloud-only disk, made when it is missing. It blocks.
    static func makeDirectory(in directory: OpenDirectory) throws(FileSystemError) -> OpenDirectory {
        let made = try OpenDirectory("\(directory.path)/\(directoryName)", create: true)
        try directory.synchronize()
        return made
    }

    /// Removes what is left of a disk that could not be made; one that a table was ever kept for stays. It blocks.
    static func removeUnusedDisk(in directory: OpenDirectory) throws {
        if try directory.list().contains(fileName) { return }
        try FileManager.default.removeItem(atPath: "\(directory.path)/\(directoryName)")
        try directory.synchronize()
    }

    /// How far the disk had come when that was kept last; 0 when it is not known. A mark only ever finds an old copy, so that one which
    /// can't be read keeps nobody from serving.
    private static func epoch(of disk: LogIdentifier, _ names: [String], _ directory: OpenDirectory) -> PointNumber {
        guard names.contains(markName), let bytes = try? directory.readFile(markName, byteCountMax: fileBytesMax),
            let mark = try? JSONDecoder().decode(StoredMark.self, from: Data(bytes)), mark.disk == disk.description
        else { return 0 }
        return mark.epoch
    }

    /// Keeps how far the disk has come, durably. It blocks.
    static func keep(_ mark: CloudOnlyMark, in directory: OpenDirectory) throws {
        let bytes = try JSONEncoder().encode(StoredMark(disk: mark.identifier.description, epoch: mark.epoch))
        try directory.replaceFile(markName, with: Array(bytes))
    }

    /// Keeps a table, and which disk belongs to it, durably. It blocks.
    static func keep(_ table: RegionTable, disk: LogIdentifier?, in directory: OpenDirectory) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        try directory.replaceFile(fileName, with: Array(encoder.encode(StoredTable(table, disk: disk))))
    }
}

/// How far a disk has come, in JSON.
private struct StoredMark: Codable {
    var disk: String
    var epoch: PointNumber
}

/// The table in JSON. Ranges are in sectors.
private struct StoredTable: Codable {
    struct Region: Codable {
        var start: UInt64
        var count: UInt64
        var policy: String
        var origin: String
    }
    struct Range: Codable {
        var start: UInt64
        var count: UInt64
    }

    var version = 1
    var defaultPolicy: String
    var regions: [Region]
    var imaging: [Range]
    var disk: String?

    init(_ table: RegionTable, disk: LogIdentifier?) {
        self.disk = disk?.description
        defaultPolicy = table.defaultPolicy.rawValue
        regions = table.regions.map {
            Region(start: $0.range.start, count: $0.range.count, policy: $0.policy.rawValue, origin: $0.origin.rawValue)
        }
        imaging = table.imaging.map { Range(start: $0.start, count: $0.count) }
    }

    struct Damage: Error {}

    func diskIdentifier() throws -> LogIdentifier? {
        guard let disk else { return nil }
        guard let identifier = LogIdentifier(hexadecimal: disk) else { throw Damage() }
        return identifier
    }

    func table() throws -> RegionTable {
        guard version == 1, let policy = WritePolicy(rawValue: defaultPolicy) else { throw Damage() }
        var table = RegionTable(defaultPolicy: policy)
        for region in regions {
            guard let policy = WritePolicy(rawValue: region.policy), let origin = RegionOrigin(rawValue: region.origin),
                let range = SectorRange(start: region.start, count: region.count)
            else { throw Damage() }
            // It was checked against the disk's size when it was set; a disk only grows.
            try table.set(range, to: policy, origin: origin, sectorCount: range.end)
        }
        for held in imaging {
            guard let range = SectorRange(start: held.start, count: held.count) else { throw Damage() }
            try table.beginImaging(range)
        }
        return table
    }
}
