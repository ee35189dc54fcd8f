import Ciphers
import Files

/// What a wrapped key or text belongs to. It opens for nothing else, so that one that was copied or swapped is of no use.
enum KeyOwner: Sendable {
    /// The edge itself.
    case site
    /// One generation of the key of the volume whose attachment has this identifier.
    case volume(identifier: String, generation: UInt64)
    /// The cache of a cloud edge. That key is derived, and wrapped only on its way there.
    case cache(edge: String)
    /// The initiators of the volume with this attachment: the secret that they prove to know, or the one that the target proves.
    case initiators(identifier: String, isMutual: Bool)

    /// The name that a wrapped key is bound to.
    var name: [UInt8] {
        switch self {
        case .site: Array("causeway site key".utf8)
        // Keys had no generations at first.
        case .volume(let identifier, 1): Array("causeway data key \(identifier)".utf8)
        case .volume(let identifier, let generation): Array("causeway data key \(identifier) \(generation)".utf8)
        case .cache(let edge): Array("causeway cache key \(edge)".utf8)
        case .initiators(let identifier, isMutual: false): Array("causeway chap secret \(identifier)".utf8)
        case .initiators(let identifier, isMutual: true): Array("causeway mutual chap secret \(identifier)".utf8)
        }
    }
}

/// What guards the keys of an on-prem edge while they are at rest: it wraps them, and opens what it has wrapped.
///
/// The master key itself need not be within reach, so that it may stay in a token (PKCS#11) or at a key management service. A call
/// may take as long as one to the disk, and is made off the event loops.
protocol MasterKey: Sendable {
    /// A key as it may be kept, bound to what it belongs to. The form is the guard's own.
    func wrap(_ key: SecretKey, of owner: KeyOwner) throws -> [UInt8]
    /// The key that was wrapped; nil when it was wrapped by another master key or for another owner, or was changed since.
    func unwrap(_ wrapped: [UInt8], of owner: KeyOwner) throws -> SecretKey?
}

/// A master key in a file of the state directory: 32 random bytes, mode 0600. It protects copies of the state database, not the
/// whole directory.
struct MasterKeyFile: MasterKey {
    static let fileName = "master.key"
    /// The key that is to take its place, while it does.
    static let nextFileName = "master.key.next"
    private static let wrappingPurpose = "causeway master key wrapping 1"
    /// Before keys were wrapped, what is derived from the site key now was derived from these bytes: a store from then keeps
    /// them as its site key, and caches and the names of disks stay what they were.
    let bytes: SecretKey
    private let wrapping: SecretKey

    private init(_ bytes: SecretKey) throws(CipherError) {
        self.bytes = bytes
        wrapping = try bytes.derive(salt: [], purpose: Self.wrappingPurpose)
    }

    /// Reads the key; nil when there is no file.
    static func load(_ name: String = fileName, in directory: OpenDirectory) throws -> MasterKeyFile? {
        do {
            let bytes = try directory.readFile(name, byteCountMax: 64)
            guard bytes.count == SecretKey.byteCount else {
                throw EdgeFailure(
                    .state,
                    "\(directory.path)/\(name) has \(bytes.count) bytes and not \(SecretKey.byteCount): put the right file back")
            }
            return try MasterKeyFile(SecretKey(bytes))
        } catch let error as FileSystemError {
            if error.isNotFound { return nil }
            throw error
        }
    }

    /// Makes a new key. In place of `fileName` only where there never was one: what another has wrapped would be lost.
    static func make(_ name: String = fileName, in directory: OpenDirectory) throws -> MasterKeyFile {
        let key = try SecretKey.random()
        try directory.replaceFile(name, with: key.withUnsafeBytes { Array($0) })
        return try MasterKeyFile(key)
    }

    /// Puts the next key in the place of this one, whose bytes are overwritten: nothing is wrapped by it any more.
    static func promoteNext(in directory: OpenDirectory) throws(FileSystemError) {
        try overwrite(fileName, in: directory)
        try directory.rename(nextFileName, to: fileName)
        try directory.synchronize()
    }

    /// Destroys a next key by which nothing was wrapped.
    static func discardNext(in directory: OpenDirectory) throws(FileSystemError) {
        guard try overwrite(nextFileName, in: directory) else { return }
        try directory.remove(nextFileName)
        try directory.synchronize()
    }

    /// Overwrites a key in its place, as far as the file system does so, durably; false when there is no such file.
    @discardableResult
    private static func overwrite(_ name: String, in directory: OpenDirectory) throws(FileSystemError) -> Bool {
        let file: OpenFile
        do {
            file = try directory.open(name, [.write])
        } catch {
            if error.isNotFound { return false }
            throw error
        }
        let zeroes = [UInt8](repeating: 0, count: SecretKey.byteCount)
        let result = zeroes.withUnsafeBytes { bytes in
            Result { () throws(FileSystemError) in
                try file.write(bytes, at: 0)
                try file.synchronizeData()
            }
        }
        try result.get()
        return true
    }

    func wrap(_ key: SecretKey, of owner: KeyOwner) throws -> [UInt8] { try key.wrapped(with: wrapping, of: owner.name) }

    func unwrap(_ wrapped: [UInt8], of owner: KeyOwner) throws -> SecretKey? {
        try SecretKey.unwrapping(wrapped, with: wrapping, of: owner.name)
    }
}
