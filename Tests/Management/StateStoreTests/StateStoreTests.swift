import Files
import Foundation
import GRDB
import Synchronization
import Testing

@testable import StateStore

@Suite final class StateStoreTests {
    private let path = NSTemporaryDirectory() + "causeway-state-\(UUID().uuidString)"
    private let directory: OpenDirectory
    private let store: StateStore

    init() throws {
        directory = try OpenDirectory(path, create: true)
        store = try StateStore(directory: directory, wrapping: Self.neverWraps)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    /// A store of this version has no plain keys.
    private static let neverWraps: StateStore.KeyWrapping = { _, identifier in
        Issue.record("a key of volume \(identifier) was to be wrapped")
        return Data(count: 61)
    }

    private func date(_ seconds: TimeInterval) -> Date { Date(timeIntervalSince1970: 1_800_000_000 + seconds) }

    private func edge(_ id: String) -> EdgeRecord {
        EdgeRecord(id: id, name: "name of \(id)", role: "cloud", certificateSerial: "01\(id)", createdAt: date(0))
    }

    private func volume(_ name: String, disk: String = "disk") -> VolumeRecord {
        VolumeRecord(
            name: name, identifier: String(repeating: "0", count: 32 - name.utf8.count) + name, disk: disk, target: name,
            recoveryPointObjectiveSeconds: 5, sealBytes: 64 << 20)
    }

    private func target(_ name: String, secret: String = "secret") -> TargetRecord {
        TargetRecord(name: name, iqn: "iqn.2026-01.org.causeway:\(name)", chapUser: "user", chapSecret: secret)
    }

    /// Adds a volume with a target of its own.
    private func add(_ volume: VolumeRecord) throws { try store.addVolume(volume, target: target(volume.target)) }

    private func attach(_ name: String, to edge: String, identifier: String) throws -> VolumeRecord {
        try store.attachVolume(name, edge: edge, identifier: identifier, wrappedKey: Data(repeating: 9, count: 61))
    }

    @Test func onlyTheOwnerReadsIt() throws {
        try store.addEdge(edge("e"))
        for name in try directory.list() { #expect(try directory.open(name).information().permissions == 0o600, "\(name)") }
        let pragmas = try store.database.read { database in
            [
                try String.fetchOne(database, sql: "PRAGMA journal_mode"),
                try String.fetchOne(database, sql: "PRAGMA synchronous"),
                try String.fetchOne(database, sql: "PRAGMA secure_delete"),
            ]
        }
        #expect(pragmas == ["wal", "2", "1"])
    }

    @Test func everythingIsThereAfterARestart() throws {
        try store.addEdge(edge("e"))
        try store.addDisk(DiskRecord(name: "disk", path: "/disk"))
        try add(volume("v"))
        let attached = try attach("v", to: "e", identifier: "a")
        try store.addAPIToken(APITokenRecord(hash: "h", name: "n", role: "admin"))
        try store.addEvent(kind: "k", subject: "s", message: "m")
        try store.close()
        let again = try StateStore(directory: directory, wrapping: Self.neverWraps)
        #expect(try again.volumes() == [attached])
        #expect(try again.volume(identifier: "a") == attached)
        #expect(try again.edges() == [edge("e")])
        #expect(try again.disks() == [DiskRecord(name: "disk", path: "/disk")])
        #expect(try again.apiToken(hash: "h")?.name == "n")
        #expect(try again.events().map(\.kind) == ["k"])
    }

    @Test func eachAttachAndDetachBumpsTheGeneration() throws {
        for id in ["e", "f"] { try store.addEdge(edge(id)) }
        try add(volume("v"))
        try add(volume("w"))
        let first = try attach("v", to: "e", identifier: "a")
        #expect(first.generation == 1 && first.edge == "e" && first.state == .attached)
        #expect(throws: StateStoreError.self) { try attach("v", to: "f", identifier: "b") }
        // The other volume is on the same disk.
        #expect(throws: StateStoreError.self) { try attach("w", to: "f", identifier: "b") }
        #expect(try store.volume("v") == first)
        #expect(try store.renewLease("v").generation == 2)
        let detached = try store.detachVolume("v")
        #expect(detached.generation == 3 && detached.edge == nil)
        #expect(try store.detachVolume("v") == detached)
        #expect(throws: StateStoreError.self) { try store.renewLease("v") }
        #expect(try attach("w", to: "f", identifier: "b").generation == 1)
        #expect(throws: StateStoreError.notFound(kind: "edge", name: "none")) { try attach("v", to: "none", identifier: "c") }
        _ = try store.detachVolume("w")
        try store.revokeEdge("f", at: date(5))
        #expect(throws: StateStoreError.self) { try attach("v", to: "f", identifier: "c") }
        try store.setLogIdentifier("log", ofVolume: "v")
        #expect(try store.volume("v").logIdentifier == "log")
    }

    @Test func howAVolumeIsServedMayChangeAndNothingElse() throws {
        try store.addEdge(edge("e"))
        try add(volume("v"))
        let attached = try attach("v", to: "e", identifier: "a")
        let changed = try store.changeVolume("v") { volume in
            volume.recoveryPointObjectiveSeconds = 9
            volume.operationsPerSecond = 500
            volume.isReadOnly = true
            volume.edge = nil
            volume.disk = "other"
            volume.generation = 0
        }
        var expected = attached
        expected.recoveryPointObjectiveSeconds = 9
        expected.operationsPerSecond = 500
        expected.isReadOnly = true
        #expect(changed == expected)
        #expect(try store.volume("v") == expected)
        // The size grows, never shrinks, and ends with the attachment.
        try store.setSectorCount(2_048, ofVolume: "v")
        try store.setSectorCount(1_024, ofVolume: "v")
        #expect(try store.volume("v").sectorCount == 2_048)
        #expect(try store.detachVolume("v").sectorCount == 0)
        try store.setSectorCount(1_024, ofVolume: "v")
        #expect(try attach("v", to: "e", identifier: "b").sectorCount == 0)
    }

    @Test func aGroupIsAtOneEdge() throws {
        for id in ["e", "f"] { try store.addEdge(edge(id)) }
        try add(volume("v"))
        try add(volume("w", disk: "second"))
        let group = GroupRecord(name: "g", identifier: "9", recoveryPointObjectiveSeconds: 5, sealBytes: 1 << 20)
        try store.addGroup(group, volumes: ["v", "w"])
        _ = try attach("v", to: "e", identifier: "a")
        // Whoever looked before the other was attached is refused too.
        let split = #expect(throws: StateStoreError.self) { try attach("w", to: "f", identifier: "b") }
        #expect(split?.description.contains("attached to the same edge") == true)
        #expect(try attach("w", to: "e", identifier: "b").edge == "e")
        // Where a disk was closed is kept, for the others of its group.
        #expect(try store.detachVolume("v", closedPoint: 7).closedPoint == 7)
        #expect(try store.volume("v").identifier == "a")
    }

    @Test func volumesShareATarget() throws {
        for id in ["e", "f"] { try store.addEdge(edge(id)) }
        try add(volume("root"))
        var data = volume("data", disk: "second")
        data.target = "root"
        let taken = #expect(throws: StateStoreError.self) { try store.addVolume(data) }
        #expect(taken?.description.contains("is the volume \"root\"") == true)
        data.logicalUnit = 7
        try store.addVolume(data)
        #expect(try store.volumes(ofTarget: "root").map(\.name) == ["root", "data"])
        #expect(try store.target("root") == target("root"))
        #expect(try store.target("data") == nil)
        // One machine's disks are served at one place.
        _ = try attach("root", to: "e", identifier: "a")
        let elsewhere = #expect(throws: StateStoreError.self) { try attach("data", to: "f", identifier: "b") }
        #expect(elsewhere?.description.contains("attached to the same edge") == true)
        #expect(try attach("data", to: "e", identifier: "b").edge == "e")
        // Another target of the same name, and a volume of a target that is not there.
        var third = volume("third", disk: "third")
        third.target = "root"
        #expect(throws: StateStoreError.exists(kind: "target", name: "root")) { try store.addVolume(third, target: target("root")) }
        third.target = "none"
        #expect(throws: StateStoreError.self) { try store.addVolume(third) }
        #expect(try store.volumes().map(\.name) == ["data", "root"])
        // The target goes with its last volume.
        for name in ["root", "data"] {
            #expect(try store.target("root") != nil)
            _ = try store.detachVolume(name)
            try store.deleteVolume(name)
        }
        #expect(try store.target("root") == nil)
    }

    /// A database as the first version made it, with a volume in it, goes on working.
    @Test func theFirstVersionsDatabaseIsTakenOver() throws {
        let old = NSTemporaryDirectory() + "causeway-state-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: old) }
        let directory = try OpenDirectory(old, create: true)
        var migrator = DatabaseMigrator()
        migrator.registerMigration("1") { database in
            try database.execute(sql: Self.firstTables)
            try database.execute(
                sql: """
                    INSERT INTO edge VALUES ('e', 'cloud', 'cloud', '01', '2026-01-01 00:00:00.000', NULL, NULL);
                    INSERT INTO disk VALUES ('d', '/d');
                    INSERT INTO volume VALUES ('v', 'a1', 'd', 'e', 'attached', 'iqn.x:v', 'user', 'secret', 'me', 'other', 'iqn.a' || char(10)
                        || 'iqn.b', CAST('0123456789abcdef0123456789abcdef' AS BLOB), 7, 'log', 5, 1048576);
                    INSERT INTO volume VALUES ('w', 'b1', 'd', NULL, 'detached', 'iqn.x:w', 'u', 's', NULL, NULL, '', zeroblob(32), 0, NULL,
                        0, 0);
                    """)
        }
        let queue = try DatabaseQueue(path: "\(old)/\(StateStore.fileName)")
        try migrator.migrate(queue)
        try queue.close()

        let plain = Data("0123456789abcdef0123456789abcdef".utf8)
        let wrapped = Mutex<[String: Data]>([:])
        let store = try StateStore(directory: directory) { key, identifier in
            wrapped.withLock { $0[identifier] = key }
            return Data("wrapped for ".utf8) + Data(identifier.utf8) + Data(count: 40)
        }
        #expect(wrapped.withLock { $0 } == ["a1": plain, "b1": Data(count: 32)])
        for name in try directory.list() {
            #expect(try Data(directory.readFile(name, byteCountMax: 1 << 24)).range(of: plain) == nil, "a plain key is in \(name)")
        }
        let volume = try store.volume("v")
        #expect(try store.dataKeys(ofVolume: "v").map(\.wrappedKey) == [Data("wrapped for a1".utf8) + Data(count: 40)])
        #expect(try store.dataKeys().map(\.generation) == [1, 1])
        #expect(volume.identifier == "a1" && volume.edge == "e" && volume.state == .attached && volume.generation == 7)
        #expect(volume.target == "v" && volume.logicalUnit == 0 && volume.logIdentifier == "log" && volume.sealBytes == 1 << 20)
        #expect(!volume.isRemovable)
        #expect(!volume.isReadOnly && volume.sectorCount == 0 && volume.operationsPerSecond == nil && volume.bytesPerSecond == nil)
        #expect(
            try store.target("v")
                == TargetRecord(
                    name: "v", iqn: "iqn.x:v", chapUser: "user", chapSecret: "secret", mutualChapUser: "me", mutualChapSecret: "other",
                    allowedInitiators: ["iqn.a", "iqn.b"]))
        #expect(try store.target("w")?.iqn == "iqn.x:w")
        // What held before still holds: one attachment a disk, no edge that is not there.
        #expect(throws: StateStoreError.self) {
            try store.attachVolume("w", edge: "e", identifier: "c", wrappedKey: Data(repeating: 9, count: 61))
        }
        #expect(try store.detachVolume("v").generation == 8)
        let attached = try store.attachVolume("w", edge: "e", identifier: "c", wrappedKey: Data(repeating: 9, count: 61))
        #expect(attached.generation == 1)
        #expect(throws: StateStoreError.self) {
            try store.write { try $0.execute(sql: "UPDATE volume SET edge = 'none' WHERE name = 'w'") }
        }
        try store.close()
        #expect(try StateStore(directory: directory, wrapping: Self.neverWraps).volume("w") == attached)
    }

    /// The tables of version 1, as they were.
    private static let firstTables = """
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
        """

    private func isInAFile(_ bytes: Data) throws -> Bool {
        try directory.list().contains { name in
            try Data(directory.readFile(name, byteCountMax: 1 << 24)).range(of: bytes) != nil
        }
    }

    @Test func aDeletedVolumesKeyIsGoneFromTheFiles() throws {
        try store.addEdge(edge("e"))
        try store.addVolume(volume("v"), target: target("v", secret: "a secret of the target"))
        _ = try store.attachVolume("v", edge: "e", identifier: "a", wrappedKey: Data(repeating: 0xa7, count: 61))
        _ = try store.detachVolume("v")
        let secrets = [Data(repeating: 0xa7, count: 61), Data("a secret of the target".utf8)]
        for secret in secrets { #expect(try isInAFile(secret)) }
        try store.deleteVolume("v")
        for secret in secrets { #expect(try !isInAFile(secret)) }
        #expect(throws: StateStoreError.notFound(kind: "volume", name: "v")) { try store.volume("v") }
        try add(volume("v"))
        _ = try attach("v", to: "e", identifier: "a")
        #expect(throws: StateStoreError.self) { try store.deleteVolume("v") }
        #expect(throws: StateStoreError.self) { try store.removeDisk("disk") }
    }

    @Test func namesAreUnique() throws {
        try store.addDisk(DiskRecord(name: "d", path: "/d"))
        #expect(throws: StateStoreError.exists(kind: "disk", name: "d")) { try store.addDisk(DiskRecord(name: "d", path: "/e")) }
        try add(volume("v"))
        #expect(throws: StateStoreError.exists(kind: "volume", name: "v")) { try add(volume("v")) }
        try store.removeDisk("d")
        #expect(throws: StateStoreError.notFound(kind: "disk", name: "d")) { try store.removeDisk("d") }
        try store.addAPIToken(APITokenRecord(hash: "h", name: "n", role: "admin"))
        #expect(try store.apiTokens().count == 1)
        try store.removeAPIToken(named: "n")
        #expect(try store.apiToken(hash: "h") == nil)
        #expect(throws: StateStoreError.self) { try store.removeAPIToken(named: "n") }
    }

    @Test func aPairingTokenIsUsedOnce() throws {
        try store.addPairingToken(hash: "t", expires: date(60), now: date(0))
        try store.addPairingToken(hash: "u", expires: date(1), now: date(0))
        #expect(try store.redeemPairingToken(hash: "t", edge: edge("e"), now: date(1)) == (nil, nil))
        try store.markEdgeSeen("e", at: date(1))
        #expect(throws: StateStoreError.self) { _ = try store.redeemPairingToken(hash: "t", edge: edge("f"), now: date(1)) }
        #expect(throws: StateStoreError.self) { _ = try store.redeemPairingToken(hash: "u", edge: edge("f"), now: date(1)) }
        #expect(throws: StateStoreError.self) { _ = try store.redeemPairingToken(hash: "x", edge: edge("f"), now: date(1)) }
        // A name that is taken does not use up the token.
        try store.addPairingToken(hash: "w", expires: date(60), now: date(2))
        #expect(throws: StateStoreError.self) { _ = try store.redeemPairingToken(hash: "w", edge: edge("e"), now: date(2)) }
        #expect(try store.redeemPairingToken(hash: "w", edge: edge("f"), now: date(2)) == (nil, nil))
        #expect(try store.edges().map(\.id) == ["e", "f"])
        #expect(try store.edge("name of f").id == "f")
        #expect(try store.edge("e").certificateSerial == "01e")
        #expect(try store.edge("e").revokedAt == nil)
        try store.setCertificateSerial("02", ofEdge: "e")
        #expect(try store.edge("e").certificateSerial == "02")
        try store.markEdgeSeen("e", at: date(3))
        try store.revokeEdge("e", at: date(4))
        try store.revokeEdge("e", at: date(9))
        #expect(try store.edge("e").revokedAt == date(4))
        #expect(try store.edge("e").lastSeen == date(3))
        #expect(throws: StateStoreError.notFound(kind: "edge", name: "none")) { try store.edge("none") }
        #expect(throws: StateStoreError.notFound(kind: "edge", name: "none")) { try store.revokeEdge("none") }
    }

    /// Where an edge is dialled is in its invitation, and may change.
    @Test func anEdgeIsDialledWhereItsTokenSays() throws {
        try store.addPairingToken(hash: "t", expires: date(60), address: "west:7481", now: date(0))
        try store.addPairingToken(hash: "u", expires: date(60), now: date(0))
        try store.addPairingToken(hash: "v", expires: date(5), address: "east:7481", now: date(0))
        #expect(Set(try store.dialledPairingTokens(now: date(1)).map(\.hash)) == ["t", "v"])
        #expect(try store.dialledPairingTokens(now: date(6)).map(\.address) == ["west:7481"])
        #expect(try store.redeemPairingToken(hash: "t", edge: edge("e"), now: date(7)) == (nil, "west:7481"))
        #expect(try store.dialledPairingTokens(now: date(7)).isEmpty)
        #expect(try store.edge("e").address == "west:7481")
        try store.setAddress("west-2:7481", ofEdge: "e")
        #expect(try store.edge("e").address == "west-2:7481")
        try store.setAddress(nil, ofEdge: "e")
        #expect(try store.edge("e").address == nil)
        #expect(try store.redeemPairingToken(hash: "u", edge: edge("f"), now: date(7)) == (nil, nil))
        #expect(throws: StateStoreError.notFound(kind: "edge", name: "none")) { try store.setAddress("a:1", ofEdge: "none") }
    }

    /// An edge whose join failed on its own side, or that was revoked, gives its name up; one that works keeps it.
    @Test func aNameIsFreeAgain() throws {
        for (number, token) in ["a", "b", "c", "d", "e"].enumerated() {
            try store.addPairingToken(hash: token, expires: date(60), now: date(Double(number)))
        }
        func joined(_ token: String, as identifier: String) throws -> String? {
            var record = edge(identifier)
            record.name = "west"
            return try store.redeemPairingToken(hash: token, edge: record, now: date(7)).replaced
        }
        #expect(try joined("a", as: "one") == nil)
        #expect(try joined("b", as: "two") == "one", "never seen")
        #expect(try store.edge("one").revokedAt == date(7) && store.edge("one").name == "one")
        #expect(try store.edge("west").id == "two")
        try store.markEdgeSeen("two", at: date(8))
        #expect(throws: StateStoreError.exists(kind: "edge", name: "west")) { try joined("c", as: "three") }
        try store.revokeEdge("two", at: date(9))
        #expect(try joined("c", as: "three") == "two")
        #expect(try store.edge("two").revokedAt == date(9))
        // Never seen, but a volume is attached to it.
        try add(volume("v"))
        _ = try attach("v", to: "three", identifier: "x")
        #expect(throws: StateStoreError.self) { try joined("d", as: "four") }
    }

    @Test func eventsAreBounded() throws {
        try store.database.write { database in
            try database.execute(
                sql: """
                    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
                    INSERT INTO event (time, kind, subject, message) SELECT '2026-01-01 00:00:00.000', 'k', i, 'm' FROM n
                    """)
        }
        let event = try store.addEvent(kind: "last", subject: "s", message: "m", time: date(0))
        #expect(event.sequence == 10_001)
        let all = try store.events()
        #expect(all.count == StateStore.eventsMax)
        #expect(all.first?.sequence == 2)
        #expect(all.last == event)
        #expect(try store.events(after: 10_000, limit: 5) == [event])
        #expect(try store.events(after: 0, limit: -3).isEmpty)
    }

    @Test func keepsNoPlainKey() throws {
        #expect(throws: StateStoreError.self) { try store.addWrappedSiteKey(Data(count: 32)) }
        try store.addEdge(edge("e"))
        try add(volume("v"))
        #expect(throws: StateStoreError.self) {
            try store.attachVolume("v", edge: "e", identifier: "a", wrappedKey: Data(count: 32))
        }
        _ = try attach("v", to: "e", identifier: "a")
        #expect(throws: StateStoreError.self) { try store.addDataKey(ofVolume: "v") { _, _ in Data(count: 32) } }
        #expect(throws: StateStoreError.self) {
            try store.write { try $0.execute(sql: "UPDATE dataKey SET wrappedKey = zeroblob(32)") }
        }
    }

    @Test func keysComeOneAfterTheOtherAndGoForGood() throws {
        try store.addEdge(edge("e"))
        try add(volume("v"))
        #expect(throws: StateStoreError.self, "detached") { try store.addDataKey(ofVolume: "v") { _, _ in Data(count: 61) } }
        _ = try attach("v", to: "e", identifier: "a")
        func wrapped(_ generation: UInt64) -> Data { Data(repeating: UInt8(0xa0 + generation), count: 61) }
        for generation in 2...UInt64(StateStore.liveKeysMax) {
            let key = try store.addDataKey(ofVolume: "v", madeAt: date(1)) { identifier, next in
                #expect(identifier == "a" && next == generation)
                return wrapped(next)
            }
            #expect(key.generation == generation && key.identifier == "a")
            // Whoever copies the database's file now has the key.
            #expect(try Data(directory.readFile("state.sqlite", byteCountMax: 1 << 24)).range(of: wrapped(generation)) != nil)
        }
        #expect(throws: StateStoreError.self, "too many in use") { try store.addDataKey(ofVolume: "v") { _, _ in Data(count: 61) } }
        #expect(try store.destroyDataKeys(ofVolume: "v", identifier: "another", before: 4).isEmpty)
        #expect(try store.destroyDataKeys(ofVolume: "v", identifier: "a", before: 4, except: [2], at: date(2)).map(\.generation) == [1, 3])
        #expect(try store.destroyDataKeys(ofVolume: "v", identifier: "a", before: 4, at: date(2)).map(\.generation) == [2])
        #expect(try store.destroyDataKeys(ofVolume: "v", identifier: "a", before: 4).isEmpty, "a second time")
        #expect(try !isInAFile(wrapped(2)) && !isInAFile(wrapped(3)) && isInAFile(wrapped(4)))
        #expect(try store.dataKeys(ofVolume: "v").map(\.destroyedAt).prefix(4) == [date(2), date(2), date(2), nil])
        // The newest is not to be had in this way, whatever a cloud edge says.
        _ = try store.destroyDataKeys(ofVolume: "v", identifier: "a", before: .max >> 1)
        #expect(try store.dataKeys(ofVolume: "v").filter { $0.wrappedKey != nil }.map(\.generation) == [UInt64(StateStore.liveKeysMax)])
        #expect(try store.destroyAllDataKeys(ofVolume: "v", at: date(3)).map(\.generation) == [UInt64(StateStore.liveKeysMax)])
        for generation in 2...UInt64(StateStore.liveKeysMax) { #expect(try !isInAFile(wrapped(generation))) }
        #expect(try store.destroyAllDataKeys(ofVolume: "v").isEmpty)
        #expect(throws: StateStoreError.self, "shredded") { try store.addDataKey(ofVolume: "v") { _, _ in Data(count: 61) } }
        // The next attachment begins anew.
        _ = try store.detachVolume("v")
        _ = try attach("v", to: "e", identifier: "b")
        #expect(try store.dataKeys(ofVolume: "v").map(\.generation) == [1])
    }

    @Test func destroyedKeysThatAreShownAreBounded() throws {
        try store.addEdge(edge("e"))
        try add(volume("v"))
        _ = try attach("v", to: "e", identifier: "a")
        for _ in 0..<StateStore.destroyedKeysMax + 3 {
            let key = try store.addDataKey(ofVolume: "v") { _, _ in Data(count: 61) }
            _ = try store.destroyDataKeys(ofVolume: "v", identifier: "a", before: key.generation)
        }
        #expect(try store.dataKeys(ofVolume: "v").count == StateStore.destroyedKeysMax + 1)
        #expect(try store.dataKeys(ofVolume: "v").last?.generation == UInt64(StateStore.destroyedKeysMax + 4))
    }

    @Test func allKeysAreWrappedAnewOrNone() throws {
        try store.addEdge(edge("e"))
        try store.addWrappedSiteKey(Data(repeating: 0xc1, count: 61))
        try add(volume("v"))
        _ = try attach("v", to: "e", identifier: "a")
        var keys = try store.dataKeys()
        _ = try store.addDataKey(ofVolume: "v") { _, _ in Data(repeating: 0xc3, count: 61) }
        keys[0].wrappedKey = Data(repeating: 0xd2, count: 61)
        let site = Data(repeating: 0xd1, count: 61)
        #expect(throws: StateStoreError.self, "one was added meanwhile") {
            try store.replaceWrappedKeys(site: site, dataKeys: keys, masterKeyMadeAt: date(1))
        }
        #expect(try store.wrappedSiteKey() == Data(repeating: 0xc1, count: 61) && !isInAFile(Data(repeating: 0xd2, count: 61)))
        keys = try store.dataKeys()
        for index in keys.indices { keys[index].wrappedKey = Data(repeating: 0xd2, count: 61) }
        try store.replaceWrappedKeys(site: site, dataKeys: keys, masterKeyMadeAt: date(1))
        #expect(try store.wrappedSiteKey() == site && store.masterKeyMadeAt() == date(1))
        #expect(try store.dataKeys() == keys)
        for old in [0xc1, 0xc3, 9] as [UInt8] { #expect(try !isInAFile(Data(repeating: old, count: 61))) }
    }

    @Test func theSiteKeyIsKeptOnce() throws {
        #expect(try store.wrappedSiteKey() == nil)
        try store.addWrappedSiteKey(Data(repeating: 1, count: 61))
        #expect(throws: StateStoreError.self) { try store.addWrappedSiteKey(Data(repeating: 2, count: 61)) }
        #expect(try store.wrappedSiteKey() == Data(repeating: 1, count: 61))
    }

    @Test func aDamagedDatabaseIsSaidToBeOne() throws {
        try store.close()
        for name in try directory.list() where name != StateStore.fileName { try directory.remove(name) }
        try directory.replaceFile(StateStore.fileName, with: Array(repeating: UInt8(0x55), count: 8192))
        let error = #expect(throws: StateStoreError.self) { try StateStore(directory: directory, wrapping: Self.neverWraps) }
        #expect(error?.description.contains("restore it from a backup") == true)
    }
}
