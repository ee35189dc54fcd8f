import APIModels
import ArgumentParser
import Foundation

struct PairCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pair", abstract: "Make a token with which one cloud edge can join this on-prem edge.",
        discussion: "The token goes to standard output and works once. Give it to causeway join at the cloud edge.")

    @Option(help: "How long it may be used, like 5m. (default: 15m)", transform: Quantities.duration)
    var expires: Duration = .seconds(15 * 60)

    @Option(
        help: ArgumentHelp(
            "Dial the cloud edge there, which has link.listen in its configuration. (default: the cloud edge dials)",
            valueName: "host:port"))
    var connect: String?

    @OptionGroup var connection: ConnectionOptions

    func run() async throws {
        let token: PairingToken = try await connection.client().post(
            "/v1/pairing/tokens", PairingTokenCreate(validSeconds: Int(clamping: expires.components.seconds), connect: connect))
        if connection.output == .json { return try Terminal.json(token) }
        Terminal.print(token.token)
        if Terminal.isInteractive {
            Terminal.error("Use it once before \(APICoding.string(token.expiresAt)), at the cloud edge: causeway join TOKEN")
        }
    }
}

struct JoinCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "join", abstract: "Join this cloud edge to the on-prem edge that made the token.")

    @Argument(help: "The token of causeway pair; - reads it from standard input.")
    var pairingToken: String

    @Option(help: "The name to be known by there. (default: the configured one)")
    var name: String?

    @Option(help: "Where the on-prem edge's link listens. (default: the configured address, or the token's)")
    var connect: String?

    @OptionGroup var connection: ConnectionOptions

    func run() async throws {
        let token = pairingToken == "-" ? readLine() ?? "" : pairingToken
        let body = JoinRequestBody(token: token.trimmingCharacters(in: .whitespacesAndNewlines), name: name, connect: connect)
        let peer: PeerEdge = try await connection.client().post("/v1/pairing/join", body)
        if connection.output == .json { return try Terminal.json(peer) }
        Terminal.print("joined \(peer.name) (\(peer.identifier))")
    }
}
