import Blocks
import NIOCore
import Testing

@testable import Volumes

@Suite struct FetchTableTests {
    private let now = NIODeadline.uptimeNanoseconds(1)

    @Test("a block on its way is joined, and no longer when home may know newer bytes")
    func joinAndClose() {
        var table = FetchTable(firstIdentifier: 100)
        let fetch = table.start(blocks: 4..<8, sectorCount: 1_000, isBulk: false, now: now)
        #expect(fetch.identifier == 100)
        #expect(table.fetch(of: 5, fitFor: true) === fetch)
        table.close(overlapping: SectorRange(from: 40, to: 41))
        #expect(table.fetch(of: 5, fitFor: true) == nil)
        #expect(table.fetch(of: 4, fitFor: true) == nil, "the whole fetch is closed")
        #expect(!fetch.isOpen)
    }

    @Test("a machine that unmaps a whole disk at once closes what is on its way, and nothing beside it", .timeLimit(.minutes(1)))
    func closeOverAHugeRange() {
        var table = FetchTable(firstIdentifier: 0)
        let (inside, outside) = (
            table.start(blocks: 4..<8, sectorCount: .max >> 2, isBulk: false, now: now),
            table.start(blocks: (1 << 40) + 1..<(1 << 40) + 2, sectorCount: .max >> 2, isBulk: true, now: now)
        )
        table.close(overlapping: SectorRange(from: 9, to: 8 << 40))
        #expect(!inside.isOpen && outside.isOpen)
        #expect(table.fetch(of: 7, fitFor: true) == nil)
        #expect(table.fetch(of: (1 << 40) + 1, fitFor: true) === outside)
    }

    @Test("pieces come in any order, and a fetch is complete when each of its blocks has come")
    func pieces() {
        var table = FetchTable(firstIdentifier: 0)
        let fetch = table.start(blocks: 0..<2, sectorCount: 1_000, isBulk: false, now: now)
        #expect(table.receive(identifier: 0, offset: 0, data: nil, byteCount: 4_096) == nil, "it was not sent yet")
        table.markSent(fetch)
        let piece = ByteBuffer(repeating: 9, count: 4_096)
        #expect(table.receive(identifier: 0, offset: 4_096, data: piece, byteCount: 4_096) == nil)
        #expect(table.receive(identifier: 0, offset: 4_096, data: nil, byteCount: 4_096) == nil, "the same piece again")
        let done = table.receive(identifier: 0, offset: 0, data: nil, byteCount: 4_096)
        #expect(done === fetch)
        #expect(fetch.data.getBytes(at: 0, length: 1) == [0])
        #expect(fetch.data.getBytes(at: 4_096, length: 1) == [9])
        #expect(fetch.isOpen)
        #expect(table.isEmpty)
        #expect(table.bytesInFlight == 0)
    }

    @Test("pieces that lie outside, or are too many, are ignored")
    func hostilePieces() {
        var table = FetchTable(firstIdentifier: 0)
        table.markSent(table.start(blocks: 0..<1, sectorCount: 1_000, isBulk: false, now: now))
        #expect(table.receive(identifier: 0, offset: 4_000, data: nil, byteCount: 200) == nil)
        #expect(table.receive(identifier: 0, offset: .max, data: nil, byteCount: 1) == nil)
        #expect(table.receive(identifier: 7, offset: 0, data: nil, byteCount: 1) == nil)
        #expect(table.receive(identifier: 0, offset: 0, data: nil, byteCount: 0) == nil)
        #expect(table.receive(identifier: 0, offset: 0, data: nil, byteCount: 512) == nil, "a part of a block")
        #expect(table.count == 1)
    }

