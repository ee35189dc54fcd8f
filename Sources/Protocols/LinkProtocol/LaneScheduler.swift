// Which frame goes next. Lanes are served strictly in their order, but every lane below that waits collects a share
// of what is sent above it, and once the share is worth its next frame, that frame goes first. Two such frames
// never follow each other, so a demand read waits for one of them at most.

/// A queue of the sender. Demand has two: short answers overtake the frames of long ones.
enum Lane: Int, CaseIterable {
    case urgentDemand = 0
    case control
    case bulkDemand
    case writeBehind
    case prefetch
    case migration

    var trafficClass: TrafficClass {
        switch self {
        case .urgentDemand, .bulkDemand: .demand
        case .control: .control
        case .writeBehind: .writeBehind
        case .prefetch: .prefetch
        case .migration: .migration
        }
    }

    /// The part of the line, in 256ths, that the lane gets however much is above it.
    var floor: Int {
        switch self {
        case .urgentDemand: 0
        case .control, .bulkDemand: 32
        case .writeBehind: 16
        case .prefetch, .migration: 8
        }
    }
}

struct LaneScheduler {
    /// What a lane has collected, in 256ths of bytes.
    private var collected = [Int](repeating: 0, count: Lane.allCases.count)
    private var lastWasFloor = false

    /// Chooses among the lanes that can send; `head` gives the size of a lane's next frame, nil when it has none.
    func choose(_ head: (Lane) -> Int?) -> (lane: Lane, isFloor: Bool)? {
        var first: Lane?
        for lane in Lane.allCases {
            guard let byteCount = head(lane) else { continue }
            guard let above = first else {
                first = lane
                if lastWasFloor { break }
                continue
            }
            if above != lane, hasEarned(lane, byteCount: byteCount) { return (lane, true) }
        }
        return first.map { ($0, false) }
    }

    /// True when what was sent above a lane has brought it the share for its next frame, and that one may go first.
    func hasEarned(_ lane: Lane, byteCount: Int) -> Bool { !lastWasFloor && collected[lane.rawValue] >= byteCount * 256 }

    /// Records that a frame of `lane` was sent while `isWaiting` tells which lanes have more.
    mutating func sent(_ lane: Lane, byteCount: Int, isFloor: Bool, isWaiting: (Lane) -> Bool) {
        lastWasFloor = isFloor
        for other in Lane.allCases {
            if other == lane {
                collected[other.rawValue] = isFloor ? max(0, collected[other.rawValue] - byteCount * 256) : 0
            } else if !isWaiting(other) {
                collected[other.rawValue] = 0
            } else if other.rawValue > lane.rawValue {
                collected[other.rawValue] = min(
                    collected[other.rawValue] + byteCount * other.floor, 2 * 256 * LinkLimits.framePayloadBytes)
            }
        }
    }
}
