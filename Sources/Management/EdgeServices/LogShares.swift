// What the write logs may take of a file system that can't hold them at full size.
//
// A log that took all of it would meet a wall where its bound has a slope, and worse: where home is on the same file system, a
// point that is to leave the log needs room there first, and neither would ever go on. So an eighth of what there is, is left, and points
// are sealed so small that several of them find their room in it, and that of what they change on the disk.

/// How the room of the state directory's file system is shared out.
struct LogShares: Equatable, Sendable {
    /// A log as it is.
    struct Log: Equatable, Sendable {
        /// What it is to take at most, by the configuration or by what was set for it.
        var sizeBytes: UInt64
        /// What its files take.
        var takenBytes: UInt64
    }

    /// What is left of all that logs have and could have: one part in so many.
    static let reservePart: UInt64 = 8
    /// Points are sealed when they have one part of the reserve in so many.
    static let pointPart: UInt64 = 8
    static let pointBytesMin: UInt64 = 1 << 20

    /// The bounds of the logs, in their order.
    let bounds: [UInt64]
    /// The size at which points are to be sealed; nil when the file system can hold all logs at full size.
    let pointBytesMax: UInt64?

    init(logs: [Log], freeBytes: UInt64) {
        let wanted = logs.map { $0.sizeBytes - min($0.sizeBytes, $0.takenBytes) }
        let allWanted = wanted.reduce(0, Self.sum)
        let reserve = logs.map(\.takenBytes).reduce(freeBytes, Self.sum) / Self.reservePart
        let room = freeBytes - min(freeBytes, reserve)
        guard allWanted > room else {
            bounds = logs.map(\.sizeBytes)
            pointBytesMax = nil
            return
        }
        // A log that takes no write of the largest size would fail it for good.
        let least = LogSize.range.lowerBound
        bounds = zip(logs, wanted).map { log, wanted in
            let share = UInt64(Double(wanted) / Double(allWanted) * Double(room))
            return min(log.sizeBytes, max(least, Self.sum(log.takenBytes, share)))
        }
        pointBytesMax = max(reserve / Self.pointPart, Self.pointBytesMin)
    }

    private static func sum(_ left: UInt64, _ right: UInt64) -> UInt64 {
        let (sum, overflow) = left.addingReportingOverflow(right)
        return overflow ? .max : sum
    }
}
