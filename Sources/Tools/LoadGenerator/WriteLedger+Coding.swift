// The state file, integers big-endian:
//
//     0   8  magic "CWLDSTAT"
//     8   4  version, 1
//    12   4  number of this state; the journal that continues it has the same
//    16   8  job
//    24   8  first sector
//    32   4  sectors in a unit
//    36   4  epoch
//    40   8  number of units
//    48   8  next generation
//    56   8  sequence of acknowledgements
//    64   8  number of unanswered writes, 72: in flight, 80: acknowledged and not flushed
//    88      for each unit: settled (8), floor (8), epoch in which it was certain (4)
//            for each unanswered write: unit (8), generation (8)
//            for each in flight: the same
//            for each not flushed: unit (8), generation (8), sequence (8)
//     end 4  CRC-32C of all before it

extension WriteLedger {
    /// The state file's bytes.
    public func encode(stateNumber: UInt32) -> [UInt8] {
        let unanswered = maybes.sorted { $0.key < $1.key }.flatMap { entry in entry.value.map { (entry.key, $0) } }
        let flying = unitsInFlight == 0 ? [] : inFlight.indices.filter { inFlight[$0] != 0 }
        let unflushed = dirty[dirtyStart...]
        var bytes: [UInt8] = []
        bytes.reserveCapacity(96 + unitCount * 20 + (unanswered.count + flying.count) * 16 + unflushed.count * 24)
        bytes.append(contentsOf: Array("CWLDSTAT".utf8))
        bytes.appendBigEndian(UInt32(1))
        bytes.appendBigEndian(stateNumber)
        bytes.appendBigEndian(job)
        bytes.appendBigEndian(firstSector)
        bytes.appendBigEndian(UInt32(clamping: sectorsPerUnit))
        bytes.appendBigEndian(epoch)
        for number in [UInt64(unitCount), nextGeneration, sequence] { bytes.appendBigEndian(number) }
        for count in [unanswered.count, flying.count, unflushed.count] { bytes.appendBigEndian(UInt64(count)) }
        for unit in 0..<unitCount {
            bytes.appendBigEndian(settled[unit])
            bytes.appendBigEndian(floor[unit])
            bytes.appendBigEndian(certainEpoch[unit])
        }
        for (unit, generation) in unanswered {
            bytes.appendBigEndian(UInt64(unit))
            bytes.appendBigEndian(generation)
        }
        for unit in flying {
            bytes.appendBigEndian(UInt64(unit))
            bytes.appendBigEndian(inFlight[unit])
        }
        for entry in unflushed {
            bytes.appendBigEndian(UInt64(entry.unit))
            bytes.appendBigEndian(entry.generation)
            bytes.appendBigEndian(entry.sequence)
        }
        bytes.appendChecksum(from: 0)
        return bytes
    }

    /// Reads a state file; nil when it is damaged or of another version.
    public static func decode(_ bytes: [UInt8]) -> (ledger: WriteLedger, stateNumber: UInt32)? {
        let all = bytes[...]
        guard all.count >= 92, all.starts(with: Array("CWLDSTAT".utf8)), all.hasChecksum(),
            let version: UInt32 = all.bigEndian(at: 8), version == 1, let number: UInt32 = all.bigEndian(at: 12),
            let job: UInt64 = all.bigEndian(at: 16), let first: UInt64 = all.bigEndian(at: 24),
            let sectors: UInt32 = all.bigEndian(at: 32), let epoch: UInt32 = all.bigEndian(at: 36)
        else { return nil }
        let counts = stride(from: 40, to: 88, by: 8).compactMap { all.bigEndian(at: $0) as UInt64? }
        let body = UInt64(all.count - 92)
        guard counts.count == 6, counts[0] <= UInt64(maximumUnitCount), counts[3] <= body, counts[4] <= body, counts[5] <= body,
            counts[0] * 20 + (counts[3] + counts[4]) * 16 + counts[5] * 24 == body,
            var ledger = WriteLedger(firstSector: first, sectorsPerUnit: Int(sectors), unitCount: Int(counts[0]), job: job)
        else { return nil }
        ledger.epoch = epoch
        ledger.nextGeneration = counts[1]
        ledger.sequence = counts[2]
        return ledger.readBody(all, counts) ? (ledger, number) : nil
    }

    private mutating func readBody(_ all: ArraySlice<UInt8>, _ counts: [UInt64]) -> Bool {
        var position = 88
        func word() -> UInt64 {
            defer { position += 8 }
            return all.bigEndian(at: position) ?? 0
        }
        for unit in 0..<unitCount {
            settled[unit] = word()
            floor[unit] = word()
            certainEpoch[unit] = all.bigEndian(at: position) ?? 0
            position += 4
        }
        func unit() -> Int? {
            guard let unit = Int(exactly: word()), unit < unitCount else { return nil }
            return unit
        }
        for _ in 0..<counts[3] {
            guard let unit = unit() else { return false }
            maybes[unit, default: []].append(word())
        }
        for _ in 0..<counts[4] {
            guard let unit = unit(), inFlight[unit] == 0 else { return false }
            inFlight[unit] = word()
            if inFlight[unit] == 0 { return false }
            unitsInFlight += 1
        }
        for _ in 0..<counts[5] {
            guard let unit = unit() else { return false }
            let generation = word()
            dirty.append(DirtyEntry(unit: unit, generation: generation, sequence: word()))
        }
        return true
    }
}
