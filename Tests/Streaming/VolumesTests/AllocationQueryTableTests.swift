import Blocks
import NIOCore
import Testing

@testable import Volumes

@Suite struct AllocationQueryTableTests {
    private let now = NIODeadline.uptimeNanoseconds(10)
    private let range = SectorRange(from: 0, to: 8)

    @Test("a question is answered once, under its newest number, and only when it was sent")
    func numbers() throws {
        var table = AllocationQueryTable(firstIdentifier: 100)
        table.add(range, AllocationOverlay(), epoch: 0, now: now) { _ in }
        #expect(table.remove(identifier: 100) == nil)
        table.markSent(try #require(table.nextToSend))
        #expect(table.nextToSend == nil)
        table.restart()
        #expect(table.remove(identifier: 100) == nil, "an answer to the question of a lost session")
        let query = try #require(table.nextToSend)
        #expect(query.identifier == 101)
        table.markSent(query)
        #expect(table.remove(identifier: 101) === query)
        #expect(table.isEmpty)
    }

    @Test("there are no more than so many, and old ones expire")
    func limits() {
        var table = AllocationQueryTable(firstIdentifier: 0)
        for index in 0..<AllocationQueryTable.queriesMax {
            #expect(!table.isFull)
            table.add(range, AllocationOverlay(), epoch: 0, now: .uptimeNanoseconds(UInt64(index))) { _ in }
        }
        #expect(table.isFull)
        #expect(table.removeAll(startedBefore: .uptimeNanoseconds(3)).count == 3)
        #expect(!table.isFull)
    }
}
