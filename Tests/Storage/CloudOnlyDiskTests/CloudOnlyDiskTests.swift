import Blocks
import Ciphers
import NIOCore
import SimulatedStorage
import Testing
import WriteLog

@testable import CloudOnlyDisk

@Suite struct CloudOnlyDiskTests {
    @Test(arguments: [false, true]) func showsTheLastOfWriteZeroingAndRemoval(isDrained: Bool) throws {
        let harness = try DiskHarness()
        let disk = try harness.open()
        try harness.write(range(3, 20), fill: 1)
        if isDrained { try harness.drain() }
        try harness.write(range(5, 2), fill: 2)
        try harness.wait { disk.writeZeroes(range(8, 4), completion: $0) }
        if isDrained { try harness.drain() }
        try harness.wait { disk.remove(range(10, 4), completion: $0) }
        if isDrained { try harness.drain() }
        let sectors = try harness.contents(range(0, 30))
        var expected = [[UInt8]?](repeating: nil, count: 30)
        for sector in 3..<23 { expected[sector] = filled(1) }
        for sector in 5..<7 { expected[sector] = filled(2) }
        for sector in 8..<10 { expected[sector] = filled(0) }
        for sector in 10..<14 { expected[sector] = nil }
        #expect(sectors == expected)
        #expect(disk.heldSectors(in: range(0, 12)) == 7)
        #expect(!disk.holds(overlapping: range(10, 4)))
    }

    @Test func removalOfEverythingLeavesNothing() throws {
        let harness = try DiskHarness()
        let disk = try harness.open()
        try harness.write(range(0, 8), fill: 1)
        try harness.write(range(5_000, 8), fill: 2)
        try harness.drain()
        try harness.wait { disk.remove(range(0, 1 << 40), completion: $0) }
        try harness.drain()
        #expect(disk.isEmpty)
        #expect(disk.statistics.storedBytes == 0)
        harness.crash(power: true)
        let again = try harness.open()
        #expect(again.isEmpty)
        let blocks = try #require(harness.directory.file("blocks")).content
        #expect(blocks[4096...].allSatisfy { $0 == 0 }, "the space of what was removed was not freed")
    }

    /// Pieces with nothing to free end before they have begun: the drain must have one end nevertheless.
    @Test func removalOfWhatWasNeverThereIsDrainedOnce() throws {
        let harness = try DiskHarness()
        let disk = try harness.open()
        for start in stride(from: UInt64(0), to: 30_000, by: 3_000) { try harness.wait { disk.remove(range(start, 8), completion: $0) } }
        disk.sealJournal()
        try harness.drain()
        _ = harness.scheduler.run(until: harness.scheduler.now + .seconds(1))
        #expect(disk.statistics.drainedEpochs == 1)
    }

    /// What comes late would do it to a file of whoever opens the disk next, and has drained more meanwhile.
    @Test(arguments: 0..<40) func aCloseWaitsForWhatADrainHasUnderWay(steps: Int) throws {
        let harness = try DiskHarness(seed: UInt64(steps))
        harness.machine.faults.atOncePercent = 0
        let disk = try harness.open()
        for start in stride(from: UInt64(0), to: 3_000, by: 64) { try harness.write(range(start, 8), fill: 1) }
        try harness.wait { disk.writeZeroes(range(2, 4), completion: $0) }
        disk.sealJournal()
        _ = harness.scheduler.run(until: harness.scheduler.now + .seconds(10)) { disk.isDraining }
        for _ in 0..<steps * 8 { _ = harness.scheduler.step() }
        try harness.wait { disk.close(completion: $0) }
        #expect(harness.machine.changesInFlight == 0)
        let files = harness.machine.copy(directories: ["cloud-only"])
        _ = harness.scheduler.run(until: harness.scheduler.now + .seconds(10))
        #expect(harness.machine.copy(directories: ["cloud-only"]) == files, "something was written after the close")
        #expect(try harness.openResult().get().failure == nil)
    }

    /// An epoch whose seal was told to take too long is drained as soon as that is possible: the room it takes comes back in no other way.
    @Test func anEpochWhoseSealWasGivenUpIsDrained() throws {
        let harness = try DiskHarness()
        let disk = try harness.open()
        try harness.write(range(0, 8), fill: 1)
        harness.machine.faults.isReadOnly = true
        disk.sealJournal()
        _ = harness.scheduler.run(until: harness.scheduler.now + .seconds(2))
        disk.failWaiting(.noSpace("the file system takes no changes"))
        harness.machine.faults.isReadOnly = false
        try harness.drain()
        #expect(disk.failure == nil && disk.statistics.drainedEpochs == 1)
    }