    @Test("the last block of a disk may be cut, and a block is named once")
    func cutAndNamedBlocks() {
        var table = FetchTable(firstIdentifier: 0)
        let fetch = table.start(blocks: 0..<32, sectorCount: 31 * 8 + 3, isBulk: true, now: now)
        table.markSent(fetch)
        #expect(table.beginReferences(of: 0, offset: 4_096, blockCount: 2))
        #expect(!table.beginReferences(of: 0, offset: 8_192, blockCount: 1), "named before")
        #expect(!table.beginReferences(of: 0, offset: 31 * 4_096, blockCount: 1), "a cut block has no name")
        #expect(table.receive(identifier: 0, offset: 31 * 4_096, data: nil, byteCount: 3 * 512) == nil)
        #expect(table.receive(identifier: 0, offset: 0, data: nil, byteCount: 4_096) == nil)
        #expect(!table.beginReferences(of: 0, offset: 0, blockCount: 1), "it is here")
        #expect(table.receive(identifier: 0, offset: 3 * 4_096, data: nil, byteCount: 28 * 4_096) == nil)
        #expect(fetch.missing == 0b110)
        #expect(table.receive(identifier: 0, offset: 4_096, data: nil, byteCount: 8_192) === fetch)
    }

    @Test("short reads go before long ones, and the bytes in flight are bounded")
    func order() {
        var table = FetchTable(firstIdentifier: 0)
        var block: UInt64 = 0
        for _ in 0..<200 {
            _ = table.start(blocks: block..<block + 32, sectorCount: .max >> 16, isBulk: true, now: now)
            block += 32
        }
        let short = table.start(blocks: block..<block + 1, sectorCount: .max >> 16, isBulk: false, now: now)
        #expect(table.nextToSend() === short)
        while let fetch = table.nextToSend() { table.markSent(fetch) }
        #expect(table.bytesInFlight <= FetchTable.bytesInFlightMax)
        #expect(table.bytesInFlight > FetchTable.bytesInFlightMax - (128 << 10))
    }

    @Test("a short read does not wait in a long one's queue, and whoever comes then joins the short one")
    func overtaking() {
        var table = FetchTable(firstIdentifier: 0)
        let long = table.start(blocks: 0..<32, sectorCount: 1_000, isBulk: true, now: now)
        #expect(table.fetch(of: 3, fitFor: true) === long)
        #expect(table.fetch(of: 3, fitFor: false) == nil)
        let short = table.start(blocks: 3..<4, sectorCount: 1_000, isBulk: false, now: now)
        #expect(table.fetch(of: 3, fitFor: true) === short)
        #expect(table.fetch(of: 4, fitFor: true) === long)
        table.close(overlapping: SectorRange(block: 3))
        #expect(!short.isOpen)
        #expect(!long.isOpen, "both may be older than what home knows by now")
    }

    @Test("a new session asks for everything again")
    func restart() {
        var table = FetchTable(firstIdentifier: 0)
        let fetch = table.start(blocks: 0..<2, sectorCount: 1_000, isBulk: false, now: now)
        table.markSent(fetch)
        _ = table.receive(identifier: 0, offset: 0, data: nil, byteCount: 4_096)
        table.restart()
        #expect(table.nextToSend() === fetch)
        #expect(fetch.missing == 0b11)
        #expect(table.bytesInFlight == 0)
    }

    @Test("a late answer to a question from before a restart counts nothing")
    func lateAnswer() {
        var table = FetchTable(firstIdentifier: 0)
        let fetch = table.start(blocks: 0..<2, sectorCount: 1_000, isBulk: false, now: now)
        table.markSent(fetch)
        let old = fetch.identifier
        _ = table.receive(identifier: old, offset: 0, data: ByteBuffer(repeating: 1, count: 4_096), byteCount: 4_096)
        table.restart()
        table.markSent(fetch)
        #expect(table.receive(identifier: old, offset: 0, data: ByteBuffer(repeating: 1, count: 4_096), byteCount: 4_096) == nil)
        #expect(table.receive(identifier: fetch.identifier, offset: 4_096, data: nil, byteCount: 4_096) == nil, "half of it is missing")
        #expect(table.receive(identifier: fetch.identifier, offset: 0, data: nil, byteCount: 4_096) === fetch)
        #expect(fetch.data.getBytes(at: 0, length: 1) == [0], "what had come before is void")
    }

    @Test("the last block of a disk is asked for as far as the disk goes")
    func endOfDisk() {
        var table = FetchTable(firstIdentifier: 0)
        let fetch = table.start(blocks: 1..<2, sectorCount: 11, isBulk: false, now: now)
        #expect(fetch.range == SectorRange(from: 8, to: 11))
        #expect(fetch.data.readableBytes == 4_096)
    }
}
