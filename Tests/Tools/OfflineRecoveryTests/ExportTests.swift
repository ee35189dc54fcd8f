import Blocks
import Files
import Foundation
import Testing

@testable import OfflineRecovery

@Suite struct ExportTests {
    private func world() async throws -> OfflineWorld {
        let world = try OfflineWorld()
        try world.add("mail", number: 1)
        try await world.fill("mail")
        return world
    }

    @Test func overABaseItIsTheDiskAsItWasWritten() async throws {
        let world = try await world()
        let (state, image, base) = (try world.open("mail"), world.path + "/mail.img", try world.base())
        let before = try world.snapshot()
        let all = try await state.export(volume: "mail", to: .image(path: image, base: base, replaces: false))
        #expect(all.points == [1, 2, 3, 4] && !all.endsSealed && all.map == nil && !all.lacksCloudOnlyWrites)
        #expect(try world.bytes(image) == world.disks["mail"])
        for (point, disk) in try #require(world.sealed["mail"]) {
            let result = try await state.export(
                volume: try world.key("mail").identifier.description, through: .point(point),
                to: .image(path: image, base: base, replaces: true))
            #expect(result.endsSealed && result.points.last == point)
            #expect(try world.bytes(image) == disk, "point \(point)")
        }
        #expect(try world.bytes(base).allSatisfy { $0 == 0xee })
        #expect(try world.snapshot() == before)
        await #expect(throws: OfflineError.self) {
            try await state.export(volume: "mail", through: .point(4), to: .image(path: image, base: base, replaces: true))
        }
        await #expect(throws: OfflineError.self) {
            try await state.export(volume: "web", to: .image(path: image, base: base, replaces: true))
        }
    }

    /// A state directory that was copied back leaves two logs of one attachment: nobody but the operator knows which is meant.
    @Test func ofTwoLogsOneIsNamed() async throws {
        let world = try await world()
        let identifier = try world.key("mail").identifier.description
        let copy = "\(world.state)/retired"
        try FileManager.default.createDirectory(atPath: copy, withIntermediateDirectories: true)
        try FileManager.default.copyItem(atPath: "\(world.state)/volumes/\(identifier)", toPath: "\(copy)/\(identifier).1")
        let (state, image, base) = (try world.open("mail"), world.path + "/mail.img", try world.base())
        let refused = await #expect(throws: OfflineError.self) {
            try await state.export(volume: "mail", to: .image(path: image, base: base, replaces: false))
        }
        #expect("\(try #require(refused))".contains("2 logs") && refused?.action?.contains("retired/\(identifier).1") == true)
        let named = try await state.export(volume: "retired/\(identifier).1", to: .image(path: image, base: base, replaces: false))
        #expect(named.volume == "mail" && named.points == [1, 2, 3, 4])
        #expect(try world.bytes(image) == world.disks["mail"])
    }

    /// The topmost layer: also over what is unsent, and what it was made to read as zeroes. Whoever takes an image without it for the volume
    /// must hear that it is not all of it.
    @Test func whatIsCloudOnlyLiesOverThePoints() async throws {
        let world = try await world()
        let directory = "\(world.state)/volumes/\(try world.key("mail").identifier)/cloud-only"
        let writer = CloudOnlyWriter(directory: try OpenDirectory(directory, create: true), key: try world.key("mail"))
        // Some in the files, some in the journal.
        try await writer.write(10, 30, fill: 0xc1)
        try await writer.drain()
        try await writer.write(30, 20, fill: 0xc2)
        try await writer.writeZeroes(35, 3)
        try await writer.flush()
        try await writer.close()
        var disk = try #require(world.disks["mail"])
        for (start, count, fill) in [(10, 30, 0xc1), (30, 20, 0xc2), (35, 3, 0)] as [(Int, Int, UInt8)] {
            disk.replaceSubrange(start * 512..<(start + count) * 512, with: repeatElement(fill, count: count * 512))
        }
        let before = try world.snapshot()
        let state = try world.open("mail")
        #expect(try await state.volumes().map(\.hasCloudOnlyDisk).contains(true))
        let image = world.path + "/mail.img"
        func export(through: ExportEnd = .lastWrite, cloudOnly: Bool = true) async throws -> OfflineExport {
            try await state.export(
                volume: "mail", through: through, to: .image(path: image, base: try world.base(), replaces: true), cloudOnly: cloudOnly)
        }
        let all = try await export()
        #expect(!all.lacksCloudOnlyWrites && all.cloudOnlyBytes == 40 * 512)
        #expect(try world.bytes(image) == disk)
        let without = try await export(cloudOnly: false)
        #expect(without.lacksCloudOnlyWrites && without.cloudOnlyBytes == 0)
        #expect(try world.bytes(image) == world.disks["mail"])
        #expect(try await export(through: .point(2)).lacksCloudOnlyWrites)
        #expect(try world.snapshot() == before, "nothing may be written")
    }

    @Test func inPlaceItIsTheSameAndMayBeRepeated() async throws {
        let world = try await world()
        let (state, base) = (try world.open("mail"), try world.base())
        for _ in 0..<2 {
            _ = try await state.export(volume: "mail", to: .inPlace(path: base))
            #expect(try world.bytes(base) == world.disks["mail"])
        }
        try world.change(base) { $0 = $0.prefix(512 * 100) }
        await #expect(throws: OfflineError.self) {
            try await state.export(volume: "mail", to: .inPlace(path: base))
        }
    }

    @Test func withoutABaseTheMapSaysWhatIsThere() async throws {
        let world = try await world()
        let (state, image) = (try world.open("mail"), world.path + "/mail.img")
        let result = try await state.export(volume: "mail", to: .image(path: image, base: nil, replaces: false))
        let map = try String(contentsOfFile: try #require(result.map), encoding: .utf8)
        let (bytes, disk) = (try world.bytes(image), try #require(world.disks["mail"]))
        #expect(bytes.count == disk.count && result.imageBytes == UInt64(disk.count))
        var end = 0
        for line in map.split(separator: "\n").filter({ !$0.hasPrefix("#") }).dropFirst() {
            let fields = line.split(separator: " ").map(String.init)
            let (start, count) = (
                try #require(Int(fields[0].dropFirst(2), radix: 16)), try #require(Int(fields[1].dropFirst(2), radix: 16))
            )
            #expect(start == end, "the map has a gap")
            end = start + count
            if fields[2] == "+" {
                #expect(bytes[start..<end] == disk[start..<end])
            } else {
                #expect(fields[2] == "?" && bytes[start..<end].allSatisfy { $0 == 0 } && disk[start..<end].allSatisfy { $0 == 0xee })
            }
        }
        #expect(end == bytes.count)
        #expect(try FileManager.default.contentsOfDirectory(atPath: world.path).sorted() == ["mail.img", "mail.img.map", "state"])
    }

    @Test func replacesAFileOnlyWhenAsked() async throws {
        let world = try await world()
        let (state, image) = (try world.open("mail"), world.path + "/mail.img")
        try Data("mine".utf8).write(to: URL(fileURLWithPath: image))
        await #expect(throws: OfflineError.self) {
            try await state.export(volume: "mail", to: .image(path: image, base: nil, replaces: false))
        }
        #expect(try world.bytes(image) == Array("mine".utf8))
        _ = try await state.export(volume: "mail", to: .image(path: image, base: nil, replaces: true))
        #expect(try world.bytes(image).count == Int(OfflineWorld.sectorCount) * 512)
    }

    /// Points that have gone home are not in the log any more, and an epoch that a restart goes on with has several files.
    @Test func afterReleasesAndRestarts() async throws {
        let world = try await world()
        try await world.writer("mail").release(through: 1)
        try await world.write("mail", 310, 5, fill: 0x55)
        try await world.flush("mail")
        try await world.writer("mail").abandon()
        let base = world.path + "/home.img"
        try Data(try #require(world.sealed["mail"]?[1])).write(to: URL(fileURLWithPath: base))
        let result = try await world.open("mail").export(
            volume: "mail", to: .image(path: world.path + "/mail.img", base: base, replaces: false))
        #expect(result.points == [2, 3, 4])
        #expect(try world.bytes(world.path + "/mail.img") == world.disks["mail"])
    }
}
