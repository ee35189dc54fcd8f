import Ciphers
import Files
import Foundation
import StateStore

/// The keys of an on-prem edge. At rest all are wrapped by the master key:
///
///     master key ──wraps──► data key of each volume, bound to the identifier of its attachment
///                └─wraps──► site key ──HMAC──► cache key of each cloud edge, identity of each disk
///
/// The site key is random, made once, and opens at each start: so a wrong master key is noticed before anything is done with it.
struct EdgeKeys: Sendable {
    private let master: any MasterKey
    private let site: SecretKey

    private init(master: any MasterKey, site: SecretKey) {
        self.master = master
        self.site = site
    }

    /// Opens the keys of a store, or makes them at the first start. Throws an `EdgeFailure` that says what to do when the master
    /// key is missing or is not the one.
    static func open(store: StateStore, directory: OpenDirectory) throws -> EdgeKeys {
        let path = "\(directory.path)/\(MasterKeyFile.fileName)"
        let advice =
            "put back the file that belongs to this state directory, from a backup. Nothing else opens the keys in it; what cloud edges "
            + "have not sent home is then only readable with recovery keys (`causeway recover`)"
        guard let wrapped = try store.wrappedSiteKey() else { return try make(store: store, directory: directory) }
        guard let master = try MasterKeyFile.load(in: directory) else {
            throw EdgeFailure(.state, "the master key \(path) is missing: \(advice)")
        }
        guard let site = try master.unwrap(Array(wrapped), of: .site) else {
            throw EdgeFailure(.state, "the master key \(path) is not the one that wrapped the keys in \(StateStore.fileName): \(advice)")
        }
        return EdgeKeys(master: master, site: site)
    }

    private static func make(store: StateStore, directory: OpenDirectory) throws -> EdgeKeys {
        let earlier = try MasterKeyFile.load(in: directory)
        let master = try earlier ?? MasterKeyFile.make(in: directory)
        let site = try earlier?.bytes ?? SecretKey.random()
        try store.addWrappedSiteKey(Data(try master.wrap(site, of: .site)))
        return EdgeKeys(master: master, site: site)
    }

    /// Wraps a plain key of a store from before keys were wrapped. The master key is made if there is none yet: nothing is wrapped
    /// at that time, so nothing can depend on another.
    static func wrapPlainKey(_ key: Data, identifier: String, in directory: OpenDirectory) throws -> Data {
        let master = try MasterKeyFile.load(in: directory) ?? MasterKeyFile.make(in: directory)
        return Data(try master.wrap(try SecretKey(Array(key)), of: .volume(identifier: identifier)))
    }

    /// A new data key for an attachment, wrapped for its record.
    func newDataKey(identifier: String) throws -> Data {
        Data(try master.wrap(try SecretKey.random(), of: .volume(identifier: identifier)))
    }

    /// The data key of a volume. Throws an `EdgeFailure` when the record's key was not wrapped for it, or was changed.
    func dataKey(of record: VolumeRecord) throws -> SecretKey {
        guard let key = try master.unwrap(Array(record.wrappedKey), of: .volume(identifier: record.identifier)) else {
            throw EdgeFailure(
                .state,
                "the data key of volume \(record.name) does not open: its row in \(StateStore.fileName) was changed or is another "
                    + "volume's; restore the state directory from a backup")
        }
        return key
    }

    /// The key of an edge's cache tables, 32 bytes.
    func cacheKey(ofEdge edge: String) throws -> Data {
        Data(try HMACSHA256.authenticationCode(of: Array("causeway cache key \(edge)".utf8), key: site))
    }

    /// Sixteen bytes that name a disk wherever it is served and tell nothing about it.
    func identity(ofDisk disk: String) throws -> Data {
        Data(try HMACSHA256.authenticationCode(of: Array("causeway disk identity \(disk)".utf8), key: site).prefix(16))
    }
}
