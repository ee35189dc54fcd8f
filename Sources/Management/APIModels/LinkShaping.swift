/// What an edge sends to a peer at most, in bytes a second on the line; nil is no limit. Calls between the edges are never held.
public struct LinkRates: Codable, Sendable, Equatable {
    public var totalBytesPerSecond: UInt64?
    /// Reads: their answers, which home sends.
    public var demandBytesPerSecond: UInt64?
    /// Points on their way home, which the cloud edge sends.
    public var writeBehindBytesPerSecond: UInt64?

    public init(
        totalBytesPerSecond: UInt64? = nil, demandBytesPerSecond: UInt64? = nil, writeBehindBytesPerSecond: UInt64? = nil
    ) {
        self.totalBytesPerSecond = totalBytesPerSecond
        self.demandBytesPerSecond = demandBytesPerSecond
        self.writeBehindBytesPerSecond = writeBehindBytesPerSecond
    }
}

/// What an edge sends to a peer at most, and when: the body of `PATCH /v1/links/{peer}`.
public struct LinkShaping: Codable, Sendable, Equatable {
    /// A day of the week.
    public enum Day: String, Codable, Sendable, CaseIterable {
        case monday, tuesday, wednesday, thursday, friday, saturday, sunday
    }

    /// Other rates at certain times.
    public struct Entry: Codable, Sendable, Equatable {
        /// The days on which it begins; all when there are none.
        public var days: [Day]?
        /// When it begins, as `08:00`, in the edge's local time.
        public var from: String
        /// When it ends; on the next day if that is not after `from`.
        public var until: String
        public var rates: LinkRates

        public init(days: [Day]? = nil, from: String, until: String, rates: LinkRates) {
            self.days = days
            self.from = from
            self.until = until
            self.rates = rates
        }
    }

    /// When an entry is in force: says which one is meant.
    public struct Period: Codable, Sendable, Equatable {
        /// As in an entry.
        public var days: [Day]?
        public var from: String
        public var until: String

        public init(days: [Day]? = nil, from: String, until: String) {
            self.days = days
            self.from = from
            self.until = until
        }
    }

    /// What is in force when no entry of the schedule is.
    public var rates: LinkRates
    /// The first entry whose time it is takes the place of `rates`.
    public var schedule: [Entry]

    public init(rates: LinkRates = LinkRates(), schedule: [Entry] = []) {
        self.rates = rates
        self.schedule = schedule
    }
}

/// A change of what an edge sends to a peer at most: what is left out stays.
public struct LinkChange: Codable, Sendable, Equatable {
    /// The rates in place of those that were set.
    public var rates: LinkRates?
    /// The schedule in place of the one that was set.
    public var schedule: [LinkShaping.Entry]?
    /// Entries that are no more, each of which must be there.
    public var remove: [LinkShaping.Period]?
    /// Entries behind those that stay.
    public var append: [LinkShaping.Entry]?

    public init(
        rates: LinkRates? = nil, schedule: [LinkShaping.Entry]? = nil, remove: [LinkShaping.Period]? = nil,
        append: [LinkShaping.Entry]? = nil
    ) {
        self.rates = rates
        self.schedule = schedule
        self.remove = remove
        self.append = append
    }
}
