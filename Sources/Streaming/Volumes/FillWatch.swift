import NIOCore

// What an operator hears of something that fills: a word at each step on the way up, and one when it is over.
//
//     fill %   45 ... 50 ........ 70 ... 75 ....... 85 ... 90
//     up             tell half          tell 3/4          tell nearly full
//     down     over              half                3/4           (the step is armed again, nothing is told)
//
// A step is told again only after the fill has been `rearmPercent` below it, so a fill that swings about one tells it once.

/// A mark on the way to full.
public enum FillStep: Int, CaseIterable, Comparable, Sendable {
    case half = 50
    case threeQuarters = 75
    case nearlyFull = 90

    /// Where it is, in percent.
    public var percent: Int { rawValue }

    public static func < (left: FillStep, right: FillStep) -> Bool { left.rawValue < right.rawValue }
}

/// Notices when something that fills passes a step, and when it has drained.
public struct FillWatch: Equatable, Sendable {
    /// How far below a step the fill has to fall before the step is told again, in percent of the whole.
    public static let rearmPercent = 5

    /// What has changed.
    public enum Change: Equatable, Sendable {
        /// The fill has come up to this step; of several at once the highest.
        case reached(FillStep)
        /// The fill is well below the lowest step again.
        case over
    }

    /// The highest step that was reached and not left again.
    public private(set) var step: FillStep?

    public init() {}

    /// Takes a look at the fill.
    public mutating func observe(used: UInt64, bound: UInt64) -> Change? {
        let percent = FillWatch.percent(used: used, bound: bound)
        let reached = FillStep.allCases.last { percent >= Double($0.percent) }
        if let reached, reached > step ?? .half || step == nil {
            step = reached
            return .reached(reached)
        }
        guard step != nil else { return nil }
        let kept = FillStep.allCases.last { percent > Double($0.percent - Self.rearmPercent) }
        step = min(step ?? .half, kept ?? .half)
        if kept != nil { return nil }
        step = nil
        return .over
    }

    /// How full, in percent. What has no room at all is full.
    public static func percent(used: UInt64, bound: UInt64) -> Double {
        bound == 0 ? 100 : Double(used) / Double(bound) * 100
    }
}

/// Tells from how something has filled in the last minutes when it will be full.
public struct FillEstimate: Sendable {
    /// How often the fill is noted, and how many notes are kept: two minutes of them.
    static let sampleInterval: TimeAmount = .seconds(2)
    static let samplesMax = 61
    /// What takes longer than this is not worth a number.
    static let timeMax: TimeAmount = .hours(24 * 7)

    private var samples: [(at: NIODeadline, used: UInt64)] = []

    public init() {}

    /// Takes a look at the fill.
    public mutating func observe(used: UInt64, now: NIODeadline) {
        if let last = samples.last, now - last.at < Self.sampleInterval { return }
        if samples.count >= Self.samplesMax { samples.removeFirst(samples.count - Self.samplesMax + 1) }
        samples.append((now, used))
    }

    /// How long it takes until `bound` is reached if all goes on as it has; nil while it does not fill, or nobody knows.
    public func timeUntilFull(used: UInt64, bound: UInt64, now: NIODeadline) -> TimeAmount? {
        guard let first = samples.first, now > first.at, used > first.used else { return nil }
        guard used < bound else { return .zero }
        let rate = Double(used - first.used) / Double((now - first.at).nanoseconds)
        let nanoseconds = Double(bound - used) / rate
        return nanoseconds < Double(Self.timeMax.nanoseconds) ? .nanoseconds(Int64(nanoseconds)) : nil
    }
}
