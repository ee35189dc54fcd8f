// What a read may find, for each unit (the smallest piece that the job writes in one command):
//
//                 issue g             acknowledge g
//   settled s ──────────▶ s, g in flight ──────────▶ settled g      (g and what follows is all that a read may find)
//                              │ error or session lost
//                              ▼
//                         s, g may be there   ── the next acknowledged write settles it
//
//   session lost: the edge may have crashed. Everything that was acknowledged but not flushed may
//   have gone: a read may find any generation from the floor (the last flushed one) to the settled one,
//   until one read or one acknowledged write shows which it is.
//
// Generation 0 is what was there before the job. Writes that overlap are never in flight together:
// the generator asks `canWrite` first. So the generations of a unit are acknowledged in order.

/// The memory of a verifying job: which generations each unit may hold.
public struct WriteLedger: Sendable {
    /// The most units a ledger keeps (25 bytes each); a job over more must take larger blocks or a smaller range.
    public static let maximumUnitCount = 1 << 26
    /// How many acknowledged, unflushed writes are kept apart for each unit on average. Beyond it the
    /// list is thinned to the newest of each unit, which makes the floor rise later, never wrongly.
    static let dirtyEntriesPerUnit = 2

    /// Where unit 0 begins on the disk.
    public let firstSector: UInt64
    public let sectorsPerUnit: Int
    public let unitCount: Int
    /// Names the job in its stamps.
    public let job: UInt64
    /// The generation that the next write gets.
    public internal(set) var nextGeneration: UInt64 = 1
    /// Grows whenever a crash of the target may have happened.
    public internal(set) var epoch: UInt32 = 1

    /// An acknowledged write that no flush has covered yet.
    struct DirtyEntry: Equatable, Sendable {
        var unit: Int
        var generation: UInt64
        /// When it was acknowledged, counted in acknowledgements.
        var sequence: UInt64
    }

    /// The newest generation known to have been on the disk.
    var settled: [UInt64]
    /// The newest generation that no crash may take back.
    var floor: [UInt64]
    /// The epoch in which `settled` was last seen or acknowledged; in a later one it may have been lost.
    var certainEpoch: [UInt32]
    var inFlight: [UInt64]
    /// Writes that ended without an answer, by unit. Bounded by the commands in flight at each loss, until the unit is written again.
    var maybes: [Int: [UInt64]] = [:]
    var dirty: [DirtyEntry] = []
    /// Entries before it have been flushed.
    var dirtyStart = 0
    var sequence: UInt64 = 0
    /// How many units have a write in flight.
    public internal(set) var unitsInFlight = 0

    /// An empty ledger; nil when the sizes make no sense or are beyond the limit.
    public init?(firstSector: UInt64, sectorsPerUnit: Int, unitCount: Int, job: UInt64) {
        guard sectorsPerUnit > 0, unitCount > 0, unitCount <= Self.maximumUnitCount, sectorsPerUnit <= 1 << 20 else { return nil }
        let (_, overflow) = firstSector.addingReportingOverflow(UInt64(unitCount) * UInt64(sectorsPerUnit))
        if overflow { return nil }
        self.firstSector = firstSector
        self.sectorsPerUnit = sectorsPerUnit
        self.unitCount = unitCount
        self.job = job
        settled = .init(repeating: 0, count: unitCount)
        floor = .init(repeating: 0, count: unitCount)
        certainEpoch = .init(repeating: 1, count: unitCount)
        inFlight = .init(repeating: 0, count: unitCount)
    }

    /// True when no unit of the range has a write in flight.
    public func canWrite(_ units: Range<Int>) -> Bool {
        guard units.lowerBound >= 0, units.upperBound <= unitCount else { return false }
        for unit in units where inFlight[unit] != 0 { return false }
        return true
    }

    /// Notes a write before it is sent, and gives it its generation. The caller has asked `canWrite`.
    public mutating func issue(_ units: Range<Int>) -> UInt64 {
        let generation = nextGeneration
        nextGeneration &+= 1
        for unit in units.clamped(to: 0..<unitCount) {
            if inFlight[unit] == 0 { unitsInFlight += 1 }
            inFlight[unit] = generation
        }
        return generation
    }

