/// One number for `GET /metrics`.
public struct MetricSample: Sendable, Equatable {
    /// The Prometheus type.
    public enum Kind: String, Sendable {
        case counter, gauge
    }

    /// For example `causeway_link_sent_bytes_total`.
    public var name: String
    /// One sentence; the first sample of a name gives it.
    public var help: String
    public var kind: Kind
    public var labels: [(name: String, value: String)]
    public var value: Double

    public init(_ name: String, help: String, kind: Kind, labels: [(name: String, value: String)] = [], value: Double) {
        self.name = name
        self.help = help
        self.kind = kind
        self.labels = labels
        self.value = value
    }

    public static func == (left: MetricSample, right: MetricSample) -> Bool {
        left.name == right.name && left.help == right.help && left.kind == right.kind && left.value == right.value
            && left.labels.elementsEqual(right.labels, by: ==)
    }
}

/// The Prometheus text format, version 0.0.4.
enum MetricsText {
    static let contentType = "text/plain; version=0.0.4; charset=utf-8"

    /// Samples of one name are written together, in the order in which names first come. Samples with names that Prometheus would
    /// refuse are left out, because one of them would lose the whole page.
    static func render(_ samples: [MetricSample]) -> String {
        var order: [String] = []
        var families: [String: [MetricSample]] = [:]
        for sample in samples where isName(sample.name) && sample.labels.allSatisfy({ isName($0.name) }) {
            if families[sample.name] == nil { order.append(sample.name) }
            families[sample.name, default: []].append(sample)
        }
        var text = ""
        for name in order {
            guard let family = families[name], let first = family.first else { continue }
            text += "# HELP \(name) \(escape(first.help, quotes: false))\n# TYPE \(name) \(first.kind.rawValue)\n"
            for sample in family {
                let labels = sample.labels.map { "\($0.name)=\"\(escape($0.value, quotes: true))\"" }.joined(separator: ",")
                text += labels.isEmpty ? "\(name) \(number(sample.value))\n" : "\(name){\(labels)} \(number(sample.value))\n"
            }
        }
        return text
    }

    private static func number(_ value: Double) -> String {
        if value.isNaN { return "NaN" }
        if value.isInfinite { return value > 0 ? "+Inf" : "-Inf" }
        if let whole = Int64(exactly: value) { return String(whole) }
        return String(value)
    }

    private static func escape(_ text: String, quotes: Bool) -> String {
        var result = ""
        for character in text.unicodeScalars {
            switch character {
            case "\\": result += "\\\\"
            case "\n": result += "\\n"
            case "\"" where quotes: result += "\\\""
            default: result.unicodeScalars.append(character)
            }
        }
        return result
    }

    private static func isName(_ text: String) -> Bool {
        guard let first = text.utf8.first, !(0x30...0x39).contains(first) else { return false }
        return text.utf8.allSatisfy {
            (0x30...0x39).contains($0) || (0x41...0x5A).contains($0) || (0x61...0x7A).contains($0) || $0 == 0x5F || $0 == 0x3A
        }
    }
}
