import APIModels
import Hummingbird

/// Pages and filters of lists.
enum Paging {
    /// Items on a page when the request does not say.
    static let defaultLimit = 100
    /// The most items on a page.
    static let mostItems = 1_000

    static let parameters: [Route.Parameter] = [
        .init(name: "limit", schema: .count("The most items on the page; 100 when left out.", 1...Int64(mostItems))),
        .init(name: "after", schema: .text("“next” of the page before.")),
    ]

    /// The page of items that the request asks for. Items are ordered by their key; the cursor is the last key of a page, so that
    /// what comes and goes between two pages makes no item come twice or be left out.
    static func page<Item: Codable & Sendable>(_ call: Call, _ items: [Item], by key: (Item) -> String) throws -> Response {
        let limit = call.query["limit"].flatMap { Int($0) } ?? defaultLimit
        var keyed = items.map { (key($0), $0) }.sorted { $0.0 < $1.0 }
        if let after = call.query["after"] { keyed.removeAll { $0.0 <= after } }
        let page = keyed.prefix(limit)
        return try .json(Page(items: page.map(\.1), next: page.count < keyed.count ? page.last?.0 : nil))
    }

    /// The page of events that the request asks for: oldest first. A filter may make a page short; `next` tells whether there is more.
    static func events(_ call: Call) throws -> Response {
        let limit = call.query["limit"].flatMap { Int($0) } ?? defaultLimit
        let after = call.query["after"].flatMap { UInt64($0) } ?? 0
        let found = call.controller.events.events(after: after, limit: limit + 1).events
        let page = found.prefix(limit)
        let filter = EventFilter(call.query)
        return try .json(
            Page(items: page.filter(filter.matches), next: found.count > limit ? page.last.map { String($0.sequence) } : nil))
    }
}

/// Which events a request wants.
struct EventFilter: Sendable {
    var subject: String?
    var severity: String?

    init(_ query: [String: String]) {
        subject = query["subject"]
        severity = query["severity"]
    }

    @Sendable func matches(_ event: Event) -> Bool {
        (subject == nil || event.subject == subject) && (severity == nil || event.severity.rawValue == severity)
    }
}
