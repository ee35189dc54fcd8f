import APIModels
import Foundation

/// A pair of real daemons on this machine, started by the CLI as a user would.
final class Lab {
    struct Description: Decodable {
        struct Edge: Decodable {
            var api: String
            var token: String
            var pid: Int32
            var config: String
            var state: String
        }
        struct Relay: Decodable {
            struct Addresses: Decodable {
                var home: String
                var namespace: String
            }
            var pid: Int32
            var control: String
            /// With `--wan packets`.
            var addresses: Addresses?
        }
        struct Volume: Decodable {
            var name: String
            var url: String
            var nbd: String?
            var disk: String
        }
        var onprem: Edge
        var cloud: Edge
        var relay: Relay?
        var volumes: [Volume]
    }

    enum Side { case onprem, cloud }

    let directory: URL
    private(set) var description: Description
    /// The file system under the cloud edge's state, if it has one of its own.
    let fileSystem: LabFileSystem?
    /// Daemons that this test started itself, in place of killed ones.
    private var restarted: [RunningCommand] = []

    /// A directory for one test; removed by `down`.
    static func makeDirectory() throws -> URL {
        let directory = FileManager.default.temporaryDirectory.appendingPathComponent("causeway-e2e-\(UUID().uuidString.prefix(8))")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        return directory
    }

    /// Makes a file of random bytes, of which no block is equal to another: the cache stores equal ones once.
    static func makeNoise(in directory: URL, named name: String = "noise", mebibytes: Int) throws -> String {
        let file = directory.appendingPathComponent(name)
        let source = try FileHandle(forReadingFrom: URL(fileURLWithPath: "/dev/urandom"))
        defer { try? source.close() }
        guard let bytes = try source.read(upToCount: mebibytes << 20), bytes.count == mebibytes << 20 else {
            throw CommandFailure(description: "/dev/urandom gave too little")
        }
        try bytes.write(to: file)
        return file.path
    }

    /// Starts a pair that serves `disks` (name to path), of which some are yet to be made on the file system.
    static func up(
        in directory: URL, disks: [(name: String, path: String)], options: [String] = [], fileSystem: LabFileSystem? = nil,
        making made: [(path: String, bytes: Int)] = []
    ) async throws -> Lab {
        var arguments = ["lab", "up", "--directory", directory.appendingPathComponent("lab").path, "--detach", "--output", "json"]
        for disk in disks { arguments += ["--disk", "\(disk.name)=\(disk.path)"] }
        var start = (program: "causeway", arguments: arguments + options)
        if let fileSystem { start = fileSystem.start([Command.path(of: start.program)] + start.arguments, disks: made) }
        let output = try await Command.check(start.program, start.arguments, seconds: 120)
        let description = try JSONDecoder().decode(Description.self, from: Data(output.utf8))
        return Lab(directory: directory, description: description, fileSystem: fileSystem)
    }

    private init(directory: URL, description: Description, fileSystem: LabFileSystem?) {
        self.directory = directory
        self.description = description
        self.fileSystem = fileSystem
    }

    /// Runs `body` with a lab, which serves disks of holes and copies of images, and takes it down whatever happens.
    /// With `stateMebibytes` a file system of that size is under the state of an edge; at home the disks are on it too.
    static func with(
        disks: [(name: String, bytes: Int)], copies: [(name: String, image: String)] = [], options: [String] = [],
        stateMebibytes: Int? = nil, under place: LabFileSystem.Place = .cloud, _ body: (Lab) async throws -> Void
    ) async throws {
        let directory = try makeDirectory()
        var fileSystem: LabFileSystem?
        if let stateMebibytes { fileSystem = try await LabFileSystem(in: directory, mebibytes: stateMebibytes, under: place) }
        var paths: [(name: String, path: String)] = []
        var made: [(path: String, bytes: Int)] = []
        for disk in disks {
            if let fileSystem, place == .home {
                made.append(("\(fileSystem.mountPoint)/\(disk.name).img", disk.bytes))
                paths.append((disk.name, "\(fileSystem.mountPoint)/\(disk.name).img"))
                continue
            }
            let path = directory.appendingPathComponent("\(disk.name).img").path
            _ = FileManager.default.createFile(atPath: path, contents: nil)
            guard truncate(path, disk.bytes) == 0 else { throw CommandFailure(description: "can't make \(path)") }
            paths.append((disk.name, path))
        }
        for copy in copies {
            let path = directory.appendingPathComponent("\(copy.name).img").path
            try await Command.check("cp", ["--sparse=always", copy.image, path])
            paths.append((copy.name, path))
        }
        let lab = try await up(in: directory, disks: paths, options: options, fileSystem: fileSystem, making: made)
        do {
            try await body(lab)
        } catch {
            let logs = lab.logTails()
            await lab.down(force: true)
            throw CommandFailure(description: "\(error)\n\(logs)")
        }
        await lab.down(force: false)
    }

