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
        var message = problem.detail ?? problem.title
        for field in problem.errors ?? [] { message += "\n  \(field.field): \(field.message)" }
        self.init(message, action: problem.action, code: problem.code)
    }
}
