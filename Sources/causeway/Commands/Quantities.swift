import ArgumentParser
import EdgeConfiguration
import NIOCore

/// Amounts on the command line, in the words of the configuration file.
enum Quantities {
    @Sendable static func duration(_ text: String) throws -> Duration {
        try check { () throws(ValueError) in try TimeSpan.parse(text) }
    }
    @Sendable static func size(_ text: String) throws -> UInt64 {
        try check { () throws(ValueError) in try ByteSize.parse(text) }
    }
    /// A rate of a line, as bytes a second.
    @Sendable static func bytesPerSecond(_ text: String) throws -> UInt64 {
        try check { () throws(ValueError) in max(try BitRate.parse(text) / 8, 1) }
    }
    @Sendable static func address(_ text: String) throws -> NetworkAddress {
        try check { () throws(ValueError) in try NetworkAddress(parsing: text) }
    }

    private static func check<Value>(_ body: () throws(ValueError) -> Value) throws -> Value {
        do { return try body() } catch { throw ValidationError(error.description) }
    }
}

extension Duration {
    var inSeconds: Double { Double(components.seconds) + Double(components.attoseconds) / 1e18 }

    /// The same for SwiftNIO, which counts nanoseconds; at most 100 years.
    var timeAmount: TimeAmount {
        let seconds = min(max(components.seconds, 0), 100 * 365 * 86_400)
        return .nanoseconds(seconds * 1_000_000_000 + components.attoseconds / 1_000_000_000)
    }
}
