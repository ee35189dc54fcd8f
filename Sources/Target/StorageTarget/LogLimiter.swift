import Logging
import NIOCore

/// Lets some log lines through and counts the rest, so that hostile traffic does not fill a disk.
package struct LogLimiter {
    /// Lines in one period.
    static let maximumLines = 20
    static let period = TimeAmount.seconds(10)

    private var periodStart = NIODeadline.uptimeNanoseconds(0)
    private var lineCount = 0
    private var suppressedCount = 0

    package init() {}

    /// The number of lines that were left out since the last one, when this line may be written; else nil.
    package mutating func admit(now: NIODeadline) -> Int? {
        if now - periodStart >= Self.period {
            periodStart = now
            lineCount = 0
        }
        guard lineCount < Self.maximumLines else {
            suppressedCount += 1
            return nil
        }
        lineCount += 1
        defer { suppressedCount = 0 }
        return suppressedCount
    }
}
