import Foundation
import GRDB

/// The edge's own secret as it is kept: one row, wrapped.
private struct SiteKeyRecord: Codable, FetchableRecord, PersistableRecord {
    static let databaseTableName = "siteKey"
    /// There is one place only.
    var place = 1
    var wrappedKey: Data
    /// When the master key was made that wraps all keys here; nil for one from before that was noted.
    var masterKeyMadeAt: Date?
}

extension StateStore {
    /// Keys of one volume that may be in use at a time: a further rotation waits until the oldest is destroyed.
    public static let liveKeysMax = 8
    /// Destroyed keys of one volume that are shown; the oldest go.
    public static let destroyedKeysMax = 32

    // MARK: The edge's own

    /// The edge's own secret, wrapped by its master key; nil before the first start has made it.
    public func wrappedSiteKey() throws(StateStoreError) -> Data? {
        try read { try SiteKeyRecord.fetchOne($0)?.wrappedKey }
    }

    /// When the master key was made; nil when that is not known.
    public func masterKeyMadeAt() throws(StateStoreError) -> Date? {
        try read { try SiteKeyRecord.fetchOne($0)?.masterKeyMadeAt }
    }

    /// Keeps the edge's own secret. It is made once and never replaced: what was derived from it is used elsewhere.
    public func addWrappedSiteKey(_ wrappedKey: Data, masterKeyMadeAt: Date? = nil) throws(StateStoreError) {
        guard Self.wrappedKeyBytes.contains(wrappedKey.count) else { throw .failed("the edge's own key is not a wrapped one") }
        try insert(SiteKeyRecord(wrappedKey: wrappedKey, masterKeyMadeAt: masterKeyMadeAt), kind: "site key", name: "1")
    }

    /// Puts the same keys, wrapped by a new master key, in the place of all that are here: all of them or none.
    /// - Parameter dataKeys: every key that is not destroyed.
    public func replaceWrappedKeys(site: Data, dataKeys: [DataKeyRecord], masterKeyMadeAt: Date) throws(StateStoreError) {
        let all = [site] + dataKeys.compactMap(\.wrappedKey)
        guard all.count == dataKeys.count + 1, all.allSatisfy({ Self.wrappedKeyBytes.contains($0.count) }) else {
            throw .failed("a key is not a wrapped one")
        }
        try write { database in
            guard try DataKeyRecord.filter(Column("wrappedKey") != nil).fetchCount(database) == dataKeys.count else {
                throw StateStoreError.conflict("the keys have changed while they were wrapped: try again")
            }
            for key in dataKeys { try key.update(database) }
            try SiteKeyRecord(wrappedKey: site, masterKeyMadeAt: masterKeyMadeAt).update(database)
        }
        try emptyWriteAheadLog()
    }

    // MARK: Data keys

    /// The keys of a volume, oldest first, with those that were destroyed; of all volumes when no name is given.
    public func dataKeys(ofVolume name: String? = nil) throws(StateStoreError) -> [DataKeyRecord] {
        try read { database in
            let all = DataKeyRecord.order(Column("volume"), Column("generation"))
            return try (name.map { all.filter(Column("volume") == $0) } ?? all).fetchAll(database)
        }
    }