    func edge(_ side: Side) -> Description.Edge { side == .onprem ? description.onprem : description.cloud }
    func volume(_ name: String) -> Description.Volume? { description.volumes.first { $0.name == name } }
    func url(_ name: String) -> String { volume(name)?.url ?? "" }
    /// The NBD URL, in a lab with `--nbd`.
    func nbd(_ name: String) -> String { volume(name)?.nbd ?? "" }
    /// The disk at home; where only the lab's processes see it, by the cloud edge.
    func disk(_ name: String) -> String {
        guard let fileSystem, fileSystem.place == .home else { return directory.appendingPathComponent("\(name).img").path }
        return "/proc/\(edge(.cloud).pid)/root\(fileSystem.mountPoint)/\(name).img"
    }

    /// Runs the CLI against one side.
    @discardableResult
    func causeway(_ side: Side, _ arguments: String..., seconds: Double = 120) async throws -> CommandResult {
        try await causeway(side, arguments: arguments, seconds: seconds)
    }

    func causeway(_ side: Side, arguments: [String], seconds: Double = 120) async throws -> CommandResult {
        let edge = edge(side)
        return try await Command.run(
            "causeway", arguments, environment: ["CAUSEWAY_API": edge.api, "CAUSEWAY_TOKEN": edge.token], seconds: seconds)
    }

    /// A volume as the cloud edge's API shows it.
    func status(_ name: String) async throws -> APIModels.Volume {
        let result = try await causeway(.cloud, "volume", "show", name, "--output", "json")
        guard result.isSuccess else { throw CommandFailure(description: result.description) }
        return try APICoding.decoder().decode(APIModels.Volume.self, from: Data(result.output.utf8))
    }

    /// The links of an edge, as its API shows them.
    func links(_ side: Side) async throws -> [Link] {
        let result = try await causeway(side, "link", "list", "--output", "json")
        guard result.isSuccess else { throw CommandFailure(description: result.description) }
        return try APICoding.decoder().decode([Link].self, from: Data(result.output.utf8))
    }

    /// Seals, and waits until the point is on the disk at home.
    func seal(_ name: String, seconds: Double = 120) async throws {
        let result = try await causeway(.cloud, "volume", "seal", name, "--wait", seconds: seconds)
        guard result.isSuccess else { throw CommandFailure(description: result.description) }
    }

    /// Waits until home has all that was written to a volume, however much that is, as long as it becomes less.
    func untilCaughtUp(_ name: String, stalledSeconds: Double = 180) async throws {
        var (least, deadline) = (UInt64.max, ContinuousClock.now + .seconds(stalledSeconds))
        while let unsent = try await status(name).unsent, unsent.bytes > 0 {
            if unsent.bytes < least { (least, deadline) = (unsent.bytes, ContinuousClock.now + .seconds(stalledSeconds)) }
            guard ContinuousClock.now < deadline else {
                throw CommandFailure(description: "\(name): \(unsent.bytes) bytes are not home, and were no less for \(stalledSeconds) s")
            }
            try await Task.sleep(for: .milliseconds(250))
        }
    }

    /// Reads a volume through the target, and compares its start with a file.
    func check(_ name: String, hasAtItsStart file: String) async throws {
        let copy = directory.appendingPathComponent("copy-of-\(name)").path
        try await Command.check("qemu-img", ["convert", "-f", "raw", "-O", "raw", url(name), copy], seconds: 60)
        let byteCount = try FileManager.default.attributesOfItem(atPath: file)[.size] as? Int ?? .max
        try await Command.check("cmp", ["-n", "\(byteCount)", copy, file])
    }

    /// Says something to the WAN relay, and returns what it answers.
    @discardableResult
    func relay(_ line: String) async throws -> String {
        guard let control = description.relay?.control else { throw CommandFailure(description: "this lab has no relay") }
        return try await Self.say(line, to: control)
    }

    /// Says something to the control port of a relay.
    @discardableResult
    static func say(_ line: String, to control: String) async throws -> String {
        let parts = control.split(separator: ":")
        let script =
            "import socket,sys; s=socket.create_connection((sys.argv[1],int(sys.argv[2])),5); s.sendall((sys.argv[3]+'\\n').encode()); print(s.recv(65536).decode())"
        return try await Command.check("python3", ["-c", script, String(parts[0]), String(parts[1]), line], seconds: 20)
    }

