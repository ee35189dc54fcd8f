import Blocks
import Ciphers
import Files
import Foundation
import LocalFiles
import NIOCore
import SecureCache
import Testing

@testable import OfflineRecovery

/// A cache in real files, written as a cloud edge writes it.
private actor CacheWriter {
    nonisolated let loop = OfflineLoop.shared
    nonisolated var unownedExecutor: UnownedSerialExecutor { loop.eventLoop.executor.asUnownedSerialExecutor() }

    /// Fills the cache in a state directory with `blockCount` blocks of each volume, and lets go of it without closing it.
    func fill(state: String, key: SecretKey, volumes: [RecoveryKey], blockCount: UInt64) async throws {
        let file = LocalFile(
            try OpenFile("\(state)/cache", [.write, .create]), eventLoop: loop.eventLoop, threadPool: loop.threadPool)
        let records = LocalDirectory(
            try OpenDirectory("\(state)/\(CacheRecordsDirectory.name)", create: true), eventLoop: loop.eventLoop,
            threadPool: loop.threadPool)
        let cache: SecureCache<LocalDirectory> = try await completed {
            SecureCache.open(
                file: file, directory: records, byteCount: 16 << 20, keys: CacheKeys(cache: key) { _, _ in nil }, random: .system,
                completion: $0)
        }
        for volume in volumes {
            cache.attach(volume: volume.identifier, key: volume.keys.newestKey, generation: volume.keys.newest)
            try await completed { cache.synchronize(completion: $0) }
            for block in stride(from: UInt64(0), to: blockCount, by: 16) {
                cache.insert(volume.identifier, block: block, data: ByteBuffer(repeating: UInt8(1 + block % 200), count: 16 * 4096))
            }
            try await completed { cache.synchronize(completion: $0) }
        }
    }
}

@Suite struct OfflineCacheTests {
    private let cacheKey: SecretKey
    private let world: OfflineWorld

    init() throws {
        cacheKey = try SecretKey([UInt8](repeating: 9, count: 32))
        world = try OfflineWorld()
        try world.add("mail", number: 1)
        try world.add("web", number: 2)
    }

    private func fill() async throws {
        try await CacheWriter().fill(
            state: world.state, key: cacheKey, volumes: [try world.key("mail"), try world.key("web")], blockCount: 320)
    }

    private func verify(_ keys: [SecretKey], _ volumes: String..., progress: @escaping @Sendable (UInt64) -> Void = { _ in })
        async throws -> OfflineCache
    {
        try await CacheScrub().verify(
            state: world.state, path: world.state + "/cache", keys: keys, volumes: try volumes.map { try world.key($0) },
            onProgress: progress)
    }

    @Test func aCacheIsReadWithTheKeysThereAreAndNothingIsWritten() async throws {
        try await fill()
        let before = try world.snapshot()
        let found = try await verify([try world.key("mail").keys.newestKey, cacheKey], "mail")
        #expect(try world.snapshot() == before)
        #expect(found.isWhole && found.loss == nil && found.version == 5, "\(found)")
        #expect(found.volumes.map(\.name) == ["mail", nil])
        #expect(found.volumes.map(\.isHidden) == [false, true])
        #expect(found.volumes.map(\.blocks) == [320, 0] && found.volumes.map(\.authentic) == [320, 0])
        #expect(!found.recordFiles.isEmpty && found.recordFiles.allSatisfy { $0.state == .whole })
    }

