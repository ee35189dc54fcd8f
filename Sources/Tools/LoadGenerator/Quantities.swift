/// Sizes, durations and ranges as people write them on a command line.
public enum Quantities {
    /// `4096`, `4KiB`, `4k`, `1GiB`, `10MB`: one letter and `iB` mean powers of 1024, `B` alone behind the letter powers of 1000.
    public static func bytes(_ text: String) -> UInt64? {
        let digits = text.prefix { $0.isASCII && $0.isNumber }
        guard let number = UInt64(digits) else { return nil }
        let factor: UInt64
        switch text.dropFirst(digits.count).lowercased() {
        case "", "b": factor = 1
        case "k", "kib": factor = 1 << 10
        case "m", "mib": factor = 1 << 20
        case "g", "gib": factor = 1 << 30
        case "t", "tib": factor = 1 << 40
        case "kb": factor = 1_000
        case "mb": factor = 1_000_000
        case "gb": factor = 1_000_000_000
        case "tb": factor = 1_000_000_000_000
        default: return nil
        }
        let (value, overflow) = number.multipliedReportingOverflow(by: factor)
        return overflow ? nil : value
    }

    /// `500ms`, `10s`, `2m`, `1h`, or a number of seconds; the answer is in nanoseconds.
    public static func nanoseconds(_ text: String) -> UInt64? {
        let digits = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
        guard let number = Double(digits) else { return nil }
        let factor: Double
        switch text.dropFirst(digits.count) {
        case "us": factor = 1e3
        case "ms": factor = 1e6
        case "", "s": factor = 1e9
        case "m", "min": factor = 60e9
        case "h": factor = 3600e9
        default: return nil
        }
        let value = number * factor
        return value < 1e18 ? UInt64(value) : nil
    }

    /// `START-END` in bytes, the end not included.
    public static func byteRange(_ text: String) -> Range<UInt64>? {
        let parts = text.split(separator: "-", omittingEmptySubsequences: false)
        guard parts.count == 2, let start = bytes(String(parts[0])), let end = bytes(String(parts[1])), start < end else {
            return nil
        }
        return start..<end
    }
}
