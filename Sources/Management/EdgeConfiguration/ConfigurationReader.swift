import Yams

/// Walks the nodes of a file and collects what is wrong with them. Each function that reads a value answers nil after it noted an
/// error, and the caller goes on with the next key, so that one pass finds everything.
final class ConfigurationReader {
    /// More errors than this help nobody.
    static let mostErrors = 100

    let file: String
    private(set) var errors: [ConfigurationError] = []

    init(file: String) {
        self.file = file
    }

    /// Notes an error at a node.
    func fail(_ node: Node?, _ message: String, hint: String? = nil) {
        guard errors.count < Self.mostErrors else { return }
        errors.append(
            ConfigurationError(file: file, line: node?.mark?.line, column: node?.mark?.column, message: message, hint: hint))
    }

    func fail(_ node: Node?, key: String, _ error: ValueError) {
        fail(node, "\(key): \(error.message)", hint: error.hint)
    }

    /// Reads a mapping: every key of it is checked against the list. A key without a value counts as an empty section.
    func section(_ node: Node, _ section: String, role: String?) -> Section? {
        if isNull(node) { return Section(reader: self, name: section, node: node, values: [:]) }
        guard let mapping = node.mapping else {
            let kind = section.isEmpty ? "the file" : section
            fail(node, "\(kind): expected keys and values, found \(describe(node))")
            return nil
        }
        var values: [String: Node] = [:]
        for (key, value) in mapping {
            guard let name = key.scalar?.string else {
                fail(key, "expected the name of a key, found \(describe(key))")
                continue
            }
            if checkKey(name, at: key, in: section, role: role) { values[name] = value }
        }
        return Section(reader: self, name: section, node: node, values: values)
    }

    private func checkKey(_ name: String, at node: Node, in section: String, role: String?) -> Bool {
        let path = section.isEmpty ? name : "\(section).\(name)"
        let keys = ConfigurationKey.all.filter { $0.section == section }
        if let key = keys.first(where: { $0.name == name }) {
            guard let role, !key.roles.contains(role) else { return true }
            fail(node, "\(path) is a key of the other role: this edge has role “\(role)”", hint: "remove it, or change “role”")
            return false
        }
        let known = keys.filter { key in role.map { key.roles.contains($0) } ?? true }.map(\.name)
        let hint: String
        if let gone = ConfigurationKey.gone[path] {
            hint = gone
        } else if let near = Nearest.word(to: name, in: known) {
            hint = "did you mean “\(near)”?"
        } else if let elsewhere = ConfigurationKey.all.first(where: { $0.name == name && (role.map($0.roles.contains) ?? true) }) {
            hint = "“\(name)” belongs at \(elsewhere.path)"
        } else {
            hint = "known here: \(known.joined(separator: ", "))"
        }
        fail(node, "unknown key “\(path)”", hint: hint)
        return false
    }

    /// True for a value that was left empty, or written as null.
    func isNull(_ node: Node) -> Bool {
        guard let scalar = node.scalar else { return false }
        return scalar.style == .plain || scalar.style == .any ? ["", "~", "null", "Null", "NULL"].contains(scalar.string) : false
    }

    func describe(_ node: Node) -> String {
        switch node {
        case .scalar(let scalar): isNull(node) ? "nothing" : "“\(scalar.string.prefix(60))”"
        case .mapping: "keys and values"
        case .sequence: "a list"
        case .alias: "an alias"
        }
    }
}

/// The keys and values of one section whose keys are all known.
struct Section {
    let reader: ConfigurationReader
    let name: String
    let node: Node
    let values: [String: Node]

    func path(_ key: String) -> String { name.isEmpty ? key : "\(name).\(key)" }

    /// Notes an error at a key's value, or at the section when the key is missing.
    func fail(_ key: String, _ message: String, hint: String? = nil) {
        reader.fail(values[key] ?? node, "\(path(key)): \(message)", hint: hint)
    }

    /// The text of a key: nil when it is missing, and nil with an error when it is no text.
    func text(_ key: String) -> String? {
        guard let value = values[key] else { return nil }
        guard let scalar = value.scalar, !reader.isNull(value) else {
            reader.fail(value, "\(path(key)): expected one value, found \(reader.describe(value))")
            return nil
        }
        return scalar.string
    }

    /// The text of a key that must be there.
    func required(_ key: String, hint: String) -> String? {
        if values[key] == nil {
            reader.fail(node, "\(path(key)) is missing", hint: hint)
            return nil
        }
        return text(key)
    }

    /// The parsed value of a key, or the default when it is missing or wrong (then with an error).
    func value<Value>(_ key: String, default fallback: Value, _ parse: (String) throws(ValueError) -> Value) -> Value {
        guard let text = text(key) else { return fallback }
        do {
            return try parse(text)
        } catch {
            reader.fail(values[key], key: path(key), error)
            return fallback
        }
    }

    func choice<Value: RawRepresentable & CaseIterable>(_ key: String, default fallback: Value) -> Value
    where Value.RawValue == String {
        value(key, default: fallback) { text throws(ValueError) in
            if let value = Value(rawValue: text) { return value }
            let words = Value.allCases.map(\.rawValue)
            let near = Nearest.word(to: text, in: words).map { "did you mean “\($0)”?" }
            throw ValueError(
                "“\(text)” is none of the possible values", hint: near ?? "use one of \(words.joined(separator: ", "))")
        }
    }

    func flag(_ key: String, default fallback: Bool) -> Bool {
        value(key, default: fallback) { text throws(ValueError) in
            switch text {
            case "true": return true
            case "false": return false
            default: throw ValueError("“\(text)” is not true or false", hint: "write true or false")
            }
        }
    }

    func integer(_ key: String, default fallback: Int, in range: ClosedRange<Int>) -> Int {
        value(key, default: fallback) { text throws(ValueError) in
            guard let number = Int(text), range.contains(number) else {
                throw ValueError("“\(text)” is not a whole number from \(range.lowerBound) to \(range.upperBound)")
            }
            return number
        }
    }

    func size(_ key: String, default fallback: UInt64, in range: ClosedRange<UInt64>) -> UInt64 {
        value(key, default: fallback) { text throws(ValueError) in
            let bytes = try ByteSize.parse(text)
            guard range.contains(bytes) else {
                throw ValueError(
                    "“\(text)” is out of range",
                    hint: "use \(ByteSize.text(range.lowerBound)) to \(ByteSize.text(range.upperBound))")
            }
            return bytes
        }
    }

    func duration(_ key: String, default fallback: Duration, in range: ClosedRange<Duration>) -> Duration {
        value(key, default: fallback) { text throws(ValueError) in
            let duration = try TimeSpan.parse(text)
            guard range.contains(duration) else {
                throw ValueError(
                    "“\(text)” is out of range",
                    hint: "use \(TimeSpan.text(range.lowerBound)) to \(TimeSpan.text(range.upperBound))")
            }
            return duration
        }
    }

    func address(_ key: String, default fallback: NetworkAddress) -> NetworkAddress {
        value(key, default: fallback) { text throws(ValueError) in try NetworkAddress(parsing: text) }
    }
}
