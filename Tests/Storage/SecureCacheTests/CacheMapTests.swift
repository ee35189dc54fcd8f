import NIOCore
import SimulatedStorage
import Testing

@testable import SecureCache

@Suite struct CacheMapTests {
    /// Whatever is done to a map, it says what a dictionary says.
    @Test(arguments: 0..<12 as Range<UInt64>)
    func saysWhatADictionarySays(seed: UInt64) {
        let random = SeededRandom(seed: seed)
        let width = random.within(8...30)
        let slots = UInt64(1) << UInt64(width)
        var map = CacheMap(width: width)
        var model: [UInt64: CacheSlot] = [:]
        let span: UInt64 = random.chance(percent: 50) ? 700 : 3_000_000
        for _ in 0..<3000 {
            let block = random.below(span)
            let count = random.chance(percent: 40) ? random.below(40) : 1
            switch random.below(10) {
            case 0..<6:
                let slot = random.below(slots - count)
                for number in 0..<count {
                    let previous = map.set(block + number, to: CacheSlot(slot + number))
                    #expect(previous == model.updateValue(CacheSlot(slot + number), forKey: block + number))
                }
            case 6..<9:
                for number in 0..<count {
                    let removed = map.remove(block + number)
                    #expect(removed == model.removeValue(forKey: block + number))
                }
            default:
                let range = block..<block + random.below(span / 3)
                var removed: [CacheSlot] = []
                map.remove(range) { removed.append($1) }
                let expected = model.filter { range.contains($0.key) }
                for key in expected.keys { model[key] = nil }
                #expect(removed.sorted() == expected.values.sorted())
            }
            #expect(map.count == UInt64(model.count))
        }
        for block in 0..<700 as Range<UInt64> { #expect(map.slot(of: block) == model[block]) }
        for start in stride(from: 0, to: 5_000, by: 37) as StrideTo<UInt64> {
            let range = start..<start + random.below(1_500)
            #expect(map.containsAny(of: range) == model.keys.contains(where: range.contains))
        }
        var all: [UInt64: CacheSlot] = [:]
        map.forEach { all[$0] = $1 }
        #expect(all == model)
        var replayed: [UInt64: CacheSlot] = [:]
        for number in map.chunkNumbers {
            for record in (0..<CacheMap.leavesPerChunk).flatMap({ map.records(ofLeaf: $0, inChunk: number, ordinal: 3) }) {
                var buffer = ByteBuffer()
                record.encode(into: &buffer)
                switch CacheRecord(from: &buffer) {
                case .data(3, let block, let count, let slot)?:
                    for index in 0..<count { replayed[block + UInt64(index)] = slot + index }
                case .places(3, let block, let places)?:
                    for place in places { replayed[block + UInt64(place.offset)] = place.slot }
                default: Issue.record("a record that no map writes")
                }
            }
        }
        #expect(replayed == model)
        map.remove(0..<5_000_000) { _, _ in }
        #expect(map.count == 0 && map.byteCount == 0, "an empty map takes no memory")
    }

    /// What leaves gives its memory back, in whatever order it goes.
    @Test func whatLeavesGivesItsMemoryBack() {
        var map = CacheMap(width: 28)
        let random = SeededRandom(seed: 5)
        var blocks: [UInt64] = []
        for block in 0..<60_000 as Range<UInt64> where random.below(4) > 0 { blocks.append(block) }
        for block in blocks { _ = map.set(block, to: CacheSlot(random.below(1 << 28))) }
        let full = map.byteCount
        let empty = CacheMap(width: 28).byteCount
        for place in blocks.indices.reversed() { blocks.swapAt(place, Int(random.below(UInt64(place + 1)))) }
        let quarter = blocks.count / 4
        for share in 1...3 {
            for block in blocks.prefix(quarter) { _ = map.remove(block) }
            blocks.removeFirst(quarter)
            #expect(map.byteCount <= full * (4 - share) / 4 + full / 5, "after \(share) quarters: \(map.byteCount) of \(full)")
        }
        for block in blocks { _ = map.remove(block) }
        #expect(map.byteCount == empty && map.count == 0)
    }

    /// A cache of a tebibyte has slots of 28 bits.
    @Test func blocksInAnyOrderTakeLessThanFourBytesEach() {
        let random = SeededRandom(seed: 7)
        var map = CacheMap(width: 28)
        let blocks = UInt64(CacheLeaf.blockCount) * 512
        for block in 0..<blocks { _ = map.set(block, to: CacheSlot(random.below(1 << 28))) }
        #expect(Double(map.byteCount) / Double(blocks) < 3.8)
        var runs = CacheMap(width: 28)
        for block in 0..<blocks { _ = runs.set(block, to: CacheSlot(block)) }
        #expect(Double(runs.byteCount) / Double(blocks) < 0.2)
    }
}
