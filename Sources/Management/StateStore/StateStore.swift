import Files
import Foundation
import GRDB

/// The memory of an on-prem edge. Calls block for a disk's time, so they are made off the event loops.
public final class StateStore: Sendable {
    /// The name of the database in the state directory.
    public static let fileName = "state.sqlite"
    /// Events that are kept; the oldest go.
    public static let eventsMax = 10_000
    /// How long a call waits for another process that reads the database.
    static let busySeconds = 10.0
    /// How long a wrapped key may be: whatever guards keys has its own form, and none is as short as a plain key.
    public static let wrappedKeyBytes = 33...4_096

    /// Wraps a plain data key for the volume whose identifier comes with it.
    public typealias KeyWrapping = @Sendable (_ dataKey: Data, _ identifier: String) throws -> Data

    let database: DatabaseQueue

    /// Opens the store in a state directory, makes it when it is missing, and brings it to this version's tables.
    /// - Parameter wrapping: is called for each volume of a store whose keys were not wrapped yet. Afterwards no plain key is left
    ///   in the database's files.
    public init(directory: OpenDirectory, wrapping: @escaping KeyWrapping) throws(StateStoreError) {
        do {
            // Made here and not by SQLite, so that it is never there with other rights; SQLite's log gets the same.
            try directory.open(Self.fileName, [.write, .create], permissions: 0o600).setPermissions(0o600)
            var configuration = Configuration()
            // Somebody may be copying the database.
            configuration.busyMode = .timeout(Self.busySeconds)
            configuration.prepareDatabase { database in
                try database.execute(sql: "PRAGMA journal_mode = WAL")
                try database.execute(sql: "PRAGMA synchronous = FULL")
                try database.execute(sql: "PRAGMA secure_delete = ON")
            }
            database = try DatabaseQueue(path: "\(directory.path)/\(Self.fileName)", configuration: configuration)
            let migrator = Self.migrator(wrapping)
            if try database.read({ try migrator.hasBeenSuperseded($0) }) {
                throw StateStoreError.failed("it was written by a newer version of causewayd: install that one")
            }
            try migrator.migrate(database)
            try Self.scrub(database)
            // A crash may have come between the destruction of a key and this.
            try Self.emptyWriteAheadLog(database)
        } catch { throw StateStoreError(error) }
    }

    /// Closes the database. No call may follow.
    public func close() throws(StateStoreError) {
        do { try database.close() } catch { throw StateStoreError(error) }
    }

    func write<Value>(_ body: (Database) throws -> Value) throws(StateStoreError) -> Value {
        do { return try database.write(body) } catch { throw StateStoreError(error) }
    }

    func read<Value>(_ body: (Database) throws -> Value) throws(StateStoreError) -> Value {
        do { return try database.read(body) } catch { throw StateStoreError(error) }
    }

    /// Inserts a record whose name must be new.
    func insert(_ record: some PersistableRecord, kind: String, name: String) throws(StateStoreError) {
        try write { database in try Self.insert(record, kind: kind, name: name, database) }
    }

    static func insert(_ record: some PersistableRecord, kind: String, name: String, _ database: Database) throws {
        do {
            try record.insert(database)
        } catch let error as DatabaseError where error.resultCode == .SQLITE_CONSTRAINT {
            if error.extendedResultCode == .SQLITE_CONSTRAINT_FOREIGNKEY {
                throw StateStoreError.conflict("\(kind) \"\(name)\" refers to something that is not there")
            }
            throw StateStoreError.exists(kind: kind, name: name)
        }
    }

    /// Rewrites the whole database once: pages that the wrapping of the keys has emptied, and the write-ahead log, may still have
    /// the plain ones. The user version says that it was done, so that a crash on the way has it done again.
    private static func scrub(_ database: DatabaseQueue) throws {
        guard try database.read({ try Int.fetchOne($0, sql: "PRAGMA user_version") }) == 0 else { return }
        try database.vacuum()
        try database.writeWithoutTransaction { database in
            try database.execute(sql: "PRAGMA user_version = 1")
            _ = try database.checkpoint(.truncate)
        }
    }

    /// Brings SQLite's write-ahead log into the database and empties it: it has pages as they were before the last changes, and so
    /// also keys that have been destroyed since.
    static func emptyWriteAheadLog(_ database: DatabaseQueue) throws {
        try database.writeWithoutTransaction { database in _ = try database.checkpoint(.truncate) }
    }