    @Test func drainedSectorsComeBackAfterARestart() throws {
        let harness = try DiskHarness()
        let disk = try harness.open()
        // Pages that are full, that are mixed, and the border between two.
        try harness.write(range(1_020, 10), fill: 3)
        try harness.wait { disk.writeZeroes(range(2_048, 1_024), completion: $0) }
        for start in stride(from: UInt64(4_096), to: 5_120, by: 64) { try harness.write(range(start, 64), fill: 4) }
        try harness.drain()
        #expect(disk.presence.pages[4]?.common == .data)
        let before = try harness.contents(range(1_000, 4_200))
        harness.crash(power: true)
        let again = try harness.open()
        #expect(try harness.contents(range(1_000, 4_200)) == before)
        #expect(again.presence.pages.mapValues(\.words) == disk.presence.pages.mapValues(\.words))
    }

    /// A machine unmaps all of a large disk when it makes a file system on it.
    @Test func othersHaveTheirTurnsWhileManyPagesAreWritten() throws {
        let harness = try DiskHarness()
        harness.sectorCount = 1 << 17
        harness.machine.faults.atOncePercent = 0
        harness.machine.faults.latencyMicroseconds = 10...20
        let disk = try harness.open()
        try harness.wait { disk.writeZeroes(range(0, 1 << 17), completion: $0) }
        disk.sealJournal()
        var (pages, most) = (0, 0)
        let isDone = harness.scheduler.run(until: harness.scheduler.now + .seconds(60)) {
            most = max(most, disk.presence.pages.count - pages)
            pages = disk.presence.pages.count
            return !disk.journal.hasWrites && !disk.isDraining
        }
        #expect(isDone && pages == 128 && most == CloudOnlyDrain.pagesInFlightMax)
        try harness.wait { disk.remove(range(0, 1 << 17), completion: $0) }
        try harness.drain()
        harness.crash(power: true)
        #expect(try harness.open().isEmpty)
    }

    /// What an attempt has taken out of the map is to be written all the same.
    @Test(arguments: 0..<8) func aRemovalThatCameToNothingIsWrittenAgain(page: UInt64) throws {
        let harness = try DiskHarness(seed: page)
        harness.machine.faults.atOncePercent = 0
        let disk = try harness.open()
        for number in UInt64(0)..<8 { try harness.write(range(number * 1_024 + 5, 8), fill: 1) }
        try harness.drain()
        try harness.wait { disk.remove(range(0, 1 << 14), completion: $0) }
        disk.sealJournal()
        let isThere = harness.scheduler.run(until: harness.scheduler.now + .seconds(10)) { disk.presence.pages[page]?.isEmpty ?? true }
        try #require(isThere && disk.isDraining)
        harness.machine.faults.isReadOnly = true
        _ = harness.scheduler.run(until: harness.scheduler.now + .seconds(2)) { !disk.isDraining }
        #expect(!disk.isDraining && disk.failure == nil)
        harness.machine.faults.isReadOnly = false
        try harness.drain()
        harness.crash(power: true)
        #expect(try harness.open().isEmpty)
    }

    @Test func theFilesHoldNothingReadable() throws {
        let harness = try DiskHarness()
        try harness.open()
        try harness.write(range(0, 64), fill: 0x5a)
        try harness.drain()
        let pattern = [UInt8](repeating: 0x5a, count: 16)
        for bytes in harness.machine.allBytes where bytes.count >= 16 {
            #expect(!(0...bytes.count - 16).contains { bytes[$0] == 0x5a && Array(bytes[$0..<$0 + 16]) == pattern })
        }
    }

