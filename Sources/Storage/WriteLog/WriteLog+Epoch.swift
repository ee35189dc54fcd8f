import Blocks
import DequeModule
import NIOCore

extension WriteLog {
    /// The bytes of data in the epoch that gathers, each sector counted once.
    public var currentEpochBytes: UInt64 { current.byteCount }

    /// True when anything was appended that was not released.
    public var hasWrites: Bool { epochs.contains { $0.hasWrites } }

    /// The runs of sectors in the epoch that gathers.
    public var currentEpochExtents: Int { current.map.count }

    /// When the write that waits longest for room was appended; nil while none waits.
    public var oldestHeldAppendAt: NIODeadline? { held.first?.now }

    /// Fails the writes that wait for room since before `deadline`. None of them was ordered. What stood behind them may fit now.
    public func failHeld(appendedBefore deadline: NIODeadline, _ error: WriteLogError) {
        guard let oldest = held.first, oldest.now < deadline else { return }
        while let first = held.first, first.now < deadline {
            held.removeFirst()
            first.completion(.failure(error))
        }
        admitHeld()
    }

    /// Takes out the writes that wait for room and for which `isMeant` is true. None of them was ordered; whoever takes them answers
    /// them, and what stood behind them may fit now.
    public func takeHeld(where isMeant: (SectorRange) -> Bool) -> [HeldAppend] {
        var (taken, kept) = ([HeldAppend](), Deque<PendingAppend>())
        for append in held {
            if append.kind != .absent, isMeant(append.range) {
                taken.append(HeldAppend(range: append.range, data: append.data, completion: append.completion))
            } else {
                kept.append(append)
            }
        }
        if taken.isEmpty { return [] }
        held = kept
        admitHeld()
        return taken
    }

    /// When the first write of the epoch that gathers was appended; nil while it has none.
    public var currentEpochStartedAt: NIODeadline? { current.hasWrites ? current.firstAppendAt : nil }
}

extension LogSegment {
    /// The part of the segment that lies in `range`.
    public func clipped(to range: SectorRange) -> LogSegment {
        let part = self.range.intersection(range)
        switch content {
        case .zeroes, .absent: return LogSegment(range: part, content: content)
        case .data(let location):
            let extent = location.extent.dropping(sectors: part.start - self.range.start)
            return LogSegment(range: part, content: .data(LogLocation(extent: extent)))
        }
    }
}