    private static func migrator(_ wrapping: @escaping KeyWrapping) -> DatabaseMigrator {
        var migrator = DatabaseMigrator()
        migrator.registerMigration("1") { database in
            try database.execute(
                sql: """
                    CREATE TABLE edge (
                        id TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL UNIQUE, role TEXT NOT NULL,
                        certificateSerial TEXT NOT NULL, createdAt TEXT NOT NULL, revokedAt TEXT, lastSeen TEXT
                    ) STRICT;
                    CREATE TABLE pairingToken (
                        hash TEXT NOT NULL PRIMARY KEY, expires TEXT NOT NULL, used INTEGER NOT NULL
                    );
                    CREATE TABLE disk (name TEXT NOT NULL PRIMARY KEY, path TEXT NOT NULL UNIQUE) STRICT;
                    CREATE TABLE volume (
                        name TEXT NOT NULL PRIMARY KEY, identifier TEXT NOT NULL UNIQUE, disk TEXT NOT NULL,
                        edge TEXT REFERENCES edge(id), state TEXT NOT NULL, iqn TEXT NOT NULL UNIQUE,
                        chapUser TEXT NOT NULL, chapSecret TEXT NOT NULL, mutualChapUser TEXT, mutualChapSecret TEXT,
                        allowedInitiators TEXT NOT NULL,
                        dataKey BLOB NOT NULL CHECK (length(dataKey) = 32), generation INTEGER NOT NULL, logIdentifier TEXT,
                        recoveryPointObjectiveSeconds REAL NOT NULL, sealBytes INTEGER NOT NULL
                    ) STRICT;
                    CREATE UNIQUE INDEX volumeOfDisk ON volume(disk) WHERE state = 'attached';
                    CREATE TABLE apiToken (hash TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL UNIQUE, role TEXT NOT NULL) STRICT;
                    CREATE TABLE event (
                        sequence INTEGER PRIMARY KEY AUTOINCREMENT, time TEXT NOT NULL, kind TEXT NOT NULL,
                        subject TEXT NOT NULL, message TEXT NOT NULL
                    );
                    """)
        }
        // Targets of their own, which several volumes can share; sizes, limits and write protection of volumes.
        migrator.registerMigration("2") { database in
            try database.execute(
                sql: """
                    CREATE TABLE target (
                        name TEXT NOT NULL PRIMARY KEY, iqn TEXT NOT NULL UNIQUE,
                        chapUser TEXT NOT NULL, chapSecret TEXT NOT NULL, mutualChapUser TEXT, mutualChapSecret TEXT,
                        allowedInitiators TEXT NOT NULL
                    ) STRICT;
                    INSERT INTO target SELECT name, iqn, chapUser, chapSecret, mutualChapUser, mutualChapSecret, allowedInitiators
                        FROM volume;
                    CREATE TABLE volumeOfTarget (
                        name TEXT NOT NULL PRIMARY KEY, identifier TEXT NOT NULL UNIQUE, disk TEXT NOT NULL,
                        edge TEXT REFERENCES edge(id), state TEXT NOT NULL,
                        target TEXT NOT NULL REFERENCES target(name), logicalUnit INTEGER NOT NULL,
                        dataKey BLOB NOT NULL CHECK (length(dataKey) = 32), generation INTEGER NOT NULL, logIdentifier TEXT,
                        recoveryPointObjectiveSeconds REAL NOT NULL, sealBytes INTEGER NOT NULL,
                        isReadOnly INTEGER NOT NULL, sectorCount INTEGER NOT NULL,
                        operationsPerSecond INTEGER, burstOperations INTEGER, bytesPerSecond INTEGER, burstBytes INTEGER,
                        UNIQUE (target, logicalUnit)
                    ) STRICT;
                    INSERT INTO volumeOfTarget
                        SELECT name, identifier, disk, edge, state, name, 0, dataKey, generation, logIdentifier,
                            recoveryPointObjectiveSeconds, sealBytes, 0, 0, NULL, NULL, NULL, NULL
                        FROM volume;
                    DROP TABLE volume;
                    ALTER TABLE volumeOfTarget RENAME TO volume;
                    CREATE UNIQUE INDEX volumeOfDisk ON volume(disk) WHERE state = 'attached';
                    """)
        }
        migrator.registerMigration("removable volumes") { database in
            try database.execute(sql: "ALTER TABLE volume ADD COLUMN isRemovable INTEGER NOT NULL DEFAULT 0")
        }
        migrator.registerMigration("read-only disks") { database in
            try database.execute(sql: "ALTER TABLE disk ADD COLUMN isReadOnly INTEGER NOT NULL DEFAULT 0")
        }
        migrator.registerMigration("wrapped keys") { database in
            try database.execute(
                sql: """
                    ALTER TABLE volume ADD COLUMN wrappedKey BLOB NOT NULL DEFAULT x'' CHECK (length(wrappedKey) <> 32);
                    CREATE TABLE siteKey (place INTEGER NOT NULL PRIMARY KEY CHECK (place = 1), wrappedKey BLOB NOT NULL) STRICT;
                    """)
            for row in try Row.fetchAll(database, sql: "SELECT name, identifier, dataKey FROM volume") {
                let (name, identifier): (String, String) = (row["name"], row["identifier"])
                try database.execute(
                    sql: "UPDATE volume SET wrappedKey = ? WHERE name = ?", arguments: [try wrapping(row["dataKey"], identifier), name])
            }
            try database.execute(sql: "ALTER TABLE volume DROP COLUMN dataKey")
        }
        migrator.registerMigration("groups") { database in
            try database.execute(
                sql: """
                    CREATE TABLE volumeGroup (
                        name TEXT NOT NULL PRIMARY KEY, identifier TEXT NOT NULL UNIQUE,
                        recoveryPointObjectiveSeconds REAL NOT NULL, sealBytes INTEGER NOT NULL, lastPoint INTEGER NOT NULL
                    ) STRICT;
                    ALTER TABLE volume ADD COLUMN volumeGroup TEXT REFERENCES volumeGroup(name);
                    """)
        }
        migrator.registerMigration("closed points") { database in
            try database.execute(sql: "ALTER TABLE volume ADD COLUMN closedPoint INTEGER NOT NULL DEFAULT 0")
        }
        // Keys in a table of their own: a volume has several while its key is rotated, and those that were destroyed are shown.
        migrator.registerMigration("data keys") { database in
            try database.execute(
                sql: """
                    CREATE TABLE dataKey (
                        volume TEXT NOT NULL REFERENCES volume(name), identifier TEXT NOT NULL,
                        generation INTEGER NOT NULL CHECK (generation > 0),
                        wrappedKey BLOB CHECK (length(wrappedKey) <> 32), madeAt TEXT NOT NULL, destroyedAt TEXT,
                        PRIMARY KEY (volume, generation), CHECK ((wrappedKey IS NULL) = (destroyedAt IS NOT NULL))
                    ) STRICT;
                    INSERT INTO dataKey SELECT name, identifier, 1, wrappedKey, CURRENT_TIMESTAMP, NULL FROM volume;
                    ALTER TABLE volume DROP COLUMN wrappedKey;
                    ALTER TABLE siteKey ADD COLUMN masterKeyMadeAt TEXT;
                    """)
        }
        migrator.registerMigration("kept points") { database in
            try database.execute(
                sql: """
                    ALTER TABLE volume ADD COLUMN keptPoints INTEGER NOT NULL DEFAULT 0;
                    ALTER TABLE volume ADD COLUMN keptBytes INTEGER NOT NULL DEFAULT 0;
                    """)
        }
        // Edges that this one dials, because they can't dial it.
        migrator.registerMigration("dialled edges") { database in
            try database.execute(
                sql: """
                    ALTER TABLE edge ADD COLUMN address TEXT;
                    ALTER TABLE pairingToken ADD COLUMN address TEXT;
                    """)
        }
        migrator.registerMigration("tunnels") { database in
            try database.execute(
                sql: """
                    CREATE TABLE tunnel (
                        name TEXT NOT NULL PRIMARY KEY, edge TEXT NOT NULL REFERENCES edge(id), isToCloud INTEGER NOT NULL,
                        listen TEXT NOT NULL, connect TEXT NOT NULL, isBulk INTEGER NOT NULL, allow TEXT NOT NULL
                    ) STRICT;
                    """)
        }
        return migrator
    }
}
