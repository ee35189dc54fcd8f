import Foundation
import GRDB

/// The edge's own secret as it is kept: one row, wrapped.
private struct SiteKeyRecord: Codable, FetchableRecord, PersistableRecord {
    static let databaseTableName = "siteKey"
    /// There is one place only.
    var place = 1
    var wrappedKey: Data
}

extension StateStore {
    /// The edge's own secret, wrapped by its master key; nil before the first start has made it.
    public func wrappedSiteKey() throws(StateStoreError) -> Data? {
        try read { try SiteKeyRecord.fetchOne($0)?.wrappedKey }
    }

    /// Keeps the edge's own secret. It is made once and never replaced: what was derived from it is used elsewhere.
    public func addWrappedSiteKey(_ wrappedKey: Data) throws(StateStoreError) {
        guard Self.wrappedKeyBytes.contains(wrappedKey.count) else { throw .failed("the edge's own key is not a wrapped one") }
        try insert(SiteKeyRecord(wrappedKey: wrappedKey), kind: "site key", name: "1")
    }
}
