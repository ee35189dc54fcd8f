import Blocks
import Ciphers
import EdgeConfiguration
import Files
import Foundation
import NIOCore
import SecureCache

/// How the cache is divided, in a file of its own in the state directory: so it outlives restarts. It is sealed under the cache's key, because
/// the customer has named the partitions.
enum KeptDivision {
    static let fileName = "cache-division"
    static let format = SealedFile(
        magic: 0x4341_5553_4543_4456,  // "CAUSECDV"
        version: 1, purpose: "causeway cache division 1")
    /// It is the edge's, of which there is one.
    static let owner = VolumeIdentifier(high: 0, low: 0)
    private static let fileBytesMax = 2 << 20

    /// The file says nothing. That costs hits, and keeps nobody from serving.
    struct Damage: Error, CustomStringConvertible {
        var reason: String
        var description: String { "the file \(fileName) can't be used: \(reason)" }
    }

    /// It would be too large to be read again.
    struct TooLarge: Error, CustomStringConvertible {
        var description: String {
            "shares and pins of all volumes would take more than \(ByteSize.text(UInt64(fileBytesMax))): pin fewer and longer ranges"
        }
    }

    /// What was kept; no division when nothing was. It blocks.
    static func read(in directory: OpenDirectory, key: SecretKey) throws -> CacheDivision {
        guard try directory.list().contains(fileName) else { return CacheDivision() }
        let bytes = try directory.readFile(fileName, byteCountMax: fileBytesMax)
        let state: ByteBuffer
        do {
            state = try format.unseal(ByteBuffer(bytes: bytes), owner: owner, key: key)
        } catch let error as SealedFileError {
            throw Damage(reason: "\(error)")
        }
        guard let stored = try? JSONDecoder().decode(StoredDivision.self, from: Data(state.readableBytesView)),
            let division = stored.division
        else { throw Damage(reason: "what it holds makes no sense") }
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
    static func keep(_ division: CacheDivision, in directory: OpenDirectory, key: SecretKey) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        var random = RandomSource.system
        let file = try format.seal(
            ByteBuffer(bytes: encoder.encode(StoredDivision(division))), owner: owner, key: key, salt: random.bytes(SealedFile.saltBytes))
        if file.readableBytes > fileBytesMax { throw TooLarge() }
        try directory.replaceFile(fileName, with: file.readableBytesView)
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

    /// Nil when it makes no sense.
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
