import NIOCore

// How many bytes may be on their way.
//
// A router on the WAN has a queue, and whoever fills it makes everybody wait, our own demand reads first. So the
// window follows the delay and not the loss: the round trip without a queue (`base`) is the smallest one seen
// lately, and what a round trip takes beyond it is queue.
//
//   starting --(queue > target while the window was the limit)--> holding
//   holding  as much stays on its way for a round trip: when the queue goes, or more and more arrives, it was not the line but TCP, which begins
//            slowly itself: starting again. Else steady
//   steady   each round trip: window <- halfway to what would have the target for its queue: rate x (base + target), or on a clean line what the
//            window is by how much longer or shorter the queue was; or more by a thirty-second to a quarter while the line is clearly not full
//   drain    every ten seconds for two round trips: half the window, so that the base is measured without our queue;
//            also when the queue does not go away, and then the base becomes what is measured
//
// `rate` is what was in flight when a frame left, divided by the round trip of that frame: the two belong together,
// so the estimate does not lag behind the window. What some frames of a round take longer than others is put down to the work of the two ends, and
// added to the target.

/// The congestion window of a session, steered by the delay. Pure: it is told what happened and when.
public struct DelayWindow: Sendable {
    /// Where the window begins.
    public static let initialBytes = 64 * 1024
    /// It never shrinks below this, whatever the delay.
    public static let minimumBytes = 16 * 1024
    /// The same on a line of less than half a millisecond.
    static let nearMinimumBytes = 256 * 1024
    /// It never grows beyond this.
    public static let maximumBytes = 64 * 1024 * 1024
    /// A burst that is not paced.
    public static let burstBytes = 64 * 1024
    /// How long a base round trip is believed, and how often the queue is drained to measure it.
    static let baseLifetime = TimeAmount.seconds(10)
    /// After so many round trips in a row with a queue the base is measured anew: the delay may not be ours.
    static let foreignDelayRounds = 10

    /// A line that is full brings no more in a round trip than in the one before; TCP that begins brings twice as much.
    static let growthOfTCP = 1.25

    /// More than this is never put down to the work of the ends, in nanoseconds; nor more than this part of the round trip, nor anything of a round
    /// of fewer frames.
    static let workLimits = (timeMax: 2e6, partOfBaseMax: 1.0 / 8, samplesMin: 4.0)
    /// On a clean line the window follows the queue alone up to so many times what arrives in a round trip.
    static let windowOfArrivalsMax = 2.0

    /// What may be on its way on a line that loses packets, held up or not, in round trips' worth of what arrives.
    static let lossyRoundTrips = 4.0
    /// By how much the window grows in a round trip without a queue: the first one, and each of many.
    static let growthMin = 1.0 / 32
    static let growthMax = 1.0 / 4

    /// Two round trips with half the window, and two whose measurements still tell of them.
    static let drainRounds = 4
    /// Those of them in which the window is whole again.
    static let roundsAfterDrain = 2
    /// Where a round trip takes seconds, the window is steered in so many of them before it is drained again.
    static let roundsBetweenDrains = 8

    /// What the window says to a frame.
    public enum Verdict: Equatable, Sendable {
        case send
        /// The window has room, but the frame should not leave before this time.
        case sendAfter(NIODeadline)
        /// Only an acknowledgement makes room.
        case wait
    }

    /// The bytes that were sent and neither acknowledged nor lost with their connection.
    public private(set) var inFlightBytes = 0
    /// The last measured round trip.
    public private(set) var latestRoundTrip: TimeAmount?

    private var window = Double(initialBytes)
    private var isStarting = true
    private var queuedSamples = 0
    /// While holding: the rounds that have ended since, and what arrived in the last one, in bytes a nanosecond.
    private var hold: (rounds: Int, arrivalRate: Double)?

    private var baseNow = Double.infinity
    private var baseBefore = Double.infinity
    private var baseSince: NIODeadline?
    private var drainRoundsLeft = 0
    private var drainFrom = 0.0
    private var roundsSinceDrain = roundsBetweenDrains

    /// By how much the window grows in a round without a queue: more when there was none in the round before, for a single one says little.
    private var growth = growthMin

    private var roundStart: NIODeadline?
    private var roundMinimum = Double.infinity
    /// The sum of what the round trips of the round took, and their number.
    private var roundSum = 0.0
    private var roundSamples = 0.0
    private var roundRate = 0.0
    private var roundFrameBytes = 0.0
    private var roundLimited = false
    private var previousRoundLimited = false
    private var queuedRounds = 0
    private var isDrainForBase = false

