import Blocks
import NIOCore
import Testing

@testable import ReadCache

@Suite struct ReadCacheTests {
    private static let blockBytes = BlockGeometry.blockBytes

    private func block(_ content: Int) -> ByteBuffer {
        ByteBuffer(repeating: UInt8(truncatingIfNeeded: content), count: Self.blockBytes - 8).with(UInt64(content))
    }

    private func range(_ blocks: Range<UInt64>) -> SectorRange { SectorRange(from: blocks.lowerBound * 8, to: blocks.upperBound * 8) }

    /// A cache with room for so many blocks.
    private func cache(blocks: Int) -> ReadCache { ReadCache(byteCount: blocks * 4_700) }

    private func readTwice(_ cache: ReadCache, _ disk: UInt32, _ place: UInt64, _ content: ByteBuffer) {
        for _ in 0..<2 { cache.note(disk, range(place..<place + 1), content) }
    }

    @Test func aBlockIsKeptFromItsSecondReadOn() {
        let cache = cache(blocks: 8)
        let disk = cache.addDisk()
        let bytes = block(1)
        cache.note(disk, range(5..<6), bytes)
        #expect(cache.read(disk, range(5..<6)) == nil)
        #expect(cache.statistics.usedBytes == 0)
        cache.note(disk, range(5..<6), bytes)
        #expect(cache.read(disk, range(5..<6)) == bytes)
        #expect(cache.read(cache.addDisk(), range(5..<6)) == nil, "another disk")
        let statistics = cache.statistics
        #expect(statistics.foundBlocks == 1 && statistics.missedBlocks == 2)
        #expect(statistics.usedBytes == Self.blockBytes && statistics.standForBytes == Self.blockBytes)
    }

    /// A read that lies across blocks, in sectors, has its part of them; one of which a block is missing goes to the disk.
    @Test func partsOfBlocks() {
        let cache = cache(blocks: 8)
        let disk = cache.addDisk()
        var both = block(1)
        both.writeImmutableBuffer(block(2))
        for _ in 0..<2 { cache.note(disk, range(3..<5), both) }
        let middle = SectorRange(from: 3 * 8 + 5, to: 4 * 8 + 2)
        #expect(cache.read(disk, middle) == both.getSlice(at: 5 * 512, length: 5 * 512))
        #expect(cache.read(disk, range(3..<6)) == nil)
        // What is not whole is not kept.
        let cut = SectorRange(from: 10 * 8 + 1, to: 12 * 8 - 1)
        for _ in 0..<2 { cache.note(disk, cut, ByteBuffer(repeating: 3, count: cut.byteCount)) }
        #expect(cache.statistics.standForBytes == 2 * Self.blockBytes)
    }

    @Test func equalBlocksTakeTheRoomOfOne() {
        let cache = cache(blocks: 200)
        let disks = [cache.addDisk(), cache.addDisk()]
        for disk in disks { for place in 0..<10 as Range<UInt64> { readTwice(cache, disk, place, block(7)) } }
        #expect(cache.statistics.usedBytes == Self.blockBytes && cache.statistics.standForBytes == 20 * Self.blockBytes)
        #expect(cache.statistics.sharedBlocks == 19 && cache.statistics.evictedBlocks == 0)
        // One that is written goes alone.
        cache.remove(disks[0], range(0..<1))
        #expect(cache.read(disks[0], range(0..<1)) == nil)
        #expect(cache.read(disks[1], range(0..<10)) != nil)
        cache.remove(disks[0], range(0..<10))
        cache.remove(disks[1], SectorRange(from: 0, to: 1 << 40))
        #expect(cache.statistics.usedBytes == 0 && cache.statistics.standForBytes == 0)
        // Zeroes take none, and more places than one content may have begin anew.
        let zeroes = ByteBuffer(repeating: 0, count: Self.blockBytes)
        readTwice(cache, disks[0], 999, zeroes)
        #expect(cache.read(disks[0], range(999..<1_000)) == zeroes && cache.statistics.usedBytes == 0)
        for place in 0..<UInt64(ReadCache.placesPerSlotMax + 1) { readTwice(cache, disks[0], place, block(7)) }
        #expect(cache.statistics.usedBytes == 2 * Self.blockBytes)
    }

