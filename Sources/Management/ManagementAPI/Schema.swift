import APIModels

/// The form of a JSON value: what the OpenAPI document says of it, and what a request body is checked against.
struct Schema: Sendable {
    /// Rules for text beyond being text.
    enum TextRule: Sendable {
        case any
        /// An RFC 3339 time.
        case time
        /// What disks and volumes may be called.
        case name
        /// A path that begins with a slash.
        case absolutePath
        /// A length in bytes.
        case bytes(ClosedRange<Int>)
        /// One of these words.
        case words([String])
    }

    indirect enum Form: Sendable {
        case text(TextRule)
        case integer(ClosedRange<Int64>)
        case number(ClosedRange<Double>)
        case flag
        case list(Schema, most: Int)
        case object([Property])
        /// A named schema of `Schema.named`.
        case reference(String)
    }

    var form: Form
    var summary: String

    static func text(_ summary: String, _ rule: TextRule = .any) -> Schema { .init(form: .text(rule), summary: summary) }
    static func words<Word: RawRepresentable & CaseIterable>(_ summary: String, _: Word.Type) -> Schema
    where Word.RawValue == String {
        .init(form: .text(.words(Word.allCases.map(\.rawValue))), summary: summary)
    }
    static func time(_ summary: String) -> Schema { .init(form: .text(.time), summary: summary) }
    static func count(_ summary: String, _ range: ClosedRange<Int64> = 0...Int64.max) -> Schema {
        .init(form: .integer(range), summary: summary)
    }
    static func number(_ summary: String, _ range: ClosedRange<Double> = 0...Double.greatestFiniteMagnitude) -> Schema {
        .init(form: .number(range), summary: summary)
    }
    static func flag(_ summary: String) -> Schema { .init(form: .flag, summary: summary) }
    static func list(_ summary: String, of item: Schema, most: Int = 10_000) -> Schema {
        .init(form: .list(item, most: most), summary: summary)
    }
    static func object(_ summary: String, _ properties: [Property]) -> Schema {
        .init(form: .object(properties), summary: summary)
    }
    static func reference(_ name: String, _ summary: String = "") -> Schema { .init(form: .reference(name), summary: summary) }
}

/// One property of an object.
struct Property: Sendable {
    var name: String
    var schema: Schema
    var required: Bool

    /// A property that is always there.
    static func required(_ name: String, _ schema: Schema) -> Property { .init(name: name, schema: schema, required: true) }
    /// A property that may be left out.
    static func optional(_ name: String, _ schema: Schema) -> Property { .init(name: name, schema: schema, required: false) }
}

extension Schema {
    /// More errors than this are not listed.
    static let mostErrors = 50

    /// Everything that is wrong with a value, each with the path of its field.
    func problems(with value: JSON) -> [Problem.InvalidField] {
        var problems: [Problem.InvalidField] = []
        check(value, at: "", &problems)
        return Array(problems.prefix(Self.mostErrors))
    }

    private func check(_ value: JSON, at path: String, _ problems: inout [Problem.InvalidField]) {
        guard problems.count < Self.mostErrors else { return }
        func fail(_ message: String) { problems.append(.init(field: path, message: message)) }
        switch (form, value) {
        case (.reference(let name), _):
            Schema.named[name]?.check(value, at: path, &problems)
        case (.text(let rule), .string(let text)):
            if let message = rule.problem(text) { fail(message) }
        case (.integer(let range), .integer(let number)):
            if !range.contains(number) { fail(Self.outside(range)) }
        case (.number(let range), .integer(let number)):
            if !range.contains(Double(number)) { fail(Self.outside(range)) }
        case (.number(let range), .number(let number)):
            if !range.contains(number) { fail(Self.outside(range)) }
        case (.flag, .bool):
            break
        case (.list(let item, let most), .array(let values)):
            guard values.count <= most else { return fail("has \(values.count) items, more than \(most)") }
            for (index, value) in values.enumerated() { item.check(value, at: "\(path)[\(index)]", &problems) }
        case (.object(let properties), .object(let members)):
            check(members, properties, at: path, &problems)
        default:
            fail("expected \(expected), found \(value.kind)")
        }
    }

