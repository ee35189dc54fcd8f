import Blocks
import Testing

/// A value that says which insertion it came from, and which of its sectors it is.
private struct Stamp: ExtentValue, Equatable {
    let insertion: Int
    let sector: UInt64
    func dropping(sectors: UInt64) -> Stamp { Stamp(insertion: insertion, sector: sector + sectors) }
}

private struct Generator: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return mixed ^ (mixed >> 31)
    }
}

private func range(_ start: UInt64, _ count: UInt64) -> SectorRange { SectorRange(from: start, to: start + count) }

/// Sector by sector what the map holds.
private func flat(_ map: ExtentMap<Stamp>, in bounds: SectorRange, size: Int) -> [Stamp?] {
    var sectors = [Stamp?](repeating: nil, count: size)
    map.forEach(in: bounds) { extent in
        for offset in 0..<extent.range.count {
            sectors[Int(extent.range.start + offset)] = extent.value.dropping(sectors: offset)
        }
    }
    return sectors
}

@Suite struct ExtentMapTests {
    @Test func anInsertionInTheMiddleLeavesBothEnds() {
        var map = ExtentMap<Stamp>()
        map.insert(range(10, 20), Stamp(insertion: 1, sector: 0))
        var replaced: [Extent<Stamp>] = []
        map.insert(range(15, 5), Stamp(insertion: 2, sector: 0)) { replaced.append($0) }
        #expect(
            map.extents(in: range(0, 100)) == [
                Extent(range: range(10, 5), value: Stamp(insertion: 1, sector: 0)),
                Extent(range: range(15, 5), value: Stamp(insertion: 2, sector: 0)),
                Extent(range: range(20, 10), value: Stamp(insertion: 1, sector: 10)),
            ])
        #expect(replaced == [Extent(range: range(15, 5), value: Stamp(insertion: 1, sector: 5))])
        #expect(map.count == 3)
        #expect(map.sectorCount == 20)
    }

    @Test func asksAboutCoverage() {
        var map = ExtentMap<Stamp>()
        #expect(map.isEmpty)
        #expect(!map.overlaps(range(0, 100)))
        #expect(map.gaps(in: range(3, 4)) == [range(3, 4)])
        map.insert(range(10, 5), Stamp(insertion: 1, sector: 0))
        map.insert(range(15, 5), Stamp(insertion: 2, sector: 0))
        map.insert(range(30, 5), Stamp(insertion: 3, sector: 0))
        #expect(map.covers(range(12, 8)))
        #expect(!map.covers(range(12, 9)))
        #expect(map.overlaps(range(19, 1)))
        #expect(!map.overlaps(range(20, 10)))
        #expect(!map.overlaps(range(12, 0)))
        #expect(map.gaps(in: range(0, 40)) == [range(0, 10), range(20, 10), range(35, 5)])
        #expect(map.value(at: 17) == Stamp(insertion: 2, sector: 2))
        #expect(map.value(at: 20) == nil)
        map.remove(range(0, 100))
        #expect(map.isEmpty)
        #expect(map.sectorCount == 0)
    }

    /// Small spaces make every way of overlapping come up; large ones make chunks split and vanish.
    @Test(arguments: [(seed: UInt64(1), size: 40, steps: 1500), (2, 300, 3000), (3, 4000, 6000), (4, 12000, 9000)])
    func agreesWithAnArray(_ setup: (seed: UInt64, size: Int, steps: Int)) {
        var random = Generator(state: setup.seed)
        var map = ExtentMap<Stamp>()
        var model = [Stamp?](repeating: nil, count: setup.size)
        for step in 0..<setup.steps {
            let start = Int.random(in: 0..<setup.size, using: &random)
            let reach = Int.random(in: 0..<200, using: &random) == 0 ? setup.size : 9
            let count = min(Int.random(in: 0...reach, using: &random), setup.size - start)
            let target = range(UInt64(start), UInt64(count))
            var told: [Stamp?] = []
            let before = Array(model[start..<start + count])
            let collect = { (extent: Extent<Stamp>) in
                for offset in 0..<extent.range.count { told.append(extent.value.dropping(sectors: offset)) }
            }
            if Int.random(in: 0..<4, using: &random) == 0 {
                map.remove(target, removed: collect)
                for sector in start..<start + count { model[sector] = nil }
            } else {
                map.insert(target, Stamp(insertion: step, sector: 0), replacing: collect)
                for sector in 0..<count { model[start + sector] = Stamp(insertion: step, sector: UInt64(sector)) }
            }
            #expect(told == before.filter { $0 != nil })
            if step % 199 == 0 || setup.size < 100 { check(map, against: model, &random) }
        }
        check(map, against: model, &random)
    }

    private func check(_ map: ExtentMap<Stamp>, against model: [Stamp?], _ random: inout Generator) {
        let size = model.count
        #expect(flat(map, in: range(0, UInt64(size)), size: size) == model)
        #expect(map.sectorCount == UInt64(model.filter { $0 != nil }.count))
        var count = 0
        var end: UInt64 = 0
        map.forEach { extent in
            #expect(extent.range.start >= end && !extent.range.isEmpty)
            end = extent.range.end
            count += 1
        }
        #expect(map.count == count)
        let start = Int.random(in: 0..<size, using: &random)
        let bounds = range(UInt64(start), UInt64(Int.random(in: 0...(size - start), using: &random)))
        let part = Int(bounds.start)..<Int(bounds.end)
        #expect(Array(flat(map, in: bounds, size: size)[part]) == Array(model[part]))
        #expect(map.overlaps(bounds) == model[part].contains { $0 != nil })
        #expect(map.covers(bounds) == !model[part].contains { $0 == nil })
        let inGaps = Set(map.gaps(in: bounds).flatMap { Int($0.start)..<Int($0.end) })
        #expect(inGaps == Set(part.filter { model[$0] == nil }))
        #expect(map.value(at: UInt64(start)) == model[start])
    }

    /// A map of 100,000 extents takes insertions in random order; a flat array would move 150 GB for this.
    @Test func manyExtentsStayFast() {
        var random = Generator(state: 5)
        var map = ExtentMap<Stamp>()
        let starts = (0..<100_000).map { UInt64($0) * 3 }.shuffled(using: &random)
        let clock = ContinuousClock()
        let duration = clock.measure {
            for (number, start) in starts.enumerated() { map.insert(range(start, 2), Stamp(insertion: number, sector: 0)) }
        }
        #expect(map.count == 100_000)
        #expect(map.sectorCount == 200_000)
        // Generous, for a debug build on a busy machine: it is the order of growth that counts.
        #expect(duration < .seconds(20))
    }
}
