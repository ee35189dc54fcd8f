import Foundation

/// Something that happened: an item of `GET /v1/events`, or the data of one server-sent event.
public struct Event: Codable, Sendable, Equatable {
    /// How much an operator should care.
    public enum Severity: String, Codable, Sendable, CaseIterable {
        case info, warning, error
    }

    /// Grows by at least one with each event of an edge, over restarts too; the identifier of the server-sent event.
    public var sequence: UInt64
    public var time: Date
    /// What happened, as words joined by dots: `link.up`, `volume.attached`, `edge.revoked`.
    public var kind: String
    /// What it happened to, as `noun/name`: `volume/mail`, `edge/1f3a…`; nil when to the edge itself.
    public var subject: String?
    /// One sentence for a human.
    public var message: String
    public var severity: Severity

    public init(sequence: UInt64, time: Date, kind: String, subject: String? = nil, message: String, severity: Severity = .info) {
        self.sequence = sequence
        self.time = time
        self.kind = kind
        self.subject = subject
        self.message = message
        self.severity = severity
    }
}

/// The answer of `GET /healthz`.
public struct Health: Codable, Sendable, Equatable {
    /// True with status 200, false with status 503.
    public var healthy: Bool
    public var state: EdgeStatus.State
    /// Why it is not healthy, one sentence each.
    public var problems: [String]

    public init(healthy: Bool, state: EdgeStatus.State, problems: [String] = []) {
        self.healthy = healthy
        self.state = state
        self.problems = problems
    }
}
