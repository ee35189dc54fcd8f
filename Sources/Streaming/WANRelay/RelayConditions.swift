import NIOCore

/// What the line between two edges is like.
public struct RelayConditions: Hashable, Sendable {
    /// The time that a byte needs there and back; half of it in each direction.
    public var roundTrip: TimeAmount
    /// How many bytes the line carries in a second, in each direction; nil for a line without a limit.
    public var bytesPerSecond: UInt64?

    /// A line; by default one that neither delays nor limits. A round trip is at most an hour; a rate of 0 counts as 1.
    public init(roundTrip: TimeAmount = .zero, bytesPerSecond: UInt64? = nil) {
        self.roundTrip = min(max(roundTrip, .zero), .hours(1))
        self.bytesPerSecond = bytesPerSecond.map { max($0, 1) }
    }

    /// The smallest queue that a router has.
    public static let queueBytesMinimum = 64 * 1024
    /// The smallest piece in which bytes travel: what an Ethernet packet carries.
    public static let segmentBytesMinimum = 1460
    /// The largest piece in which bytes travel.
    public static let segmentBytesMaximum = 64 * 1024

    /// The time from one end to the other.
    public var oneWayDelay: TimeAmount { .nanoseconds(roundTrip.nanoseconds / 2) }

    /// How many bytes the line carries in `time`; `Int.max` for a line without a limit.
    func byteCount(in time: TimeAmount) -> Int {
        guard let rate = bytesPerSecond else { return .max }
        let product = rate.multipliedFullWidth(by: UInt64(clamping: time.nanoseconds))
        if product.high >= Self.nanosecondsPerSecond { return .max }
        return Int(clamping: Self.nanosecondsPerSecond.dividingFullWidth(product).quotient)
    }

    /// The time that `byteCount` bytes occupy the line, rounded up; at most a day, so that sums of deadlines stay in range.
    func transmissionTime(of byteCount: Int) -> TimeAmount {
        guard let rate = bytesPerSecond else { return .zero }
        let product = UInt64(clamping: byteCount).multipliedFullWidth(by: Self.nanosecondsPerSecond)
        if product.high >= rate { return .hours(24) }
        let (quotient, remainder) = rate.dividingFullWidth(product)
        let nanoseconds = Int64(clamping: quotient &+ (remainder == 0 ? 0 : 1))
        return min(.nanoseconds(nanoseconds), .hours(24))
    }

    /// The room in the router's queue: what the line carries in one round trip.
    var queueByteLimit: Int { max(byteCount(in: roundTrip), Self.queueBytesMinimum) }

    /// Bytes travel in pieces of a quarter of a millisecond: small enough that a short message is not
    /// held up by the store-and-forward of a long one, large enough that a fast line costs few events.
    var segmentByteLimit: Int {
        min(max(byteCount(in: .microseconds(250)), Self.segmentBytesMinimum), Self.segmentBytesMaximum)
    }

    private static let nanosecondsPerSecond: UInt64 = 1_000_000_000
}

/// Whether the line carries bytes.
public enum RelayLineState: String, Hashable, Sendable {
    /// It does.
    case up
    /// It is cut: connections were reset, new ones are reset at once.
    case cut
    /// It swallows everything: connections stay open and silent, and what was under way waits for the restoration,
    /// as TCP's retransmission would make it.
    case blackhole
}
