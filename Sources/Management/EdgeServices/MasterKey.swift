import Ciphers
import Files
import Foundation

/// The on-prem edge's own secret, from which the keys of edges' caches are derived. It never leaves the state directory.
struct MasterKey: Sendable {
    static let fileName = "master.key"
    private let key: SecretKey

    /// Reads the key, or makes it at the first start.
    static func load(in directory: OpenDirectory) throws -> MasterKey {
        do {
            let bytes = try directory.readFile(fileName, byteCountMax: 64)
            guard bytes.count == SecretKey.byteCount else {
                throw EdgeFailure(.state, "\(directory.path)/\(fileName) has \(bytes.count) bytes; put the right file back")
            }
            return MasterKey(key: try SecretKey(bytes))
        } catch let error as FileSystemError {
            // Only a key that was never there is made: another one would make every cache void.
            if !error.isNotFound { throw error }
        }
        let key = try SecretKey.random()
        try directory.replaceFile(fileName, with: key.withUnsafeBytes { Array($0) })
        return MasterKey(key: key)
    }

    /// The key of an edge's cache tables, 32 bytes.
    func cacheKey(ofEdge edge: String) throws -> Data {
        Data(try HMACSHA256.authenticationCode(of: Array("causeway cache key \(edge)".utf8), key: key))
    }

    /// Sixteen bytes that name a disk wherever it is served and tell nothing about it.
    func identity(ofDisk disk: String) throws -> Data {
        Data(try HMACSHA256.authenticationCode(of: Array("causeway disk identity \(disk)".utf8), key: key).prefix(16))
    }
}
