import APIModels
import Logging
import ManagementAPI

/// Tells what happened: to the API's list and stream of events, and to the log.
struct EventRecorder: Sendable {
    let log: EventLog
    let logger: Logger

    /// Records an event.
    ///
    /// `logSubject` is what the log calls the subject, and `logMessage` what it says of a message with names: the cloud edge writes no
    /// customer's names to its disk.
    func record(
        _ kind: String, subject: String? = nil, logSubject: String? = nil, severity: Event.Severity = .info, _ message: String,
        logMessage: String? = nil
    ) {
        log.append(kind: kind, subject: subject, message: message, severity: severity)
        var metadata: Logger.Metadata = ["event": "\(kind)"]
        if let name = logSubject ?? subject { metadata["subject"] = "\(name)" }
        let level: Logger.Level =
            switch severity {
            case .info: .info
            case .warning: .warning
            case .error: .error
            }
        logger.log(level: level, "\(logMessage ?? message)", metadata: metadata)
    }

    /// Tells that a link has come up or gone down.
    /// - Parameter peer: what the link leads to, as a message calls it.
    func record(link change: LinkNotice.Change, peer: String, subject: String? = nil) {
        record(
            change.isConnected ? "link.up" : "link.down", subject: subject,
            severity: change.isConnected && change.count == 1 ? .info : .warning,
            "the link to \(peer) \(change.words)")
    }
}
