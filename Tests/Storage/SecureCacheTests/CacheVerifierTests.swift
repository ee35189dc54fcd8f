import Blocks
import Ciphers
import NIOCore
import SimulatedStorage
import Testing

@testable import SecureCache

/// What somebody finds who only looks.
@Suite struct CacheVerifierTests {
    /// A cache with segments of 31 slots: some are full, one is not; with a volume that has zeroes, and another one.
    private func filled(journalBytes: Int = 16 << 20) throws -> CacheHarness {
        let harness = try CacheHarness()
        harness.byteCount = 24 * (128 << 10)
        harness.limits.journalBytes = journalBytes
        let cache = try harness.open()
        for first in stride(from: UInt64(0), to: 200, by: 8) {
            cache.insert(harness.volume, block: first, data: CacheHarness.blocks(first..<first + 8, 1))
            if first % 40 == 0 { cache.insert(harness.other, block: first, data: CacheHarness.blocks(first..<first + 2, 2)) }
            harness.scheduler.runUntilIdle()
        }
        cache.insertZeroes(harness.volume, blocks: 1_000..<1_300)
        try harness.synchronize()
        return harness
    }

    private func verify(
        _ harness: CacheHarness, cacheKeys: [SecretKey]? = nil, volumeKeys: [VolumeIdentifier: SecretKey]? = nil
    ) throws -> Result<CacheReport, CacheVerificationError> {
        let keys = volumeKeys ?? [harness.volume: harness.volumeKey, harness.other: harness.otherKey]
        var result: Result<CacheReport, CacheVerificationError>?
        let file = harness.file
        let before = snapshot(harness)
        CacheVerifier<SimulatedDirectory>(
            file: file, directory: harness.directory, keys: cacheKeys ?? [harness.otherKey, harness.edgeKey],
            volumeKey: { $1 == 1 ? keys[$0] : nil }, random: harness.random.source
        ) { result = $0 }.start()
        harness.scheduler.runUntilIdle()
        #expect(snapshot(harness) == before, "nothing may be written")
        return try #require(result, "the verification never ended")
    }

    private func snapshot(_ harness: CacheHarness) -> [String: [UInt8]] {
        let records = harness.directory.names.compactMap { name in harness.directory.file(name).map { (name, $0.content) } }
        return Dictionary(uniqueKeysWithValues: records + [("blocks", harness.file.content)])
    }

    /// Where a block is in the file.
    private func offset(_ harness: CacheHarness, _ block: UInt64) throws -> Int {
        let cache = try #require(harness.cache)
        let slot = try #require(cache.index[harness.volume]?.map.slot(of: block))
        return Int(cache.geometry.offset(ofSlot: cache.geometry.index(of: slot), in: cache.geometry.segment(of: slot)))
    }

    @Test func aWholeCacheIsWholeAndIsNotTouched() throws {
        let harness = try filled()
        harness.crash(power: false)
        let report = try verify(harness).get()
        #expect(report.isWhole, "\(report)")
        #expect(report.volumes.map(\.identifier) == [harness.volume, harness.other])
        #expect(report.volumes[0].blockCount == 200 && report.volumes[0].authentic == 200 && report.volumes[0].zeroBlockCount == 300)
        #expect(report.volumes[1].blockCount == 10 && report.volumes[1].authentic == 10)
        #expect(report.segmentCount == 14)
        #expect(report.segmentsWithoutOwners == 0 && report.version == CacheFormat.version)
        #expect(report.recordFiles.map(\.state) == [.whole])
        // What a daemon finds afterwards is the same.
        #expect(try harness.open().statistics.blocksHeld == 210)
    }

    @Test func withoutKeysItSaysWhatItCannotJudge() throws {
        let harness = try filled()
        harness.crash(power: false)
        let report = try verify(harness, volumeKeys: [harness.other: harness.otherKey]).get()
        #expect(report.isWhole)
        #expect(report.volumes.map(\.isHidden) == [true, false] && report.volumes.map(\.blockCount) == [0, 10])
        #expect(report.volumes.map(\.authentic) == [0, 10])
        #expect(try verify(harness, cacheKeys: [harness.otherKey]) == .failure(.wrongKey))
        // A place that is no cache does not become one.
        let empty = try CacheHarness()
        #expect(try verify(empty) == .failure(.noCache))
    }

