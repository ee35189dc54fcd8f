import Foundation

/// What a finished program left behind.
struct CommandResult: CustomStringConvertible {
    let command: String
    let status: Int32
    let output: String
    let errors: String

    var isSuccess: Bool { status == 0 }
    var description: String { "\(command)\nstatus \(status)\n\(output)\(errors)" }
}

struct CommandFailure: Error, CustomStringConvertible {
    let description: String
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
        let process = Process()
        process.executableURL = URL(fileURLWithPath: path(of: program))
        process.arguments = arguments
        process.environment = ProcessInfo.processInfo.environment.merging(environment) { _, new in new }
        return try RunningCommand(process, name: ([program] + arguments).joined(separator: " "), input: input)
    }
}

/// A program that was started and has its output collected in files, so that no pipe can fill up.
final class RunningCommand: @unchecked Sendable {
    // The process is only touched by `wait`, `kill` and `isRunning`, which Foundation allows from any thread.
    private let process: Process
    private let name: String
    private let directory: URL
    private let ended: AsyncStream<Int32>
    private let continuation: AsyncStream<Int32>.Continuation

    fileprivate init(_ process: Process, name: String, input: String?) throws {
        self.process = process
        self.name = name
        directory = FileManager.default.temporaryDirectory.appendingPathComponent("causeway-command-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        for file in ["out", "err", "in"] {
            _ = FileManager.default.createFile(atPath: directory.appendingPathComponent(file).path, contents: Data((input ?? "").utf8))
        }
        process.standardOutput = try FileHandle(forWritingTo: directory.appendingPathComponent("out"))
        process.standardError = try FileHandle(forWritingTo: directory.appendingPathComponent("err"))
        process.standardInput = try FileHandle(forReadingFrom: directory.appendingPathComponent("in"))
        let (stream, continuation) = AsyncStream.makeStream(of: Int32.self)
        ended = stream
        self.continuation = continuation
        process.terminationHandler = { process in
            continuation.yield(process.terminationReason == .exit ? process.terminationStatus : 128 + process.terminationStatus)
            continuation.finish()
        }
        try Self.runWithSignals(process)
    }

    /// A thread of a pool has its signals blocked, and a child inherits that: SIGTERM would never reach it, nor its children.
    private static func runWithSignals(_ process: Process) throws {
        var (none, before) = (sigset_t(), sigset_t())
        sigemptyset(&none)
        pthread_sigmask(SIG_SETMASK, &none, &before)
        defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
        try process.run()
    }

    var processIdentifier: Int32 { process.processIdentifier }
    var isRunning: Bool { process.isRunning }

    func signal(_ number: Int32) { _ = kill(process.processIdentifier, number) }

    func wait(seconds: Double) async throws -> CommandResult {
        let watchdog = Task { [process, continuation] in
            try await Task.sleep(for: .seconds(seconds))
            if process.isRunning { kill(process.processIdentifier, SIGKILL) }
            // Foundation notices the end of a process only when its children have ended too.
            try await Task.sleep(for: .seconds(2))
            continuation.yield(128 + SIGKILL)
            continuation.finish()
        }
        var status: Int32 = -1
        for await value in ended { status = value }
        watchdog.cancel()
        defer { try? FileManager.default.removeItem(at: directory) }
        let output = (try? String(contentsOf: directory.appendingPathComponent("out"), encoding: .utf8)) ?? ""
        let errors = (try? String(contentsOf: directory.appendingPathComponent("err"), encoding: .utf8)) ?? ""
        if status == 128 + SIGKILL { throw CommandFailure(description: "\(name) was killed after \(seconds) s\n\(output)\(errors)") }
        return CommandResult(command: name, status: status, output: output, errors: errors)
    }
}
