import Foundation
import GRDB

extension StateStore {
    /// Adds an API token by its hash.
    public func addAPIToken(_ token: APITokenRecord) throws(StateStoreError) {
        try insert(token, kind: "API token", name: token.name)
    }

    /// The API token of that hash; nil when there is none.
    public func apiToken(hash: String) throws(StateStoreError) -> APITokenRecord? {
        try read { try APITokenRecord.fetchOne($0, key: hash) }
    }

    /// All API tokens by name.
    public func apiTokens() throws(StateStoreError) -> [APITokenRecord] {
        try read { try APITokenRecord.order(Column("name")).fetchAll($0) }
    }

    /// Deletes the API token of that name.
    public func removeAPIToken(named name: String) throws(StateStoreError) {
        let count = try write { try APITokenRecord.filter(Column("name") == name).deleteAll($0) }
        if count == 0 { throw .notFound(kind: "API token", name: name) }
    }

    /// Notes an event; the oldest beyond `eventsMax` goes.
    @discardableResult
    public func addEvent(kind: String, subject: String, message: String, time: Date = Date()) throws(StateStoreError)
        -> EventRecord
    {
        try write { database in
            try database.execute(
                sql: "INSERT INTO event (time, kind, subject, message) VALUES (?, ?, ?, ?)",
                arguments: [time, kind, subject, message])
            let sequence = database.lastInsertedRowID
            try database.execute(sql: "DELETE FROM event WHERE sequence <= ?", arguments: [sequence - Int64(Self.eventsMax)])
            return EventRecord(sequence: sequence, time: time, kind: kind, subject: subject, message: message)
        }
    }

    /// Events behind a sequence number, oldest first, at most `limit` of them.
    public func events(after sequence: Int64 = 0, limit: Int = StateStore.eventsMax) throws(StateStoreError) -> [EventRecord] {
        try read { database in
            try EventRecord.fetchAll(
                database, sql: "SELECT * FROM event WHERE sequence > ? ORDER BY sequence LIMIT ?",
                arguments: [sequence, max(0, min(limit, Self.eventsMax))])
        }
    }
}
