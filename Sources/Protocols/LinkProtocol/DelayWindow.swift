import NIOCore

// How many bytes may be on their way.
//
// A router on the WAN has a queue, and whoever fills it makes everybody wait, our own demand reads first. So the
// window follows the delay and not the loss: the round trip without a queue (`base`) is the smallest one seen
// lately, and what a round trip takes beyond it is queue.
//
//   starting --(queue > target while the window was the limit)--> steady
//   steady   each round trip: window <- halfway to rate x (base + target), or x 1.25 while the line is clearly not full
//   drain    every ten seconds for two round trips: half the window, so that the base is measured without our queue;
//            also when the queue does not go away, and then the base becomes what is measured
//
// `rate` is what was in flight when a frame left, divided by the round trip of that frame: the two belong together,
// so the estimate does not lag behind the window.

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

    /// Two round trips with half the window, and one whose measurements still tell of them.
    static let drainRounds = 3

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

    private var baseNow = Double.infinity
    private var baseBefore = Double.infinity
    private var baseSince: NIODeadline?
    private var drainRoundsLeft = 0
    private var drainFrom = 0.0

    private var roundStart: NIODeadline?
    private var roundMinimum = Double.infinity
    private var roundRate = 0.0
    private var roundFrameBytes = 0.0
    private var roundLimited = false
    private var previousRoundLimited = false
    private var queuedRounds = 0
    private var isDrainForBase = false

    private var rate = 0.0
    /// The line loses packets. What TCP sends again holds up what is behind it, so that more is on its way than the line carries, and arrives at once.
    public var isLossy = false
    /// What arrives, in bytes a nanosecond, over some rounds in which the window was the limit; 0 while unknown.
    private var arrivalRate = 0.0
    private var arrivedInRound = 0
    /// The last round had a queue worth the name: more would only wait.
    private var isLineFull = false
    private var nextDeparture = NIODeadline.uptimeNanoseconds(0)
    /// What frames are paced at, in bytes a nanosecond; 0 when they are not.
    private var pace = 0.0

    public init() {}

    /// The window in bytes.
    public var windowBytes: Int { Int(drainRoundsLeft > 1 ? max(min(window, drainFrom) / 2, Double(Self.minimumBytes)) : window) }
    /// The round trip without a queue, as far as it is known.
    public var baseRoundTrip: TimeAmount? { base.isFinite ? .nanoseconds(Int64(base)) : nil }
    /// What the line carries, in bytes a second; 0 while unknown.
    public var bytesPerSecond: Double { rate * 1e9 }

    /// How big pieces of data should be cut, so that a small frame does not wait long for the one before it: an eighth
    /// of the round trip on this line but at least four milliseconds, in whole 4 KiB.
    /// - Parameter bytesPerSecond: what may be sent, if that is less than what the line carries; 0 while unknown.
    public func preferredPieceBytes(bytesPerSecond: Double) -> Int {
        guard bytesPerSecond > 0 else { return LinkLimits.pieceBytes }
        let time = base.isFinite ? max(4e6, base / 8) : 4e6
        let bytes = min(bytesPerSecond / 1e9 * time, Double(LinkLimits.pieceBytes))
        return max(4096, Int(bytes) / 4096 * 4096)
    }

    private var base: Double { min(baseNow, baseBefore) }

    /// True within a building, where what looks like a queue is mostly the work of the two processes.
    private var isNear: Bool { base < 500_000 }

    /// The queue that is aimed at: an eighth of the round trip, more on short lines.
    private var target: Double { max(base / 8, min(4e6, base / 5), isNear ? 1e6 : 250_000) }

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

    /// Records that a frame left.
    public mutating func sent(_ byteCount: Int, now: NIODeadline) {
        inFlightBytes += byteCount
        guard base.isFinite else { return }
        pace = (isStarting ? 2 : 1.25) * window / (base + target)
        // The window has room for what is held up, and would let all of it go at once when that arrives.
        if isLossy, isLineFull, arrivalRate > 0 { pace = min(pace, 1.1 * arrivalRate) }
        let burst = min(Double(Self.burstBytes), max(window / 4, Double(Self.minimumBytes))) / pace
        // Time that was not used may be used by a burst, but by no more than one.
        let earliest = now - .nanoseconds(Int64(min(burst, 1e9)))
        nextDeparture = max(nextDeparture, earliest) + .nanoseconds(Int64(min(Double(byteCount) / pace, 1e9)))
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
        arrivedInRound += byteCount
        if isStarting, roundLimited || previousRoundLimited {
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
            if !isStarting, Double(inFlightBytes) > window / 4 { beginDrain() }
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
        guard queuedSamples >= 4 else { return }
        isStarting = false
        rate = line
        setWindow(line * (base + goal))
        roundMinimum = .infinity
        roundLimited = false
    }

    private mutating func endRound(now: NIODeadline) {
        defer {
            roundStart = now
            roundMinimum = .infinity
            previousRoundLimited = roundLimited
            roundLimited = false
            arrivedInRound = 0
        }
        noteArrivals(now: now)
        if drainRoundsLeft > 0 {
            drainRoundsLeft -= 1
            if isDrainForBase, drainRoundsLeft == 1, roundMinimum.isFinite {
                isDrainForBase = false
                baseNow = roundMinimum
                baseBefore = roundMinimum
                baseSince = now
            }
            return
        }
        guard roundMinimum.isFinite, roundRate > 0 else { return }
        let goal = target + roundFrameBytes / roundRate
        let queue = roundMinimum - base
        isLineFull = !isStarting && queue >= goal / 4
        // A round that had little to send says nothing, unless there was a queue nevertheless: then the connections
        // push back although the window lets more through.
        guard roundLimited || (queue > goal * 1.25 && !isStarting) else { return }
        rate = rate == 0 ? roundRate : (rate * 3 + roundRate) / 4
        if !isStarting { adjust(queue: queue, goal: goal) }
    }

    private mutating func noteArrivals(now: NIODeadline) {
        guard let start = roundStart, now > start, roundLimited, drainRoundsLeft == 0 else { return }
        let latest = Double(arrivedInRound) / Double((now - start).nanoseconds)
        arrivalRate = arrivalRate == 0 ? latest : (arrivalRate * 3 + latest) / 4
    }

    private mutating func adjust(queue: Double, goal: Double) {
        let estimate = roundRate * (base + goal)
        if !roundLimited {
            setWindow(max(window * 0.7, min(window, estimate)))
        } else if queue < goal / 4 {
            setWindow(window * 1.25)
        } else {
            setWindow((window + estimate) / 2)
        }
        noteForeignDelay(queue: queue, goal: goal)
    }

    /// A queue of our own goes away when we send half. One that stays is somebody else's, or the way has become longer:
    /// what is measured then is the new base.
    private mutating func noteForeignDelay(queue: Double, goal: Double) {
        guard queue > goal * 1.25 else {
            queuedRounds = 0
            return
        }
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
        drainFrom = Double(inFlightBytes)
    }

    private mutating func setWindow(_ bytes: Double) {
        let floor = max(
            Double(isNear ? Self.nearMinimumBytes : Self.minimumBytes), Double(2 * preferredPieceBytes(bytesPerSecond: bytesPerSecond)))
        window = min(max(bytes, floor), Double(Self.maximumBytes))
    }
}
