import Foundation

/// The one way to turn API models into JSON and back.
public enum APICoding {
    /// An encoder with sorted keys, RFC 3339 dates with milliseconds, and slashes as they are.
    public static func encoder(pretty: Bool = false) -> JSONEncoder {
        let encoder = JSONEncoder()
        encoder.outputFormatting =
            pretty ? [.sortedKeys, .withoutEscapingSlashes, .prettyPrinted] : [.sortedKeys, .withoutEscapingSlashes]
        encoder.dateEncodingStrategy = .custom { date, encoder in
            var container = encoder.singleValueContainer()
            try container.encode(string(date))
        }
        return encoder
    }

    /// A decoder that takes RFC 3339 dates with or without a fraction of a second.
    public static func decoder() -> JSONDecoder {
        let decoder = JSONDecoder()
        decoder.dateDecodingStrategy = .custom { decoder in
            let container = try decoder.singleValueContainer()
            let text = try container.decode(String.self)
            guard let date = date(text) else {
                throw DecodingError.dataCorruptedError(
                    in: container, debugDescription: "expected a date like 2026-01-31T12:00:00.000Z")
            }
            return date
        }
        return decoder
    }

    /// A date as the API writes it, for example `2026-01-31T12:00:00.000Z`.
    public static func string(_ date: Date) -> String {
        date.formatted(Date.ISO8601FormatStyle(includingFractionalSeconds: true))
    }

    /// A date as the API reads it, or nil when the text is none.
    public static func date(_ text: String) -> Date? {
        if let date = try? Date(text, strategy: Date.ISO8601FormatStyle(includingFractionalSeconds: true)) { return date }
        return try? Date(text, strategy: Date.ISO8601FormatStyle())
    }
}

/// One page of a list. `next` is the value for `?after=` that fetches the following page; nil on the last one.
public struct Page<Item: Codable & Sendable>: Codable, Sendable {
    /// The items of this page, in the list's own order.
    public var items: [Item]
    /// The cursor of the next page, opaque to the reader; nil at the end.
    public var next: String?

    public init(items: [Item], next: String? = nil) {
        self.items = items
        self.next = next
    }
}

extension Page: Equatable where Item: Equatable {}
