import Blocks
import Files
import Foundation
import SecureCache

/// How the cache is divided, in a file of its own in the state directory: so it outlives restarts.
enum KeptDivision {
    private static let fileName = "cache-division"
    private static let fileBytesMax = 2 << 20

    /// The file says nothing. That costs hits, and keeps nobody from serving.
    struct Damage: Error, CustomStringConvertible {
        var description: String { "the file \(fileName) is damaged" }
    }

    /// It would be too large to be read again.
    struct TooLarge: Error, CustomStringConvertible {
        var description: String { "shares and pins of all volumes would take more than \(fileBytesMax) bytes: pin fewer and longer ranges" }
    }

    /// What was kept; no division when nothing was.
    static func read(in directory: OpenDirectory) throws -> CacheDivision {
        guard try directory.list().contains(fileName) else { return CacheDivision() }
        let bytes = try directory.readFile(fileName, byteCountMax: fileBytesMax)
        guard let stored = try? JSONDecoder().decode(StoredDivision.self, from: Data(bytes)), let division = stored.division else {
            throw Damage()
        }
        return division
    }

    /// Puts a damaged file out of the way, for who wants to look at it. It blocks.
    /// - Returns: its name.
    static func setAside(in directory: OpenDirectory) throws -> String {
        let name = fileName + ".damaged"
        try directory.rename(fileName, to: name)
        try directory.synchronize()
        return name
    }

    /// Keeps a division, durably. It blocks.
    static func keep(_ division: CacheDivision, in directory: OpenDirectory) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        let bytes = try encoder.encode(StoredDivision(division))
        if bytes.count > fileBytesMax { throw TooLarge() }
        try directory.replaceFile(fileName, with: Array(bytes))
    }
}

/// The division in JSON. Pins are in blocks, volumes go by the identifiers of their attachments.
private struct StoredDivision: Codable {
    struct Share: Codable {
        var partition: String?
        var guaranteedBytes: UInt64
        var bytesMax: UInt64?
        /// The start and the end of each, one after the other.
        var pins: [UInt64]
    }

    var version = 1
    var partitions: [String: UInt64]
    var shares: [String: Share]

    init(_ division: CacheDivision) {
        partitions = division.partitions
        shares = Dictionary(
            uniqueKeysWithValues: division.shares.map { volume, share in
                let pins = share.pins.flatMap { [$0.lowerBound, $0.upperBound] }
                return (
                    volume.description,
                    Share(partition: share.partition, guaranteedBytes: share.guaranteedBytes, bytesMax: share.bytesMax, pins: pins)
                )
            })
    }

    /// Nil when it is damaged.
    var division: CacheDivision? {
        guard version == 1 else { return nil }
        var division = CacheDivision()
        division.partitions = partitions
        for (identifier, stored) in shares {
            guard let volume = VolumeIdentifier(hexadecimal: identifier), stored.pins.count.isMultiple(of: 2) else { return nil }
            var share = CacheDivision.Share()
            share.partition = stored.partition
            share.guaranteedBytes = stored.guaranteedBytes
            share.bytesMax = stored.bytesMax
            for index in stride(from: 0, to: stored.pins.count, by: 2) {
                let (start, end) = (stored.pins[index], stored.pins[index + 1])
                guard start < end, end <= CacheDivision.blocksMax else { return nil }
                share.pins.append(start..<end)
            }
            division.shares[volume] = share
        }
        return division
    }
}
