import APIModels
import ArgumentParser
import EdgeConfiguration

/// Rates, as options.
struct RateOptions: ParsableArguments {
    @Option(help: "For everything together, like 50mbit.", transform: Quantities.bytesPerSecond)
    var total: UInt64?

    @Option(help: "For answers to reads, which home sends.", transform: Quantities.bytesPerSecond)
    var demand: UInt64?

    @Option(help: "For points, which the cloud edge sends.", transform: Quantities.bytesPerSecond)
    var writeBehind: UInt64?

    var rates: LinkRates {
        LinkRates(
            totalBytesPerSecond: total, demandBytesPerSecond: demand, writeBehindBytesPerSecond: writeBehind)
    }
}

/// Days of the week, as an option.
struct DayOptions: ParsableArguments {
    @Option(
        parsing: .upToNextOption, help: "The days on which it begins, like monday tuesday; every day when left out.",
        transform: { text in
            guard let day = LinkShaping.Day(rawValue: text.lowercased()) else {
                throw ValidationError(
                    "“\(text)” is not a day: write one of \(LinkShaping.Day.allCases.map(\.rawValue).joined(separator: ", "))")
            }
            return day
        })
    var days: [LinkShaping.Day] = []

    var named: [LinkShaping.Day]? { days.isEmpty ? nil : days }
}

extension LinkCommand {
    struct Limit: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Limit what this edge sends over a link, at once and for good.",
            discussion:
                "What is not named has no limit; without any option there are none. The other direction is limited at the other edge.")

        @OptionGroup var rates: RateOptions
        @OptionGroup var peer: PeerOptions
        @OptionGroup var connection: ConnectionOptions

        func run() async throws {
            let client = try connection.client()
            let link = try await client.changeLink(try await peer.find(client), LinkChange(rates: rates.rates))
            try LinkCommand.show(link, connection.output)
        }
    }

    struct Schedule: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Have other limits at certain times.",
            discussion: "Of several entries whose time it is, the one that was made first is in force. Times are the edge's local ones.")

        @Option(help: "When it begins, like 08:00.")
        var from: String

        @Option(help: "When it ends; on the next day if that is not after its beginning.")
        var until: String

        @OptionGroup var days: DayOptions
        @OptionGroup var rates: RateOptions
        @OptionGroup var peer: PeerOptions
        @OptionGroup var connection: ConnectionOptions

        func run() async throws {
            let client = try connection.client()
            let entry = LinkShaping.Entry(days: days.named, from: from, until: until, rates: rates.rates)
            let link = try await client.changeLink(try await peer.find(client), LinkChange(append: [entry]))
            try LinkCommand.show(link, connection.output)
        }
    }

    struct Unschedule: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Have the same limits at all times, or no others at the ones that are named.")

        @Option(help: "When the entry to take out begins, like 08:00.")
        var from: String?

        @Option(help: "When it ends.")
        var until: String?

        @OptionGroup var days: DayOptions
        @OptionGroup var peer: PeerOptions
        @OptionGroup var connection: ConnectionOptions

        func validate() throws {
            if (from == nil) != (until == nil) || (from == nil && days.named != nil) {
                throw ValidationError("Name an entry by --from, --until and its --days; without any of them the whole schedule goes.")
            }
        }

        func run() async throws {
            let client = try connection.client()
            var change = LinkChange(schedule: [])
            if let from, let until { change = LinkChange(remove: [.init(days: days.named, from: from, until: until)]) }
            let link = try await client.changeLink(try await peer.find(client), change)
            try LinkCommand.show(link, connection.output)
        }
    }

    /// Which link is meant.
    struct PeerOptions: ParsableArguments {
        @Option(help: "The identifier of the edge at the other end, where there is more than one link. See causeway link list.")
        var peer: String?

        /// The edge at its other end. One that is named need not have been connected yet.
        func find(_ client: APIClient) async throws -> String {
            if let peer { return peer }
            let links: [Link] = try await client.list("/v1/links")
            guard let link = links.first else { throw CommandFailure("there is no link", action: "Pair this edge with another one first.") }
            guard links.count == 1 else {
                throw CommandFailure("there are \(links.count) links", action: "Name one by --peer: see causeway link list.")
            }
            return link.peer
        }
    }

    static func show(_ link: Link, _ output: OutputFormat) throws {
        if output == .json { return try Terminal.json(link) }
        var table = Table([
            .init("when"), .init("total", isNumber: true), .init("demand", isNumber: true), .init("write-behind", isNumber: true),
        ])
        func add(_ when: String, _ rates: LinkRates) {
            let texts = [
                rates.totalBytesPerSecond, rates.demandBytesPerSecond, rates.writeBehindBytesPerSecond,
            ].map { $0.map(Human.bitRate) ?? "-" }
            table.add(when, texts[0], texts[1], texts[2])
        }
        add("now", link.ratesInForce)
        for entry in link.shaping.schedule {
            let days = entry.days.map { $0.map { String($0.rawValue.prefix(3)) }.joined(separator: ",") } ?? "daily"
            add("\(days) \(entry.from)-\(entry.until)", entry.rates)
        }
        add("otherwise", link.shaping.rates)
        Terminal.print(table.text)
    }
}

extension APIClient {
    fileprivate func changeLink(_ peer: String, _ change: LinkChange) async throws -> Link {
        try await patch("/v1/links/\(Self.part(peer))", change)
    }
}
