import APIModels
import Files
import Foundation
import GRDB

// Minutes of links on disk: one SQLite file in the state directory, of which nothing depends. When it is damaged it begins anew, and when
// there is no room a minute is lost.

/// The minutes of all links for a month. Calls block for a disk's time, so they are made off the event loops.
public final class HistoryStore: Sendable {
    /// The name of the database in the state directory.
    public static let fileName = "link-history.sqlite"
    /// How long minutes are kept.
    public static let keptSeconds: TimeInterval = 31 * 86_400
    /// How many minutes of a link are kept; with more the oldest are forgotten.
    static let minutesKept = Int(keptSeconds) / 60
    /// How long a call waits for somebody who copies the database.
    private static let busySeconds = 10.0

    private let database: DatabaseQueue
    private let minutesMax: Int

    /// Opens the history in a state directory, and makes it when it is missing or damaged.
    /// - Returns: also whether a damaged one was put aside.
    public static func open(directory: OpenDirectory) throws -> (store: HistoryStore, wasDamaged: Bool) {
        try open(directory: directory, minutesMax: minutesKept)
    }

    static func open(directory: OpenDirectory, minutesMax: Int) throws -> (store: HistoryStore, wasDamaged: Bool) {
        do {
            return (try HistoryStore(directory: directory, minutesMax: minutesMax), false)
        } catch let error as DatabaseError where [.SQLITE_NOTADB, .SQLITE_CORRUPT].contains(error.resultCode) {
            for name in try directory.list() where name.hasPrefix(fileName) { try directory.remove(name) }
            return (try HistoryStore(directory: directory, minutesMax: minutesMax), true)
        }
    }

    private init(directory: OpenDirectory, minutesMax: Int) throws {
        self.minutesMax = minutesMax
        // Made here and not by SQLite, so that it is never there with other rights.
        try directory.open(Self.fileName, [.write, .create], permissions: 0o600).setPermissions(0o600)
        var configuration = Configuration()
        configuration.busyMode = .timeout(Self.busySeconds)
        configuration.prepareDatabase { database in
            try database.execute(sql: "PRAGMA journal_mode = WAL")
            // A power cut may cost the last minutes, and never the file.
            try database.execute(sql: "PRAGMA synchronous = NORMAL")
        }
        database = try DatabaseQueue(path: "\(directory.path)/\(Self.fileName)", configuration: configuration)
        var migrator = DatabaseMigrator()
        migrator.registerMigration("1") { database in
            try database.execute(
                sql: """
                    CREATE TABLE minute (
                        peer TEXT NOT NULL, time INTEGER NOT NULL, sample TEXT NOT NULL, PRIMARY KEY (peer, time)
                    ) STRICT, WITHOUT ROWID;
                    """)
        }
        try migrator.migrate(database)
    }

    /// Closes the database. No call may follow.
    public func close() throws { try database.close() }

    /// Keeps a minute, or the rest of one of which the beginning is kept, and forgets the oldest when there are too many.
    public func keep(_ minute: LinkHistory.Sample, peer: String) throws {
        let time = Int64(minute.time.timeIntervalSince1970)
        try database.write { database in
            var whole = minute
            if var begun = try Self.samples(database, "time = ?", [peer, time]).first {
                begun.add(minute)
                whole = begun
            }
            let text = String(decoding: try Self.encoder.encode(whole), as: UTF8.self)
            try database.execute(
                sql: "INSERT OR REPLACE INTO minute (peer, time, sample) VALUES (?, ?, ?)", arguments: [peer, time, text])
            // By their number and not by their age: a clock that is wrong for a minute must not cost a month.
            try database.execute(
                sql: """
                    DELETE FROM minute WHERE peer = ? AND time <=
                        (SELECT time FROM minute WHERE peer = ? ORDER BY time DESC LIMIT 1 OFFSET ?)
                    """, arguments: [peer, peer, minutesMax])
        }
    }

    /// The minutes of a link that begin at `start` or later, oldest first.
    public func minutes(peer: String, from start: Date) throws -> [LinkHistory.Sample] {
        try database.read { try Self.samples($0, "time >= ?", [peer, Int64(start.timeIntervalSince1970.rounded(.up))]) }
    }

    /// Forgets the links of other peers.
    public func keepOnly(_ peers: Set<String>) throws {
        try database.write { database in
            for peer in try String.fetchAll(database, sql: "SELECT DISTINCT peer FROM minute") where !peers.contains(peer) {
                try database.execute(sql: "DELETE FROM minute WHERE peer = ?", arguments: [peer])
            }
        }
    }

    private static var encoder: JSONEncoder {
        let encoder = JSONEncoder()
        encoder.dateEncodingStrategy = .secondsSince1970
        return encoder
    }

    private static func samples(_ database: Database, _ condition: String, _ arguments: StatementArguments) throws -> [LinkHistory.Sample] {
        let decoder = JSONDecoder()
        decoder.dateDecodingStrategy = .secondsSince1970
        let texts = try String.fetchAll(
            database, sql: "SELECT sample FROM minute WHERE peer = ? AND \(condition) ORDER BY time", arguments: arguments)
        // A sample that a later version has written in another way is none.
        return texts.compactMap { try? decoder.decode(LinkHistory.Sample.self, from: Data($0.utf8)) }
    }
}
