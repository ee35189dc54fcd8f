import Foundation

/// The result of a run, as it is printed.
struct Report: Codable {
    struct Latency: Codable {
        var min, mean, p50, p90, p95, p99: Double
        var p999, p9999, max: Double
    }
    struct Kind: Codable {
        var operations: UInt64
        var bytes: UInt64
        var operationsPerSecond: Double
        var bytesPerSecond: Double
        var latencyMicroseconds: Latency?
    }
    struct Conditions: Codable {
        var urls: [String]
        var blockBytes: Int
        var queueDepth: Int
        var connections: Int
        var readPercent: Int
        var pattern: String
        var flushEvery: Int
        var forceUnitAccessPercent: Int
        var seed: UInt64
    }
    struct Verification: Codable {
        var stateFile: String
        var sectorsChecked: UInt64
        var mismatches: [String]
    }
    var version = 1
    var conditions: Conditions
    var seconds: Double
    var read: Kind
    var write: Kind
    var flush: Kind
    var errors: Int
    var retries: Int
    var lostOperations: Int
    var sessionLosses: Int
    var outageSeconds: Double
    var failure: String?
    var verification: Verification?

    func json() -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        guard let data = try? encoder.encode(self) else { return "{}\n" }
        return String(decoding: data, as: UTF8.self) + "\n"
    }

    func text() -> String {
        var lines = [
            "\(conditions.pattern), \(conditions.readPercent)% reads, \(conditions.blockBytes) bytes, queue depth "
                + "\(conditions.queueDepth), \(conditions.connections) connection(s), \(decimal(seconds, 2)) s",
            "          operations        IOPS       MiB/s    mean us     p50 us     p99 us   p99.9 us  p99.99 us     max us",
        ]
        for (name, kind) in [("read", read), ("write", write), ("flush", flush)] where kind.operations > 0 {
            var line = name + String(repeating: " ", count: 8 - name.count)
            line += pad("\(kind.operations)", 12) + pad(decimal(kind.operationsPerSecond, 0), 12)
            line += pad(decimal(kind.bytesPerSecond / 1_048_576, 1), 12)
            if let latency = kind.latencyMicroseconds {
                for value in [latency.mean, latency.p50, latency.p99, latency.p999, latency.p9999, latency.max] {
                    line += pad(decimal(value, 1), 11)
                }
            }
            lines.append(line)
        }
        lines.append(
            "errors \(errors), retries \(retries), lost sessions \(sessionLosses) (\(lostOperations) operations unanswered, "
                + "\(decimal(outageSeconds, 2)) s without)")
        if let verification {
            lines.append("verified \(verification.sectorsChecked) sectors read, \(verification.mismatches.count) wrong")
        }
        return lines.joined(separator: "\n") + "\n"
    }
}

extension LoadRunner {
    func report() -> Report {
        let seconds = measuredTo > measuredFrom ? Double(measuredTo - measuredFrom) / 1e9 : 0
        func kind(_ kind: OperationKind) -> Report.Kind {
            let one = statistics[kind.rawValue]
            func microseconds(_ percentile: Double) -> Double { Double(one.latencies.valueAtPercentile(percentile)) / 1000 }
            let latency =
                one.operations == 0
                ? nil
                : Report.Latency(
                    min: Double(one.latencies.min) / 1000, mean: one.latencies.mean / 1000, p50: microseconds(50),
                    p90: microseconds(90), p95: microseconds(95), p99: microseconds(99), p999: microseconds(99.9),
                    p9999: microseconds(99.99), max: Double(one.latencies.max) / 1000)
            return Report.Kind(
                operations: one.operations, bytes: one.bytes,
                operationsPerSecond: seconds > 0 ? Double(one.operations) / seconds : 0,
                bytesPerSecond: seconds > 0 ? Double(one.bytes) / seconds : 0, latencyMicroseconds: latency)
        }
        return Report(
            conditions: .init(
                urls: plan.urls.map(withoutSecret), blockBytes: plan.blockBytes, queueDepth: plan.queueDepth,
                connections: plan.connections, readPercent: plan.readPercent, pattern: plan.pattern.description,
                flushEvery: plan.flushEvery, forceUnitAccessPercent: plan.forceUnitAccessPercent, seed: plan.seed),
            seconds: seconds, read: kind(.read), write: kind(.write), flush: kind(.flush), errors: errorCount,
            retries: retryCount,
            lostOperations: lostOperations, sessionLosses: lossCount, outageSeconds: Double(outageNanoseconds) / 1e9,
            failure: failure,
            verification: plan.stateFile.map {
                .init(stateFile: $0, sectorsChecked: sectorsChecked, mismatches: mismatches.map(\.description))
            })
    }
}
