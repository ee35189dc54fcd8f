import Blocks
import Testing

@testable import Volumes

private func sectors(_ start: UInt64, _ end: UInt64) -> SectorRange { SectorRange(from: start, to: end) }

/// What a write policy says of each range.
@Suite struct RegionTableTests {
    private static let sectorCount: UInt64 = 1_001

    private func table(_ cloudOnly: SectorRange...) throws -> RegionTable {
        var table = RegionTable()
        for range in cloudOnly { try table.set(range, to: .cloudOnly, sectorCount: Self.sectorCount) }
        return table
    }

    @Test("a new region cuts those below it, and neighbours that are alike become one")
    func setting() throws {
        var table = try table(sectors(0, 80), sectors(80, 160))
        #expect(table.regions.map(\.range) == [sectors(0, 160)])
        try table.set(sectors(40, 48), to: .onPrem, origin: .found, sectorCount: Self.sectorCount)
        #expect(table.regions.map(\.range) == [sectors(0, 40), sectors(40, 48), sectors(48, 160)])
        #expect(table.regions.map(\.origin) == [.operator, .found, .operator])
        try table.remove(sectors(32, 56), sectorCount: Self.sectorCount)
        #expect(table.regions.map(\.range) == [sectors(0, 32), sectors(56, 160)])
        try table.remove(sectors(0, 1_001), sectorCount: Self.sectorCount)
        #expect(table.isTrivial)
    }

    @Test("a region is of whole blocks, inside of the disk")
    func checks() throws {
        var table = RegionTable()
        #expect(throws: RegionError.unaligned) { try table.set(sectors(1, 8), to: .cloudOnly, sectorCount: Self.sectorCount) }
        #expect(throws: RegionError.unaligned) { try table.set(sectors(0, 9), to: .cloudOnly, sectorCount: Self.sectorCount) }
        #expect(throws: RegionError.empty) { try table.set(sectors(8, 8), to: .cloudOnly, sectorCount: Self.sectorCount) }
        #expect(throws: RegionError.outOfRange) { try table.set(sectors(8, 1_008), to: .cloudOnly, sectorCount: Self.sectorCount) }
        // The end of the disk may be anywhere in a block.
        try table.set(sectors(992, 1_001), to: .cloudOnly, sectorCount: Self.sectorCount)
    }

    @Test("a table that is full stays as it is, and says so")
    func limit() throws {
        var table = RegionTable()
        let count = UInt64(RegionTable.regionsMax) * 16
        for index in 0..<UInt64(RegionTable.regionsMax) {
            try table.set(sectors(index * 16, index * 16 + 8), to: .cloudOnly, sectorCount: count)
        }
        let before = table
        #expect(throws: RegionError.tooMany(RegionTable.regionsMax)) {
            try table.set(sectors(8 * 16 + 8, 9 * 16), to: .onPrem, sectorCount: count)
        }
        #expect(table == before)
    }

    @Test("a write is cut at the borders of policies, and what is held on-prem goes where it is held")
    func routing() throws {
        let table = try table(sectors(16, 32))
        let none: (SectorRange) -> [SectorRange] = { _ in [] }
        #expect(table.route(sectors(0, 8), held: none) == [WritePiece(range: sectors(0, 8), destination: .onPrem)])
        #expect(
            table.route(sectors(8, 40), held: none) == [
                WritePiece(range: sectors(8, 16), destination: .onPrem), WritePiece(range: sectors(16, 32), destination: .cloudOnly),
                WritePiece(range: sectors(32, 40), destination: .onPrem),
            ])
        let held: (SectorRange) -> [SectorRange] = { part in
            [sectors(12, 16), sectors(34, 35)].map { $0.intersection(part) }.filter { !$0.isEmpty }
        }
        #expect(
            table.route(sectors(8, 40), held: held) == [
                WritePiece(range: sectors(8, 12), destination: .onPrem), WritePiece(range: sectors(12, 32), destination: .cloudOnly),
                WritePiece(range: sectors(32, 34), destination: .onPrem), WritePiece(range: sectors(34, 35), destination: .cloudOnly),
                WritePiece(range: sectors(35, 40), destination: .onPrem),
            ])
    }

    @Test("ranges on their way home are joined, and taken out as they come home")
    func imaging() throws {
        var table = RegionTable()
        try table.beginImaging(sectors(0, 8))
        try table.beginImaging(sectors(100, 200))
        try table.beginImaging(sectors(4, 16))
        #expect(table.imaging == [sectors(0, 16), sectors(100, 200)])
        table.endImaging(sectors(0, 16))
        table.endImaging(sectors(120, 140))
        #expect(table.imaging == [sectors(100, 120), sectors(140, 200)])
        for index in 0..<UInt64(RegionTable.imagingMax - 2) {
            try table.beginImaging(sectors(1_000 + index * 10, 1_001 + index * 10))
        }
        // What lies between two ranges may be meant to stay: at the limit no gap is taken in.
        let full = table
        #expect(throws: RegionError.tooManyImaging(RegionTable.imagingMax)) { try table.beginImaging(sectors(900, 901)) }
        #expect(table == full)
        try table.beginImaging(sectors(1_001, 1_005))
        #expect(table.imaging.count == RegionTable.imagingMax)
    }
}
