import Blocks
import NIOCore

extension WriteLog {
    /// The bytes of data in the epoch that gathers, each sector counted once.
    public var currentEpochBytes: UInt64 { current.byteCount }

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

    /// When the first write of the epoch that gathers was appended; nil while it has none.
    public var currentEpochStartedAt: NIODeadline? { current.hasWrites ? current.firstAppendAt : nil }
}

extension LogSegment {
    /// The part of the segment that lies in `range`.
    public func clipped(to range: SectorRange) -> LogSegment {
        let part = self.range.intersection(range)
        switch content {
        case .zeroes: return LogSegment(range: part, content: .zeroes)
        case .data(let location):
            let extent = location.extent.dropping(sectors: part.start - self.range.start)
            return LogSegment(range: part, content: .data(LogLocation(extent: extent)))
        }
    }
}
