import ArgumentParser
import Glibc
import LoadGenerator

@main
struct CausewayLoad: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "causeway-load",
        abstract: "Puts load on iSCSI volumes, and checks what they remember.",
        discussion: """
            Exit status: 0 all went well, 1 verification found a wrong sector, 2 an I/O or a file failed, 64 wrong usage.
            """,
        subcommands: [RunCommand.self, VerifyCommand.self])

    static func main() {
        do {
            var command = try parse()
            try command.run()
        } catch {
            exit(withError: error)
        }
    }

    private static func parse() throws -> any ParsableCommand {
        do {
            return try parseAsRoot()
        } catch {
            guard exitCode(for: error) == .validationFailure, let negative = NegativeArgument(in: CommandLine.arguments.dropFirst()) else {
                throw error
            }
            throw ValidationError("\(negative)")
        }
    }
}

/// The exit statuses that are ours.
enum LoadExit {
    static let verificationFailed = ExitCode(1)
    static let inputOutputFailed = ExitCode(2)
}

/// What ends a run with status 2, in words for the operator.
struct LoadError: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }

    /// An error of a system call on a file.
    static func system(_ call: String, _ path: String) -> LoadError {
        LoadError("\(call) \(path): \(String(cString: strerror(errno)))")
    }
}

/// The monotonic clock.
@inline(__always)
func monotonicNanoseconds() -> UInt64 {
    var now = timespec()
    clock_gettime(CLOCK_MONOTONIC, &now)
    return UInt64(now.tv_sec) &* 1_000_000_000 &+ UInt64(now.tv_nsec)
}

/// Writes a line for people.
func printError(_ text: String) {
    let line = text + "\n"
    _ = line.withCString { write(STDERR_FILENO, $0, strlen($0)) }
}

/// A URL without its secret.
func withoutSecret(_ url: String) -> String {
    guard let at = url.lastIndex(of: "@"), let percent = url[..<at].firstIndex(of: "%") else { return url }
    return String(url[..<percent]) + "%…" + String(url[at...])
}
