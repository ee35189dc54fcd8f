import Testing

@testable import Blocks

private func sectors(_ start: UInt64, _ end: UInt64) -> SectorRange { SectorRange(from: start, to: end) }
private func extent(_ start: UInt64, _ end: UInt64, _ allocation: Allocation) -> AllocationExtent {
    AllocationExtent(range: sectors(start, end), allocation: allocation)
}

@Suite struct AllocationTests {
    @Test("runs that are alike are joined, and at the limit the rest is left out")
    func gathering() {
        var extents = AllocationExtents(extentsMax: 2)
        extents.append(sectors(0, 8), .mapped)
        extents.append(sectors(8, 8), .deallocated)
        extents.append(sectors(8, 16), .mapped)
        extents.append(sectors(16, 20), .deallocated)
        #expect(!extents.isFull)
        extents.append(sectors(20, 30), .mapped)
        #expect(extents.isFull)
        // Nothing may follow what was left out, even if it would be alike.
        extents.append(sectors(30, 40), .deallocated)
        #expect(extents.extents == [extent(0, 16, .mapped), extent(16, 20, .deallocated)])
    }

    @Test("the upper layer hides the lower one, sector by sector")
    func layers() {
        var random = SystemRandomNumberGenerator()
        for _ in 0..<200 {
            var model = (0..<64).map { _ in Allocation.mapped }
            var lower: [AllocationExtent] = []
            var position: UInt64 = 0
            while position < 64 {
                let end = min(64, position + UInt64.random(in: 1...16, using: &random))
                let allocation: Allocation = Bool.random(using: &random) ? .mapped : .deallocated
                lower.append(extent(position, end, allocation))
                for sector in position..<end { model[Int(sector)] = allocation }
                position = end
            }
            var overlay = AllocationOverlay()
            for _ in 0..<Int.random(in: 0...6, using: &random) {
                let start = UInt64.random(in: 0..<64, using: &random)
                let end = min(64, start + UInt64.random(in: 1...20, using: &random))
                let allocation: Allocation = Bool.random(using: &random) ? .mapped : .deallocated
                overlay.insert(sectors(start, end), allocation)
                for sector in start..<end { model[Int(sector)] = allocation }
            }
            let limit = Int.random(in: 1...40, using: &random)
            let merged = overlay.merged(over: lower, extentsMax: limit)
            #expect(merged.count <= limit)
            var next: UInt64 = 0
            for extent in merged {
                #expect(extent.range.start == next)
                next = extent.range.end
                #expect(model[Int(extent.range.start)..<Int(next)].allSatisfy { $0 == extent.allocation })
            }
            if merged.count < limit { #expect(next == 64) }
        }
    }

    @Test("the first extents of a map are found without the others")
    func firstExtents() {
        var map = ExtentMap<Allocation>()
        for start in stride(from: UInt64(0), to: 4_000, by: 4) { map.insert(sectors(start, start + 2), .mapped) }
        let found = map.extents(in: sectors(1, 3_000), limit: 300)
        #expect(found == Array(map.extents(in: sectors(1, 3_000)).prefix(300)))
        #expect(found.first?.range == sectors(1, 2))
        #expect(map.extents(in: sectors(0, 10), limit: 0).isEmpty)
        #expect(map.extents(in: sectors(2, 4), limit: 3).isEmpty)
    }
}
