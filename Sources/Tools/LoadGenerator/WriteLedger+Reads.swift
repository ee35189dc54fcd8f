/// What one unit may hold, taken when a read is issued.
public struct UnitExpectation: Equatable, Sendable {
    /// The oldest generation that may still be there.
    public var low: UInt64 = 0
    /// The newest acknowledged one; equal to `low` when there is no doubt.
    public var high: UInt64 = 0
    /// A write that was in flight, or 0.
    public var inFlight: UInt64 = 0

    public init() {}
}

/// What a read may find: the state when it was issued, and every write that was issued since.
public struct ReadExpectation: Sendable {
    public var units: [UnitExpectation] = []
    /// Unanswered writes by unit; empty but after a lost session.
    public var maybes: [Int: [UInt64]] = [:]
    /// Writes from this generation on were issued after the read.
    public var issuedBefore: UInt64 = 0
    public var epoch: UInt32 = 0

    public init() {}
}

/// A sector that is not as it must be.
public struct Mismatch: Equatable, Sendable, CustomStringConvertible {
    public let sector: UInt64
    /// The generations that were allowed, in words.
    public let expected: String
    /// What was there instead.
    public let found: String

    public var description: String { "sector \(sector): expected \(expected), found \(found)" }
}

extension WriteLedger {
    /// The first sector of a unit.
    public func sector(ofUnit unit: Int) -> UInt64 { firstSector &+ UInt64(unit) &* UInt64(sectorsPerUnit) }

    /// Takes down what a read of the units may find. Uses the arrays of `expectation` again.
    public func expect(_ units: Range<Int>, into expectation: inout ReadExpectation) {
        expectation.units.removeAll(keepingCapacity: true)
        for unit in units.clamped(to: 0..<unitCount) {
            var one = UnitExpectation()
            one.high = settled[unit]
            one.low = certainEpoch[unit] == epoch ? settled[unit] : min(floor[unit], settled[unit])
            one.inFlight = inFlight[unit]
            expectation.units.append(one)
        }
        if maybes.isEmpty {
            if !expectation.maybes.isEmpty { expectation.maybes = [:] }
        } else {
            expectation.maybes = [:]
            for unit in units { if let list = maybes[unit] { expectation.maybes[unit] = list } }
        }
        expectation.issuedBefore = nextGeneration
        expectation.epoch = epoch
    }

    /// Compares the bytes of a completed read with what was allowed.
    /// - Parameters:
    ///   - original: the bytes of a sector before the job, where they are known.
    ///   - observed: gets each unit that holds one generation in all its sectors.
    /// - Returns: the first sector that is wrong, or nil.
    public func check(
        _ bytes: UnsafeRawBufferPointer, firstUnit: Int, against expectation: ReadExpectation, stamp: SectorStamp,
        original: ((UInt64) -> UnsafeRawBufferPointer?)? = nil, observed: (Int, UInt64) -> Void = { _, _ in }
    ) -> Mismatch? {
        let unitBytes = sectorsPerUnit * SectorStamp.byteCount
        for (place, allowed) in expectation.units.enumerated() {
            let unit = firstUnit + place
            var common: UInt64?
            for index in 0..<sectorsPerUnit {
                let offset = place * unitBytes + index * SectorStamp.byteCount
                guard offset + SectorStamp.byteCount <= bytes.count else { return nil }
                let sector = self.sector(ofUnit: unit) &+ UInt64(index)
                let data = UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + SectorStamp.byteCount])
                let content = stamp.read(data, sector: sector)
                let generation: UInt64
                switch content {
                case .stamped(let found): generation = found
                case .unstamped: generation = 0
                default: return mismatch(sector, unit, allowed, expectation, content)
                }
                guard isAllowed(generation, unit, allowed, expectation) else {
                    return mismatch(sector, unit, allowed, expectation, content)
                }
                if generation == 0, let known = original?(sector), !known.elementsEqual(data) {
                    return Mismatch(sector: sector, expected: "the original bytes", found: "other bytes without a stamp")
                }
                if index == 0 { common = generation } else if common != generation { common = nil }
            }
            if let common { observed(unit, common) }
        }
        return nil
    }

    private func isAllowed(_ generation: UInt64, _ unit: Int, _ allowed: UnitExpectation, _ all: ReadExpectation) -> Bool {
        if generation >= allowed.low && generation <= allowed.high { return true }
        if generation == 0 { return false }
        if generation == allowed.inFlight { return true }
        if generation >= all.issuedBefore && generation < nextGeneration { return true }
        return all.maybes[unit]?.contains(generation) ?? false
    }

    private func mismatch(
        _ sector: UInt64, _ unit: Int, _ allowed: UnitExpectation, _ all: ReadExpectation, _ content: SectorContent
    ) -> Mismatch {
        func name(_ generation: UInt64) -> String { generation == 0 ? "the original bytes" : "generation \(generation)" }
        var expected = allowed.low == allowed.high ? name(allowed.low) : "\(name(allowed.low)) to generation \(allowed.high)"
        var others = all.maybes[unit] ?? []
        if allowed.inFlight != 0 { others.append(allowed.inFlight) }
        if !others.isEmpty { expected += " or " + others.map(String.init).joined(separator: ", ") }
        let found: String
        switch content {
        case .unstamped: found = "no stamp of this job"
        case .stamped(let generation):
            found = generation >= nextGeneration ? "generation \(generation), which was never issued" : "generation \(generation)"
        case .misplaced(let sector, let generation): found = "generation \(generation) of sector \(sector)"
        case .damaged: found = "a stamp with a wrong checksum (mixed or damaged)"
        }
        return Mismatch(sector: sector, expected: expected, found: found)
    }
}
