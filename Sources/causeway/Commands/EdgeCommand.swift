import APIModels
import ArgumentParser

struct EdgeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "edge", abstract: "The edges that are paired with an edge.", subcommands: [List.self, Change.self, Revoke.self],
        defaultSubcommand: List.self)

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List the paired edges.")

        @OptionGroup var connection: ConnectionOptions

        func run() async throws {
            let edges: [PeerEdge] = try await connection.client().list("/v1/edges")
            if connection.output == .json { return try Terminal.json(edges) }
            var table = Table([
                .init("name"), .init("identifier"), .init("role"), .init("link"), .init("dialled at"), .init("last seen"), .init("paired"),
            ])
            for edge in edges {
                table.add(
                    edge.name, edge.identifier, edge.role.rawValue, edge.revoked ? "revoked" : edge.connected ? "up" : "down",
                    edge.address ?? "-", Human.ago(edge.lastSeen), Human.ago(edge.pairedAt))
            }
            Terminal.print(table.text)
        }
    }

    struct Change: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Change where a cloud edge is dialled, or that it dials.",
            discussion: "At the on-prem edge. A cloud edge that is dialled has link.listen in its configuration, one that dials has not.")

        @Argument(help: "The identifier of the edge, or its name when only one has it.")
        var edge: String

        @Option(help: ArgumentHelp("Dial the edge there from now on.", valueName: "host:port"))
        var connect: String?

        @Flag(help: "The edge dials: it is dialled no more.")
        var dials = false

        @OptionGroup var connection: ConnectionOptions

        func validate() throws {
            if (connect != nil) == dials { throw ValidationError("Say either --connect HOST:PORT or --dials.") }
        }

        func run() async throws {
            let client = try connection.client()
            let found = try await EdgeCommand.find(edge, client)
            let changed: PeerEdge = try await client.patch(
                "/v1/edges/\(APIClient.part(found.identifier))", EdgeChange(address: connect, dials: dials ? true : nil))
            if connection.output == .json { return try Terminal.json(changed) }
            Terminal.print(
                "\(changed.name) (\(changed.identifier)) \(changed.address.map { "is dialled at \($0)" } ?? "dials")")
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
            let victim = try await EdgeCommand.find(edge, client)
            try await client.delete("/v1/edges/\(APIClient.part(victim.identifier))")
            if connection.output == .json { return try Terminal.json(["revoked": victim.identifier]) }
            Terminal.print("revoked \(victim.name) (\(victim.identifier))")
        }
    }

    /// The edge of that identifier, or the one of that name that is not revoked.
    private static func find(_ edge: String, _ client: APIClient) async throws -> PeerEdge {
        let edges: [PeerEdge] = try await client.list("/v1/edges")
        let found = edges.filter { $0.identifier == edge || ($0.name == edge && !$0.revoked) }
        guard let first = found.first else {
            throw CommandFailure("no paired edge is called “\(edge)”", action: "See causeway edge list.")
        }
        guard found.count == 1 else {
            throw CommandFailure(
                "\(found.count) edges are called “\(edge)”", action: "Name it by its identifier: see causeway edge list.")
        }
        return first
    }
}