    /// The target said GOOD. With `durable` (FUA) it also promised that the write survives.
    public mutating func acknowledge(_ units: Range<Int>, generation: UInt64, durable: Bool) {
        sequence &+= 1
        for unit in units.clamped(to: 0..<unitCount) where inFlight[unit] == generation {
            inFlight[unit] = 0
            unitsInFlight -= 1
            settled[unit] = generation
            certainEpoch[unit] = epoch
            if !maybes.isEmpty { maybes[unit] = nil }
            if durable {
                floor[unit] = max(floor[unit], generation)
            } else {
                dirty.append(DirtyEntry(unit: unit, generation: generation, sequence: sequence))
            }
        }
        if dirty.count - dirtyStart > max(Self.dirtyEntriesPerUnit * unitCount, 4096) { thinDirty() }
    }

    /// The target answered with an error: the write may be there or not, or in part.
    public mutating func fail(_ units: Range<Int>, generation: UInt64) {
        for unit in units.clamped(to: 0..<unitCount) where inFlight[unit] == generation {
            inFlight[unit] = 0
            unitsInFlight -= 1
            maybes[unit, default: []].append(generation)
        }
    }

    /// What a flush that starts now will cover.
    public struct FlushTicket: Equatable, Sendable {
        /// The acknowledgements before it.
        public var sequence: UInt64
        /// A flush says nothing about writes before a possible crash.
        public var epoch: UInt32

        public init(sequence: UInt64, epoch: UInt32) {
            self.sequence = sequence
            self.epoch = epoch
        }
    }

    /// Call before the flush is sent.
    public func beginFlush() -> FlushTicket { FlushTicket(sequence: sequence, epoch: epoch) }

    /// The target said GOOD to a flush.
    public mutating func completeFlush(_ ticket: FlushTicket) {
        guard ticket.epoch == epoch else { return }
        while dirtyStart < dirty.count, dirty[dirtyStart].sequence <= ticket.sequence {
            let entry = dirty[dirtyStart]
            floor[entry.unit] = max(floor[entry.unit], entry.generation)
            dirtyStart += 1
        }
        if dirtyStart > 4096, dirtyStart * 2 > dirty.count {
            dirty.removeFirst(dirtyStart)
            dirtyStart = 0
        }
    }

    /// A session broke, and for all we know the target's machine crashed with it.
    public mutating func loseSession() {
        interruptSession()
        epoch &+= 1
        dirty.removeAll(keepingCapacity: true)
        dirtyStart = 0
    }

    /// A session broke, but the target keeps what it acknowledged: its process died at most.
    public mutating func interruptSession() {
        if unitsInFlight > 0 {
            for unit in inFlight.indices where inFlight[unit] != 0 {
                maybes[unit, default: []].append(inFlight[unit])
                inFlight[unit] = 0
            }
            unitsInFlight = 0
        }
    }

    /// A read found the whole unit at one generation. Ends the doubt that a lost session left.
    /// - Returns: true when there was a doubt to end.
    public mutating func observe(_ unit: Int, generation: UInt64, issuedInEpoch readEpoch: UInt32) -> Bool {
        guard unit >= 0, unit < unitCount, readEpoch == epoch, certainEpoch[unit] != epoch, inFlight[unit] == 0 else {
            return false
        }
        settled[unit] = generation
        certainEpoch[unit] = epoch
        if var left = maybes[unit] {
            // The others may still land until the next acknowledged write.
            left.removeAll { $0 == generation }
            maybes[unit] = left.isEmpty ? nil : left
        }
        if generation > floor[unit] {
            sequence &+= 1
            dirty.append(DirtyEntry(unit: unit, generation: generation, sequence: sequence))
        }
        return true
    }

    private mutating func thinDirty() {
        var seen = Set<Int>()
        var kept: [DirtyEntry] = []
        for entry in dirty[dirtyStart...].reversed() where seen.insert(entry.unit).inserted { kept.append(entry) }
        dirty = kept.reversed()
        dirtyStart = 0
    }
}
