import Files
import Foundation

/// A daemon of a lab: one that we started, or one that somebody started again by its configuration file.
struct LabProcess: Sendable {
    let pid: Int32

    /// Starts a program in a session of its own, with its output at the end of a log file.
    static func start(_ executable: String, _ arguments: [String], log: String) throws -> LabProcess {
        var attributes = posix_spawnattr_t()
        var actions = posix_spawn_file_actions_t()
        posix_spawnattr_init(&attributes)
        posix_spawn_file_actions_init(&actions)
        defer {
            posix_spawnattr_destroy(&attributes)
            posix_spawn_file_actions_destroy(&actions)
        }
        // A signal that we ignore would stay ignored there.
        var defaults = sigset_t()
        sigemptyset(&defaults)
        for signal in [SIGINT, SIGTERM, SIGPIPE, SIGHUP] { sigaddset(&defaults, signal) }
        posix_spawnattr_setsigdefault(&attributes, &defaults)
        var noSignals = sigset_t()
        sigemptyset(&noSignals)
        posix_spawnattr_setsigmask(&attributes, &noSignals)
        // POSIX_SPAWN_SETSID, which glibc's header shows to GNU sources only.
        let newSession = 0x80
        posix_spawnattr_setflags(
            &attributes, Int16(truncatingIfNeeded: newSession | Int(POSIX_SPAWN_SETSIGDEF) | Int(POSIX_SPAWN_SETSIGMASK)))
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&actions, 1, log, O_WRONLY | O_CREAT | O_APPEND, 0o600)
        posix_spawn_file_actions_adddup2(&actions, 1, 2)
        keepDescriptorsToOurselves()
        var words: [UnsafeMutablePointer<CChar>?] = ([executable] + arguments).map { strdup($0) } + [nil]
        defer { for word in words { free(word) } }
        var pid: pid_t = 0
        let code = posix_spawn(&pid, executable, &actions, &attributes, &words, environ)
        guard code == 0 else {
            throw CommandFailure("\(executable) cannot be started: \(String(cString: strerror(code)))")
        }
        return LabProcess(pid: pid)
    }

    /// What our own parent left open for us is not for a daemon that outlives us both.
    private static func keepDescriptorsToOurselves() {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")) ?? []
        for descriptor in names.compactMap({ Int32($0) }) where descriptor > 2 { _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC) }
    }

    /// The daemon that runs with a configuration file, whoever started it. A wrapper that started it, as `timeout` or a shell, has the same words
    /// on its command line, and is another process.
    static func daemon(config: String, state: String) -> LabProcess? {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
        let candidates = names.compactMap { Int32($0) }.map(LabProcess.init).filter { $0.runs(with: config) }
        // Who has the state directory has its number there, unless that is in a file system which only the daemon sees.
        let holder = FileManager.default.contents(atPath: "\(state)/\(StateDirectoryLock.fileName)").flatMap {
            Int32(String(decoding: $0, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines))
        }
        return candidates.first { $0.pid == holder } ?? candidates.first(where: \.hasOptionsOnly)
    }

    /// Behind a wrapper's own name stand other words than options first: whom it starts.
    private var hasOptionsOnly: Bool { arguments.dropFirst().first?.hasPrefix("--config") ?? false }

    /// A process by its number, if one of its arguments is `argument`, so that a number that was given anew is not taken for ours.
    static func find(pid: Int32, argument: String) -> LabProcess? {
        let process = LabProcess(pid: pid)
        return process.isAlive && process.arguments.contains(argument) ? process : nil
    }

    /// True until it has ended; one that has ended and was not waited for counts as ended.
    var isAlive: Bool {
        var status: Int32 = 0
        // Ours are reaped here; for others this fails and tells nothing.
        if waitpid(pid, &status, WNOHANG) == pid { return false }
        guard let data = FileManager.default.contents(atPath: "/proc/\(pid)/stat") else { return false }
        // The name stands in brackets and may hold anything; the state is the word behind the last bracket.
        let text = String(decoding: data, as: UTF8.self)
        guard let bracket = text.lastIndex(of: ")") else { return false }
        let state = text[text.index(after: bracket)...].first { $0 != " " }
        guard state == "Z" || state == "X" else { return true }
        // The first thread may be gone while others still end; until the last of them has, locks and ports are held.
        return ((try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/task").count) ?? 0) > 1
    }

    func signal(_ number: Int32) { kill(pid, number) }

    /// Waits until it has ended; false when it has not by the deadline.
    func waitForExit(deadline: ContinuousClock.Instant) async -> Bool {
        while isAlive {
            if ContinuousClock.now >= deadline { return false }
            try? await Task.sleep(for: .milliseconds(20))
        }
        return true
    }

    private var arguments: [String] {
        guard let data = FileManager.default.contents(atPath: "/proc/\(pid)/cmdline") else { return [] }
        return data.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
    }

    /// True when it is alive, and `--config` on its command line names the file.
    func runs(with config: String) -> Bool {
        let words = arguments
        guard isAlive else { return false }
        let directory = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(pid)/cwd")) ?? "/"
        let wanted = URL(fileURLWithPath: config).resolvingSymlinksInPath().path
        return words.indices.contains { index in
            let path: String
            if words[index].hasPrefix("--config=") {
                path = String(words[index].dropFirst("--config=".count))
            } else if words[index] == "--config", index + 1 < words.count {
                path = words[index + 1]
            } else {
                return false
            }
            let base = URL(fileURLWithPath: directory, isDirectory: true)
            return URL(fileURLWithPath: path, relativeTo: base).resolvingSymlinksInPath().path == wanted
        }
    }
}
