import Glibc

/// One line each second while a run goes on.
struct LiveTable {
    private let isOn: Bool
    private let start: UInt64
    private var last: UInt64
    private var lines = 0

    init(isOn: Bool, start: UInt64) {
        self.isOn = isOn
        self.start = start
        last = start
    }

    /// Prints a line when a second has passed.
    mutating func tick(_ runner: LoadRunner, now: UInt64) {
        guard isOn, now &- last >= 1_000_000_000 else { return }
        if lines % 20 == 0 { printError("   time        IOPS       MiB/s     p50 us     p99 us     max us  errors  losses") }
        lines += 1
        let seconds = Double(now &- last) / 1e9
        let interval = runner.interval
        let latencies = interval.latencies
        let columns = [
            pad(decimal(Double(now &- start) / 1e9, 0) + "s", 7),
            pad(decimal(Double(interval.operations) / seconds, 0), 12),
            pad(decimal(Double(interval.bytes) / seconds / 1_048_576, 1), 12),
            pad(decimal(Double(latencies.valueAtPercentile(50)) / 1000, 0), 11),
            pad(decimal(Double(latencies.valueAtPercentile(99)) / 1000, 0), 11),
            pad(decimal(Double(interval.operations == 0 ? 0 : latencies.max) / 1000, 0), 11),
            pad("\(runner.errorCount)", 8), pad("\(runner.lossCount)", 8),
        ]
        printError(columns.joined())
        runner.interval.reset()
        last = now
    }

}

/// Right-aligned.
func pad(_ text: String, _ width: Int) -> String {
    text.count >= width ? " " + text : String(repeating: " ", count: width - text.count) + text
}

/// A number with a fixed count of decimals.
func decimal(_ value: Double, _ places: Int) -> String {
    guard value.isFinite else { return "-" }
    let scale = pow(10, Double(places))
    let scaled = (value * scale).rounded()
    guard abs(scaled) < 1e15 else { return "\(value)" }
    let whole = Int64(scaled)
    if places == 0 { return "\(whole)" }
    let factor = Int64(scale)
    let fraction = String(abs(whole % factor))
    let sign = whole < 0 && whole / factor == 0 ? "-" : ""
    return "\(sign)\(whole / factor)." + String(repeating: "0", count: max(0, places - fraction.count)) + fraction
}