    @Test func aChangedOrMovedSectorIsAnErrorAndNoData() throws {
        let harness = try DiskHarness()
        let disk = try harness.open()
        try harness.write(range(0, 16), fill: 1)
        try harness.drain()
        harness.machine.faults.residentPercent = 0
        let blocks = try #require(harness.directory.file("blocks"))
        blocks.flipBit(at: 4096 + 3 * 512 + 7)
        #expect(throws: WriteLogError.self) { _ = try harness.contents(range(3, 1)) }
        #expect(try harness.contents(range(4, 1)) == [filled(1)])
        // A sector with its seal, put in another one's place.
        blocks.misdirect(from: 4096 + 4 * 512, to: 4096 + 5 * 512, byteCount: 512)
        try #require(harness.directory.file("seals")).misdirect(from: 4 * 32, to: 5 * 32, byteCount: 32)
        #expect(throws: WriteLogError.self) { _ = try harness.contents(range(5, 1)) }
        #expect(disk.failure == nil)
    }

    @Test func aDecayedPageKeepsTheDiskFromOpening() throws {
        let harness = try DiskHarness()
        try harness.open()
        try harness.write(range(0, 16), fill: 1)
        try harness.drain()
        harness.crash(power: false)
        let presence = try #require(harness.directory.file("presence"))
        // The root, and the first page.
        for place in [512 + 20, 1_024 + 512 + 20] {
            presence.flipBit(at: place)
            guard case .failure(.corrupt) = try harness.openResult() else {
                Issue.record("what lies below would be taken for the newest")
                return
            }
            presence.flipBit(at: place)
        }
        try harness.open()
        #expect(try harness.contents(range(0, 1)) == [filled(1)])
    }

    /// A page that a file system has lost reads as zeroes, and one of an old copy is as well sealed as the newest.
    @Test func lostAndOldPagesKeepTheDiskFromOpening() throws {
        let harness = try DiskHarness()
        try harness.open()
        try harness.write(range(0, 16), fill: 1)
        try harness.write(range(2_000, 16), fill: 1)
        try harness.drain()
        let presence = try #require(harness.directory.file("presence"))
        let old = presence.content
        try harness.write(range(4, 40), fill: 2)
        try harness.drain()
        harness.crash(power: false)
        let new = presence.content
        var lost = new
        lost.replaceSubrange(2_048..<3_072, with: [UInt8](repeating: 0, count: 1_024))
        var mixed = new
        mixed.replaceSubrange(1_024..<2_048, with: old[1_024..<2_048])
        for content in [lost, mixed, old, Array(new[..<1_024]), []] {
            harness.replace("presence", with: content)
            guard case .failure(.corrupt) = try harness.openResult() else {
                Issue.record("opened with \(content.count) bytes of pages that are not the newest")
                return
            }
        }
        harness.replace("presence", with: new)
        try harness.open()
        #expect(try harness.contents(range(4, 1)) == [filled(2)])
    }

    /// Until the files of a drained epoch are gone for good a crash brings them back, and that is no old copy.
    @Test(arguments: [true, false]) func theMarkWaitsUntilWhatWasDrainedIsGone(power: Bool) throws {
        let harness = try DiskHarness()
        let disk = try harness.open()
        try harness.write(range(0, 16), fill: 1)
        harness.machine.faults.deniesNames = true
        _ = harness.scheduler.run(until: harness.scheduler.now + .seconds(5))
        #expect(disk.journal.oldestEpoch == 2, "the epoch was drained, and its file could not be removed")
        let mark = disk.mark
        #expect(mark.epoch == 0)
        harness.crash(power: power)
        harness.machine.faults.deniesNames = false
        let again = try harness.openResult(expecting: mark).get()
        #expect(again.heldSectors(in: range(0, 16)) == 16)
    }

    @Test func aDiskThatIsGoneIsNotMadeAnew() throws {
        let harness = try DiskHarness()
        let disk = try harness.open()
        try harness.write(range(0, 16), fill: 1)
        try harness.drain()
        let mark = disk.mark
        #expect(mark.epoch == 1)
        harness.crash(power: false)
        #expect(try harness.openResult(expecting: mark).get().mark == mark)
        let later = CloudOnlyMark(identifier: mark.identifier, epoch: 2)
        guard case .failure(.corrupt) = try harness.openResult(expecting: later) else {
            Issue.record("an old copy was taken for the newest")
            return
        }
        for name in harness.directory.names { harness.directory.remove(name) { _ in } }
        _ = harness.scheduler.run(until: harness.scheduler.now + .seconds(1))
        guard case .failure(.corrupt) = try harness.openResult(expecting: mark) else {
            Issue.record("another disk was made where one was")
            return
        }
        #expect(harness.directory.names.isEmpty, "files were made where the lost ones may be put back")
    }

