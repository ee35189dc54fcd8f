import Blocks
import Files
import Foundation
import Volumes

/// The write policy of a volume as it is kept beside its log, and the directory of its cloud-only disk.
///
/// A file that can't be read keeps the volume from being served: with a policy that was made up, bytes would go home that must not.
struct StoredRegions: Sendable {
    /// The name of the file, and of the directory.
    private static let fileName = "regions"
    private static let directoryName = "cloud-only"
    private static let fileBytesMax = 256 << 10

    let table: RegionTable
    /// Nil while there has never been a cloud-only disk.
    let directory: OpenDirectory?

    /// Reads what is kept of the volume in `directory`.
    init(in directory: OpenDirectory) throws {
        let names = try directory.list()
        if names.contains(Self.fileName) {
            let bytes = try directory.readFile(Self.fileName, byteCountMax: Self.fileBytesMax)
            do {
                table = try JSONDecoder().decode(StoredTable.self, from: Data(bytes)).table()
            } catch {
                throw EdgeFailure(
                    .state,
                    "\(directory.path)/\(Self.fileName) is damaged: put a copy of it back, or remove it to have all writes go home")
            }
        } else {
            table = RegionTable()
        }
        self.directory = names.contains(Self.directoryName) || !table.isTrivial ? try Self.makeDirectory(in: directory) : nil
    }

    /// The directory of the cloud-only disk, made when it is missing. It blocks.
    static func makeDirectory(in directory: OpenDirectory) throws(FileSystemError) -> OpenDirectory {
        let made = try OpenDirectory("\(directory.path)/\(directoryName)", create: true)
        try directory.synchronize()
        return made
    }

    /// Keeps a table, durably. It blocks.
    static func keep(_ table: RegionTable, in directory: OpenDirectory) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        try directory.replaceFile(fileName, with: Array(encoder.encode(StoredTable(table))))
    }
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

    init(_ table: RegionTable) {
        defaultPolicy = table.defaultPolicy.rawValue
        regions = table.regions.map {
            Region(start: $0.range.start, count: $0.range.count, policy: $0.policy.rawValue, origin: $0.origin.rawValue)
        }
        imaging = table.imaging.map { Range(start: $0.start, count: $0.count) }
    }

    struct Damage: Error {}

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
            table.beginImaging(range)
        }
        return table
    }
}