    /// What no key opens is not whole, however little of it that is: it is told, with the keys that are asked for.
    @Test func whatWasNotReadIsTold() async throws {
        try await fill()
        #expect(try await verify([cacheKey], "mail", "web").lackOfKeys == nil)
        let partly = try #require(try await verify([cacheKey], "mail").lackOfKeys)
        let web = try world.key("web").identifier.description
        #expect(
            partly.hasPrefix("1 of 2 volumes") && partly.contains("\(web) needs its key of generation 1, and there is none"), "\(partly)")
        // The key as it was before a rotation.
        let rotated = try RecoveryKey.rotated(try world.key("web"))
        try await CacheWriter().fill(state: world.state, key: cacheKey, volumes: [rotated], blockCount: 32)
        let found = try await verify([cacheKey], "mail", "web")
        let old = try #require(found.lackOfKeys, "\(found)")
        #expect(found.isWhole && found.volumes.map(\.blocks) == [0], "\(found)")
        #expect(old.contains("web (\(web)) needs its key of generation 2, and there is only that of generation 1"), "\(old)")
    }

    @Test func flippedBytesAreFound() async throws {
        try await fill()
        // Slots follow one another from the first segment's beginning on.
        let slots: [UInt64] = [4_096, 45_216, 49_328]
        let places: [Int] = [4_101, 47_216, 53_439]
        try world.change(world.state + "/cache") { data in for place in places { data[place] ^= 0x10 } }
        let found = try await verify([cacheKey], "mail", "web")
        #expect(!found.isWhole && found.damagedBlocks == ["corrupt": 3], "\(found)")
        #expect(found.blockDamages.map(\.offset) == slots)
        #expect(found.blockDamages.map(\.block) == [0, 10, 11] && found.blockDamages.allSatisfy { $0.volume == "mail" })
        #expect(found.volumes.map(\.damaged) == [3, 0] && found.volumes.map(\.authentic) == [317, 320])
    }

    private func error(verifying state: String) async -> OfflineError? {
        do {
            _ = try await CacheScrub().verify(state: state, path: state + "/cache", keys: [cacheKey], volumes: [])
            return nil
        } catch { return error as? OfflineError }
    }

    /// It is told that nothing was looked at, and what is missing: the records, or the whole state.
    @Test func saysWhenThereIsNothingToCheck() async throws {
        try await fill()
        let records = "\(world.state)/\(CacheRecordsDirectory.name)"
        for name in try FileManager.default.contentsOfDirectory(atPath: records) {
            try FileManager.default.removeItem(atPath: "\(records)/\(name)")
        }
        let noRecords = await error(verifying: world.state)
        #expect(noRecords?.description.contains("nothing was checked") == true, "\(String(describing: noRecords))")
        let empty = world.state + ".empty"
        try FileManager.default.createDirectory(atPath: empty, withIntermediateDirectories: false)
        defer { try? FileManager.default.removeItem(atPath: empty) }
        let noState = await error(verifying: empty)
        #expect(noState?.action == "Name the state directory of a cloud edge.", "\(String(describing: noState))")
    }

    @Test func refusesWhatIsInUseAndWhatIsNoCache() async throws {
        try await fill()
        let directory = try OpenDirectory(world.state)
        do {
            let lock = try StateDirectoryLock(directory: directory)
            await #expect(throws: OfflineError.self) { try await verify([cacheKey], "mail") }
            withExtendedLifetime(lock) {}
        }
        do {
            let file = try OpenFile(world.state + "/cache", [.write])
            try file.lockExclusively()
            await #expect(throws: OfflineError.self) { try await verify([cacheKey], "mail") }
            withExtendedLifetime(file) {}
        }
        await #expect(throws: OfflineError.self) { try await verify([try world.key("mail").keys.newestKey], "mail") }
        try world.change(world.state + "/cache") { $0 = Data(repeating: 7, count: 1 << 20) }
        await #expect(throws: OfflineError.self) { try await verify([cacheKey], "mail") }
        try FileManager.default.removeItem(atPath: world.state + "/cache")
        await #expect(throws: OfflineError.self) { try await verify([cacheKey], "mail") }
        #expect(!FileManager.default.fileExists(atPath: world.state + "/cache"))
    }
}

extension RecoveryKey {
    /// The next generation of a key alone.
    fileprivate static func rotated(_ key: RecoveryKey) throws -> RecoveryKey {
        let keys = DataKeys(try SecretKey([UInt8](repeating: 77, count: 32)), generation: key.keys.newest + 1)
        return RecoveryKey(name: key.name, identifier: key.identifier, sectorCount: key.sectorCount, keys: keys)
    }
}
