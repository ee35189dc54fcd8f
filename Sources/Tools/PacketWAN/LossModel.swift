import LoadGenerator

/// Which packets a line loses.
public struct LossModel: Hashable, Sendable {
    // Gilbert–Elliott: the line is good or bad, changes between two packets with a fixed probability, and loses each packet with
    // one that depends on which it is. Loss at random is the case of a line that is always good.

    /// The probability that a good line turns bad before the next packet.
    public var toBad: Double
    /// The probability that a bad line turns good before the next packet.
    public var toGood: Double
    /// The share of packets that a good line loses.
    public var lossWhileGood: Double
    /// The share of packets that a bad line loses.
    public var lossWhileBad: Double

    /// A line by the four parameters of Gilbert and Elliott; each is brought into 0 ... 1.
    public init(toBad: Double, toGood: Double, lossWhileGood: Double, lossWhileBad: Double) {
        self.toBad = Self.probability(toBad)
        self.toGood = Self.probability(toGood)
        self.lossWhileGood = Self.probability(lossWhileGood)
        self.lossWhileBad = Self.probability(lossWhileBad)
    }

    /// No packet is lost.
    public static let none = LossModel(toBad: 0, toGood: 1, lossWhileGood: 0, lossWhileBad: 0)

    /// Each packet is lost with the same probability, whatever happened to the ones before.
    public static func random(_ share: Double) -> LossModel {
        LossModel(toBad: 0, toGood: 1, lossWhileGood: share, lossWhileBad: 0)
    }

    /// The share is lost in bursts of `meanLength` packets: a bad line loses everything, a good one nothing. A share that bursts of
    /// this length can't reach without running into each other is reached by longer ones.
    public static func bursts(_ share: Double, meanLength: Double) -> LossModel {
        let share = min(probability(share), 0.999)
        guard share > 0 else { return .none }
        // The share of time that the line is bad is toBad / (toBad + toGood).
        let odds = share / (1 - share)
        let toGood = min(1 / (meanLength > 1 ? meanLength : 1), 1 / odds)
        return LossModel(toBad: toGood * odds, toGood: toGood, lossWhileGood: 0, lossWhileBad: 1)
    }

    /// The share of packets that is lost in the long run.
    public var share: Double {
        let changes = toBad + toGood
        let bad = changes > 0 ? toBad / changes : 0
        return bad * lossWhileBad + (1 - bad) * lossWhileGood
    }

    private static func probability(_ value: Double) -> Double { value.isNaN ? 0 : min(max(value, 0), 1) }
}

/// Where a line is in its loss model.
struct LossState: Sendable {
    private var isBad = false

    /// True when the next packet is lost. Draws no more chance than the model asks for.
    mutating func losesNext(_ model: LossModel, random: inout SeededGenerator) -> Bool {
        if isBad {
            if random.unit() < model.toGood { isBad = false }
        } else if model.toBad > 0, random.unit() < model.toBad {
            isBad = true
        }
        let loss = isBad ? model.lossWhileBad : model.lossWhileGood
        return loss > 0 && random.unit() < loss
    }
}