    private var rate = 0.0
    /// The line loses packets. What TCP sends again holds up what is behind it, so that more is on its way than the line carries, and arrives at once.
    public var isLossy = false {
        didSet { if isLossy, !oldValue { arrivals.beginFilling() } }
    }
    private var arrivals = ArrivalEstimate()
    /// The last round had a queue worth the name: more would only wait.
    private var isLineFull = false
    private var nextDeparture = NIODeadline.uptimeNanoseconds(0)
    /// What frames are paced at, in bytes a nanosecond; 0 when they are not.
    private var pace = 0.0

    public init() {}

    /// The window in bytes.
    public var windowBytes: Int {
        Int(drainRoundsLeft > Self.roundsAfterDrain ? max(min(window, drainFrom) / 2, Double(Self.minimumBytes)) : window)
    }
    /// The round trip without a queue, as far as it is known.
    public var baseRoundTrip: TimeAmount? { base.isFinite ? .nanoseconds(Int64(base)) : nil }
    /// What the line carries, in bytes a second; 0 while unknown.
    public var bytesPerSecond: Double { rate * 1e9 }

    /// How big pieces of data should be cut, so that a small frame does not wait long for the one before it: two milliseconds
    /// on this line, a sixteenth of the round trip if that is more, in whole 4 KiB.
    /// - Parameter bytesPerSecond: what may be sent, if that is less than what the line carries; 0 while unknown.
    public func preferredPieceBytes(bytesPerSecond: Double) -> Int {
        guard bytesPerSecond > 0 else { return LinkLimits.pieceBytes }
        let time = base.isFinite ? max(2e6, base / 16) : 2e6
        let bytes = min(bytesPerSecond / 1e9 * time, Double(LinkLimits.pieceBytes))
        return max(4096, Int(bytes) / 4096 * 4096)
    }

    private var base: Double { min(baseNow, baseBefore) }

    /// True within a building, where what looks like a queue is mostly the work of the two processes.
    private var isNear: Bool { base < 500_000 }

    /// The queue that is aimed at: three quarters of a millisecond, less on short lines and more on very long ones. Whoever asks for a few blocks
    /// waits for it, too. On a line that loses packets what arrives comes in bursts, and an eighth of the round trip is what keeps it busy between them, on a
    /// short one up to a half: a frame and what TCP sends again take as long there as the way.
    private var target: Double {
        max(isLossy ? max(base / 8, min(4e6, base / 2)) : max(base / 64, min(750_000, base / 5)), isNear ? 1e6 : 250_000)
    }

    /// How much longer than for others of its round a frame that found no queue seems to take because the ends are busy. A queue holds up all of a
    /// round; what holds up some of them for more than twice the target, and for longer than a frame takes on the line, is work.
    private var work: Double {
        // What TCP sends again holds up some of a round, too.
        guard roundSamples >= Self.workLimits.samplesMin, roundRate > 0, !isLossy else { return 0 }
        let uneven = roundSum / roundSamples - roundMinimum
        return min(max(uneven - 2 * target - roundFrameBytes / roundRate, 0), Self.workLimits.timeMax, base * Self.workLimits.partOfBaseMax)
    }

    private mutating func forgetRoundTrips() {
        roundMinimum = .infinity
        roundSum = 0
        roundSamples = 0
    }

    private func room(isUrgent: Bool) -> Int {
        isUrgent ? windowBytes + max(Self.burstBytes, windowBytes / 8) : windowBytes
    }

    /// Whether a frame may leave now. Urgent ones are not paced and may exceed the window by a bounded amount.
    public mutating func verdict(isUrgent: Bool, now: NIODeadline) -> Verdict {
        if inFlightBytes == 0 { return .send }
        guard inFlightBytes < room(isUrgent: isUrgent) else {
            if !isUrgent { roundLimited = true }
            return .wait
        }
        if isUrgent || base < 5e6 || !base.isFinite { return .send }
        if nextDeparture > now {
            roundLimited = true
            return .sendAfter(nextDeparture)
        }
        return .send
    }

    /// Records that something had to wait although it may exceed the window: that is too small.
    public mutating func noteLimit() { roundLimited = true }

