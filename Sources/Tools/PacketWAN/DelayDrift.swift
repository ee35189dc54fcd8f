import LoadGenerator
import NIOCore

// Jitter. Were each packet delayed on its own, those of a busy line would have to wait for the slowest before them to keep their order, and
// all of them would be as late as the latest: no jitter at all. So the delay goes from one random value to the next on a straight line, like a
// queue elsewhere that fills and empties, in a time so long that no packet catches up with the one before it.
//
//    +1 ┤    ╭╮             A leg takes four times the jitter, so the delay changes by half of the time that passes at most: what
//       │  ╭─╯╰╮     ╭──    leaves a busy line at its rate arrives at between two thirds of it and twice as fast.
//    -1 ┤──╯   ╰─────╯
//
// Values at the ends of legs are evenly spread; what lies between is nearer to the middle: the deviation is √(2/9), 0.47, of the jitter.

/// How far the delay of a line is from its middle now, in units of the jitter.
struct DelayDrift {
    private static let jittersPerLeg: Int64 = 4

    private var legStart = NIODeadline.uptimeNanoseconds(0)
    private var from = 0.0
    private var to = 0.0
    private var hasBegun = false

    /// The shift of a packet that departs at a time no earlier than that of the one before; its amount is at most `jitter`, which is above zero.
    mutating func shift(at time: NIODeadline, jitter: TimeAmount, random: inout SeededGenerator) -> TimeAmount {
        let leg = max(Self.jittersPerLeg * jitter.nanoseconds, 1)
        if !hasBegun {
            hasBegun = true
            legStart = time
            (from, to) = (Self.value(&random), Self.value(&random))
        }
        let legs = max((time - legStart).nanoseconds, 0) / leg
        if legs > 0 {
            // Nobody saw what was between.
            from = legs == 1 ? to : Self.value(&random)
            to = Self.value(&random)
            legStart = legStart + .nanoseconds(legs * leg)
        }
        let share = Double((time - legStart).nanoseconds) / Double(leg)
        return .nanoseconds(Int64((from + (to - from) * share) * Double(jitter.nanoseconds)))
    }

    private static func value(_ random: inout SeededGenerator) -> Double { 2 * random.unit() - 1 }
}
