import Foundation

// The texts that people write for amounts. A text is a decimal number, with a fraction if it likes, and a unit:
//
//     64MiB   10GB   4096        a size, in bytes when there is no unit
//     5s   40ms   1.5h           a duration
//     100mbit   1.5gbit          a rate, in bits a second
//
// The arithmetic is exact: a number that is no whole count of the smallest unit is an error, and so is one that overflows.

/// Why a text is not a value, and what would be one.
public struct ValueError: Error, Sendable, Equatable, CustomStringConvertible {
    public var message: String
    public var hint: String?

    public init(_ message: String, hint: String? = nil) {
        self.message = message
        self.hint = hint
    }

    public var description: String {
        guard let hint else { return message }
        return "\(message) (\(hint))"
    }
}

/// Sizes such as `64MiB`.
public enum ByteSize {
    static let units: [(name: String, factor: UInt64)] = [
        ("B", 1), ("kB", 1_000), ("KB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000), ("TB", 1_000_000_000_000),
        ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40),
    ]

    /// The size in bytes.
    public static func parse(_ text: String) throws(ValueError) -> UInt64 {
        let (number, unit) = try Quantity.split(text, kind: "size", example: "64MiB")
        if unit.isEmpty { return try Quantity.multiply(number, 1, text: text, smallest: "byte") }
        guard let factor = units.first(where: { $0.name == unit })?.factor else {
            if let near = units.first(where: { $0.name.lowercased() == unit.lowercased() }) {
                throw ValueError("“\(unit)” is not a unit of size", hint: "write \(near.name)")
            }
            let letter = unit.uppercased()
            if ["K", "M", "G", "T"].contains(letter) {
                throw ValueError(
                    "“\(unit)” is not a unit of size",
                    hint: "write \(letter)iB for powers of 1,024 or \(letter)B for powers of 1,000")
            }
            throw ValueError("“\(unit)” is not a unit of size", hint: "use B, KiB, MiB, GiB, TiB, or kB, MB, GB, TB")
        }
        return try Quantity.multiply(number, factor, text: text, smallest: "byte")
    }

    /// A size as people read it, rounded: `1.5 GiB`.
    public static func rounded(_ bytes: UInt64) -> String {
        if bytes < 1024 { return "\(bytes) B" }
        let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
        var value = Double(bytes) / 1024
        var unit = 0
        // What would be rounded to 1024 is one of the next unit.
        while value >= 1023.5, unit + 1 < units.count {
            value /= 1024
            unit += 1
        }
        // A point and one digit, in any locale.
        let tenths = Int((value * 10).rounded())
        let number = value >= 99.95 ? "\(Int(value.rounded()))" : "\(tenths / 10).\(tenths % 10)"
        return "\(number) \(units[unit])"
    }

    /// The shortest exact text of a size: `64MiB` for 67,108,864.
    public static func text(_ bytes: UInt64) -> String {
        guard bytes > 0 else { return "0B" }
        for (name, shift) in [("TiB", UInt64(40)), ("GiB", 30), ("MiB", 20), ("KiB", 10)] where bytes % (1 << shift) == 0 {
            return "\(bytes >> shift)\(name)"
        }
        return "\(bytes)B"
    }
}

/// Durations such as `5s`.
public enum TimeSpan {
    static let units: [(name: String, factor: UInt64)] = [
        ("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000), ("min", 60_000_000_000), ("m", 60_000_000_000),
        ("h", 3_600_000_000_000), ("d", 86_400_000_000_000),
    ]

    /// The duration; at most about 292 years.
    public static func parse(_ text: String) throws(ValueError) -> Duration {
        let (number, unit) = try Quantity.split(text, kind: "duration", example: "5s")
        guard !unit.isEmpty else {
            throw ValueError("“\(text)” has no unit of time", hint: "write \(text)s for seconds or \(text)ms for milliseconds")
        }
        guard let factor = units.first(where: { $0.name == unit })?.factor else {
            throw ValueError("“\(unit)” is not a unit of time", hint: "use ns, us, ms, s, m, h or d")
        }
        let nanoseconds = try Quantity.multiply(number, factor, text: text, smallest: "nanosecond")
        guard let signed = Int64(exactly: nanoseconds) else {
            throw ValueError("“\(text)” is too long", hint: "use at most 290 years")
        }
        return .nanoseconds(signed)
    }

    /// The shortest exact text of a duration, to the nanosecond. Negative ones are written as zero.
    public static func text(_ duration: Duration) -> String {
        let parts = duration.components
        let (scaled, overflow) = parts.seconds.multipliedReportingOverflow(by: 1_000_000_000)
        let (nanoseconds, overflow2) = scaled.addingReportingOverflow(parts.attoseconds / 1_000_000_000)
        guard !overflow, !overflow2, nanoseconds > 0 else { return duration > .zero ? "\(parts.seconds)s" : "0s" }
        for (name, factor) in [
            ("h", Int64(3_600_000_000_000)), ("m", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000),
        ]
        where nanoseconds % factor == 0 {
            return "\(nanoseconds / factor)\(name)"
        }
        return "\(nanoseconds)ns"
    }
}

/// Rates of a line such as `100mbit`.
public enum BitRate {
    static let units: [(name: String, factor: UInt64)] = [
        ("bit", 1), ("kbit", 1_000), ("mbit", 1_000_000), ("gbit", 1_000_000_000),
    ]

