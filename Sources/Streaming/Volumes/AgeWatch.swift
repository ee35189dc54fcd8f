import NIOCore

/// What an operator hears of writes that do not come home: a word when the oldest is much older than it should become, another each time that it is
/// twice as old, and one when it is over. A log that fills slowly, on a line that is down, would say nothing for days.
public struct AgeWatch: Equatable, Sendable {
    /// An age is told from so many recovery point objectives on, and from no less than this.
    public static let limits = (objectives: 12, ageMin: TimeAmount.minutes(1))

    /// What has changed.
    public enum Change: Equatable, Sendable {
        /// The oldest write has come to this age.
        case late(TimeAmount)
        /// It is less than half of what is told first.
        case over
    }

    /// The age at which the next word is due; nil while none has been told.
    private var nextAge: TimeAmount?

    public init() {}

    /// The oldest unsent write is late.
    public var isLate: Bool { nextAge != nil }

    /// Takes a look at the age of the oldest unsent write; nil when there is none.
    public mutating func observe(oldest: TimeAmount?, objective: TimeAmount) -> Change? {
        let first = max(Self.limits.ageMin, .nanoseconds(objective.nanoseconds.multipliedClamping(by: Int64(Self.limits.objectives))))
        let age = oldest ?? .zero
        if age >= nextAge ?? first {
            nextAge = .nanoseconds(age.nanoseconds.multipliedClamping(by: 2))
            return .late(age)
        }
        guard isLate, age < .nanoseconds(first.nanoseconds / 2) else { return nil }
        nextAge = nil
        return .over
    }
}

extension Int64 {
    fileprivate func multipliedClamping(by factor: Int64) -> Int64 {
        let (product, overflow) = multipliedReportingOverflow(by: factor)
        return overflow ? .max : product
    }
}
