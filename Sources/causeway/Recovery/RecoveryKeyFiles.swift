import APIModels
import Blocks
import Ciphers
import Foundation
import OfflineRecovery

/// The files that `causeway volume recovery-key` wrote.
struct RecoveryKeyFiles {
    /// What the files say of one attachment.
    private struct Attachment {
        var name: String
        var sectorCount: UInt64
        var keys: [KeyGeneration: SecretKey] = [:]
    }

    private var attachments: [VolumeIdentifier: Attachment] = [:]
    /// The keys of cloud edges' caches.
    private(set) var caches: [SecretKey] = []

    /// A key file is small; what is larger is none.
    private static let byteCountMax = 16 << 20

    /// The keys of volumes, of all files: those of one attachment together.
    var volumes: [RecoveryKey] {
        attachments.compactMap { identifier, found in
            DataKeys(found.keys).map { RecoveryKey(name: found.name, identifier: identifier, sectorCount: found.sectorCount, keys: $0) }
        }
    }

    init(_ paths: [String]) throws {
        for path in paths { try take(try Self.read(path), path) }
    }

    private static func read(_ path: String) throws -> RecoveryKeys {
        guard let file = FileHandle(forReadingAtPath: path), let data = try file.read(upToCount: byteCountMax) else {
            throw CommandFailure("the key file \(path) can't be read", action: "Check the path and its permissions.")
        }
        struct Form: Decodable { var version: Int }
        do {
            let version = try APICoding.decoder().decode(Form.self, from: data).version
            guard version <= RecoveryKeys.currentVersion else {
                throw CommandFailure(
                    "the key file \(path) has version \(version)", action: "Use the causeway that came with the edge it is from.")
            }
            return try APICoding.decoder().decode(RecoveryKeys.self, from: data)
        } catch is DecodingError {
            // Its words are left out: they may quote what is in the file.
            throw CommandFailure("\(path) is not a file of recovery keys", action: "causeway volume recovery-key writes one.")
        }
    }

    private mutating func take(_ keys: RecoveryKeys, _ path: String) throws {
        for volume in keys.volumes {
            guard let identifier = VolumeIdentifier(hexadecimal: volume.identifier), let key = try? SecretKey(Array(volume.dataKey)),
                volume.generation != 0,
                SectorRange(start: 0, count: volume.sectorCount) != nil
            else {
                throw CommandFailure(
                    "the key of volume \(volume.volume) in \(path) is damaged", action: "Export it again, or use another copy of the file.")
            }
            var found = attachments[identifier] ?? Attachment(name: volume.volume, sectorCount: 0)
            found.sectorCount = max(found.sectorCount, volume.sectorCount)
            found.keys[volume.generation ?? 1] = key
            attachments[identifier] = found
        }
        for cache in keys.caches {
            guard let key = try? SecretKey(Array(cache.key)) else {
                throw CommandFailure("the key of the cache of edge \(cache.edge) in \(path) is damaged")
            }
            caches.append(key)
        }
    }
}
