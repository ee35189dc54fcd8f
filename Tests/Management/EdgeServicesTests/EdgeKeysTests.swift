import Ciphers
import Files
import Foundation
import StateStore
import Testing

@testable import EdgeServices

@Suite final class EdgeKeysTests {
    private let path = NSTemporaryDirectory() + "causeway-keys-\(UUID().uuidString)"
    private let directory: OpenDirectory
    private let store: StateStore

    init() throws {
        directory = try OpenDirectory(path, create: true)
        store = try StateStore(directory: directory) { _, _ in Data() }
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    private func record(_ identifier: String, _ wrappedKey: Data, generation: UInt64 = 1) -> DataKeyRecord {
        DataKeyRecord(
            volume: "name of \(identifier)", identifier: identifier, generation: generation, wrappedKey: wrappedKey, madeAt: Date())
    }

    private func bytes(_ key: SecretKey) -> [UInt8] { key.withUnsafeBytes { Array($0) } }

    private func failure(_ body: () throws -> EdgeKeys) -> EdgeFailure? {
        do {
            _ = try body()
            return nil
        } catch {
            return error as? EdgeFailure
        }
    }

    @Test func aKeyIsTheSameAfterARestartAndOpensForItsVolumeOnly() throws {
        let keys = try EdgeKeys.open(store: store, directory: directory)
        #expect(try directory.open(MasterKeyFile.fileName).information().permissions == 0o600)
        let (wrappedFirst, wrappedSecond) = (try keys.newDataKey(identifier: "a"), try keys.newDataKey(identifier: "b"))
        let (first, second) = (record("a", wrappedFirst), record("b", wrappedSecond))
        let again = try EdgeKeys.open(store: store, directory: directory)
        #expect(bytes(try keys.dataKey(first)) == bytes(try again.dataKey(first)))
        #expect(bytes(try keys.dataKey(first)) != bytes(try keys.dataKey(second)))
        #expect(try keys.cacheKey(ofEdge: "e").hasSameBytes(as: again.cacheKey(ofEdge: "e")))
        #expect(try !keys.cacheKey(ofEdge: "e").hasSameBytes(as: keys.cacheKey(ofEdge: "f")))
        #expect(try keys.identity(ofDisk: "d") == again.identity(ofDisk: "d"))
        #expect(throws: EdgeFailure.self) { try keys.dataKey(record("a", wrappedSecond)) }
        #expect(throws: EdgeFailure.self) { try keys.dataKey(record("b", wrappedFirst)) }
        #expect(throws: EdgeFailure.self) { try keys.dataKey(record("a", wrappedFirst, generation: 2)) }
        let later = record("a", try keys.newDataKey(identifier: "a", generation: 2), generation: 2)
        #expect(bytes(try keys.dataKey(later)) == bytes(try again.dataKey(later)))
        #expect(bytes(try keys.dataKey(later)) != bytes(try keys.dataKey(first)))
    }

    @Test func aWrongOrMissingMasterKeyIsSaidToBeOne() throws {
        _ = try EdgeKeys.open(store: store, directory: directory)
        let right = try directory.readFile(MasterKeyFile.fileName, byteCountMax: 64)
        try directory.remove(MasterKeyFile.fileName)
        let missing = try #require(failure { try EdgeKeys.open(store: store, directory: directory) })
        #expect(missing.status == .state && missing.description.contains("is missing"), "\(missing)")
        #expect(try directory.list().contains(MasterKeyFile.fileName) == false, "a new key was made in place of a lost one")
        try directory.replaceFile(MasterKeyFile.fileName, with: [UInt8](repeating: 3, count: 32))
        let wrong = try #require(failure { try EdgeKeys.open(store: store, directory: directory) })
        #expect(wrong.status == .state && wrong.description.contains("is not the one"), "\(wrong)")
        for failure in [missing, wrong] { #expect(failure.description.contains("put back the file")) }
        try directory.replaceFile(MasterKeyFile.fileName, with: [UInt8](repeating: 3, count: 31))
        #expect(failure { try EdgeKeys.open(store: store, directory: directory) }?.description.contains("31 bytes") == true)
        try directory.replaceFile(MasterKeyFile.fileName, with: right)
        _ = try EdgeKeys.open(store: store, directory: directory)
    }

    /// What an edge derived from its master key before keys were wrapped: its caches stay warm, and its disks keep their names.
    @Test func aStoreFromBeforeKeepsWhatWasDerived() throws {
        let old = try SecretKey([UInt8](repeating: 5, count: 32))
        try directory.replaceFile(MasterKeyFile.fileName, with: bytes(old))
        let plain = Data(repeating: 6, count: 32)
        let wrapped = try EdgeKeys.wrapPlainKey(plain, identifier: "a", in: directory)
        #expect(wrapped.range(of: plain) == nil)
        let keys = try EdgeKeys.open(store: store, directory: directory)
        #expect(Data(bytes(try keys.dataKey(record("a", wrapped)))) == plain)
        #expect(
            try bytes(keys.cacheKey(ofEdge: "e")) == HMACSHA256.authenticationCode(of: Array("causeway cache key e".utf8), key: old))
        #expect(
            try keys.identity(ofDisk: "d")
                == Data(HMACSHA256.authenticationCode(of: Array("causeway disk identity d".utf8), key: old).prefix(16)))
        #expect(try store.wrappedSiteKey()?.range(of: Data(bytes(old))) == nil)
    }
    // MARK: Rotation of the master key