    /// Adds the next generation of an attached volume's key. It is in the database's own file then, so that a copy of that file has it.
    /// - Parameter wrapping: gives the key, wrapped for the volume's attachment and the generation.
    public func addDataKey(
        ofVolume name: String, madeAt: Date = Date(), wrapping: (_ identifier: String, _ generation: UInt64) throws -> Data
    ) throws(StateStoreError) -> DataKeyRecord {
        let added = try write { database in
            guard let volume = try VolumeRecord.fetchOne(database, key: name) else {
                throw StateStoreError.notFound(kind: "volume", name: name)
            }
            guard volume.state == .attached else {
                throw StateStoreError.conflict("the volume \"\(name)\" is detached: it gets a new key when it is attached")
            }
            let keys = try DataKeyRecord.filter(Column("volume") == name).order(Column("generation")).fetchAll(database)
            guard let newest = keys.last, newest.generation < .max >> 1 else {
                throw StateStoreError.failed("the volume \"\(name)\" is attached and has no key")
            }
            guard newest.wrappedKey != nil else {
                throw StateStoreError.conflict(
                    "the keys of the volume \"\(name)\" are destroyed: shred it again, or detach it with --force, and attach it anew")
            }
            guard keys.count(where: { $0.wrappedKey != nil }) < Self.liveKeysMax else {
                throw StateStoreError.conflict(
                    "\(Self.liveKeysMax) keys of the volume \"\(name)\" are in use: wait until what is sealed under the oldest is gone")
            }
            let generation = newest.generation + 1
            let wrapped = try wrapping(volume.identifier, generation)
            guard Self.wrappedKeyBytes.contains(wrapped.count) else {
                throw StateStoreError.failed("the volume's key is not a wrapped one")
            }
            let key = DataKeyRecord(
                volume: name, identifier: volume.identifier, generation: generation, wrappedKey: wrapped, madeAt: madeAt)
            try key.insert(database)
            return key
        }
        try emptyWriteAheadLog()
        return added
    }

    /// Destroys the keys of a volume's attachment before `generation`, but for those that are still needed, beyond recovery from the
    /// database's files. The newest stays.
    /// - Returns: those that were destroyed now.
    public func destroyDataKeys(
        ofVolume name: String, identifier: String, before generation: UInt64, except needed: Set<UInt64> = [], at date: Date = Date()
    ) throws(StateStoreError) -> [DataKeyRecord] {
        let destroyed = try write { database in
            let keys = try DataKeyRecord.filter(Column("volume") == name && Column("identifier") == identifier)
                .order(Column("generation")).fetchAll(database)
            let older = keys.dropLast().filter { $0.generation < generation && !needed.contains($0.generation) && $0.wrappedKey != nil }
            return try Self.destroy(older, at: date, database)
        }
        if !destroyed.isEmpty { try emptyWriteAheadLog() }
        return destroyed
    }

    /// Destroys all keys of a volume: whatever remains of the attachment opens no more.
    /// - Returns: those that were destroyed now.
    public func destroyAllDataKeys(ofVolume name: String, at date: Date = Date()) throws(StateStoreError) -> [DataKeyRecord] {
        let destroyed = try write { database in
            let keys = try DataKeyRecord.filter(Column("volume") == name).order(Column("generation")).fetchAll(database)
            return try Self.destroy(keys.filter { $0.wrappedKey != nil }, at: date, database)
        }
        try emptyWriteAheadLog()
        return destroyed
    }

    private static func destroy(_ keys: [DataKeyRecord], at date: Date, _ database: Database) throws -> [DataKeyRecord] {
        for var key in keys {
            try overwrite(&key, database)
            key.wrappedKey = nil
            key.destroyedAt = date
            try key.update(database)
        }
        guard let volume = keys.first?.volume else { return keys }
        let shown = DataKeyRecord.filter(Column("volume") == volume && Column("wrappedKey") == nil).order(Column("generation"))
        for key in try shown.fetchAll(database).dropLast(destroyedKeysMax) { try key.delete(database) }
        return keys
    }

    /// Deletes all keys of a volume. They are overwritten in their place first; see `emptyWriteAheadLog` for what must follow.
    static func forgetKeys(ofVolume name: String, _ database: Database) throws {
        for var key in try DataKeyRecord.filter(Column("volume") == name).fetchAll(database) {
            try overwrite(&key, database)
            try key.delete(database)
        }
    }

    private static func overwrite(_ key: inout DataKeyRecord, _ database: Database) throws {
        guard let wrapped = key.wrappedKey else { return }
        key.wrappedKey = Data(count: wrapped.count)
        try key.update(database)
    }

    func emptyWriteAheadLog() throws(StateStoreError) {
        do { try Self.emptyWriteAheadLog(database) } catch { throw StateStoreError(error) }
    }
}
