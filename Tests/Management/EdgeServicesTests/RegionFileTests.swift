import Blocks
import CloudOnlyDisk
import Files
import Foundation
import Testing
import Volumes
import WriteLog

@testable import EdgeServices

/// The regions as they are kept beside a volume's write log.
@Suite struct RegionFileTests {
    private let path = FileManager.default.temporaryDirectory.appendingPathComponent("causeway-regions-\(UUID().uuidString)").path

    private func withDirectory(_ body: (OpenDirectory) throws -> Void) throws {
        let directory = try OpenDirectory(path, create: true)
        defer { try? FileManager.default.removeItem(atPath: path) }
        try body(directory)
    }

    @Test func whatWasKeptComesBack() throws {
        try withDirectory { directory in
            #expect(try StoredRegions(in: directory).table.isTrivial)
            var table = RegionTable()
            try table.set(SectorRange(from: 8, to: 64), to: .cloudOnly, sectorCount: 100)
            try table.beginImaging(SectorRange(from: 64, to: 80))
            let disk = LogIdentifier(high: 1, low: 2)
            _ = try StoredRegions.makeDirectory(in: directory)
            try StoredRegions.keep(table, disk: disk, in: directory)
            let stored = try StoredRegions(in: directory)
            #expect(stored.table == table && stored.directory != nil)
            #expect(stored.disk == CloudOnlyMark(identifier: disk, epoch: 0))
            try StoredRegions.keep(CloudOnlyMark(identifier: disk, epoch: 7), in: directory)
            #expect(try StoredRegions(in: directory).disk?.epoch == 7)
            // The mark of another disk tells nothing of this one.
            try StoredRegions.keep(CloudOnlyMark(identifier: LogIdentifier(high: 3, low: 4), epoch: 9), in: directory)
            #expect(try StoredRegions(in: directory).disk?.epoch == 0)
        }
    }

    /// An empty disk in the place of one that was written to would show the origin's bytes as the newest.
    @Test func aDiskThatIsGoneIsToldAndNotMadeAnew() throws {
        try withDirectory { directory in
            _ = try StoredRegions.makeDirectory(in: directory)
            try StoredRegions.keep(RegionTable(defaultPolicy: .cloudOnly), disk: LogIdentifier(high: 1, low: 2), in: directory)
            try FileManager.default.removeItem(atPath: "\(path)/cloud-only")
            let failure = #expect(throws: EdgeFailure.self) { _ = try StoredRegions(in: directory) }
            #expect(failure.map { "\($0)".contains("cloud-only disk is missing") } == true)
            #expect(try !directory.list().contains("cloud-only"))
        }
    }

    @Test func aDamagedFileIsNotTakenForAllOnPrem() throws {
        try withDirectory { directory in
            try directory.replaceFile("regions", with: Array("{}".utf8))
            #expect(throws: EdgeFailure.self) { _ = try StoredRegions(in: directory) }
        }
    }
}
