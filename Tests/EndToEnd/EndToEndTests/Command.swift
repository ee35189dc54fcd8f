import Foundation
import Synchronization

/// What a finished program left behind.
struct CommandResult: CustomStringConvertible {
    let command: String
    let status: Int32
    let output: String
    let errors: String

    var isSuccess: Bool { status == 0 }
    var description: String { "\(command)\nstatus \(status)\n\(output)\(errors)".withoutSecrets }
}

struct CommandFailure: Error, CustomStringConvertible {
    let description: String
    init(description: String) { self.description = description.withoutSecrets }
}

extension String {
    /// The text as it may stand in a test's output: CHAP secrets in URLs, `iscsi://user%secret@host`, are left out.
    var withoutSecrets: String { replacing(/(iscsi:\/\/[^%@\s]+)%[^@\s]+@/) { "\($0.1)%...@" } }
}

/// A program of this package or of Debian's, run as a user would run it.
struct Command {
    /// Where the executables of this package are: beside the test bundle.
    static let buildDirectory: URL = {
        var url = URL(fileURLWithPath: CommandLine.arguments[0]).resolvingSymlinksInPath()
        while url.path != "/" {
            url.deleteLastPathComponent()
            if FileManager.default.isExecutableFile(atPath: url.appendingPathComponent("causewayd").path) { return url }
        }
        return URL(fileURLWithPath: ".build/debug").absoluteURL
    }()

    static func path(of program: String) -> String {
        let own = buildDirectory.appendingPathComponent(program).path
        if FileManager.default.isExecutableFile(atPath: own) { return own }
        for directory in (ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin").split(separator: ":") {
            let path = "\(directory)/\(program)"
            if FileManager.default.isExecutableFile(atPath: path) { return path }
        }
        return program
    }

    /// Runs a program to its end, or kills it when its time is over, which is a failure.
    @discardableResult
    static func run(
        _ program: String, _ arguments: [String], environment: [String: String] = [:], input: String? = nil, seconds: Double = 120
    ) async throws -> CommandResult {
        let running = try Command.start(program, arguments, environment: environment, input: input)
        return try await running.wait(seconds: seconds)
    }

    /// Runs a program and demands that it succeeds.
    @discardableResult
    static func check(
        _ program: String, _ arguments: [String], environment: [String: String] = [:], seconds: Double = 120
    ) async throws -> String {
        let result = try await run(program, arguments, environment: environment, seconds: seconds)
        guard result.isSuccess else { throw CommandFailure(description: result.description) }
        return result.output
    }

    /// Starts a program whose end is waited for later.
    static func start(
        _ program: String, _ arguments: [String], environment: [String: String] = [:], input: String? = nil
    ) throws -> RunningCommand {
        try RunningCommand(
            path(of: program), arguments, environment: ProcessInfo.processInfo.environment.merging(environment) { _, new in new },
            name: ([program] + arguments).joined(separator: " "), input: input)
    }
}

/// A program that was started and has its output collected in files, so that no pipe can fill up.
///
/// It is started by posix_spawn: Foundation's Process gives it the blocked signals of the thread that starts it, hears of its end
/// only when its children have ended too, and has crashed in its own `run`.
final class RunningCommand: Sendable {
    private let name: String
    private let directory: URL
    let processIdentifier: pid_t
    private let ended: AsyncStream<Int32>
    private let hasEnded = Mutex(false)

    fileprivate init(_ path: String, _ arguments: [String], environment: [String: String], name: String, input: String?) throws {
        self.name = name
        directory = FileManager.default.temporaryDirectory.appendingPathComponent("causeway-command-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        try Data((input ?? "").utf8).write(to: directory.appendingPathComponent("in"))
        processIdentifier = try Self.spawn(path, arguments, environment, directory)
        let (stream, continuation) = AsyncStream.makeStream(of: Int32.self)
        ended = stream
        Thread.detachNewThread { [self] in
            var status: Int32 = 0
            while waitpid(processIdentifier, &status, 0) < 0, errno == EINTR {}
            hasEnded.withLock { $0 = true }
            let signal = status & 0x7f
            continuation.yield(signal == 0 ? status >> 8 & 0xff : 128 + signal)
            continuation.finish()
        }
    }

    private static func spawn(_ path: String, _ arguments: [String], _ environment: [String: String], _ directory: URL) throws -> pid_t {
        var attributes = posix_spawnattr_t()
        var actions = posix_spawn_file_actions_t()
        posix_spawnattr_init(&attributes)
        posix_spawn_file_actions_init(&actions)
        defer {
            posix_spawnattr_destroy(&attributes)
            posix_spawn_file_actions_destroy(&actions)
        }
        // A thread of a pool has its signals blocked, and a child inherits that: SIGTERM would never reach it, nor its children.
        var noSignals = sigset_t()
        sigemptyset(&noSignals)
        posix_spawnattr_setsigmask(&attributes, &noSignals)
        var defaults = sigset_t()
        sigemptyset(&defaults)
        for signal in [SIGINT, SIGTERM, SIGPIPE, SIGHUP] { sigaddset(&defaults, signal) }
        posix_spawnattr_setsigdefault(&attributes, &defaults)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK) | Int16(POSIX_SPAWN_SETSIGDEF))
        let (input, output, errors) = (
            directory.appendingPathComponent("in").path, directory.appendingPathComponent("out").path,
            directory.appendingPathComponent("err").path
        )
        posix_spawn_file_actions_addopen(&actions, 0, input, O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&actions, 1, output, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        posix_spawn_file_actions_addopen(&actions, 2, errors, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        // What this process has open is not for others.
        for descriptor in (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")) ?? [] {
            if let number = Int32(descriptor), number > 2 { _ = fcntl(number, F_SETFD, FD_CLOEXEC) }
        }
        var words: [UnsafeMutablePointer<CChar>?] = ([path] + arguments).map { strdup($0) } + [nil]
        var variables: [UnsafeMutablePointer<CChar>?] = environment.map { strdup("\($0.key)=\($0.value)") } + [nil]
        defer { for word in words + variables { free(word) } }
        var identifier: pid_t = 0
        let code = posix_spawn(&identifier, path, &actions, &attributes, &words, &variables)
        guard code == 0 else {
            throw CommandFailure(description: "\(path) cannot be started: \(String(cString: strerror(code)))")
        }
        return identifier
    }

    var isRunning: Bool { !hasEnded.withLock { $0 } }

    /// Sends a signal, unless the program has ended and its number may be another's.
    func signal(_ number: Int32) {
        hasEnded.withLock { ended in
            if !ended { _ = kill(processIdentifier, number) }
        }
    }

    func wait(seconds: Double) async throws -> CommandResult {
        let isOverdue = Mutex(false)
        let watchdog = Task { [self] in
            try await Task.sleep(for: .seconds(seconds))
            isOverdue.withLock { $0 = true }
            signal(SIGKILL)
        }
        var status: Int32 = -1
        for await value in ended { status = value }
        watchdog.cancel()
        defer { try? FileManager.default.removeItem(at: directory) }
        let output = (try? String(contentsOf: directory.appendingPathComponent("out"), encoding: .utf8)) ?? ""
        let errors = (try? String(contentsOf: directory.appendingPathComponent("err"), encoding: .utf8)) ?? ""
        if isOverdue.withLock({ $0 }) { throw CommandFailure(description: "\(name) was killed after \(seconds) s\n\(output)\(errors)") }
        return CommandResult(command: name, status: status, output: output, errors: errors)
    }
}
