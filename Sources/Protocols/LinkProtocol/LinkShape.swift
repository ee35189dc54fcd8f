import Blocks
import NIOCore

/// What one end of a link sends at most, on the line (X6). Nil is no limit. Acknowledgements, pings and calls are never held; bulk in the class of
/// calls is, while no call is behind it.
public struct LinkShape: Equatable, Sendable {
    /// The lowest limit, in bytes a second: below it a frame takes seconds.
    public static let bytesPerSecondMin: UInt64 = 8 * 1024

    /// Bytes a second for everything.
    public var bytesPerSecond: UInt64?
    /// Bytes a second for a class; `control` has none.
    public var classes: [TrafficClass: UInt64]

    public init(bytesPerSecond: UInt64? = nil, classes: [TrafficClass: UInt64] = [:]) {
        self.bytesPerSecond = bytesPerSecond
        self.classes = classes
    }
}

/// Says when a frame of a class may leave. Pure; without a limit it costs a comparison.
///
/// A frame leaves as soon as there is anything in the buckets, and what it takes beyond that is owed: if a frame waited until there was room for
/// all of it, smaller ones of lower classes would take that room away again and again.
struct LinkShaper {
    /// What an idle limit lets through at once, as a part of what it lets through in a second; two frames at least.
    private static let burstParts: UInt64 = 20

    private(set) var shape = LinkShape()
    private var all: TokenBucket?
    private var classes = InlineArray<5, TokenBucket?>(repeating: nil)
    private var isOpen = true

    /// Puts other limits in force. What was used of the old ones counts for the new ones.
    mutating func set(_ shape: LinkShape, now: NIODeadline) {
        self.shape = shape
        all = Self.bucket(shape.bytesPerSecond, replacing: all, now: now)
        for trafficClass in TrafficClass.allCases where trafficClass != .control {
            let index = Int(trafficClass.rawValue)
            classes[index] = Self.bucket(shape.classes[trafficClass], replacing: classes[index], now: now)
        }
        isOpen = shape == LinkShape()
    }

    private static func bucket(_ rate: UInt64?, replacing old: TokenBucket?, now: NIODeadline) -> TokenBucket? {
        guard let rate else { return nil }
        let rateInForce = max(LinkShape.bytesPerSecondMin, rate)
        let capacity = max(rateInForce / burstParts, UInt64(2 * LinkLimits.framePayloadBytes))
        return old.map { TokenBucket(ratePerSecond: rateInForce, capacity: capacity, replacing: $0, now: now) }
            ?? TokenBucket(ratePerSecond: rateInForce, capacity: capacity, now: now)
    }

    /// When a frame of a class may leave; nil for at once.
    func due(_ trafficClass: TrafficClass, isCall: Bool = false, now: NIODeadline) -> NIODeadline? {
        if isOpen || isCall { return nil }
        var due = all?.due(1, notBefore: now) ?? now
        if let bucket = classes[Int(trafficClass.rawValue)] { due = max(due, bucket.due(1, notBefore: now)) }
        return due > now ? due : nil
    }

    /// What may be sent of a class in a second, on a line that carries so much; 0 when neither is known.
    func bytesPerSecond(_ trafficClass: TrafficClass, line: Double) -> Double {
        if isOpen { return line }
        let limits = [all, classes[Int(trafficClass.rawValue)]].compactMap { $0.map { Double($0.ratePerSecond) } }
        return (line > 0 ? limits + [line] : limits).min() ?? line
    }

    /// Records that a frame left.
    mutating func sent(_ trafficClass: TrafficClass, byteCount: Int, now: NIODeadline) {
        if isOpen { return }
        // What may not wait is counted all the same: others leave it the room. But nothing that was sent holds them for long.
        Self.take(byteCount, from: &all, now: now)
        Self.take(byteCount, from: &classes[Int(trafficClass.rawValue)], now: now)
    }

    /// No more is owed than a second's worth, or two frames.
    private static func take(_ byteCount: Int, from bucket: inout TokenBucket?, now: NIODeadline) {
        guard let rate = bucket?.ratePerSecond else { return }
        bucket?.take(UInt64(byteCount), at: now, owingAtMost: max(rate, UInt64(2 * LinkLimits.framePayloadBytes)))
    }

    /// Records that a frame took fewer bytes than were counted.
    mutating func saved(_ trafficClass: TrafficClass, byteCount: Int) {
        if isOpen { return }
        all?.giveBack(UInt64(byteCount))
        classes[Int(trafficClass.rawValue)]?.giveBack(UInt64(byteCount))
    }
}