    /// Somebody puts an old copy of the whole disk back, and it goes on from there: the same epochs come again with other bytes.
    @Test func anOldCopyThatGoesOnSealsNothingUnderAnOldNonce() throws {
        let harness = try DiskHarness()
        try harness.open()
        try harness.write(range(0, 8), fill: 1)
        try harness.drain()
        let copy = try harness.directory.names.map { ($0, try #require(harness.directory.file($0)).content) }
        func seals(fill: UInt8) throws -> Set<[UInt8]> {
            try harness.write(range(0, 8), fill: fill)
            try harness.drain()
            let seals = try #require(harness.directory.file("seals")).content
            return Set((0..<8).map { Array(seals[$0 * 32..<$0 * 32 + 16]) })
        }
        let first = try seals(fill: 2)
        harness.crash(power: false)
        for name in harness.directory.names { harness.directory.remove(name) { _ in } }
        _ = harness.scheduler.run(until: harness.scheduler.now + .seconds(1))
        for (name, content) in copy { harness.replace(name, with: content) }
        try harness.open()
        #expect(try harness.contents(range(0, 1)) == [filled(1)])
        #expect(try first.isDisjoint(with: seals(fill: 3)))
    }

    @Test func anotherKeyVolumeOrJournalIsRefused() throws {
        let harness = try DiskHarness()
        try harness.open()
        try harness.write(range(0, 16), fill: 1)
        try harness.drain()
        harness.crash(power: false)
        let key = harness.key
        harness.key = try SecretKey([UInt8](repeating: 8, count: 32))
        guard case .failure(.wrongKey) = try harness.openResult() else {
            Issue.record("opened under another key")
            return
        }
        harness.key = key
        for name in harness.directory.names where name.hasPrefix("epoch-") {
            harness.directory.remove(name) { _ in }
        }
        _ = harness.scheduler.run(until: harness.scheduler.now + .seconds(1))
        guard case .failure(.corrupt) = try harness.openResult() else {
            Issue.record("opened with a journal that counts its epochs anew")
            return
        }
    }

    /// Else the disk would fail where the machine first writes behind the largest file.
    @Test func aDiskLargerThanTheLargestFileIsNotMade() throws {
        let harness = try DiskHarness()
        harness.machine.faults.fileBytesMax = 1 << 20
        let refused = try harness.openResult()
        #expect(throws: WriteLogError.file(.failed("simulated: file too large, cloud-only/blocks"))) { try refused.get() }
        harness.machine.faults.fileBytesMax = .max
        try harness.open()
    }

    @Test func aFullFileSystemDelaysADrainAndHarmsNothing() throws {
        let harness = try DiskHarness()
        let disk = try harness.open()
        try harness.write(range(0, 8), fill: 1)
        try harness.drain()
        try harness.write(range(2_000, 64), fill: 2)
        try harness.wait { disk.remove(range(0, 8), completion: $0) }
        try harness.flush()
        harness.machine.faults.capacityBytes = harness.machine.usedBytes
        _ = harness.scheduler.run(until: harness.scheduler.now + .seconds(3))
        #expect(disk.failure == nil)
        #expect(try harness.contents(range(2_000, 1)) == [filled(2)])
        #expect(try harness.contents(range(0, 1)) == [nil])
        harness.machine.faults.capacityBytes = .max
        try harness.drain()
        harness.crash(power: true)
        try harness.open()
        #expect(try harness.contents(range(2_000, 1)) == [filled(2)])
        #expect(try harness.contents(range(0, 1)) == [nil])
    }

    @Test func aReadThatBeganBeforeADrainEndsRight() throws {
        let harness = try DiskHarness(seed: 5)
        let disk = try harness.open()
        harness.machine.faults.residentPercent = 0
        try harness.write(range(0, 8), fill: 1)
        try harness.drain()
        for round in UInt8(2)..<40 {
            let segment = try #require(disk.segments(in: range(0, 8)).first)
            var read: Result<ByteBuffer, WriteLogError>?
            disk.read(segment) { read = $0 }
            try harness.write(range(0, 8), fill: round)
            disk.sealJournal()
            try harness.drain()
            let bytes = try #require(read).get()
            #expect(bytes.readableBytesView.allSatisfy { $0 == round - 1 })
        }
    }
}
