import NIOCore

// The control protocol: one command a line, one line in answer.
//
//   stats                        → a JSON object
//   cut                          → ok      every connection is reset, and so are new ones
//   cut blackhole                → ok      connections stay open and silent
//   restore                      → ok      after either cut; what a blackhole held goes on its way
//   reset                        → ok      every connection is reset; new ones are taken
//   set rtt=40ms rate=100mbit    → ok      either of the two, or both; rate=unlimited lifts the limit
//   anything else                → error: and why

/// How the control protocol reads durations and rates: the program's own way, handed in.
public struct RelayControlValues: Sendable {
    /// A duration from its text; nil when it is none.
    public var duration: @Sendable (String) -> TimeAmount?
    /// Bytes in a second from their text; nil when it is none.
    public var bytesPerSecond: @Sendable (String) -> UInt64?

    public init(duration: @escaping @Sendable (String) -> TimeAmount?, bytesPerSecond: @escaping @Sendable (String) -> UInt64?) {
        self.duration = duration
        self.bytesPerSecond = bytesPerSecond
    }
}

/// A command of the control protocol.
public enum RelayCommand: Equatable, Sendable {
    case statistics
    case setLineState(RelayLineState)
    case reset
    case setConditions(RelayConditions)

    /// Why a line is no command.
    public struct ParseError: Error, Equatable, CustomStringConvertible {
        public var description: String
    }

    /// Reads a line. `current` gives the values that a `set` leaves out.
    public init(line: some StringProtocol, current: RelayConditions, values: RelayControlValues) throws(ParseError) {
        let words = line.split { $0.isWhitespace }.map { String($0) }
        switch (words.first, words.dropFirst().first, words.count) {
        case ("stats", _, 1): self = .statistics
        case ("cut", _, 1): self = .setLineState(.cut)
        case ("cut", "blackhole", 2): self = .setLineState(.blackhole)
        case ("restore", _, 1): self = .setLineState(.up)
        case ("reset", _, 1): self = .reset
        case ("set", .some, _): self = .setConditions(try Self.conditions(words.dropFirst(), current: current, values: values))
        default:
            throw ParseError(description: "expected stats, cut [blackhole], restore, reset, or set rtt=TIME rate=RATE")
        }
    }

    private static func conditions(
        _ words: ArraySlice<String>, current: RelayConditions, values: RelayControlValues
    ) throws(ParseError) -> RelayConditions {
        var roundTrip = current.roundTrip
        var bytesPerSecond = current.bytesPerSecond
        for word in words {
            let parts = word.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            let value = parts.count == 2 ? parts[1] : ""
            switch parts[0] {
            case "rtt":
                guard let duration = values.duration(value) else {
                    throw ParseError(description: "rtt: not a duration: '\(value)'; write it like 40ms")
                }
                roundTrip = duration
            case "rate" where value == "unlimited":
                bytesPerSecond = nil
            case "rate":
                guard let rate = values.bytesPerSecond(value) else {
                    throw ParseError(description: "rate: not a rate: '\(value)'; write it like 100mbit, or unlimited")
                }
                bytesPerSecond = rate
            default:
                throw ParseError(description: "set takes rtt=TIME and rate=RATE, not '\(word)'")
            }
        }
        return RelayConditions(roundTrip: roundTrip, bytesPerSecond: bytesPerSecond)
    }
}

extension RelayLine {
    /// What the control port answers to a line.
    func answer(_ text: String, values: RelayControlValues) -> String {
        do {
            switch try RelayCommand(line: text, current: conditions, values: values) {
            case .statistics: return statistics.json
            case .setLineState(let state): setState(state)
            case .reset: resetConnections()
            case .setConditions(let conditions): setConditions(conditions)
            }
            return "ok"
        } catch {
            return "error: \(error)"
        }
    }
}