    /// A store with a volume whose key is there in two generations.
    private func attachVolume(_ keys: EdgeKeys) throws -> [[UInt8]] {
        try store.addEdge(EdgeRecord(id: "e", name: "e", role: "cloud", certificateSerial: "1"))
        try store.addVolume(
            VolumeRecord(name: "v", identifier: "x", disk: "d", target: "v", recoveryPointObjectiveSeconds: 0, sealBytes: 0),
            target: TargetRecord(name: "v", iqn: "iqn.x:v", chapUser: "u", chapSecret: "s"))
        _ = try store.attachVolume("v", edge: "e", identifier: "a", wrappedKey: try keys.newDataKey(identifier: "a"))
        _ = try store.addDataKey(ofVolume: "v") { try keys.newDataKey(identifier: $0, generation: $1) }
        return try all(keys)
    }

    /// All that the keys of the store give.
    private func all(_ keys: EdgeKeys) throws -> [[UInt8]] {
        try store.dataKeys().map { bytes(try keys.dataKey($0)) } + [bytes(try keys.cacheKey(ofEdge: "e"))]
    }

    private func masterKeyFiles() throws -> [String] { try directory.list().filter { $0.contains("master.key") }.sorted() }

    @Test func aRotationOfTheMasterKeyChangesNothingElse() throws {
        let keys = try EdgeKeys.open(store: store, directory: directory)
        let before = try attachVolume(keys)
        let old = try directory.readFile(MasterKeyFile.fileName, byteCountMax: 64)
        #expect(try store.masterKeyMadeAt() != nil)
        let rotated = try EdgeKeys.rotateMasterKey(store: store, directory: directory)
        #expect(rotated.failure == nil)
        #expect(try all(rotated.keys) == before)
        #expect(try all(EdgeKeys.open(store: store, directory: directory)) == before)
        #expect(try masterKeyFiles() == [MasterKeyFile.fileName])
        #expect(try directory.open(MasterKeyFile.fileName).information().permissions == 0o600)
        #expect(try directory.readFile(MasterKeyFile.fileName, byteCountMax: 64) != old)
        #expect(throws: EdgeFailure.self, "nothing is wrapped by the old one") { try all(keys) }
        try directory.replaceFile(MasterKeyFile.fileName, with: old)
        #expect(failure { try EdgeKeys.open(store: store, directory: directory) }?.status == .state)
    }

    /// What a crash leaves at each step: the next start finds the key that the store was wrapped by, and one file.
    @Test func aCrashAmidTheRotationOfTheMasterKey() throws {
        let keys = try EdgeKeys.open(store: store, directory: directory)
        let before = try attachVolume(keys)
        let old = try directory.readFile(MasterKeyFile.fileName, byteCountMax: 64)
        // The next key is there, and the store has not been touched.
        try directory.replaceFile(MasterKeyFile.nextFileName, with: [UInt8](repeating: 9, count: 32))
        #expect(try all(EdgeKeys.open(store: store, directory: directory)) == before)
        #expect(try masterKeyFiles() == [MasterKeyFile.fileName])
        // The store has been wrapped anew; the files have not changed their places, the old one may be overwritten already.
        _ = try EdgeKeys.rotateMasterKey(store: store, directory: directory)
        let new = try directory.readFile(MasterKeyFile.fileName, byteCountMax: 64)
        for rest in [old, [UInt8](repeating: 0, count: 32), nil] {
            try directory.rename(MasterKeyFile.fileName, to: MasterKeyFile.nextFileName)
            if let rest { try directory.replaceFile(MasterKeyFile.fileName, with: rest) }
            #expect(try all(EdgeKeys.open(store: store, directory: directory)) == before)
            #expect(try masterKeyFiles() == [MasterKeyFile.fileName])
            #expect(try directory.readFile(MasterKeyFile.fileName, byteCountMax: 64) == new)
        }
        // A further rotation must not take the only key that opens the store for a leftover.
        try directory.rename(MasterKeyFile.fileName, to: MasterKeyFile.nextFileName)
        try directory.replaceFile(MasterKeyFile.fileName, with: old)
        #expect(try all(EdgeKeys.rotateMasterKey(store: store, directory: directory).keys) == before)
        #expect(try all(EdgeKeys.open(store: store, directory: directory)) == before)
    }

    @Test func aDamagedKeyKeepsTheMasterKeyAsItIs() throws {
        let keys = try EdgeKeys.open(store: store, directory: directory)
        _ = try attachVolume(keys)
        let old = try directory.readFile(MasterKeyFile.fileName, byteCountMax: 64)
        _ = try store.addDataKey(ofVolume: "v") { _, _ in Data(count: 60) }
        let rotated = try EdgeKeys.rotateMasterKey(store: store, directory: directory)
        #expect(rotated.failure is EdgeFailure)
        #expect(try masterKeyFiles() == [MasterKeyFile.fileName])
        #expect(try directory.readFile(MasterKeyFile.fileName, byteCountMax: 64) == old)
        #expect(try bytes(rotated.keys.dataKey(store.dataKeys()[0])) == bytes(keys.dataKey(store.dataKeys()[0])))
    }
}
