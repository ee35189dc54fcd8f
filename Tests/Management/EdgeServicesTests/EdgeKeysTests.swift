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

    private func record(_ identifier: String, _ wrappedKey: Data) -> VolumeRecord {
        VolumeRecord(
            name: "name of \(identifier)", identifier: identifier, disk: "disk", target: "target", wrappedKey: wrappedKey,
            recoveryPointObjectiveSeconds: 0, sealBytes: 0)
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
        let (first, second) = (record("a", try keys.newDataKey(identifier: "a")), record("b", try keys.newDataKey(identifier: "b")))
        let again = try EdgeKeys.open(store: store, directory: directory)
        #expect(bytes(try keys.dataKey(of: first)) == bytes(try again.dataKey(of: first)))
        #expect(bytes(try keys.dataKey(of: first)) != bytes(try keys.dataKey(of: second)))
        #expect(try keys.cacheKey(ofEdge: "e") == again.cacheKey(ofEdge: "e"))
        #expect(try keys.cacheKey(ofEdge: "e") != keys.cacheKey(ofEdge: "f"))
        #expect(try keys.identity(ofDisk: "d") == again.identity(ofDisk: "d"))
        #expect(throws: EdgeFailure.self) { try keys.dataKey(of: record("a", second.wrappedKey)) }
        #expect(throws: EdgeFailure.self) { try keys.dataKey(of: record("b", first.wrappedKey)) }
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
        #expect(Data(bytes(try keys.dataKey(of: record("a", wrapped)))) == plain)
        #expect(
            try keys.cacheKey(ofEdge: "e") == Data(HMACSHA256.authenticationCode(of: Array("causeway cache key e".utf8), key: old)))
        #expect(
            try keys.identity(ofDisk: "d")
                == Data(HMACSHA256.authenticationCode(of: Array("causeway disk identity d".utf8), key: old).prefix(16)))
        #expect(try store.wrappedSiteKey()?.range(of: Data(bytes(old))) == nil)
    }
}
