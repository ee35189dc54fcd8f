import Blocks
import Testing

@testable import SecureCache

/// Which divisions fit a cache, and what is left of one that does not.
@Suite struct CacheDivisionTests {
    private static let segmentBytes = 64 << 10
    private let first = VolumeIdentifier(high: 1, low: 1)
    private let second = VolumeIdentifier(high: 1, low: 2)

    private func geometry(_ segments: Int) -> CacheGeometry {
        CacheGeometry(byteCount: UInt64(4096 + segments * Self.segmentBytes), segmentBytes: Self.segmentBytes)
    }

    private func bytes(_ segments: Int) -> UInt64 { UInt64(segments * Self.segmentBytes) }

    private func division(
        partitions: [String: Int] = [:],
        _ shares: [VolumeIdentifier: (partition: String?, guaranteed: Int, most: Int?, pinned: UInt64)] = [:]
    ) -> CacheDivision {
        var division = CacheDivision()
        division.partitions = partitions.mapValues(bytes)
        for (volume, wanted) in shares {
            var share = CacheDivision.Share()
            share.partition = wanted.partition
            share.guaranteedBytes = bytes(wanted.guaranteed)
            share.bytesMax = wanted.most.map(bytes)
            share.pins = wanted.pinned == 0 ? [] : [100..<100 + wanted.pinned]
            division.shares[volume] = share
        }
        return division
    }

    @Test func whatIsPromisedIsCountedInSegments() throws {
        // 15 slots each: 30 pinned blocks are promised 40, so three segments.
        #expect(geometry(40).slotCount == 15)
        let plan = try CachePlan(
            division(partitions: ["base": 10], [first: (nil, 4, 8, 30), second: ("base", 0, nil, 30)]), geometry(40))
        #expect(plan.partitions == [.max, 10])
        #expect(plan.pools.map(\.key) == [.partition(nil), .partition("base"), .volume(first)])
        #expect(plan.pools.map(\.bounds.floor) == [0, 3, 4])
        #expect(plan.pools[2].bounds == CachePoolBounds(partition: 0, floor: 4, ceiling: 8))
        #expect(plan.keys == [first: .volume(first), second: .partition("base")])
        #expect(!plan.isLoosened)
    }

