import Blocks
import Ciphers

/// What opens the log of one volume, and its blocks in a cache.
public struct RecoveryKey: Sendable {
    /// The volume's name.
    public let name: String
    /// The identifier of the attachment that the key belongs to.
    public let identifier: VolumeIdentifier
    /// The size of the disk in sectors when the key was exported; 0 when it was not known.
    public let sectorCount: UInt64
    /// The data keys, by generation.
    public let keys: DataKeys

    public init(name: String, identifier: VolumeIdentifier, sectorCount: UInt64, keys: DataKeys) {
        self.name = name
        self.identifier = identifier
        self.sectorCount = sectorCount
        self.keys = keys
    }
}

/// Why offline work could not be done, and what to do.
public struct OfflineError: Error, Equatable, Sendable, CustomStringConvertible {
    /// What is wrong.
    public let description: String
    /// What to do about it, when that is not plain.
    public let action: String?

    public init(_ description: String, action: String? = nil) {
        self.description = description
        self.action = action
    }
}

/// Something in a file that should not be there, or that is missing from it.
public struct OfflineDamage: Codable, Equatable, Sendable {
    /// The path of the file.
    public let file: String
    /// Where in the file, in bytes.
    public let offset: UInt64
    /// What is wrong.
    public let message: String
}
