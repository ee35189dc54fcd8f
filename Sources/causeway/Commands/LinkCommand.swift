import APIModels
import ArgumentParser
import EdgeConfiguration

struct LinkCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "link", abstract: "The encrypted connections between edges.",
        subcommands: [List.self, History.self, Limit.self, Schedule.self, Unschedule.self],
        defaultSubcommand: List.self)

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List the links, with what passed over them.")

        @OptionGroup var connection: ConnectionOptions

        func run() async throws {
            let links: [Link] = try await connection.client().list("/v1/links")
            if connection.output == .json { return try Terminal.json(links) }
            Terminal.print(LinkCommand.table(links))
        }
    }

    static func table(_ links: [Link]) -> String {
        var table = Table([
            .init("peer"), .init("link"), .init("since"), .init("connections", isNumber: true),
            .init("round trip", isNumber: true), .init("loss", isNumber: true),
            .init("sent", isNumber: true), .init("received", isNumber: true), .init("reconnects", isNumber: true),
            .init("last error"),
        ])
        for link in links {
            table.add(
                link.peer, link.state.rawValue, Human.ago(link.since), String(link.connections),
                Human.milliseconds(link.roundTripMilliseconds), link.line.map { Human.percent($0.lossShare) },
                Human.bytes(link.traffic.reduce(0) { $0 &+ $1.sentWireBytes }),
                Human.bytes(link.traffic.reduce(0) { $0 &+ $1.receivedWireBytes }), String(link.reconnects), link.lastError)
        }
        return table.text
    }
}
