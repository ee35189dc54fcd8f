import NIOCore

/// What a line is like, in each direction.
public struct LineConditions: Hashable, Sendable {
    /// The time that a small packet needs there and back on an empty line; half of it in each direction.
    public var roundTrip: TimeAmount = .zero
    /// How much later or earlier than that a packet may arrive, each way. It wanders slowly enough that none overtakes another by it: see
    /// `DelayDrift`.
    public var jitter: TimeAmount = .zero
    /// How many bytes of IP packets the line carries in a second, in each direction; nil for a line without a limit.
    public var bytesPerSecond: UInt64?
    /// The room in the router's queue; nil for what the line carries in one round trip, at least `queueBytesMinimum`.
    public var queueBytes: Int?
    /// Which packets are lost, after they have taken their time on the line.
    public var loss = LossModel.none
    /// The share of packets that arrive late, and are overtaken.
    public var reorder = 0.0
    /// How much later those are.
    public var reorderDelay: TimeAmount = .milliseconds(5)

    /// A line that neither delays nor limits nor loses.
    public init() {}

    /// The smallest queue that a router has unless it is told.
    public static let queueBytesMinimum = 64 * 1024
    /// The longest delay of any kind; longer ones count as this.
    public static let delayMaximum = TimeAmount.hours(1)

    /// The room in the router's queue.
    public var queueByteLimit: Int {
        if let queueBytes { return max(queueBytes, 0) }
        guard let bytesPerSecond else { return .max }
        let product = bytesPerSecond.multipliedFullWidth(by: UInt64(clamping: limited(roundTrip).nanoseconds))
        guard product.high < 1_000_000_000 else { return .max }
        return max(Int(clamping: (1_000_000_000 as UInt64).dividingFullWidth(product).quotient), Self.queueBytesMinimum)
    }

    /// On lines as fast as this (500 Mbit/s) packets of one connection may go in trains.
    static let trainsFrom: UInt64 = 62_500_000

    /// So many of the longest trains a queue must take: one that takes few loses many packets at a time.
    static let trainsInQueueMin = 8

    /// Whether packets of one connection that follow one another are one train, as network cards make of them: on a fast line that does not shuffle
    /// them what each packet costs the machine is more than all else.
    var carriesTrains: Bool {
        bytesPerSecond ?? .max >= Self.trainsFrom && queueByteLimit >= Self.trainsInQueueMin * LinePacket.trainBytesMaximum
            && reorder == 0 && jitter <= .zero
    }

    var oneWayDelay: TimeAmount { .nanoseconds(limited(roundTrip).nanoseconds / 2) }

    func limited(_ time: TimeAmount) -> TimeAmount { min(max(time, .zero), Self.delayMaximum) }
}

/// Whether a line carries packets.
public enum LineState: String, Hashable, Sendable {
    /// It does.
    case up
    /// It loses all that is on it, and all that comes.
    case cut
    /// Nothing moves on it, and the router's queue takes what it has room for: a radio that is out of reach for a moment.
    case hold
}
