import APIModels
import Foundation

/// How the program ends; documented in `docs/reference/cli.md`.
enum ExitStatus: Int32, Sendable {
    /// What was asked for was refused, or failed.
    case failed = 1
    /// No edge answers where one was expected.
    case unreachable = 2
    /// It goes on, but was not finished in the time that was given.
    case notInTime = 3
    /// The command line is wrong (EX_USAGE).
    case usage = 64
}

/// Why a command failed, and what to do.
struct CommandFailure: Error, Sendable {
    var status: ExitStatus
    var message: String
    var action: String?
    /// The problem document's code, when an edge refused.
    var code: String?

    init(_ message: String, action: String? = nil, status: ExitStatus = .failed, code: String? = nil) {
        self.status = status
        self.message = message
        self.action = action
        self.code = code
    }

    /// What an edge answered instead of doing what it was asked.
    init(_ problem: Problem) {
        // The detail of a wrong request is its wrong fields in one line, and the action names the list of them.
        let fields = (problem.errors ?? []).map { $0.field.isEmpty ? $0.message : "\($0.field): \($0.message)" }
        let message = fields.isEmpty ? problem.detail ?? problem.title : ([problem.title] + fields).joined(separator: "\n  ")
        self.init(message, action: fields.isEmpty ? problem.action : nil, code: problem.code)
    }
}
