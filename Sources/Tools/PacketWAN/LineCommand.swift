import NIOCore

// The control protocol: one command a line, one line in answer, like the relay's.
//
//   stats                        → a JSON object
//   cut                          → ok      all that is on the line is lost, and all that comes
//   hold                         → ok      nothing moves; the queues take what they have room for
//   restore                      → ok      after either
//   set rtt=40ms rate=100mbit    → ok      any of rtt, rate, jitter, queue, loss, reorder, reorder-delay
//   anything else                → error: and why

/// How the control protocol reads durations, rates and sizes: the program's own way, handed in.
public struct LineValues: Sendable {
    /// A duration from its text; nil when it is none.
    public var duration: @Sendable (String) -> TimeAmount?
    /// Bytes in a second from their text; nil when it is none.
    public var bytesPerSecond: @Sendable (String) -> UInt64?
    /// Bytes from their text; nil when it is none.
    public var size: @Sendable (String) -> UInt64?

    public init(
        duration: @escaping @Sendable (String) -> TimeAmount?, bytesPerSecond: @escaping @Sendable (String) -> UInt64?,
        size: @escaping @Sendable (String) -> UInt64?
    ) {
        self.duration = duration
        self.bytesPerSecond = bytesPerSecond
        self.size = size
    }
}

/// A command of the control protocol.
public enum LineCommand: Equatable, Sendable {
    case statistics
    case setState(LineState)
    case setConditions(LineConditions)

    /// Why a line is no command.
    public struct ParseError: Error, Equatable, CustomStringConvertible {
        public var description: String
    }

    /// Reads a line. `current` gives the values that a `set` leaves out.
    public init(line: some StringProtocol, current: LineConditions, values: LineValues) throws(ParseError) {
        let words = line.split { $0.isWhitespace }.map { String($0) }
        switch (words.first, words.count) {
        case ("stats", 1): self = .statistics
        case ("cut", 1): self = .setState(.cut)
        case ("hold", 1): self = .setState(.hold)
        case ("restore", 1): self = .setState(.up)
        case ("set", 2...):
            var conditions = current
            for word in words.dropFirst() { try conditions.set(word, values: values) }
            self = .setConditions(conditions)
        default:
            throw ParseError(
                description: "expected stats, cut, hold, restore, or set with \(LineConditions.settings)")
        }
    }
}

extension LineConditions {
    static let settings =
        "rtt=TIME rate=RATE jitter=TIME queue=SIZE loss=SHARE[/BURST] reorder=SHARE reorder-delay=TIME"

    /// Sets one condition by a word like `loss=1%`.
    public mutating func set(_ word: String, values: LineValues) throws(LineCommand.ParseError) {
        let parts = word.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        let value = parts.count == 2 ? parts[1] : ""
        func need<Value>(_ found: Value?, _ what: String) throws(LineCommand.ParseError) -> Value {
            guard let found else { throw LineCommand.ParseError(description: "\(parts[0]): not \(what): '\(value)'") }
            return found
        }
        switch parts[0] {
        case "rtt": roundTrip = try need(values.duration(value), "a duration like 40ms")
        case "jitter": jitter = try need(values.duration(value), "a duration like 2ms")
        case "reorder-delay": reorderDelay = try need(values.duration(value), "a duration like 5ms")
        case "rate" where value == "unlimited": bytesPerSecond = nil
        case "rate": bytesPerSecond = try need(values.bytesPerSecond(value), "a rate like 100mbit, or unlimited")
        case "queue" where value == "auto": queueBytes = nil
        case "queue": queueBytes = Int(clamping: try need(values.size(value), "a size like 256KiB, or auto"))
        case "loss": loss = try need(LossModel(value), "a share like 1% or 0.01, or 1%/8 for bursts of 8")
        case "reorder": reorder = try need(LossModel.share(value), "a share like 0.1%")
        default: throw LineCommand.ParseError(description: "set takes \(Self.settings), not '\(word)'")
        }
    }
}

extension LossModel {
    /// `1%` or `0.01` at random; `1%/8` in bursts of 8 packets on average.
    public init?(_ text: String) {
        let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        guard let share = parts.first.flatMap(Self.share) else { return nil }
        guard parts.count == 2 else {
            self = share > 0 ? .random(share) : .none
            return
        }
        guard let length = Double(parts[1]), length >= 1, length <= 1_000_000 else { return nil }
        self = .bursts(share, meanLength: length)
    }

    /// A share in 0 ... 1 from its text, with or without a percent sign. All is 100%: who writes 1 means 1%.
    static func share(_ text: String) -> Double? {
        let isPercent = text.hasSuffix("%")
        guard let number = Double(isPercent ? String(text.dropLast()) : text) else { return nil }
        let share = isPercent ? number / 100 : number
        return (0...1).contains(share) && (isPercent || share < 1) ? share : nil
    }
}

extension PacketWAN {
    /// What the control port answers to a line.
    public func answer(_ text: String, values: LineValues) -> String {
        do {
            switch try LineCommand(line: text, current: conditions, values: values) {
            case .statistics: return statistics.json
            case .setState(let state): setState(state)
            case .setConditions(let conditions): self.conditions = conditions
            }
            return "ok"
        } catch {
            return "error: \(error)"
        }
    }
}
