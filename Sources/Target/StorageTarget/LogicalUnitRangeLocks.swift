import Blocks

// Who may touch which sectors now. Reads and writes hold their range shared: the device may serve them in either order.
// COMPARE AND WRITE, ORWRITE and WRITE ATOMIC hold theirs alone, and a SANITIZE or FORMAT UNIT holds the whole disk.
//
//   acquire --no conflict with held or earlier waiting--> held --release--> gone
//           --conflict--> waiting --the last conflict is released--> held
//
// Waiting is first come first served among ranges that conflict, so nobody starves. The table is bounded by its owner, who
// admits at most `LogicalUnit.maximumTasks`.

/// A table of locked ranges of one logical unit. A pure value: it calls nobody.
struct LogicalUnitRangeLocks {
    enum Mode {
        case shared
        case exclusive
    }

    private struct Entry {
        let identifier: UInt64
        let range: SectorRange
        let mode: Mode

        func conflicts(with other: Entry) -> Bool {
            (mode == .exclusive || other.mode == .exclusive) && range.overlaps(other.range)
        }
    }

    /// The range of an operation on the whole disk.
    static let everything = SectorRange(from: 0, to: .max)

    private var held: [Entry] = []
    private var waiting: [Entry] = []
    private var exclusiveCount = 0

    /// True while somebody holds, or waits for, a range alone.
    var hasExclusive: Bool { exclusiveCount > 0 }
    /// True when no range is held or waited for.
    var isEmpty: Bool { held.isEmpty && waiting.isEmpty }

    /// Takes a range, or queues for it.
    /// - Returns: true when it is held now; else `release` of another names it later.
    mutating func acquire(_ identifier: UInt64, _ range: SectorRange, _ mode: Mode, atFront: Bool = false) -> Bool {
        let entry = Entry(identifier: identifier, range: range, mode: mode)
        if mode == .exclusive { exclusiveCount += 1 }
        let isFree =
            exclusiveCount == 0
            || (!held.contains { $0.conflicts(with: entry) } && (atFront || !waiting.contains { $0.conflicts(with: entry) }))
        if isFree {
            held.append(entry)
        } else if atFront {
            waiting.insert(entry, at: 0)
        } else {
            waiting.append(entry)
        }
        return isFree
    }

    /// Gives up a range that is held or waited for.
    /// - Returns: those that waited and hold their range now, in order.
    mutating func release(_ identifier: UInt64) -> [UInt64] {
        if let index = held.firstIndex(where: { $0.identifier == identifier }) {
            if held[index].mode == .exclusive { exclusiveCount -= 1 }
            held.swapAt(index, held.count - 1)
            held.removeLast()
        } else if let index = waiting.firstIndex(where: { $0.identifier == identifier }) {
            if waiting[index].mode == .exclusive { exclusiveCount -= 1 }
            waiting.remove(at: index)
        }
        return waiting.isEmpty ? [] : grant()
    }

    private mutating func grant() -> [UInt64] {
        var granted: [UInt64] = []
        var still: [Entry] = []
        for entry in waiting {
            let isBlocked = held.contains { $0.conflicts(with: entry) } || still.contains { $0.conflicts(with: entry) }
            if isBlocked {
                still.append(entry)
            } else {
                held.append(entry)
                granted.append(entry.identifier)
            }
        }
        waiting = still
        return granted
    }
}
