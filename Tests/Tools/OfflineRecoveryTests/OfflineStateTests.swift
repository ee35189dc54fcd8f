import Ciphers
import Files
import Foundation
import Testing

@testable import OfflineRecovery

@Suite struct OfflineStateTests {
    @Test func listsVolumesWithAndWithoutTheirKeysAndWritesNothing() async throws {
        let world = try OfflineWorld()
        try world.add("mail", number: 1)
        try world.add("web", number: 2)
        try world.add("old", number: 3, place: "retired")
        for name in ["mail", "web", "old"] { try await world.fill(name) }
        let before = try world.snapshot()
        let volumes = try await world.open("mail", "old").volumes(verifiesData: true)
        #expect(try world.snapshot() == before)
        #expect(volumes.map(\.name) == ["mail", nil, "old"])
        #expect(volumes.map(\.directory.first) == ["v", "v", "r"])
        #expect(volumes.allSatisfy { $0.damages.isEmpty && $0.tornTail == nil })
        let mail = volumes[0]
        #expect(mail.points?.map(\.number) == [1, 2, 3, 4])
        #expect(mail.points?.map(\.sealed) == [true, true, true, false])
        #expect(mail.points?.last?.bytes == 33 * 512)
        #expect((mail.lastFlushedBatch ?? 0) > 0 && (mail.lastFlushedBatch ?? 0) <= (mail.lastBatch ?? 0))
        #expect(volumes[1].points == nil && volumes[1].files == 4 && volumes[1].oldestPoint == 1 && volumes[1].newestPoint == 4)
    }

    /// What can't be read of one volume must not keep the others from being found.
    @Test func anUnreadableFileIsDamageOfItsVolume() async throws {
        let world = try OfflineWorld()
        for (number, name) in ["mail", "web"].enumerated() {
            try world.add(name, number: UInt64(number) + 1)
            try await world.fill(name)
        }
        let path = try #require(try world.logFiles("mail").first)
        try FileManager.default.removeItem(atPath: path)
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
        let volumes = try await world.open("mail", "web").volumes(verifiesData: true)
        #expect(volumes.map(\.name) == ["mail", "web"])
        #expect(volumes[0].damages.contains { $0.file.hasSuffix(path.split(separator: "/").last ?? "?") || $0.message.contains(path) })
        #expect(volumes[1].damages.isEmpty && volumes[1].points?.count == 4)
    }

    @Test func refusesWhileADaemonHasTheDirectory() async throws {
        let world = try OfflineWorld()
        try world.add("mail", number: 1)
        try await world.fill("mail")
        let directory = try OpenDirectory(world.state)
        do {
            let lock = try StateDirectoryLock(directory: directory)
            #expect(throws: OfflineError.self) { try world.open("mail") }
            withExtendedLifetime(lock) {}
        }
        let state = try world.open("mail")
        #expect(throws: StateDirectoryError.self) { try StateDirectoryLock(directory: directory) }
        #expect(try await state.volumes().count == 1)
        // Several may read at once.
        _ = try world.open("mail")
    }

    @Test func aTornTailIsWhatACrashLeaves() async throws {
        let world = try OfflineWorld()
        try world.add("mail", number: 1)
        try await world.fill("mail")
        let last = try #require(try world.logFiles("mail").last)
        let whole = try #require(try await world.open("mail").volumes()[0].points?.last?.fileBytes)
        try world.change(last) { $0 = $0.prefix(Int(whole) - 700) }
        let volume = try await world.open("mail").volumes(verifiesData: true)[0]
        #expect(volume.damages.isEmpty)
        #expect(volume.points?.map(\.number) == [1, 2, 3])
        #expect(volume.tornTail?.file.hasSuffix(last) == true && volume.tornTail?.offset == 4096)
    }

    /// Every byte counts: a bit that flipped in the second of four files is found, and what is before it can still be had.
    @Test(arguments: [20, 4_096 + 60, 4_096 + 900]) func aFlippedBitIsFound(at offset: Int) async throws {
        let world = try OfflineWorld()
        try world.add("mail", number: 1)
        try world.add("web", number: 2)
        for name in ["mail", "web"] { try await world.fill(name) }
        let file = try world.logFiles("mail")[1]
        try world.change(file) { $0[offset] ^= 4 }
        let state = try world.open("mail", "web")
        let volumes = try await state.volumes(verifiesData: true)
        #expect(volumes[0].damages.first?.file.contains("epoch-") == true, "\(volumes[0].damages)")
        #expect(volumes[1].damages.isEmpty && volumes[1].points?.count == 4)
        await #expect(throws: OfflineError.self) {
            try await state.export(volume: "mail", to: .image(path: world.path + "/a.img", base: nil, replaces: false))
        }
        #expect(!FileManager.default.fileExists(atPath: world.path + "/a.img"))
        let result = try await state.export(
            volume: "mail", through: .point(1), to: .image(path: world.path + "/a.img", base: try world.base(), replaces: false))
        #expect(result.points == [1] && result.endsSealed)
        #expect(try world.bytes(world.path + "/a.img") == world.sealed["mail"]?[1])
    }

    @Test func aMissingMiddleFileIsFound() async throws {
        let world = try OfflineWorld()
        try world.add("mail", number: 1)
        try await world.fill("mail")
        try FileManager.default.removeItem(atPath: try world.logFiles("mail")[1])
        let volume = try await world.open("mail").volumes()[0]
        #expect(volume.damages.first?.message.contains("was durable, but the log ends before") == true, "\(volume.damages)")
        #expect(volume.points?.map(\.number) == [1])
        #expect(volume.unusedFiles.count == 2)
    }

    @Test func aWrongKeyOpensNothingAndIsNotTold() async throws {
        let world = try OfflineWorld()
        try world.add("mail", number: 1)
        try await world.fill("mail")
        let right = try world.key("mail")
        let wrong = RecoveryKey(
            name: "mail", identifier: right.identifier, sectorCount: 8, keys: DataKeys(try SecretKey([UInt8](repeating: 0x41, count: 32))))
        let state = try OfflineState(path: world.state, keys: [wrong])
        let volume = try await state.volumes()[0]
        #expect(!volume.isOpen && volume.damages.count == 1)
        let text = "\(volume)"
        #expect(text.contains("does not open it") && !text.contains("AAAA") && !text.contains("65, 65"))
        await #expect(throws: OfflineError.self) {
            try await state.export(volume: "mail", to: .image(path: world.path + "/a.img", base: nil, replaces: false))
        }
    }
}