    /// The rate in bits a second; units in any case, `/s` and `ps` allowed behind them.
    public static func parse(_ text: String) throws(ValueError) -> UInt64 {
        let (number, written) = try Quantity.split(text, kind: "rate", example: "100mbit")
        var unit = written.lowercased()
        if unit.hasSuffix("/s") || unit.hasSuffix("ps") { unit.removeLast(2) }
        guard let factor = units.first(where: { $0.name == unit })?.factor else {
            throw ValueError(
                written.isEmpty ? "“\(text)” has no unit of rate" : "“\(written)” is not a unit of rate",
                hint: "use bit, kbit, mbit or gbit, for example 100mbit")
        }
        let rate = try Quantity.multiply(number, factor, text: text, smallest: "bit a second")
        guard rate > 0 else {
            throw ValueError("a rate of zero carries nothing", hint: "leave it out for a line without a limit")
        }
        return rate
    }

    /// A rate as people read it, to four digits: `50 Mbit/s`.
    public static func rounded(bytesPerSecond: UInt64) -> String {
        var value = Double(bytesPerSecond) * 8
        for unit in ["bit/s", "kbit/s", "Mbit/s"] {
            if value < 1000 { return "\(String(format: "%.4g", value)) \(unit)" }
            value /= 1000
        }
        return "\(String(format: "%.4g", value)) Gbit/s"
    }
}

/// A decimal number as `digits` without its point, which stands `fractionDigits` from the right.
struct DecimalNumber {
    var digits: UInt64
    var fractionDigits: Int
}

enum Quantity {
    /// More digits behind the point than this do not occur in what people mean.
    static let mostFractionDigits = 9

    /// Splits a text in its number and its unit.
    static func split(_ text: String, kind: String, example: String) throws(ValueError) -> (DecimalNumber, String) {
        if text.hasPrefix("-") { throw ValueError("“\(text)” is negative: a \(kind) never is", hint: "write for example \(example)") }
        let bytes = Array(text.utf8)
        var index = 0
        var number = DecimalNumber(digits: 0, fractionDigits: 0)
        var wholeDigits = 0
        var seenPoint = false
        while index < bytes.count {
            let byte = bytes[index]
            if byte == UInt8(ascii: "."), !seenPoint {
                seenPoint = true
            } else if byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9") {
                let (scaled, overflow) = number.digits.multipliedReportingOverflow(by: 10)
                let (sum, overflow2) = scaled.addingReportingOverflow(UInt64(byte - UInt8(ascii: "0")))
                guard !overflow, !overflow2 else { throw ValueError("“\(text)” is too large") }
                number.digits = sum
                if seenPoint { number.fractionDigits += 1 } else { wholeDigits += 1 }
            } else {
                break
            }
            index += 1
        }
        guard wholeDigits > 0, !seenPoint || number.fractionDigits > 0, number.fractionDigits <= mostFractionDigits else {
            throw ValueError("“\(text)” is not a \(kind)", hint: "write for example \(example)")
        }
        let unit = String(decoding: bytes[index...], as: UTF8.self)
        return (number, unit.hasPrefix(" ") ? String(unit.drop(while: { $0 == " " })) : unit)
    }

    /// The number times the factor, when it is a whole number that fits.
    static func multiply(_ number: DecimalNumber, _ factor: UInt64, text: String, smallest: String) throws(ValueError) -> UInt64 {
        var divisor: UInt64 = 1
        for _ in 0..<number.fractionDigits { divisor *= 10 }
        let product = number.digits.multipliedFullWidth(by: factor)
        guard product.high < divisor else { throw ValueError("“\(text)” is too large") }
        let (quotient, remainder) = divisor.dividingFullWidth(product)
        guard remainder == 0 else { throw ValueError("“\(text)” is not a whole number of the smallest unit, the \(smallest)") }
        return quotient
    }
}
