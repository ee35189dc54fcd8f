// What the write logs may take of a file system that can't hold them at full size.
//
// A log that took all of it would meet a wall where its bound has a slope, and worse: where home is on the same file system, a
// point that is to leave the log needs room there first, and neither would ever go on. So an eighth of what there is, is left, and points
// are sealed so small that several of them find their room in it, and that of what they change on the disk.
//
// A cache there grows into what the logs leave at full size, and into an eighth in any case: it costs speed when it is small, a log that is
// small costs writers their time, and most logs are never full.

/// How the room of the state directory's file system is shared out.
struct LogShares: Equatable, Sendable {
    /// A log as it is, or the cache.
    struct Log: Equatable, Sendable {
        /// What it is to take at most, by the configuration or by what was set for it.
        var sizeBytes: UInt64
        /// What its files take.
        var takenBytes: UInt64

        /// What it may still take.
        var bytesWanted: UInt64 { sizeBytes - min(sizeBytes, takenBytes) }
    }

    /// What is left of all that logs have and could have: one part in so many.
    static let reservePart: UInt64 = 8
    /// The cache may have one part in so many of all that it and the logs have and could have.
    static let cachePart: UInt64 = 8
    /// Points are sealed when they have one part of the reserve in so many.
    static let pointPart: UInt64 = 8
    static let pointBytesMin: UInt64 = 1 << 20

    /// The bounds of the logs, in their order.
    let bounds: [UInt64]
    /// The size at which points are to be sealed; nil when the file system can hold all logs at full size.
    let pointBytesMax: UInt64?
    /// How large the cache's file may become; nil for as large as it is to be. It may be larger than that already.
    let cacheBytesMax: UInt64?

    /// - Parameter cache: the cache, if it is on the same file system.
    init(logs: [Log], cache: Log? = nil, freeBytes: UInt64) {
        let allWanted = Self.bytesWanted(logs)
        let allTaken = logs.map(\.takenBytes).reduce(0, Self.sum)
        let reserve = Self.sum(freeBytes, allTaken) / Self.reservePart
        let room = freeBytes - min(freeBytes, reserve)
        let cacheTaken = cache?.takenBytes ?? 0
        cacheBytesMax = cache.flatMap { cache in
            let withRoom = Self.sum(cacheTaken, room)
            if cache.bytesWanted <= room - min(room, allWanted) { return nil }
            let least = Self.sum(Self.sum(freeBytes, allTaken), cacheTaken) / Self.cachePart
            return max(withRoom - min(withRoom, allWanted), min(withRoom, cache.sizeBytes, least))
        }
        let growth = cacheBytesMax.map { $0 - min($0, cacheTaken) } ?? 0
        let logRoom = room - min(room, growth)
        guard allWanted > logRoom else {
            bounds = logs.map(\.sizeBytes)
            pointBytesMax = nil
            return
        }
        // A log that takes no write of the largest size would fail it for good.
        let least = LogSize.range.lowerBound
        bounds = logs.map { log in
            let share = UInt64(Double(log.bytesWanted) / Double(allWanted) * Double(logRoom))
            return min(log.sizeBytes, max(least, Self.sum(log.takenBytes, share)))
        }
        pointBytesMax = max(reserve / Self.pointPart, Self.pointBytesMin)
    }

    /// What logs may still take by their sizes.
    static func bytesWanted(_ logs: [Log]) -> UInt64 { logs.map(\.bytesWanted).reduce(0, sum) }

    private static func sum(_ left: UInt64, _ right: UInt64) -> UInt64 {
        let (sum, overflow) = left.addingReportingOverflow(right)
        return overflow ? .max : sum
    }
}
