import APIModels
import Foundation
import Hummingbird
import HummingbirdTesting
import Logging
import Synchronization
import Testing

@testable import ManagementAPI

/// What the log has of requests that failed: enough to look for the cause, and no name that a customer gave (invariant 5).
@Suite struct RequestLogTests {
    /// All that a logger was told.
    private final class Lines: Sendable {
        let text = Mutex("")
    }

    private struct Handler: LogHandler {
        let lines: Lines
        var metadata: Logger.Metadata = [:]
        var logLevel = Logger.Level.trace

        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }

        func log(event: LogEvent) {
            lines.text.withLock { $0 += "\(event.level) \(event.message) \(event.metadata ?? [:])\n" }
        }
    }

    /// An error that names what it is about, as those of files and volumes do.
    private enum Failure: Error, CustomStringConvertible {
        case broken(path: String)

        var description: String { "payroll-disk is broken" }
    }

    private func logged(failure: any Error) async throws -> String {
        let lines = Lines()
        let api = TestAPI(logger: Logger(label: "test") { _ in Handler(lines: lines) })
        api.controller.state.withLock { $0.failure = failure }
        #expect(try await api.send(.get, "/v1/edge").status.code >= 500)
        return lines.text.withLock { $0 }
    }

    @Test func namesStayOutOfTheLog() async throws {
        let problem = Problem(
            status: 503, code: "link_down", title: "The volume could not do it", detail: "volume payroll-disk: the link is down",
            action: "look at `causeway volume show payroll-disk`")
        for failure in [problem, APIError(problem), Failure.broken(path: "/srv/payroll-disk.img")] as [any Error] {
            let text = try await logged(failure: failure)
            #expect(text.contains("request failed") && text.contains("/v1/edge"), "\(text)")
            #expect(!text.contains("payroll"), "\(text)")
        }
        #expect(try await logged(failure: problem).contains("link_down"))
        // Of an error of our own the kind is told, which says where to look.
        #expect(try await logged(failure: Failure.broken(path: "payroll")).contains("Failure.broken"))
    }
}
