import Files
import Foundation
import Testing

@testable import StateStore

@Suite final class StateStoreTests {
    private let path = NSTemporaryDirectory() + "causeway-state-\(UUID().uuidString)"
    private let directory: OpenDirectory
    private let store: StateStore

    init() throws {
        directory = try OpenDirectory(path, create: true)
        store = try StateStore(directory: directory)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    private func date(_ seconds: TimeInterval) -> Date { Date(timeIntervalSince1970: 1_800_000_000 + seconds) }

    private func edge(_ id: String) -> EdgeRecord {
        EdgeRecord(id: id, name: "name of \(id)", role: "cloud", certificateSerial: "01\(id)", createdAt: date(0))
    }

    private func volume(_ name: String, disk: String = "disk", key: UInt8 = 7) -> VolumeRecord {
        VolumeRecord(
            name: name, identifier: String(repeating: "0", count: 32 - name.utf8.count) + name, disk: disk,
            iqn: "iqn.2026-01.org.causeway:\(name)", chapUser: "user", chapSecret: "secret",
            dataKey: Data(repeating: key, count: 32),
            recoveryPointObjectiveSeconds: 5, sealBytes: 64 << 20)
    }

    private func attach(_ name: String, to edge: String, identifier: String) throws -> VolumeRecord {
        try store.attachVolume(name, edge: edge, identifier: identifier, dataKey: Data(repeating: 9, count: 32))
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
        try store.addVolume(volume("v"))
        let attached = try attach("v", to: "e", identifier: "a")
        try store.addAPIToken(APITokenRecord(hash: "h", name: "n", role: "admin"))
        try store.addEvent(kind: "k", subject: "s", message: "m")
        try store.close()
        let again = try StateStore(directory: directory)
        #expect(try again.volumes() == [attached])
        #expect(try again.volume(identifier: "a") == attached)
        #expect(try again.edges() == [edge("e")])
        #expect(try again.disks() == [DiskRecord(name: "disk", path: "/disk")])
        #expect(try again.apiToken(hash: "h")?.name == "n")
        #expect(try again.events().map(\.kind) == ["k"])
    }

    @Test func eachAttachAndDetachBumpsTheGeneration() throws {
        for id in ["e", "f"] { try store.addEdge(edge(id)) }
        try store.addVolume(volume("v"))
        try store.addVolume(volume("w"))
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
        #expect(
            try store.setPolicy(ofVolume: "v", recoveryPointObjectiveSeconds: 9, sealBytes: 10).recoveryPointObjectiveSeconds == 9
        )
        #expect(try store.volume("v").logIdentifier == "log")
    }

    @Test func aDeletedVolumesKeyIsGoneFromTheFiles() throws {
        try store.addEdge(edge("e"))
        try store.addVolume(volume("v", key: 0xa7))
        let key = Data(repeating: 0xa7, count: 32)
        func keyIsInAFile() throws -> Bool {
            try directory.list().contains { name in
                try Data(directory.readFile(name, byteCountMax: 1 << 24)).range(of: key) != nil
            }
        }
        #expect(try keyIsInAFile())
        try store.deleteVolume("v")
        #expect(try !keyIsInAFile())
        #expect(throws: StateStoreError.notFound(kind: "volume", name: "v")) { try store.volume("v") }
        try store.addVolume(volume("v"))
        _ = try attach("v", to: "e", identifier: "a")
        #expect(throws: StateStoreError.self) { try store.deleteVolume("v") }
        #expect(throws: StateStoreError.self) { try store.removeDisk("disk") }
    }

    @Test func namesAreUnique() throws {
        try store.addDisk(DiskRecord(name: "d", path: "/d"))
        #expect(throws: StateStoreError.exists(kind: "disk", name: "d")) { try store.addDisk(DiskRecord(name: "d", path: "/e")) }
        try store.addVolume(volume("v"))
        #expect(throws: StateStoreError.exists(kind: "volume", name: "v")) { try store.addVolume(volume("v")) }
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
        try store.redeemPairingToken(hash: "t", edge: edge("e"), now: date(1))
        #expect(throws: StateStoreError.self) { try store.redeemPairingToken(hash: "t", edge: edge("f"), now: date(1)) }
        #expect(throws: StateStoreError.self) { try store.redeemPairingToken(hash: "u", edge: edge("f"), now: date(1)) }
        #expect(throws: StateStoreError.self) { try store.redeemPairingToken(hash: "x", edge: edge("f"), now: date(1)) }
        // A name that is taken does not use up the token.
        try store.addPairingToken(hash: "w", expires: date(60), now: date(2))
        #expect(throws: StateStoreError.self) { try store.redeemPairingToken(hash: "w", edge: edge("e"), now: date(2)) }
        try store.redeemPairingToken(hash: "w", edge: edge("f"), now: date(2))
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

    @Test func aDamagedDatabaseIsSaidToBeOne() throws {
        try store.close()
        for name in try directory.list() where name != StateStore.fileName { try directory.remove(name) }
        try directory.replaceFile(StateStore.fileName, with: Array(repeating: UInt8(0x55), count: 8192))
        let error = #expect(throws: StateStoreError.self) { try StateStore(directory: directory) }
        #expect(error?.description.contains("restore it from a backup") == true)
    }
}
