import APIModels
import ArgumentParser

struct EdgeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "edge", abstract: "The edges that are paired with an edge.", subcommands: [List.self, Revoke.self],
        defaultSubcommand: List.self)

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List the paired edges.")

        @OptionGroup var connection: ConnectionOptions

        func run() async throws {
            let edges: [PeerEdge] = try await connection.client().list("/v1/edges")
            if connection.output == .json { return try Terminal.json(edges) }
            var table = Table([
                .init("name"), .init("identifier"), .init("role"), .init("link"), .init("last seen"), .init("paired"),
            ])
            for edge in edges {
                table.add(
                    edge.name, edge.identifier, edge.role.rawValue, edge.revoked ? "revoked" : edge.connected ? "up" : "down",
                    Human.ago(edge.lastSeen), Human.ago(edge.pairedAt))
            }
            Terminal.print(table.text)
        }
    }

    struct Revoke: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Revoke an edge's certificate and cut its link; only a new pairing lets it in again.")

        @Argument(help: "The identifier of the edge, or its name when only one has it.")
        var edge: String

        @OptionGroup var connection: ConnectionOptions

        func run() async throws {
            let client = try connection.client()
            let edges: [PeerEdge] = try await client.list("/v1/edges")
            let found = edges.filter { $0.identifier == edge || ($0.name == edge && !$0.revoked) }
            guard let victim = found.first else {
                throw CommandFailure("no paired edge is called “\(edge)”", action: "See causeway edge list.")
            }
            guard found.count == 1 else {
                throw CommandFailure(
                    "\(found.count) edges are called “\(edge)”", action: "Name it by its identifier: see causeway edge list.")
            }
            try await client.delete("/v1/edges/\(APIClient.part(victim.identifier))")
            if connection.output == .json { return try Terminal.json(["revoked": victim.identifier]) }
            Terminal.print("revoked \(victim.name) (\(victim.identifier))")
        }
    }
}
