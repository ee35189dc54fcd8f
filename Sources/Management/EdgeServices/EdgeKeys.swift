import Ciphers
import Files
import Foundation
import StateStore

/// The keys of an on-prem edge. At rest all are wrapped by the master key:
///
///     master key ──wraps──► data keys of each volume, bound to the identifier of its attachment and their generation
///                └─wraps──► site key ──HMAC──► cache key of each cloud edge, identity of each disk
///
/// The site key is random, made once, and opens at each start: so a wrong master key is noticed before anything is done with it, and
/// after a crash amid a rotation of the master key it tells which of two is the one.
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
        guard let wrapped = try store.wrappedSiteKey() else { return try make(store: store, directory: directory) }
        let found = try find(wrapped, in: directory)
        // Where nothing can be written the key is where it is, and the next start tries again.
        try? settle(isNext: found.isNext, in: directory)
        return found.keys
    }

    /// Finds the master key that has wrapped the keys of a store: the one in its place, or after a crash amid a rotation the next.
    private static func find(_ wrappedSiteKey: Data, in directory: OpenDirectory) throws -> (keys: EdgeKeys, isNext: Bool) {
        let master = try MasterKeyFile.load(in: directory)
        if let master, let site = try master.unwrap(Array(wrappedSiteKey), of: .site) {
            return (EdgeKeys(master: master, site: site), false)
        }
        if let next = try MasterKeyFile.load(MasterKeyFile.nextFileName, in: directory),
            let site = try next.unwrap(Array(wrappedSiteKey), of: .site)
        {
            return (EdgeKeys(master: next, site: site), true)
        }
        let path = "\(directory.path)/\(MasterKeyFile.fileName)"
        let advice =
            "put back the file that belongs to this state directory, from a backup. Nothing else opens the keys in it; what cloud edges "
            + "have not sent home is then only readable with recovery keys (`causeway recover`)"
        throw EdgeFailure(
            .state,
            master == nil
                ? "the master key \(path) is missing: \(advice)"
                : "the master key \(path) is not the one that wrapped the keys in \(StateStore.fileName): \(advice)")
    }

    /// Leaves one master key, in its place, and destroys the other.
    private static func settle(isNext: Bool, in directory: OpenDirectory) throws(FileSystemError) {
        if isNext { try MasterKeyFile.promoteNext(in: directory) } else { try MasterKeyFile.discardNext(in: directory) }
    }

    private static func make(store: StateStore, directory: OpenDirectory) throws -> EdgeKeys {
        let earlier = try MasterKeyFile.load(in: directory)
        let master = try earlier ?? MasterKeyFile.make(in: directory)
        let site = try earlier?.bytes ?? SecretKey.random()
        try store.addWrappedSiteKey(Data(try master.wrap(site, of: .site)), masterKeyMadeAt: earlier == nil ? Date() : nil)
        return EdgeKeys(master: master, site: site)
    }

    /// Wraps a plain key of a store from before keys were wrapped. The master key is made if there is none yet: nothing is wrapped
    /// at that time, so nothing can depend on another.
    static func wrapPlainKey(_ key: Data, identifier: String, in directory: OpenDirectory) throws -> Data {
        let master = try MasterKeyFile.load(in: directory) ?? MasterKeyFile.make(in: directory)
        return Data(try master.wrap(try SecretKey(Array(key)), of: .volume(identifier: identifier, generation: 1)))
    }

    // MARK: The master key

    /// Wraps everything by a new master key, which takes the place of the old one; that is destroyed.
    ///
    ///     master.key.next, durable ──► the store: all keys wrapped anew, in one transaction ──► master.key overwritten
    ///         ──► master.key.next becomes master.key
    ///
    /// At each instant one of the two files opens all that is in the store, and `open` finds out which.
    /// - Returns: the keys as they open now, whatever has failed; and what has.
    static func rotateMasterKey(
        store: StateStore, directory: OpenDirectory
    ) throws -> (keys: EdgeKeys, failure: (any Error)?) {
        guard let wrapped = try store.wrappedSiteKey() else { throw EdgeFailure(.state, "there is no site key to be wrapped") }
        let old = try find(wrapped, in: directory)
        // A next key that is in use must not be replaced by yet another.
        try settle(isNext: old.isNext, in: directory)
        let next = try MasterKeyFile.make(MasterKeyFile.nextFileName, in: directory)
        var failure: (any Error)?
        do { try old.keys.wrapAll(in: store, by: next) } catch { failure = error }
        // What failed may have been the answer only: the store itself says whose keys it has.
        let isNext = try store.wrappedSiteKey().map { try next.unwrap(Array($0), of: .site) != nil } ?? false
        do { try settle(isNext: isNext, in: directory) } catch { failure = failure ?? error }
        return (isNext ? EdgeKeys(master: next, site: old.keys.site) : old.keys, failure)
    }

    private func wrapAll(in store: StateStore, by next: any MasterKey) throws {
        var records = try store.dataKeys().filter { $0.wrappedKey != nil }
        for index in records.indices {
            let record = records[index]
            let owner = KeyOwner.volume(identifier: record.identifier, generation: record.generation)
            records[index].wrappedKey = Data(try next.wrap(try dataKey(record), of: owner))
        }
        try store.replaceWrappedKeys(site: Data(try next.wrap(site, of: .site)), dataKeys: records, masterKeyMadeAt: Date())
    }

    // MARK: Data keys

    /// A new data key for an attachment, wrapped for its record.
    func newDataKey(identifier: String, generation: UInt64 = 1) throws -> Data {
        Data(try master.wrap(try SecretKey.random(), of: .volume(identifier: identifier, generation: generation)))
    }

    /// A data key. Throws an `EdgeFailure` when the record's key was not wrapped for it, or was changed or destroyed.
    func dataKey(_ record: DataKeyRecord) throws -> SecretKey {
        let owner = KeyOwner.volume(identifier: record.identifier, generation: record.generation)
        guard let wrapped = record.wrappedKey, let key = try master.unwrap(Array(wrapped), of: owner) else {
            throw EdgeFailure(
                .state,
                "generation \(record.generation) of the data key of volume \(record.volume) does not open: its row in "
                    + "\(StateStore.fileName) was changed or is another's; restore the state directory from a backup")
        }
        return key
    }

    // MARK: The site key

    /// The key of an edge's cache tables.
    func cacheKey(ofEdge edge: String) throws -> SecretKey {
        try HMACSHA256.key(of: Array("causeway cache key \(edge)".utf8), key: site)
    }

    /// Sixteen bytes that name a disk wherever it is served and tell nothing about it.
    func identity(ofDisk disk: String) throws -> Data {
        Data(try HMACSHA256.authenticationCode(of: Array("causeway disk identity \(disk)".utf8), key: site).prefix(16))
    }
}
