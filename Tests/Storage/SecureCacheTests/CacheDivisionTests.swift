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
        #expect(throws: CacheDivisionError.pinsOverMaximum(first, pinnedBytes: 100 << 12, pinnedBytesMax: 90 / 4 * 3 << 12)) {
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

    @Test func whatDoesNotFitIsLoosenedInOrder() {
        let wanted = division(partitions: ["a": 10], [first: (nil, 8, 12, 30), second: ("a", 0, nil, 30)])
        let whole = CachePlan(loosening: wanted, geometry(40))
        #expect(!whole.isLoosened && whole.pins[second] == [100..<130])
        // The partition can't keep 3 segments of pins.
        let withoutPins = CachePlan(
            loosening: division(partitions: ["a": 8], [first: (nil, 8, 12, 0), second: ("a", 0, nil, 30)]), geometry(40))
        #expect(withoutPins.isLoosened && withoutPins.pins[second] == [] && withoutPins.pools[2].bounds.floor == 8)
        let withoutGuarantees = CachePlan(loosening: wanted, geometry(20))
        #expect(withoutGuarantees.isLoosened && withoutGuarantees.pools[2].bounds == CachePoolBounds(partition: 0, floor: 0, ceiling: 12))
        let nothing = CachePlan(loosening: wanted, geometry(14))
        #expect(nothing.isLoosened && nothing.pools.count == 1 && nothing.keys.isEmpty)
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
