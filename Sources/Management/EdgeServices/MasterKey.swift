import Ciphers
import Files

/// What a key at rest belongs to. It opens for nothing else, so that a row that was copied or swapped is of no use.
enum KeyOwner: Sendable {
    /// The edge itself.
    case site
    /// The volume whose attachment has this identifier.
    case volume(identifier: String)

    /// The name that a wrapped key is bound to.
    var name: [UInt8] {
        switch self {
        case .site: Array("causeway site key".utf8)
        case .volume(let identifier): Array("causeway data key \(identifier)".utf8)
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
    static func load(in directory: OpenDirectory) throws -> MasterKeyFile? {
        do {
            let bytes = try directory.readFile(fileName, byteCountMax: 64)
            guard bytes.count == SecretKey.byteCount else {
                throw EdgeFailure(
                    .state,
                    "\(directory.path)/\(fileName) has \(bytes.count) bytes and not \(SecretKey.byteCount): put the right file back")
            }
            return try MasterKeyFile(SecretKey(bytes))
        } catch let error as FileSystemError {
            if error.isNotFound { return nil }
            throw error
        }
    }

    /// Makes a new key. Only where there never was one: what another has wrapped would be lost.
    static func make(in directory: OpenDirectory) throws -> MasterKeyFile {
        let key = try SecretKey.random()
        try directory.replaceFile(fileName, with: key.withUnsafeBytes { Array($0) })
        return try MasterKeyFile(key)
    }

    func wrap(_ key: SecretKey, of owner: KeyOwner) throws -> [UInt8] { try key.wrapped(with: wrapping, of: owner.name) }

    func unwrap(_ wrapped: [UInt8], of owner: KeyOwner) throws -> SecretKey? {
        try SecretKey.unwrapping(wrapped, with: wrapping, of: owner.name)
    }
}
