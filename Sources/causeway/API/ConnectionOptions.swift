import ArgumentParser
import Foundation

/// How results are written.
enum OutputFormat: String, ExpressibleByArgument, CaseIterable, Sendable {
    /// For people.
    case table
    /// For programs: the API's own documents.
    case json
}

/// What every command takes.
struct OutputOptions: ParsableArguments {
    @Option(name: .shortAndLong, help: "How to write results: table or json.")
    var output: OutputFormat = .table
}

/// Which edge is asked.
struct EdgeOptions: ParsableArguments {
    @Option(help: "The address of the edge's API. (default: $CAUSEWAY_API, or http://127.0.0.1:7480)")
    var api: String?

    @Option(help: "Its bearer token. Others on this machine can see it: prefer --token-file or $CAUSEWAY_TOKEN.")
    var token: String?

    @Option(help: "The file that holds its bearer token.", completion: .file())
    var tokenFile: String?

    func validate() throws {
        if token != nil && tokenFile != nil { throw ValidationError("Give --token or --token-file, not both.") }
    }

    /// The edge that the options or the environment name.
    func client() throws -> APIClient {
        let environment = ProcessInfo.processInfo.environment
        return try APIClient(base: api ?? environment["CAUSEWAY_API"] ?? "http://127.0.0.1:7480", token: try bearer(environment))
    }

    private func bearer(_ environment: [String: String]) throws -> String? {
        if let token { return token }
        if let tokenFile { return try readSecret(tokenFile, what: "token") }
        return environment["CAUSEWAY_TOKEN"]
    }
}

/// What every command takes that asks an edge and shows what it answers.
struct ConnectionOptions: ParsableArguments {
    @OptionGroup var edge: EdgeOptions
    @OptionGroup var outputOptions: OutputOptions

    var output: OutputFormat { outputOptions.output }

    /// The edge that the options or the environment name.
    func client() throws -> APIClient { try edge.client() }
}

/// The one line of a file that holds a secret.
func readSecret(_ path: String, what: String) throws -> String {
    guard let data = FileManager.default.contents(atPath: path), let text = String(data: data, encoding: .utf8) else {
        throw CommandFailure("the \(what) file \(path) cannot be read", action: "Check the path and its permissions.")
    }
    let secret = text.trimmingCharacters(in: .whitespacesAndNewlines)
    guard !secret.isEmpty else { throw CommandFailure("the \(what) file \(path) is empty") }
    return secret
}