    @Test func whatDoesNotFitIsRefusedWithNumbers() {
        let geometry = geometry(40)
        // Six to work with and two that are kept free.
        #expect(throws: CacheDivisionError.partitionsTooLarge(bytes: bytes(33), bytesMax: bytes(32))) {
            try CachePlan(division(partitions: ["a": 20, "b": 13]), geometry)
        }
        #expect(throws: CacheDivisionError.partitionTooSmall("a", bytesNeeded: bytes(6))) {
            try CachePlan(division(partitions: ["a": 5]), geometry)
        }
        #expect(throws: CacheDivisionError.noPartition("b")) {
            try CachePlan(division(partitions: ["a": 6], [first: ("b", 0, nil, 0)]), geometry)
        }
        #expect(throws: CacheDivisionError.tooMuchPromised(partition: nil, promisedBytes: bytes(23), promisedBytesMax: bytes(22))) {
            try CachePlan(division(partitions: ["a": 10], [first: (nil, 20, nil, 0), second: (nil, 0, nil, 30)]), geometry)
        }
        #expect(throws: CacheDivisionError.tooMuchPromised(partition: "a", promisedBytes: bytes(5), promisedBytesMax: bytes(4))) {
            try CachePlan(division(partitions: ["a": 10], [first: ("a", 5, nil, 0)]), geometry)
        }
        #expect(throws: CacheDivisionError.maximumTooSmall(first, bytesNeeded: bytes(6))) {
            try CachePlan(division([first: (nil, 0, 5, 0)]), geometry)
        }
        #expect(throws: CacheDivisionError.guaranteeOverMaximum(first)) {
            try CachePlan(division([first: (nil, 9, 8, 0)]), geometry)
        }
        #expect(throws: CacheDivisionError.pinsOverMaximum(first, pinnedBytes: 100 << 12, pinnedBytesMax: 67 << 12)) {
            try CachePlan(division([first: (nil, 0, 6, 100)]), geometry)
        }
    }

    @Test func hostileNumbersAreRefused() {
        var division = CacheDivision()
        division.shares[first] = CacheDivision.Share()
        for pin in [0..<UInt64.max, 5..<5, (1 << 50) - 1..<(1 << 50) + 1] as [Range<UInt64>] {
            division.shares[first]?.pins = [pin]
            #expect(throws: CacheDivisionError.badPin(first)) { try CachePlan(division, geometry(40)) }
        }
        division.shares[first]?.pins = Array(repeating: 0..<1, count: CacheDivision.pinsMax + 1)
        #expect(throws: CacheDivisionError.tooManyPins(first, max: CacheDivision.pinsMax)) { try CachePlan(division, geometry(40)) }
        division.shares[first]?.pins = [0..<1 << 50]
        #expect(throws: CacheDivisionError.self) { try CachePlan(division, geometry(40)) }
        division.shares[first]?.pins = []
        division.shares[first]?.guaranteedBytes = .max
        #expect(throws: CacheDivisionError.self) { try CachePlan(division, geometry(40)) }
        division.shares = [:]
        division.partitions = ["a": .max, "b": .max, "c": .max]
        #expect(throws: CacheDivisionError.self) { try CachePlan(division, geometry(40)) }
        division.partitions = Dictionary(uniqueKeysWithValues: (0..<64).map { ("\($0)", bytes(6)) })
        #expect(throws: CacheDivisionError.tooManyPools(max: 64)) { try CachePlan(division, geometry(1_000)) }
    }

    @Test func rangesThatTouchArePinnedOnce() {
        var share = CacheDivision.Share()
        share.pins = [20..<30, 0..<10, 5..<12, 12..<15, 25..<26]
        #expect(share.pinnedRanges == [0..<15, 20..<30])
        #expect(share.pinnedBlocks == 25)
    }

    // MARK: What is left of one that does not fit

    private func loosened(_ wanted: CacheDivision, _ segments: Int) throws -> (CachePlan, CacheLoosening) {
        let plan = CachePlan(loosening: wanted, geometry(segments))
        return (plan, try #require(plan.loosening))
    }

    @Test func whatDoesNotFitIsLoosenedByAsLittleAsItMust() throws {
        let wanted = division(partitions: ["a": 10], [first: (nil, 8, 12, 30), second: ("a", 0, nil, 30)])
        let whole = CachePlan(loosening: wanted, geometry(40))
        #expect(!whole.isLoosened && whole.pins[second] == [100..<130])
        // The partition can't keep 3 segments of pins, and 2 of them all the same.
        let (fewerPins, pins) = try loosened(
            division(partitions: ["a": 8], [first: (nil, 8, 12, 0), second: ("a", 0, nil, 30)]), 40)
        #expect(fewerPins.pins[second] == [100..<122] && fewerPins.pools[2].bounds.floor == 8 && fewerPins.pools[1].bounds.floor == 2)
        #expect(pins.pinnedBlocks == 8 && pins.guarantees == 0 && pins.partitions == 0)
        // Of 20 segments the partition has 10, 8 are to work with; 2 are left of the guarantee, and what is pinned lies in these.
        let (lessGuaranteed, less) = try loosened(wanted, 20)
        #expect(lessGuaranteed.pools[2].bounds == CachePoolBounds(partition: 0, floor: 2, ceiling: 12))
        #expect(lessGuaranteed.pins == [first: [100..<122], second: [100..<130]] && lessGuaranteed.partitions == [.max, 10])
        #expect(less.guarantees == 1 && less.pinnedBlocks == 8 && less.partitions == 0)
        // The partition is as small as one can be, then there is none.
        let (smallest, small) = try loosened(wanted, 14)
        #expect(smallest.partitions == [.max, 6] && smallest.pins == [first: [], second: []] && small.partitions == 1)
        let (none, nothing) = try loosened(wanted, 13)
        #expect(none.partitions == [.max] && none.keys[second] == .partition(nil) && nothing.partitions == 1)
    }

    /// Who has much to lose does not cost those who have little.
    @Test func theSmallestPromisesAreKept() throws {
        let third = VolumeIdentifier(high: 1, low: 3)
        let (plan, loosening) = try loosened(
            division([first: (nil, 3, nil, 0), second: (nil, 40, nil, 0), third: (nil, 5, nil, 0)]), 28)
        #expect(plan.keys == [first: .volume(first), second: .volume(second), third: .volume(third)])
        #expect(plan.pools.map(\.bounds.floor) == [0, 3, 12, 5] && loosening.guarantees == 1)
        var pinned = division([first: (nil, 0, nil, 0)])
        pinned.shares[first]?.pins = [0..<150, 1_000..<1_030, 2_000..<2_030]
        let (pins, left) = try loosened(pinned, 20)
        #expect(pins.pins[first] == [0..<75, 1_000..<1_030, 2_000..<2_030] && left.pinnedBlocks == 75)
    }

    @Test func partitionsBecomeSmallerInProportion() throws {
        let (plan, _) = try loosened(division(partitions: ["a": 30, "b": 60, "c": 6]), 64)
        #expect(plan.partitions.dropFirst().reduce(0, +) == 64 - 4 - 6 && plan.partitions[3] == 6)
        #expect(abs(plan.partitions[2] - 2 * plan.partitions[1]) <= 2)
    }

    /// A cache that was made anew has longer segments, of which a pool needs as many.
    @Test func maximaAreNoSmallerThanAPoolNeeds() throws {
        let (plan, loosening) = try loosened(division([first: (nil, 0, 5, 0), second: (nil, 7, 6, 100)]), 40)
        #expect(plan.pools.map(\.bounds) == [CachePoolBounds(), .init(floor: 0, ceiling: 6), .init(floor: 6, ceiling: 6)])
        #expect(loosening.maxima == 1 && loosening.guarantees == 1 && loosening.pinnedBlocks == 100 - 67)
    }

    /// What is left of any division fits.
    @Test func whatIsLeftFitsAlways() throws {
        var random = SystemRandomNumberGenerator()
        for _ in 0..<2_000 {
            var wanted = CacheDivision()
            for name in ["a", "b", "c"].prefix(Int.random(in: 0...3, using: &random)) {
                wanted.partitions[name] = bytes(Int.random(in: 0...40))
            }
            for low in 0..<UInt64.random(in: 0...5) {
                var share = CacheDivision.Share()
                share.partition = [nil, "a", "b", "nobody"].randomElement(using: &random) ?? nil
                share.guaranteedBytes = bytes(Int.random(in: 0...3)) * UInt64.random(in: 0...10) / 3
                share.bytesMax = Bool.random() ? bytes(Int.random(in: 0...30)) : nil
                share.pins = (0..<Int.random(in: 0...4)).map { _ in
                    let start = UInt64.random(in: 0...2_000)
                    return start..<start + UInt64.random(in: 0...200)
                }
                wanted.shares[VolumeIdentifier(high: 9, low: low)] = share
            }
            let size = geometry(Int.random(in: 6...120))
            let left = wanted.loosened(for: size)
            do throws(CacheDivisionError) { _ = try CachePlan(left, size) } catch {
                Issue.record("\(error): \(wanted), \(size.segmentCount)")
            }
            if (try? CachePlan(wanted, size)) != nil {
                #expect(CacheLoosening(of: wanted, kept: left) == CacheLoosening(), "\(wanted), \(size.segmentCount)")
            }
        }
    }

    // MARK: Steps

    private func lab(guaranteed: UInt64 = 5, partition: UInt64? = 9, pins: [Range<UInt64>] = [10..<20]) -> CacheDivision {
        var division = CacheDivision()
        if let partition { division.partitions["lab"] = partition }
        var share = CacheDivision.Share()
        (share.guaranteedBytes, share.pins) = (guaranteed, pins)
        share.partition = partition == nil ? nil : "lab"
        division.shares[first] = share
        return division
    }

    @Test func lessOfAnythingPromisesNoMore() {
        let whole = lab()
        for less in [
            whole, CacheDivision(), lab(guaranteed: 0), lab(partition: 8), lab(partition: nil),
            lab(pins: []), lab(pins: [11..<12, 15..<20]),
        ] {
            #expect(less.promisesNoMore(than: whole), "\(less)")
        }
        for more in [
            lab(guaranteed: 6), lab(partition: 10), lab(pins: [9..<12]), lab(pins: [10..<21]),
        ] {
            #expect(!more.promisesNoMore(than: whole), "\(more)")
        }
        var other = whole
        other.partitions["more"] = 1
        #expect(!other.promisesNoMore(than: whole))
        other = whole
        other.partitions = [:]
        #expect(!other.promisesNoMore(than: whole), "a volume uses it")
        other = whole
        other.shares[second] = whole.shares[first]
        #expect(!other.promisesNoMore(than: whole))
    }
}