    /// Records that a frame left.
    public mutating func sent(_ byteCount: Int, now: NIODeadline) {
        if inFlightBytes == 0 { beginRoundAfterPause(now: now) }
        inFlightBytes += byteCount
        guard base.isFinite else { return }
        pace = (isStarting ? 2 : 1.25) * window / (base + target)
        // The window has room for what is held up, and would let all of it go at once when that arrives.
        if isLossy, !isStarting, arrivals.rate > 0 { pace = min(pace, arrivals.gain(isLineFull: isLineFull) * arrivals.rate) }
        let burst = min(Double(Self.burstBytes), max(window / 4, Double(2 * preferredPieceBytes(bytesPerSecond: bytesPerSecond)))) / pace
        // Time that was not used may be used by a burst, but by no more than one.
        let earliest = now - .nanoseconds(Int64(min(burst, 1e9)))
        nextDeparture = max(nextDeparture, earliest) + .nanoseconds(Int64(min(Double(byteCount) / pace, 1e9)))
    }

    /// Time in which nothing was on its way is no part of a round.
    private mutating func beginRoundAfterPause(now: NIODeadline) {
        roundStart = now
        forgetRoundTrips()
        arrivals.beginRoundAfterPause()
        roundLimited = false
        previousRoundLimited = false
    }

    /// Corrects the size of a frame that was compressed after it had been counted.
    public mutating func shrink(by byteCount: Int) {
        inFlightBytes = max(0, inFlightBytes - byteCount)
        // The next one may leave so much earlier: it is the line that is paced.
        if pace > 0 { nextDeparture = nextDeparture - .nanoseconds(Int64(min(Double(byteCount) / pace, 1e9))) }
    }

    /// Records that a frame was lost with its connection.
    public mutating func lost(_ byteCount: Int) { inFlightBytes = max(0, inFlightBytes - byteCount) }

    /// Records that a frame arrived.
    public mutating func acknowledged(_ byteCount: Int) {
        inFlightBytes = max(0, inFlightBytes - byteCount)
        arrivals.arrived(byteCount)
        if isStarting, hold == nil, roundLimited || previousRoundLimited {
            window = min(window + 0.75 * Double(byteCount), Double(Self.maximumBytes))
        }
    }

    /// Takes the round trip of something small, a ping or a hello.
    public mutating func measured(roundTrip: TimeAmount, now: NIODeadline) {
        noteBase(max(1000, Double(roundTrip.nanoseconds)), now: now)
        latestRoundTrip = roundTrip
    }

    /// Takes the round trip of a frame, the newest one of an acknowledgement.
    public mutating func measured(
        roundTrip: TimeAmount, sentAt: NIODeadline, frameBytes: Int, inFlightWhenSent: Int, now: NIODeadline
    ) {
        let sample = max(1000, Double(roundTrip.nanoseconds))
        noteBase(sample, now: now)
        latestRoundTrip = roundTrip
        roundSum += sample
        roundSamples += 1
        if sample < roundMinimum {
            roundMinimum = sample
            roundRate = Double(inFlightWhenSent) / sample
            roundFrameBytes = Double(frameBytes)
        }
        if isStarting { leaveStartIfQueued(sample, frameBytes: frameBytes, inFlightWhenSent: inFlightWhenSent) }
        guard let start = roundStart else {
            roundStart = now
            return
        }
        if sentAt >= start { endRound(now: now) }
    }

    private mutating func noteBase(_ sample: Double, now: NIODeadline) {
        baseNow = min(baseNow, sample)
        guard let since = baseSince else {
            baseSince = now
            return
        }
        if now - since >= Self.baseLifetime {
            baseBefore = baseNow
            baseNow = sample
            baseSince = now
            // With little on its way there is no queue of ours to drain.
            if !isStarting, Double(inFlightBytes) > window / 4, roundsSinceDrain >= Self.roundsBetweenDrains { beginDrain() }
        }
    }

    private mutating func leaveStartIfQueued(_ sample: Double, frameBytes: Int, inFlightWhenSent: Int) {
        let line = Double(inFlightWhenSent) / sample
        let goal = target + Double(frameBytes) / line
        guard roundLimited || previousRoundLimited, sample > base + goal else {
            queuedSamples = 0
            return
        }
        queuedSamples += 1
        if queuedSamples >= 4, hold == nil { hold = (0, 0) }
    }

    /// A round in which the window did not grow has ended.
    private mutating func endHold(now: NIODeadline) {
        guard isStarting, let held = hold, let start = roundStart, now > start, roundMinimum.isFinite, roundRate > 0 else { return }
        let arriving = Double(arrivals.bytesInRound) / Double((now - start).nanoseconds)
        let goal = target + roundFrameBytes / roundRate
        // The round in which the hold began was growing still.
        if held.rounds == 0, roundMinimum <= 2 * base + 4 * goal {
            hold = (1, arriving)
            return
        }
        hold = nil
        queuedSamples = 0
        if roundMinimum <= base + goal || held.rounds > 0 && arriving > Self.growthOfTCP * held.arrivalRate { return }
        isStarting = false
        rate = roundRate
        setWindow(roundRate * (base + goal))
    }

