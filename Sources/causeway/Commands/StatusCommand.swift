import APIModels
import ArgumentParser

struct StatusCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "status", abstract: "Show an edge, its links and its volumes.")

    @OptionGroup var connection: ConnectionOptions

    private struct Document: Encodable {
        var edge: EdgeStatus
        var links: [Link]
        var volumes: [Volume]
    }

    func run() async throws {
        let client = try connection.client()
        let edge: EdgeStatus = try await client.get("/v1/edge")
        let links: [Link] = try await client.list("/v1/links")
        let volumes: [Volume] = try await client.list("/v1/volumes")
        if connection.output == .json {
            try Terminal.json(Document(edge: edge, links: links, volumes: volumes))
            return
        }
        Terminal.print(
            Table.details([
                ("edge", "\(edge.name) (\(edge.role.rawValue), \(edge.state.rawValue))"),
                ("identifier", edge.identifier.isEmpty ? "not paired yet" : edge.identifier),
                ("version", edge.version), ("started", Human.ago(edge.startedAt)), ("state", edge.stateDirectory),
                ("api", edge.addresses.api), ("link", edge.addresses.link),
                ("iscsi", edge.addresses.iscsi.isEmpty ? nil : edge.addresses.iscsi.joined(separator: ", ")),
                ("nbd", edge.addresses.nbd?.joined(separator: ", ")),
            ]))
        for warning in edge.warnings { Terminal.print("warning: \(warning)") }
        Terminal.print("\n" + LinkCommand.table(links))
        Terminal.print("\n" + VolumeCommand.table(volumes))
    }
}