    /// Ends a daemon by a signal, and waits until it is gone.
    func kill(_ side: Side, by signal: Int32 = SIGKILL) async throws {
        let pid = edge(side).pid
        _ = Glibc.kill(pid, signal)
        if let own = restarted.first(where: { $0.processIdentifier == pid }) {
            _ = try? await own.wait(seconds: 20)
            return
        }
        try await Self.untilTrue(seconds: 20, "process \(pid) to end") { Self.hasEnded(pid) }
    }

    /// Starts a daemon again by its configuration file and waits until it is healthy.
    @discardableResult
    func restart(_ side: Side, waitUntilHealthy: Bool = true) async throws -> RunningCommand {
        var start = (program: "causewayd", arguments: ["--config", edge(side).config])
        if fileSystem != nil {
            // Where the other edge is, there is the file system too.
            let other = edge(side == .cloud ? .onprem : .cloud).pid
            start = ("nsenter", ["--mount", "--target", "\(other)", Command.path(of: start.program)] + start.arguments)
        }
        if side == .onprem, let namespace = description.relay?.addresses?.namespace {
            start = ("causeway", ["line", "enter", namespace, Command.path(of: start.program)] + start.arguments)
        }
        let running = try Command.start(start.program, start.arguments)
        restarted.append(running)
        switch side {
        case .onprem: description.onprem.pid = running.processIdentifier
        case .cloud: description.cloud.pid = running.processIdentifier
        }
        guard waitUntilHealthy else { return running }
        try await Self.untilTrue(seconds: 60, "the \(side) edge to be healthy") { [self] in
            if !running.isRunning { throw CommandFailure(description: "the \(side) edge ended: \(try await running.wait(seconds: 1))") }
            return (try? await causeway(side, "status", seconds: 10).isSuccess) ?? false
        }
        return running
    }

    /// Waits until the cloud edge serves a volume.
    func untilServing(_ name: String, seconds: Double = 60) async throws {
        try await Self.untilTrue(seconds: seconds, "volume \(name) to be served") { [self] in
            (try? await status(name).state == .serving) ?? false
        }
    }

    func down(force: Bool) async {
        _ = try? await Command.run(
            "causeway", ["lab", "down", "--directory", directory.appendingPathComponent("lab").path] + (force ? ["--force"] : []),
            seconds: 120)
        for running in restarted where running.isRunning { running.signal(SIGKILL) }
        for running in restarted { _ = try? await running.wait(seconds: 20) }
        for pid in [description.onprem.pid, description.cloud.pid, description.relay?.pid].compactMap({ $0 })
        where !Self.hasEnded(pid) {
            _ = Glibc.kill(pid, SIGKILL)
        }
        try? FileManager.default.removeItem(at: directory)
    }

    func logTails() -> String {
        ["onprem.log", "cloud.log"].map { name in
            let path = directory.appendingPathComponent("lab/\(name)").path
            let text = (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""
            return "--- \(name)\n" + text.split(separator: "\n").suffix(25).joined(separator: "\n")
        }.joined(separator: "\n")
    }

    /// Resident memory of a daemon in KiB.
    func residentKiB(_ side: Side) -> Int {
        let text = (try? String(contentsOfFile: "/proc/\(edge(side).pid)/status", encoding: .utf8)) ?? ""
        let line = text.split(separator: "\n").first { $0.hasPrefix("VmRSS:") }
        return line.flatMap { Int($0.split(separator: " ").dropFirst().first ?? "") } ?? 0
    }

    /// True when nothing of the process is left: it is gone, or waits to be reaped with no thread behind it. The first thread can be a
    /// zombie while others still end, and until the last of them has, the locks and ports of the process are held.
    static func hasEnded(_ pid: Int32) -> Bool {
        let stat = (try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8)) ?? ""
        guard let state = stat.split(separator: ")").last?.split(separator: " ").first else { return true }
        let threads = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/task").count) ?? 0
        return state == "Z" && threads <= 1
    }

    /// Another process's state has no event to wait for: it is looked at until the deadline.
    static func untilTrue(seconds: Double, _ what: String, _ condition: () async throws -> Bool) async throws {
        let deadline = ContinuousClock.now + .seconds(seconds)
        while ContinuousClock.now < deadline {
            if try await condition() { return }
            try await Task.sleep(for: .milliseconds(50))
        }
        throw CommandFailure(description: "waited \(seconds) s for \(what)")
    }
}