    @Test func damagedBlocksAreFoundWithTheirPlaces() throws {
        let harness = try filled()
        let places = try (0..<5).map { try offset(harness, UInt64(20 + $0 * 5)) }
        let other = try offset(harness, 46)
        let free = harness.byteCount - (100 << 10)
        harness.crash(power: false)
        let file = harness.file
        file.flipBit(at: places[0] + 99)
        file.misdirect(from: other, to: places[1], byteCount: 4112)
        // From a part of the file that nobody has written.
        let sector = (places[2] + 600) / 512 * 512
        file.misdirect(from: free, to: sector, byteCount: 512)
        file.misdirect(from: free, to: places[3], byteCount: 4112)
        let report = try verify(harness).get()
        #expect(!report.isWhole && report.loss == nil && report.damages.isEmpty)
        #expect(report.counts[.torn] == 1 && report.counts[.missing] == 1)
        #expect(report.volumes[0].damaged == UInt64(report.blockDamages.count) && report.volumes[1].damaged == 0)
        #expect(report.volumes[0].authentic + report.volumes[0].damaged == 200)
        let kinds = Dictionary(report.blockDamages.map { ($0.block, $0.kind) }) { first, _ in first }
        #expect(kinds[20] == .corrupt && kinds[30] == .torn && kinds[35] == .missing)
        #expect(kinds[25] == .misplaced || kinds[25] == .corrupt)
        #expect(report.blockDamages.first { $0.block == 20 }?.offset == UInt64(places[0]))
        // A daemon finds the same, and serves the rest.
        try harness.open()
        for block in [20, 25, 30, 35] as [UInt64] { #expect(try harness.read(block..<block + 1) == nil) }
        #expect(try harness.read(21..<25) == CacheHarness.blocks(21..<25, 1))
    }

    @Test func aBlockOfTheSameSegmentIsMisplaced() throws {
        let harness = try filled()
        let (place, neighbour) = (try offset(harness, 3), try offset(harness, 4))
        harness.crash(power: false)
        harness.file.misdirect(from: neighbour, to: place, byteCount: 4112)
        let report = try verify(harness).get()
        #expect(report.blockDamages.map(\.kind) == [.misplaced] && report.blockDamages.map(\.block) == [3])
    }

    @Test func blocksAreFoundWithoutTheOwnersOfTheirSegment() throws {
        let harness = try filled()
        let geometry = try #require(harness.cache).geometry
        let place = try UInt64(offset(harness, 3))
        let segment = Int((place - 4096) / UInt64(geometry.segmentBytes))
        harness.crash(power: false)
        harness.file.flipBit(at: Int(geometry.offset(ofOwnersIn: segment)) + 7)
        let report = try verify(harness).get()
        #expect(report.segmentsWithoutOwners == 1 && report.damages.map(\.offset) == [geometry.offset(ofOwnersIn: segment)])
        #expect(report.volumes[0].authentic == 200 && report.counts.isEmpty && !report.isWhole)
    }

    /// What a crash leaves is no damage: blocks that were not written yet, and a record that was half written.
    @Test(arguments: 1..<30 as Range<UInt64>)
    func whatAKillLeavesIsNoDamage(seed: UInt64) throws {
        let harness = try CacheHarness(seed: seed)
        harness.byteCount = 24 * (128 << 10)
        harness.limits.journalBytes = 4 << 10
        harness.limits.fragmentBytesMax = 4 << 10
        let cache = try harness.open()
        for number in 0..<UInt64(harness.random.within(1...80)) {
            cache.insert(harness.volume, block: number * 8, data: CacheHarness.blocks(number * 8..<number * 8 + 8, 1))
            for _ in 0..<harness.random.below(12) { _ = harness.scheduler.step() }
            if number % 16 == 7 { cache.synchronize { _ in } }
        }
        harness.crash(power: false)
        harness.scheduler.removeAll()
        let result = try verify(harness)
        // Killed before there was a record, it has none.
        if harness.directory.names.isEmpty, case .failure(.noRecords) = result { return }
        let report = try result.get()
        #expect(report.isWhole, "\(report)")
        #expect(report.volumes.allSatisfy { $0.authentic + $0.unwritten == $0.blockCount })
    }

    // MARK: Records

    @Test func aTornEndIsTold() throws {
        let harness = try filled()
        harness.crash(power: false)
        let journal = try #require(harness.directory.file("journal.1"))
        try harness.put(Array(journal.content.dropLast(300)), into: journal)
        var done = false
        journal.truncate(to: UInt64(journal.content.count - 300)) { _ in done = true }
        harness.scheduler.runUntilIdle()
        #expect(done)
        let report = try verify(harness).get()
        #expect(report.isWhole && report.recordFiles.map(\.state) == [.torn])
    }

    @Test func withoutRecordsNothingIsChecked() throws {
        let harness = try filled()
        let segmentBytes = try #require(harness.cache).geometry.segmentBytes
        harness.crash(power: false)
        for name in harness.directory.names { harness.directory.remove(name) { _ in } }
        harness.scheduler.runUntilIdle()
        #expect(harness.directory.names.isEmpty)
        let geometry = CacheGeometry(byteCount: UInt64(harness.file.content.count), segmentBytes: segmentBytes)
        #expect(try verify(harness) == .failure(.noRecords(segmentCount: geometry.segmentCount)))
    }

    /// A cache whose journal has three fragments more, after a crash.
    private func withJournal() throws -> (CacheHarness, SimulatedFile) {
        let harness = try filled()
        let cache = try #require(harness.cache)
        for round in 0..<3 as Range<UInt64> {
            cache.insert(harness.volume, block: 500 + round, data: CacheHarness.block(500, 1))
            try harness.synchronize()
        }
        harness.crash(power: false)
        let journal = try #require(harness.directory.file("journal.1"))
        return (harness, journal)
    }

    @Test func aFragmentInTheMiddleIsDamaged() throws {
        let (harness, journal) = try withJournal()
        journal.flipBit(at: 512 + 100)
        let report = try verify(harness).get()
        #expect(!report.isWhole && report.loss == nil && report.recordFiles.map(\.state) == [.damaged])
        #expect(report.damages.map(\.file) == ["journal.1"] && report.damages.map(\.offset) == [512])
    }

    /// Sectors of what was not durable reach the medium in any order.
    @Test(arguments: [512, 1_024]) func whatAPowerCutLeavesIsNoDamage(gap: Int) throws {
        let (harness, journal) = try withJournal()
        var content = journal.content
        try #require(content.count > gap + 512)
        content.replaceSubrange(gap..<gap + 512, with: repeatElement(0, count: 512))
        try harness.put(content, into: journal)
        let report = try verify(harness).get()
        #expect(report.damages.isEmpty && report.loss == nil && report.recordFiles.map(\.state) == [.torn], "\(report)")
    }

    /// What the other files tell is worth knowing all the same, and one that counts is missed.
    @Test func aFileThatCannotBeReadIsDamaged() throws {
        let harness = try filled(journalBytes: 1 << 10)
        harness.crash(power: false)
        let names = harness.directory.names
        let journal = try #require(names.filter { $0.hasPrefix("journal.") }.max { $0.count == $1.count ? $0 < $1 : $0.count < $1.count })
        harness.machine.faults.failsReadsOf = journal
        let report = try verify(harness).get()
        #expect(!report.isWhole && report.loss?.contains(journal) == true, "\(report)")
        #expect(report.damages.map(\.file) == [journal] && report.recordFiles.count == names.count)
    }

    @Test func aCheckpointThatIsDamagedTellsNothing() throws {
        let harness = try filled(journalBytes: 1 << 10)
        harness.crash(power: false)
        let name = try #require(harness.directory.names.first { $0.hasPrefix("checkpoint.") })
        #expect(try verify(harness).get().isWhole)
        try #require(harness.directory.file(name)).flipBit(at: 512 + 60)
        let report = try verify(harness).get()
        #expect(report.loss != nil && !report.isWhole && report.volumes.isEmpty)
        #expect(try harness.open().statistics.segmentsSkipped == 1)
    }
}
