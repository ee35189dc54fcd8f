import EdgeConfiguration
import Foundation

/// Amounts as people read them.
enum Human {
    /// `1.5 GiB`.
    static func bytes(_ count: UInt64) -> String { ByteSize.rounded(count) }

    /// `50 Mbit/s`, of bytes a second.
    static func bitRate(_ bytesPerSecond: UInt64) -> String { BitRate.rounded(bytesPerSecond: bytesPerSecond) }

    /// `3 s`, `2 min`, `4 h`, `5 d`: one unit, rounded down.
    static func seconds(_ seconds: Double) -> String {
        switch seconds {
        case ..<1: return "\(Int(max(seconds, 0) * 1000)) ms"
        case ..<120: return "\(Int(seconds)) s"
        case ..<7200: return "\(Int(seconds / 60)) min"
        case ..<172_800: return "\(Int(seconds / 3600)) h"
        default: return "\(Int(min(seconds / 86_400, 1e9))) d"
        }
    }

    /// `3 s ago`.
    static func ago(_ date: Date?) -> String? {
        date.map { seconds(Date().timeIntervalSince($0)) + " ago" }
    }

    /// A share, 0 to 1, in per cent.
    static func percent(_ share: Double) -> String { "\((share * 1_000).rounded() / 10) %" }

    static func milliseconds(_ value: Double?) -> String? {
        value.map { String(format: "%.1f ms", $0) }
    }
}
