import Histogram

/// What an I/O does.
enum OperationKind: Int, CaseIterable {
    case read
    case write
    case flush

    var name: String {
        switch self {
        case .read: "read"
        case .write: "write"
        case .flush: "flush"
        }
    }
}

/// Counts and latencies of one kind of I/O.
struct KindStatistics {
    /// Latencies beyond it are counted as it.
    static let longestNanoseconds: UInt64 = 3_600_000_000_000

    var operations: UInt64 = 0
    var bytes: UInt64 = 0
    /// Nanoseconds, three digits.
    var latencies = Histogram<UInt64>(highestTrackableValue: longestNanoseconds)

    mutating func record(_ nanoseconds: UInt64, byteCount: Int) {
        operations += 1
        bytes += UInt64(byteCount)
        _ = latencies.record(min(max(nanoseconds, 1), Self.longestNanoseconds))
    }

    mutating func reset() {
        operations = 0
        bytes = 0
        latencies.reset()
    }
}