    private func check(
        _ members: [String: JSON], _ properties: [Property], at path: String, _ problems: inout [Problem.InvalidField]
    ) {
        func join(_ name: String) -> String { path.isEmpty ? name : "\(path).\(name)" }
        for property in properties {
            // Null counts as left out: that is what many programs write for a value that they do not have.
            if let value = members[property.name], value != .null {
                property.schema.check(value, at: join(property.name), &problems)
            } else if property.required {
                problems.append(.init(field: join(property.name), message: "is missing"))
            }
        }
        let known = properties.map(\.name)
        for name in members.keys.sorted() where !known.contains(name) {
            problems.append(.init(field: join(name), message: "is not known here; known are \(known.joined(separator: ", "))"))
        }
    }

    private static func outside<Number>(_ range: ClosedRange<Number>) -> String {
        "must be from \(range.lowerBound) to \(range.upperBound)"
    }

    private var expected: String {
        switch form {
        case .text: "a string"
        case .integer: "a whole number"
        case .number: "a number"
        case .flag: "a boolean"
        case .list: "a list"
        case .object, .reference: "an object"
        }
    }
}

extension Schema.TextRule {
    static let namePattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"

    /// What is wrong with a text, or nil.
    func problem(_ text: String) -> String? {
        switch self {
        case .any:
            return nil
        case .time:
            return APICoding.date(text) == nil ? "must be a time like 2026-01-31T12:00:00.000Z" : nil
        case .name:
            func alphanumeric(_ byte: UInt8) -> Bool {
                (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte)
            }
            let bytes = Array(text.utf8)
            let good =
                (1...63).contains(bytes.count) && alphanumeric(bytes[0])
                && bytes.allSatisfy { alphanumeric($0) || $0 == 0x2D || $0 == 0x2E || $0 == 0x5F }
            return good ? nil : "must have 1 to 63 letters, digits, “-”, “.” and “_”, and begin with a letter or a digit"
        case .absolutePath:
            return text.hasPrefix("/") && text.utf8.count <= 4_000 && !text.utf8.contains(0) ? nil : "must be an absolute path"
        case .bytes(let range):
            return range.contains(text.utf8.count) ? nil : "must have \(range.lowerBound) to \(range.upperBound) bytes"
        case .words(let words):
            return words.contains(text) ? nil : "must be one of \(words.joined(separator: ", "))"
        }
    }
}

extension Schema {
    /// The schema in JSON Schema 2020-12, as OpenAPI 3.1 wants it.
    var json: JSON {
        var members: [String: JSON] = [:]
        switch form {
        case .text(let rule):
            members["type"] = "string"
            switch rule {
            case .any: break
            case .time: members["format"] = "date-time"
            case .name: members["pattern"] = .string(TextRule.namePattern)
            case .absolutePath: members["pattern"] = "^/"
            case .bytes(let range):
                // JSON Schema counts characters, and each has at least one byte.
                members["maxLength"] = .integer(Int64(range.upperBound))
                if range.lowerBound > 0 { members["minLength"] = 1 }
            case .words(let words): members["enum"] = .array(words.map { .string($0) })
            }
        case .integer(let range):
            members["type"] = "integer"
            members["minimum"] = .integer(range.lowerBound)
            if range.upperBound < Int64.max { members["maximum"] = .integer(range.upperBound) }
        case .number(let range):
            members["type"] = "number"
            members["minimum"] = .number(range.lowerBound)
            if range.upperBound < Double.greatestFiniteMagnitude { members["maximum"] = .number(range.upperBound) }
        case .flag:
            members["type"] = "boolean"
        case .list(let item, _):
            members["type"] = "array"
            members["items"] = item.json
        case .object(let properties):
            members["type"] = "object"
            members["properties"] = .object(Dictionary(properties.map { ($0.name, $0.schema.json) }) { _, new in new })
            let required = properties.filter(\.required).map { JSON.string($0.name) }
            if !required.isEmpty { members["required"] = .array(required) }
        case .reference(let name):
            members["$ref"] = "#/components/schemas/\(name)"
        }
        if !summary.isEmpty { members["description"] = .string(summary) }
        return .object(members)
    }
}