    private mutating func endRound(now: NIODeadline) {
        defer {
            roundStart = now
            forgetRoundTrips()
            previousRoundLimited = roundLimited
            roundLimited = false
            arrivals.beginRound()
        }
        arrivals.endRound(nanoseconds: tellingNanoseconds(now: now), followsLimited: previousRoundLimited)
        endHold(now: now)
        if drainRoundsLeft > 0 {
            drainRoundsLeft -= 1
            if isDrainForBase, drainRoundsLeft == Self.roundsAfterDrain, roundMinimum.isFinite {
                isDrainForBase = false
                baseNow = roundMinimum
                baseBefore = roundMinimum
                baseSince = now
            }
            return
        }
        roundsSinceDrain += 1
        guard roundMinimum.isFinite, roundRate > 0 else { return }
        let goal = target + roundFrameBytes / roundRate + work
        let queue = roundMinimum - base
        isLineFull = !isStarting && queue >= goal
        if isLineFull { arrivals.endFilling() }
        // A round that had little to send says nothing, unless there was a queue nevertheless: then the connections
        // push back although the window lets more through.
        guard roundLimited || (queue > goal * 1.25 && !isStarting) else { return }
        rate = rate == 0 ? roundRate : (rate * 3 + roundRate) / 4
        if !isStarting { adjust(queue: queue, goal: goal) }
    }

    /// How long the round was, if what arrived in it says what the line carries.
    private func tellingNanoseconds(now: NIODeadline) -> Double? {
        guard let start = roundStart, now > start, roundLimited, drainRoundsLeft == 0 else { return nil }
        return Double((now - start).nanoseconds)
    }

    private mutating func adjust(queue: Double, goal: Double) {
        let estimate = roundRate * (base + goal)
        let before = window
        if !roundLimited {
            setWindow(max(window * 0.7, min(window, estimate)))
        } else if queue < (isLossy && arrivals.isFilling ? goal : goal / 4) {
            // While a lossy line is filled, what looks like a queue may be what a frame takes to leave a connection that has been given little: a
            // window that followed it would see to it that it stays little. The pace keeps the queue short there.
            setWindow(window * (1 + growth))
            growth = min(2 * growth, Self.growthMax)
        } else {
            let wanted = max(estimate, windowOfQueue(queue, goal: goal))
            setWindow(min((window + wanted) / 2, window * (1 + Self.growthMax)))
            growth = isLossy ? Self.growthMax : Self.growthMin
        }
        if queue <= goal * 1.25 {
            queuedRounds = 0
        } else if isLossy || window < before * 0.999 {
            noteForeignDelay()
        }
    }

    /// What the window is by its queue alone. Frames that find less on their way than there may be are the quickest, and there is less when the
    /// ends are busy: that is no reason to send less. Where TCP holds up what it sends again the window is wider than what arrives, and says nothing.
    private func windowOfQueue(_ queue: Double, goal: Double) -> Double {
        if isLossy { return 0 }
        let bytes = window * (base + goal) / (base + queue)
        return arrivals.rate > 0 ? min(bytes, Self.windowOfArrivalsMax * arrivals.rate * (base + goal)) : bytes
    }

    /// A queue of our own goes away when less is sent. One that stays is somebody else's, or the way has become longer:
    /// what is measured then, with half, is the new base.
    private mutating func noteForeignDelay() {
        queuedRounds += 1
        if queuedRounds >= Self.foreignDelayRounds {
            queuedRounds = 0
            beginDrain()
            isDrainForBase = true
        }
    }

    /// Half of what is really on its way: the window may be wider than what the connections take.
    private mutating func beginDrain() {
        drainRoundsLeft = Self.drainRounds
        roundsSinceDrain = 0
        drainFrom = Double(inFlightBytes)
    }

    private mutating func setWindow(_ bytes: Double) {
        let floor = max(
            Double(isNear ? Self.nearMinimumBytes : Self.minimumBytes), Double(2 * preferredPieceBytes(bytesPerSecond: bytesPerSecond)))
        // The pace keeps the queue short on a lossy line, so it does not end the growth.
        let ceiling =
            isLossy && arrivals.rate > 0 ? Self.lossyRoundTrips * arrivals.rate * base + Double(Self.burstBytes) : Double(Self.maximumBytes)
        window = max(min(bytes, ceiling, Double(Self.maximumBytes)), floor)
    }
}
