import Foundation
import NIOCore

// How writers are slowed before the log is full, so that they meet a slope and not a wall.
//
//     fill       0 ............ start .................... full
//     admitted   all there is   R (1 - x) / x              nothing       x: how far between start and full
//
// R is the rate at which the log has been released lately, while there was something to release. Halfway up the slope
// writers get just that, so a log whose writers ask for more than the line carries comes to rest there; and should R be
// measured wrong by some factor, it comes to rest a little above or below. While nothing is released at all (the line is down)
// what room is left is spread over `roomTime`: writers get slower and slower, and the wall comes late.
//
// A write is put off, never refused: after `delayMax` it is admitted if there is room, whatever the pace says.

/// Decides when a write may enter a log that is nearly full. It is told the time and owns no clock.
struct AdmissionPace {
    /// Over how long the room that is left is spread while nothing is released.
    static let roomTime: TimeAmount = .seconds(60)
    /// The longest that the pace alone puts a write off.
    static let delayMax: TimeAmount = .seconds(5)
    /// How far back the measured rate reaches: what is older than this counts little.
    static let rateMemory: TimeAmount = .seconds(20)
    /// Time that passed without writes and still counts for the next ones: a timer that comes late costs no throughput.
    static let creditMax: TimeAmount = .milliseconds(20)
    /// However slow, never stopped: bytes a second.
    static let rateMin = 512.0

    /// The share of the log, in percent, from which on writers are slowed; 100 for never.
    let startPercent: Int
    /// When the next write may enter.
    private var nextAt: NIODeadline?
    /// Bytes released and seconds in which there was something to release, both fading with `rateMemory`.
    private var releasedBytes = 0.0
    private var releasingSeconds = 0.0
    private var observedAt: NIODeadline?

    init(startPercent: Int) { self.startPercent = startPercent }

    // MARK: The rate of release

    /// Bytes of the log that are released a second, as far as is known; 0 before the first release.
    var releaseRate: Double { releasingSeconds > 0 ? releasedBytes / max(releasingSeconds, 1) : 0 }

    /// Time has passed, in which `bytes` were released. While there was nothing to release it tells nothing of the line.
    mutating func observe(released bytes: UInt64, isReleasing: Bool, now: NIODeadline) {
        defer { observedAt = now }
        guard let last = observedAt, now > last, isReleasing || bytes > 0 else { return }
        let seconds = Double((now - last).nanoseconds) / 1e9
        let fading = exp(-seconds / (Double(Self.rateMemory.nanoseconds) / 1e9))
        releasedBytes = releasedBytes * fading + Double(bytes)
        releasingSeconds = releasingSeconds * fading + seconds
    }

    // MARK: Admission

    /// True when a log that is so full slows its writers.
    func isSlowing(used: UInt64, bound: UInt64) -> Bool { startPercent < 100 && used >= Self.start(of: bound, startPercent) }

    private static func start(of bound: UInt64, _ percent: Int) -> UInt64 { UInt64(Double(bound) * Double(percent) / 100) }

    /// When a write that came at `arrival` may enter; nil for now.
    func due(arrival: NIODeadline, used: UInt64, bound: UInt64, now: NIODeadline) -> NIODeadline? {
        guard let nextAt, isSlowing(used: used, bound: bound) else { return nil }
        let due = min(nextAt, arrival + Self.delayMax)
        return due > now ? due : nil
    }

    /// A write of `cost` bytes has entered; `used` counts it already.
    mutating func admitted(cost: UInt64, used: UInt64, bound: UInt64, now: NIODeadline) {
        guard isSlowing(used: used, bound: bound) else {
            nextAt = nil
            return
        }
        let seconds = Double(cost) / rate(used: used, bound: bound)
        let delay = TimeAmount.nanoseconds(Int64(min(seconds * 1e9, Double(Self.delayMax.nanoseconds))))
        // Not further ahead than one longest delay: a pace that gets better must be felt at once.
        nextAt = min(max(nextAt ?? now, now - Self.creditMax) + delay, now + Self.delayMax)
    }

    /// Bytes a second that a log that is so full takes.
    func rate(used: UInt64, bound: UInt64) -> Double {
        let start = Double(Self.start(of: bound, startPercent))
        let room = max(0, Double(bound) - Double(used))
        let slope = max(1, Double(bound) - start)
        let climbed = max(slope - room, 1)
        let spread = room / (Double(Self.roomTime.nanoseconds) / 1e9)
        return max(releaseRate * room / climbed, spread, Self.rateMin)
    }
}