    /// The tables are bounded too, whatever is equal, and a disk that is gone leaves nothing.
    @Test func placesAreBounded() {
        let cache = cache(blocks: 64)
        let (first, second) = (cache.addDisk(), cache.addDisk())
        for place in 0..<600 as Range<UInt64> {
            readTwice(cache, first, place, block(Int(place) % 3 + 1))
            readTwice(cache, second, place, ByteBuffer(repeating: 0, count: Self.blockBytes))
            #expect(cache.statistics.standForBytes <= (8 + 1) * 64 * Self.blockBytes)
        }
        #expect(cache.statistics.evictedBlocks > 0)
        #expect(cache.read(first, range(599..<600)) == block(599 % 3 + 1) && cache.read(second, range(0..<1)) != nil)
        cache.removeDisk(first)
        #expect(cache.read(first, range(599..<600)) == nil && cache.read(second, range(0..<1)) != nil && cache.statistics.usedBytes == 0)
        cache.removeDisk(second)
        #expect(cache.statistics.standForBytes == 0)
    }

    /// What is asked for stays, what is not goes, and the room is never passed.
    @Test func whatIsAskedForStays() {
        let cache = cache(blocks: 64)
        let disk = cache.addDisk()
        for place in 0..<32 as Range<UInt64> { readTwice(cache, disk, place, block(Int(place) + 1)) }
        for place in 100..<300 as Range<UInt64> {
            for hot in 0..<32 as Range<UInt64> { #expect(cache.read(disk, range(hot..<hot + 1)) == block(Int(hot) + 1)) }
            readTwice(cache, disk, place, block(Int(place) + 1))
            #expect(cache.statistics.usedBytes <= 64 * Self.blockBytes)
        }
        #expect(cache.statistics.evictedBlocks > 130)
    }

    /// When all is asked for, some of it goes nevertheless, after a bounded search.
    @Test func roomIsFoundWhenAllIsAskedFor() {
        let cache = cache(blocks: 200)
        let disk = cache.addDisk()
        for place in 0..<250 as Range<UInt64> { readTwice(cache, disk, place, block(Int(place) + 1)) }
        let held = UInt64(cache.statistics.usedBytes / Self.blockBytes)
        for place in 250 - held..<250 { #expect(cache.read(disk, range(place..<place + 1)) != nil) }
        let evicted = cache.statistics.evictedBlocks
        readTwice(cache, disk, 5_000, block(5_000))
        #expect(cache.read(disk, range(5_000..<5_001)) == block(5_000))
        #expect(cache.statistics.usedBytes == Int(held) * Self.blockBytes && cache.statistics.evictedBlocks == evicted + 1)
    }

    @Test func noRoomKeepsNothing() {
        let cache = ReadCache(byteCount: 100)
        let disk = cache.addDisk()
        readTwice(cache, disk, 0, block(1))
        #expect(cache.read(disk, range(0..<1)) == nil && cache.statistics.usedBytes == 0)
    }

    @Test func fewBlocksAreTakenForOnesThatWereRead() {
        var recent = RecentReads(count: 1 << 14)
        let wrong = (0..<UInt64(20_000)).count { recent.note(disk: 1, block: $0) }
        #expect(wrong < 20)
        #expect((19_000..<UInt64(20_000)).allSatisfy { recent.note(disk: 1, block: $0) })
        #expect((19_000..<UInt64(20_000)).count { recent.note(disk: 2, block: $0) } < 5)
    }
}

extension ByteBuffer {
    fileprivate func with(_ number: UInt64) -> ByteBuffer {
        var result = self
        result.writeInteger(number)
        return result
    }
}
