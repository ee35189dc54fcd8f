import Blocks
import NIOCore

/// The limits of one volume. At least one rate is there; a rate that is nil is not limited.
public struct RateLimits: Equatable, Sendable {
    /// Reads, writes and zeroings, each one operation whatever its size.
    public var operationsPerSecond: UInt64?
    /// How many operations a volume that was quiet may do at once; nil for a tenth of a second's worth.
    public var burstOperations: UInt64?
    /// Bytes read and written. Zeroing moves none.
    public var bytesPerSecond: UInt64?
    /// How many bytes a volume that was quiet may move at once; nil for a tenth of a second's worth.
    public var burstBytes: UInt64?

    public init(
        operationsPerSecond: UInt64? = nil, burstOperations: UInt64? = nil, bytesPerSecond: UInt64? = nil, burstBytes: UInt64? = nil
    ) {
        self.operationsPerSecond = operationsPerSecond
        self.burstOperations = burstOperations
        self.bytesPerSecond = bytesPerSecond
        self.burstBytes = burstBytes
    }

    /// True when nothing is limited.
    public var isUnlimited: Bool { operationsPerSecond == nil && bytesPerSecond == nil }
}

/// Decides when an operation may begin: when both buckets, of operations and of bytes, have enough.
///
/// Pure: time comes in. Times that `take` is given never go back.
struct RateLimiter {
    private(set) var operations: TokenBucket?
    private(set) var bytes: TokenBucket?

    /// The part of a second that a burst is when nobody says.
    private static var burstDivisor: UInt64 { 10 }

    init(_ limits: RateLimits, now: NIODeadline) { change(to: limits, now: now) }

    /// Puts other limits in force.
    mutating func change(to limits: RateLimits, now: NIODeadline) {
        operations = Self.bucket(limits.operationsPerSecond, limits.burstOperations, replacing: operations, now: now)
        bytes = Self.bucket(limits.bytesPerSecond, limits.burstBytes, replacing: bytes, now: now)
    }

    private static func bucket(_ rate: UInt64?, _ burst: UInt64?, replacing old: TokenBucket?, now: NIODeadline) -> TokenBucket? {
        guard let rate else { return nil }
        let capacity = burst ?? max(1, rate / burstDivisor)
        guard let old else { return TokenBucket(ratePerSecond: rate, capacity: capacity, now: now) }
        return TokenBucket(ratePerSecond: rate, capacity: capacity, replacing: old, now: now)
    }

    /// When an operation of this size may begin, not before `time`.
    func due(byteCount: UInt64, notBefore time: NIODeadline) -> NIODeadline {
        max(operations?.due(1, notBefore: time) ?? time, bytes?.due(byteCount, notBefore: time) ?? time)
    }

    /// An operation of this size begins, at a time that `due` has given.
    mutating func take(byteCount: UInt64, at time: NIODeadline) {
        operations?.take(1, at: time)
        bytes?.take(byteCount, at: time)
    }
}
