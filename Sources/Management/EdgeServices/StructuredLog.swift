import APIModels
import EdgeConfiguration
import Foundation
import Logging
import NIOConcurrencyHelpers

/// Log lines on standard error: one line an entry, as text for people or as JSON for machines.
struct StructuredLog: LogHandler {
    var metadata: Logger.Metadata = [:]
    var logLevel: Logger.Level {
        get { ownLevel ?? level.withLockedValue { $0 } }
        set { ownLevel = newValue }
    }
    /// The level of this logger alone, where somebody has set one.
    private var ownLevel: Logger.Level?
    private let label: String
    private let format: Configuration.LogFormat
    /// Shared by all loggers, so that a reload of the configuration changes it everywhere.
    private let level: NIOLockedValueBox<Logger.Level>

    init(label: String, format: Configuration.LogFormat, level: NIOLockedValueBox<Logger.Level>) {
        self.label = label
        self.format = format
        self.level = level
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let all = metadata.merging(event.metadata ?? [:]) { _, new in new }
        let line: String
        switch format {
        case .text: line = text(event.level, event.message, all)
        case .json: line = json(event.level, event.message, all)
        }
        // One write a line, so that lines of several threads do not mix.
        try? FileHandle.standardError.write(contentsOf: Data((line + "\n").utf8))
    }

    private func text(_ level: Logger.Level, _ message: Logger.Message, _ metadata: Logger.Metadata) -> String {
        let fields = metadata.sorted { $0.key < $1.key }.map { " \($0.key)=\(quoted("\($0.value)"))" }.joined()
        return "\(APICoding.string(Date())) \(level.rawValue.uppercased()) \(label): \(oneLine("\(message)"))\(fields)"
    }

    private func quoted(_ value: String) -> String {
        let line = oneLine(value)
        return line.contains(" ") || line.isEmpty ? "\"\(line.replacing("\"", with: "'"))\"" : line
    }

    private func oneLine(_ text: String) -> String { text.replacing("\n", with: " ").replacing("\r", with: " ") }

    private func json(_ level: Logger.Level, _ message: Logger.Message, _ metadata: Logger.Metadata) -> String {
        var fields = metadata.mapValues { "\($0)" }
        fields["time"] = APICoding.string(Date())
        fields["level"] = level.rawValue
        fields["logger"] = label
        fields["message"] = "\(message)"
        let data = try? APICoding.encoder().encode(fields)
        return data.map { String(decoding: $0, as: UTF8.self) } ?? "{}"
    }
}
