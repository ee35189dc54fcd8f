import Blocks
import Files
import Testing

@testable import OfflineRecovery

/// Images of all volumes of a group, exported apart, are of one instant.
@Suite struct CutExportTests {
    private let names = ["data", "journal"]

    /// Two volumes with two whole cuts; the second cut found nothing new in `journal`.
    private func world() async throws -> OfflineWorld {
        let world = try OfflineWorld()
        for (index, name) in names.enumerated() { try world.add(name, number: UInt64(index + 1)) }
        for name in names { try await world.write(name, 10, 4, fill: 0x11) }
        try await world.cut(names, number: 5)
        try await world.write("data", 12, 4, fill: 0x22)
        try await world.cut(names, number: 6)
        return world
    }

    private func end(_ world: OfflineWorld) async throws { for name in names { try await world.writer(name).abandon() } }

    private func export(_ world: OfflineWorld, _ name: String, keys: [String]? = nil) async throws -> (OfflineExport, [UInt8]) {
        let image = world.path + "/\(name).img"
        let state = try OfflineState(path: world.state, keys: try (keys ?? names).map { try world.key($0) })
        let result = try await state.export(
            volume: name, through: .lastCut, to: .image(path: image, base: try world.base(), replaces: true))
        return (result, try world.bytes(image))
    }

    @Test func itEndsWithTheLastCutThatAllLogsHave() async throws {
        let world = try await world()
        // A cut whose part of one volume a power cut took away, and writes that nobody sealed.
        for name in names { try await world.write(name, 20, 4, fill: 0x33) }
        try await world.cut(names, number: 7, lost: ["journal"])
        try await world.write("data", 30, 1, fill: 0x44)
        for name in names { try await world.flush(name) }
        try await end(world)
        let (data, dataBytes) = try await export(world, "data")
        let (journal, journalBytes) = try await export(world, "journal")
        #expect(data.cut == 6 && data.cutPoint == 2 && data.points == [1, 2] && data.endsSealed)
        #expect(journal.cut == 6 && journal.cutPoint == 1 && journal.points == [1] && journal.endsSealed)
        #expect(dataBytes == world.sealed["data"]?[2])
        #expect(journalBytes == world.sealed["journal"]?[1])
        let listed = try await world.open("data", "journal").volumes()
        #expect(listed.map { $0.points?.compactMap(\.cut) } == [[5, 6, 7], [5]])
    }

    /// After the restart that followed the lost part, the epoch of that volume went on and was sealed for the next cut.
    @Test func aLaterCutTakesTheBrokenOnesPlace() async throws {
        let world = try await world()
        for name in names { try await world.write(name, 20, 4, fill: 0x33) }
        try await world.cut(names, number: 7, lost: ["journal"])
        try await world.write("journal", 40, 1, fill: 0x55)
        try await world.cut(names, number: 8)
        try await end(world)
        let (data, dataBytes) = try await export(world, "data")
        let (journal, journalBytes) = try await export(world, "journal")
        #expect(data.cut == 8 && data.cutPoint == 3 && journal.cut == 8 && journal.cutPoint == 2)
        #expect(dataBytes == world.sealed["data"]?[3] && journalBytes == world.sealed["journal"]?[2])
    }

    @Test func whatHomeHasIsNotPutOverTheBase() async throws {
        let world = try await world()
        try await world.writer("journal").release(through: 1)
        try await world.writer("data").release(through: 1)
        try await end(world)
        let (data, _) = try await export(world, "data")
        let (journal, journalBytes) = try await export(world, "journal")
        #expect(data.cut == 6 && data.points == [2])
        #expect(journal.cut == 6 && journal.cutPoint == 1 && journal.points.isEmpty && journal.writtenBytes == 0)
        #expect(journalBytes.allSatisfy { $0 == 0xee })
    }

    @Test func withoutTheKeyOfAMemberNobodyKnows() async throws {
        let world = try await world()
        try await end(world)
        await #expect { try await export(world, "data", keys: ["data"]) } throws: {
            guard let error = $0 as? OfflineError, let journal = world.keys["journal"] else { return false }
            return error.description.contains(journal.identifier.description) && error.action?.contains("recovery-key --all") == true
        }
    }

    @Test func aVolumeWithoutAGroupHasNoCut() async throws {
        let world = try OfflineWorld()
        try world.add("mail", number: 1)
        try await world.fill("mail")
        await #expect(throws: OfflineError.self) { try await export(world, "mail", keys: ["mail"]) }
    }
}
