import APIModels
import EdgeConfiguration
import Foundation
import LinkProtocol
import ManagementAPI

// When which rates are in force. A time is a minute of the week, in the edge's local time: 0 is the first of Monday.

extension LinkShaping {
    static let entriesMax = 32
    private static let minutesPerDay = 24 * 60
    private static let minutesPerWeek = 7 * minutesPerDay

    /// The minute of the week of an instant.
    static func minuteOfWeek(_ date: Date, in timeZone: TimeZone) -> Int {
        var calendar = Calendar(identifier: .gregorian)
        calendar.timeZone = timeZone
        let parts = calendar.dateComponents([.weekday, .hour, .minute], from: date)
        // Foundation's weeks begin with Sunday, 1.
        let day = ((parts.weekday ?? 2) + 5) % 7
        return day * minutesPerDay + (parts.hour ?? 0) * 60 + (parts.minute ?? 0)
    }

    /// The rates that are in force at a minute of the week.
    func rates(atMinuteOfWeek minute: Int) -> LinkRates {
        schedule.first { $0.isInForce(atMinuteOfWeek: minute) }?.rates ?? rates
    }

    /// The limits after a change.
    func changed(by change: LinkChange) throws -> LinkShaping {
        var shaping = LinkShaping(rates: change.rates ?? rates, schedule: change.schedule ?? schedule)
        for (index, period) in (change.remove ?? []).enumerated() {
            let count = shaping.schedule.count
            shaping.schedule.removeAll { $0.isIn(period) }
            if shaping.schedule.count == count {
                throw APIError.invalid("remove[\(index)]", "must have the days and times of an entry of the schedule")
            }
        }
        shaping.schedule += change.append ?? []
        try shaping.check()
        return shaping
    }

    /// Refuses what can't be.
    func check() throws {
        guard schedule.count <= Self.entriesMax else {
            throw APIError.invalid("schedule", "must have at most \(Self.entriesMax) entries")
        }
        try rates.check("rates")
        for (index, entry) in schedule.enumerated() {
            try entry.rates.check("schedule[\(index)].rates")
            for (field, text) in [("from", entry.from), ("until", entry.until)] where Entry.minuteOfDay(text) == nil {
                throw APIError.invalid("schedule[\(index)].\(field)", "must be a time from 00:00 to 23:59")
            }
        }
    }
}

extension LinkShaping.Entry {
    /// The minute of the day of a time as `08:00`; nil when it is none.
    static func minuteOfDay(_ text: String) -> Int? {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 2, parts.allSatisfy({ $0.utf8.count == 2 && $0.utf8.allSatisfy { (48...57).contains($0) } }),
            let hour = Int(parts[0]), let minute = Int(parts[1]), hour < 24, minute < 60
        else { return nil }
        return hour * 60 + minute
    }

    fileprivate func isIn(_ period: LinkShaping.Period) -> Bool {
        from == period.from && until == period.until && Self.all(days) == Self.all(period.days)
    }

    /// No days are all of them.
    private static func all(_ days: [LinkShaping.Day]?) -> Set<LinkShaping.Day> {
        Set(days.flatMap { $0.isEmpty ? nil : $0 } ?? LinkShaping.Day.allCases)
    }

    fileprivate func isInForce(atMinuteOfWeek minute: Int) -> Bool {
        guard let from = Self.minuteOfDay(from), let until = Self.minuteOfDay(until) else { return false }
        let length = until > from ? until - from : until - from + 24 * 60
        return LinkShaping.Day.allCases.enumerated().contains { number, day in
            if let days, !days.isEmpty, !days.contains(day) { return false }
            let start = number * 24 * 60 + from
            return (minute - start + 7 * 24 * 60) % (7 * 24 * 60) < length
        }
    }
}

extension LinkRates {
    fileprivate func check(_ field: String) throws {
        let least = LinkShape.bytesPerSecondMin
        for (name, rate) in [
            ("totalBytesPerSecond", totalBytesPerSecond), ("demandBytesPerSecond", demandBytesPerSecond),
            ("writeBehindBytesPerSecond", writeBehindBytesPerSecond),
        ] {
            if let rate, rate < least { throw APIError.invalid("\(field).\(name)", "must be at least \(least)") }
        }
    }

    /// The limits of the link's session.
    var shape: LinkShape {
        var shape = LinkShape(bytesPerSecond: totalBytesPerSecond)
        shape.classes[.demand] = demandBytesPerSecond
        shape.classes[.writeBehind] = writeBehindBytesPerSecond
        return shape
    }

    /// The limits in words.
    var text: String {
        let limits: [(String, UInt64?)] = [
            ("all", totalBytesPerSecond), ("demand", demandBytesPerSecond), ("write-behind", writeBehindBytesPerSecond),
        ]
        let words = limits.compactMap { name, rate in rate.map { "\(name) \(BitRate.rounded(bytesPerSecond: $0))" } }
        return words.isEmpty ? "no limits" : words.joined(separator: ", ")
    }
}
