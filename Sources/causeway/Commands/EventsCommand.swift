import APIModels
import ArgumentParser
import Foundation

struct EventsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "events", abstract: "Show what happened at an edge.",
        discussion: "With --output json each event is one line of JSON.")

    @Flag(name: .shortAndLong, help: "Go on with events as they happen, until Ctrl-C.")
    var follow = false

    @OptionGroup var connection: ConnectionOptions

    func run() async throws {
        let client = try connection.client()
        let events: [Event] = try await client.list("/v1/events")
        for event in events { try show(event) }
        var last = events.last?.sequence
        while follow {
            do {
                let lines = try await client.stream("/v1/events", lastEvent: last ?? 0)
                for try await line in lines {
                    guard line.hasPrefix("data:"), let event = Self.event(line.dropFirst(5)) else { continue }
                    if let last, event.sequence <= last { continue }
                    last = event.sequence
                    try show(event)
                }
            } catch let failure as CommandFailure where failure.status == .failed {
                throw failure
            } catch {
                // The edge restarts; what happened meanwhile comes when it is back.
            }
            try await Task.sleep(for: .seconds(1))
        }
    }

    private static func event(_ text: Substring) -> Event? {
        try? APICoding.decoder().decode(Event.self, from: Data(text.utf8))
    }

    private func show(_ event: Event) throws {
        if connection.output == .json {
            Terminal.print(String(decoding: try APICoding.encoder().encode(event), as: UTF8.self))
            return
        }
        let severity = event.severity == .info ? "" : event.severity.rawValue + ": "
        let subject = event.subject.map { " \($0)" } ?? ""
        Terminal.print("\(APICoding.string(event.time))  \(event.kind)\(subject)  \(severity)\(event.message)")
    }
}

struct MetricsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "metrics", abstract: "Show an edge's metrics in Prometheus' text format.")

    @OptionGroup var connection: ConnectionOptions

    func run() async throws {
        let text = try await connection.client().text("/metrics")
        if connection.output == .json { return try Terminal.json(["metrics": text]) }
        Terminal.print(text.hasSuffix("\n") ? String(text.dropLast()) : text)
    }
}
