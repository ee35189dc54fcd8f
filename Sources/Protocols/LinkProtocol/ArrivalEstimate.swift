import NIOCore

// What a line carries, told by what arrives.
//
// On a line that loses packets the delay says little of a queue: what TCP sends again holds up what is behind it. There it is the pace that keeps
// the queue short, and the pace follows what arrives:
//
//   full      there is a queue: less than what arrives
//   filling   more and more arrives: half more, until that has brought nothing for some rounds
//   probe     a round in eight: a quarter more, to see whether more arrives
//   usual     a little more than what arrives

/// What arrives in a round trip, and how much faster frames should leave on a line that loses packets. Pure: it is told of each round.
struct ArrivalEstimate: Sendable {
    /// How often the pace is raised, and in how many rounds the most that arrived counts.
    static let probeRounds = 8
    /// The pace on a lossy line, in parts of what arrives.
    static let gains = (full: 0.85, filling: 1.5, probe: 1.25, usual: 1.05)
    /// So much more is more, and what was sent faster has arrived after so many rounds. What arrived once is forgotten by so much a round.
    static let fillingLimits = (growthMin: 1.25, roundsMax: 4, fading: 31.0 / 32)

    /// What arrives, in bytes a nanosecond: the most in the last rounds in which the window or the pace was the limit; 0 while unknown.
    private(set) var rate = 0.0
    /// What has arrived in the round that goes on.
    private(set) var bytesInRound = 0

    private var latest = [Double](repeating: 0, count: probeRounds)
    private var rounds = 0
    private var lastRound = (bytes: 0.0, time: 0.0)
    private var roundsSinceProbe = 0
    /// What arrived when that had clearly become more, and the rounds since.
    private var filledRate = 0.0
    private var roundsSinceGrowth = 0

    /// More and more arrives.
    var isFilling: Bool { roundsSinceGrowth < Self.fillingLimits.roundsMax }

    /// How fast frames should leave on a lossy line, in parts of what arrives.
    /// - Parameter isLineFull: the last round had a queue worth the name.
    func gain(isLineFull: Bool) -> Double {
        if isLineFull { return Self.gains.full }
        if isFilling { return Self.gains.filling }
        return roundsSinceProbe == 0 ? Self.gains.probe : Self.gains.usual
    }

    /// The line turns out to lose packets.
    mutating func beginFilling() { (filledRate, roundsSinceGrowth) = (0, 0) }

    /// There is a queue: what arrives now is what the line carries.
    mutating func endFilling() { (filledRate, roundsSinceGrowth) = (rate, Self.fillingLimits.roundsMax) }

    mutating func arrived(_ byteCount: Int) { bytesInRound += byteCount }

    /// What arrived before a pause and after it are no rounds in a row.
    mutating func beginRoundAfterPause() { (bytesInRound, lastRound) = (0, (0, 0)) }

    /// A round has ended.
    /// - Parameters:
    ///   - nanoseconds: how long it was, if what arrived in it tells of the line: the window or the pace was its limit, and it was not drained.
    ///   - followsLimited: the same was true of the one before. One that began with little to send says what the line carries at least, and not
    ///     what at most.
    mutating func endRound(nanoseconds: Double?, followsLimited: Bool) {
        note(nanoseconds: nanoseconds, followsLimited: followsLimited)
        roundsSinceProbe = (roundsSinceProbe + 1) % Self.probeRounds
    }

    /// The next round begins.
    mutating func beginRound() { bytesInRound = 0 }

    private mutating func note(nanoseconds: Double?, followsLimited: Bool) {
        guard let nanoseconds else {
            lastRound = (0, 0)
            return
        }
        let round = (bytes: Double(bytesInRound), time: nanoseconds)
        // What was held up in one round arrives in the next.
        let arriving = (round.bytes + lastRound.bytes) / (round.time + lastRound.time)
        lastRound = round
        guard followsLimited || arriving > rate else { return }
        latest[rounds % latest.count] = arriving
        rounds &+= 1
        rate = latest.max() ?? 0
        if rate > Self.fillingLimits.growthMin * filledRate {
            (filledRate, roundsSinceGrowth) = (rate, 0)
        } else {
            // Slowly: what arrives varies by more than that from round to round.
            filledRate = min(filledRate, max(rate, filledRate * Self.fillingLimits.fading))
            roundsSinceGrowth += 1
        }
    }
}
