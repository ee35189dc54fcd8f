import APIModels
import ArgumentParser
import Foundation

extension Tunnel.Precedence: ExpressibleByArgument {}

struct TunnelCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tunnel", abstract: "TCP services of one side that the other reaches over the link.",
        subcommands: [List.self, Show.self, Create.self, Delete.self], defaultSubcommand: List.self)

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List the tunnels.")

        @OptionGroup var connection: ConnectionOptions

        func run() async throws {
            let tunnels: [Tunnel] = try await connection.client().list("/v1/tunnels")
            if connection.output == .json { return try Terminal.json(tunnels) }
            var table = Table([
                .init("tunnel"), .init("direction"), .init("listen"), .init("connect"), .init("state"), .init("open", isNumber: true),
                .init("sent", isNumber: true), .init("received", isNumber: true),
            ])
            for tunnel in tunnels {
                table.add(
                    tunnel.name, tunnel.direction == .toHome ? "to home" : "to cloud", tunnel.listen ?? "-", tunnel.connect ?? "-",
                    tunnel.state.rawValue, String(tunnel.connections), Human.bytes(tunnel.sentBytes), Human.bytes(tunnel.receivedBytes))
            }
            Terminal.print(table.text)
            for tunnel in tunnels { if let message = tunnel.message { Terminal.print("\(tunnel.name): \(message)") } }
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Show one tunnel.")

        @Argument(help: "The name of the tunnel.")
        var name: String

        @OptionGroup var connection: ConnectionOptions

        func run() async throws {
            try TunnelCommand.show(try await connection.client().get("/v1/tunnels/\(APIClient.part(name))"), connection.output)
        }
    }

    struct Create: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Let a TCP service be reached over the link to a cloud edge.",
            discussion: """
                At the on-prem edge. Machines in the cloud connect to --listen at the cloud edge, and home connects each of them to --connect; \
                with --to-cloud it is the other way round.
                """)

        @Argument(help: "A name for it.")
        var name: String

        @Option(help: "The cloud edge, by identifier or name.")
        var edge: String

        @Option(help: ArgumentHelp("Where connections are taken.", valueName: "host:port"))
        var listen: String

        @Option(help: ArgumentHelp("The service, as the other edge reaches it.", valueName: "host:port"))
        var connect: String

        @Flag(help: "Home listens, for a service in the cloud.")
        var toCloud = false

        @Option(help: "interactive: ahead of points and long reads; bulk: behind all else.")
        var precedence: Tunnel.Precedence = .interactive

        @Option(
            help: ArgumentHelp(
                "A network from which clients may come, like 10.0.0.0/8; may be repeated. Not needed on loopback.", valueName: "network"))
        var allow: [String] = []

        @OptionGroup var connection: ConnectionOptions

        func run() async throws {
            let body = TunnelCreate(
                name: name, edge: edge, direction: toCloud ? .toCloud : .toHome, listen: listen, connect: connect, precedence: precedence,
                allow: allow.isEmpty ? nil : allow)
            try TunnelCommand.show(try await connection.client().post("/v1/tunnels", body), connection.output)
        }
    }

    struct Delete: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Remove a tunnel. Its connections are reset.")

        @Argument(help: "The name of the tunnel.")
        var name: String

        @OptionGroup var connection: ConnectionOptions

        func run() async throws {
            try await connection.client().delete("/v1/tunnels/\(APIClient.part(name))")
            if connection.output == .json { return try Terminal.json(["deleted": name]) }
            Terminal.print("removed \(name)")
        }
    }

    private static func show(_ tunnel: Tunnel, _ output: OutputFormat) throws {
        if output == .json { return try Terminal.json(tunnel) }
        var lines = [("tunnel", tunnel.name)]
        if let edge = tunnel.edge { lines.append(("edge", edge)) }
        lines.append(("direction", tunnel.direction == .toHome ? "to home" : "to cloud"))
        if let listen = tunnel.listen { lines.append(("listen", listen)) }
        if let connect = tunnel.connect { lines.append(("connect", connect)) }
        lines += [
            ("precedence", tunnel.precedence.rawValue), ("allow", tunnel.allow.joined(separator: ", ")),
            ("state", tunnel.state.rawValue + (tunnel.message.map { ": \($0)" } ?? "")),
            ("connections", "\(tunnel.connections) open, \(tunnel.connectionsTotal) in all, \(tunnel.refusedTotal) turned away"),
            ("traffic", "\(Human.bytes(tunnel.sentBytes)) sent, \(Human.bytes(tunnel.receivedBytes)) received"),
        ]
        Terminal.print(lines.map { $0.0.padding(toLength: 13, withPad: " ", startingAt: 0) + $0.1 }.joined(separator: "\n"))
    }
}
