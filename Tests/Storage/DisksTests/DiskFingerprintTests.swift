import Blocks
import Checksums
import NIOCore
import SimulatedStorage
import Testing

@testable import Disks

/// A journal goes on with its own disk only.
@Suite struct DiskFingerprintTests {
    private func piece(_ start: UInt64, _ end: UInt64, checksum: UInt32 = 1, isData: Bool = true) -> PointPiece {
        PointPiece(range: SectorRange(from: start, to: end), dataOffset: isData ? 100 : nil, checksum: checksum)
    }

    @Test func theFirstPlacesLieOnTheDisk() {
        for sectorCount in [1, 8, 183, 184, 185, 200, 1_000, 1 << 21, 1 << 40] as [UInt64] {
            let places = DiskFingerprint.firstPlaces(sectorCount: sectorCount)
            #expect(!places.isEmpty && places.count <= DiskFingerprint.samplesMax)
            #expect(places.allSatisfy { !$0.isEmpty && $0.end <= sectorCount })
            #expect(places.first?.start == 0)
        }
    }

    @Test func aPointReplacesWhatItOverwrites() {
        let old = DiskFingerprint(samples: (0..<8).map { DiskSample(range: SectorRange(from: $0 * 10, to: $0 * 10 + 2), checksum: 9) })
        // The later of two pieces that overlap counts, zeroes are no sample, and they drive out what they cover.
        let next = old.applying([piece(100, 104, checksum: 2), piece(102, 106, checksum: 3), piece(20, 22, isData: false)])
        #expect(next.samples.first == DiskSample(range: SectorRange(from: 102, to: 106), checksum: 3))
        #expect(next.samples.map(\.range.start) == [102, 0, 10, 30, 40, 50, 60, 70])
        // A point of many pieces leaves half of what was there.
        let many = old.applying((0..<50).map { piece(1_000 + $0 * 2, 1_001 + $0 * 2) })
        #expect(many.samples.map(\.range.start) == [1_098, 1_096, 1_094, 1_092, 40, 50, 60, 70])
        #expect(old.applying([]) == old)
        #expect(old.applying([piece(0, 1 << 20)]).samples.isEmpty, "too long for a sample, and covers all others")
    }

    @Test func thePositionKeepsIt() throws {
        let fingerprint = DiskFingerprint(
            samples: (1...8).map { DiskSample(range: SectorRange(from: $0, to: $0 * 2), checksum: UInt32($0)) })
        let record = PositionRecord(
            sequence: 3, volume: VolumeIdentifier(high: 1, low: 2), position: PointPosition(received: 9, applied: 8),
            fingerprint: fingerprint)
        #expect(record.encoded().readableBytes == PositionRecord.slotBytes)
        #expect(PositionRecord(slot: record.encoded()) == record)
        var damaged = record.encoded()
        damaged.setInteger(UInt8(7), at: 60)
        #expect(PositionRecord(slot: damaged) == nil)
    }

    /// A journal of the first version goes on, and has samples from its next point on.
    @Test func theFirstVersionsPositionIsRead() throws {
        let slot: [UInt8] =
            Array("CWPOSN01".utf8) + [0, 0, 0, 0, 0, 0, 0, 5] + [UInt8](repeating: 0, count: 15) + [6]
            + [0, 0, 0, 0, 0, 0, 0, 4] + [0, 0, 0, 0, 0, 0, 0, 3] + [0, 0, 0, 0]
        var buffer = ByteBuffer(bytes: slot)
        buffer.writeInteger(CRC32C.checksum(of: buffer))
        buffer.writeRepeatingByte(0, count: PositionRecord.slotBytes - buffer.readableBytes)
        #expect(
            PositionRecord(slot: buffer)
                == PositionRecord(
                    sequence: 5, volume: VolumeIdentifier(high: 0, low: 6), position: PointPosition(received: 4, applied: 3)))
    }

    private func overwrite(_ world: JournalWorld, with content: [UInt8]) {
        world.disk.write(ByteBuffer(bytes: content), at: 0) { _ in }
        world.scheduler.runUntilIdle()
    }

    private func close(_ journal: SimulatedJournal, _ world: JournalWorld) {
        journal.close {}
        world.scheduler.runUntilIdle()
    }

    @Test(arguments: 0..<20 as Range<UInt64>) func anOlderCopyIsRefused(seed: UInt64) throws {
        let world = JournalWorld(seed: seed)
        let journal = try #require(try world.open()?.get())
        journal.setLease(1)
        var last: PointNumber = 0
        // Until a point has put something else on the disk.
        repeat {
            last += 1
            try world.send(last, generation: 1, to: journal) { _ in }
            world.scheduler.runUntilIdle()
        } while world.state(after: last) == world.state(after: last - 1)
        close(journal, world)
        #expect(world.disk.content == world.state(after: last))
        let hasData = world.pieces(of: last).contains { $0.data != nil }
        overwrite(world, with: world.state(after: last - 1))
        let reopened = try #require(world.open())
        // A last point of zeroes alone leaves nothing to know it by.
        if hasData {
            guard case .failure(.foreignDisk(applied: last, isReceivedWaiting: false)) = reopened else {
                Issue.record("an older copy was taken: \(reopened)")
                return
            }
            #expect(world.disk.content == world.state(after: last - 1), "and nothing was written to it")
        }
        overwrite(world, with: world.state(after: last))
        if hasData { close(try #require(try world.open()?.get()), world) }
    }

    @Test func anotherDiskIsRefusedBeforeTheFirstPoint() throws {
        let world = JournalWorld(seed: 3)
        close(try #require(try world.open()?.get()), world)
        var other = world.state(after: 0)
        other[1_080] = 1
        overwrite(world, with: other)
        guard case .failure(.foreignDisk(applied: 0, isReceivedWaiting: false))? = world.open() else {
            Issue.record("another disk was taken")
            return
        }
        // An attachment that begins takes the disk as it is.
        let fresh = VolumeIdentifier(high: 9, low: 9)
        close(try #require(try world.open(volume: fresh)?.get()), world)
        overwrite(world, with: world.state(after: 0))
        guard case .failure(.foreignDisk)? = world.open(volume: fresh) else {
            Issue.record("the disk of another attachment was taken")
            return
        }
    }
}
