import NIOCore

/// A token bucket: it fills at a rate, holds so much, and is drawn from by what is done.
///
/// Tokens are counted in billionths, so that a nanosecond at a rate of one a second is one unit and nothing is ever rounded
/// away. The 128 bits hold the longest time (2^64 ns) at the highest rate (2^40) with room to spare.
public struct TokenBucket: Equatable, Sendable {
    /// Billionths of a token in a token.
    private static var unit: Int128 { 1_000_000_000 }
    /// The longest that `due` puts off, some 36 years: a deadline must stay a deadline.
    private static var waitNanosecondsMax: Int128 { 1 << 60 }

    /// Tokens that it gets in a second.
    public let ratePerSecond: UInt64
    /// What an idle bucket holds.
    public let capacity: UInt64
    /// In billionths; below zero after something larger than the capacity was taken.
    public private(set) var level: Int128
    private var updatedAt: NIODeadline

    /// A full bucket.
    public init(ratePerSecond: UInt64, capacity: UInt64, now: NIODeadline) {
        self.ratePerSecond = max(1, ratePerSecond)
        self.capacity = max(1, capacity)
        level = Int128(self.capacity) * Self.unit
        updatedAt = now
    }

    /// A bucket that takes the place of another: it has what that one had, as far as it fits, so that changing a limit
    /// again and again gives nobody a burst each time.
    public init(ratePerSecond: UInt64, capacity: UInt64, replacing old: TokenBucket, now: NIODeadline) {
        self.init(ratePerSecond: ratePerSecond, capacity: capacity, now: now)
        // What was owed is owed in time, not in tokens: a lower rate makes nobody wait longer for it.
        let before = old.level(at: now)
        level = min(level, before < 0 ? before * Int128(self.ratePerSecond) / Int128(old.ratePerSecond) : before)
    }

    private func level(at time: NIODeadline) -> Int128 {
        guard time > updatedAt else { return level }
        let elapsed = Int128((time - updatedAt).nanoseconds)
        return min(level + elapsed * Int128(ratePerSecond), Int128(capacity) * Self.unit)
    }

    /// When `cost` tokens may be taken, not before `time`.
    ///
    /// More than the bucket can ever hold may be taken from a full one; what came before time pays for it afterwards.
    public func due(_ cost: UInt64, notBefore time: NIODeadline) -> NIODeadline {
        let time = max(time, updatedAt)
        let missing = Int128(min(cost, capacity)) * Self.unit - level(at: time)
        guard missing > 0 else { return time }
        let rate = Int128(ratePerSecond)
        return time + .nanoseconds(Int64(clamping: min((missing + rate - 1) / rate, Self.waitNanosecondsMax)))
    }

    /// Takes `cost` tokens at a time that `due` has given, or at any time; then no more than `owingAtMost` are owed.
    public mutating func take(_ cost: UInt64, at time: NIODeadline, owingAtMost debtMax: UInt64 = .max) {
        level = max(level(at: time) - Int128(cost) * Self.unit, -Int128(debtMax) * Self.unit)
        updatedAt = max(updatedAt, time)
    }

    /// Gives back what was taken and turned out not to be needed.
    public mutating func giveBack(_ cost: UInt64) { level = min(level + Int128(cost) * Self.unit, Int128(capacity) * Self.unit) }
}
