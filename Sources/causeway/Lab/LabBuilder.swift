import APIModels
import EdgeConfiguration
import Foundation
import PacketWAN

/// Brings a lab up, step by step; what it started is stopped again when a step fails.
struct LabBuilder {
    let lab: LabDirectory
    let options: LabCommand.Up
    private let daemon: String
    let ownExecutable: String

    init(lab: LabDirectory, options: LabCommand.Up) throws {
        self.lab = lab
        self.options = options
        guard let own = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe") else {
            throw CommandFailure("the path of this program is not known: /proc is not mounted")
        }
        ownExecutable = own
        let beside = URL(fileURLWithPath: own).deletingLastPathComponent().appendingPathComponent("causewayd").path
        daemon = ProcessInfo.processInfo.environment["CAUSEWAYD"] ?? beside
        guard FileManager.default.isExecutableFile(atPath: daemon) else {
            throw CommandFailure(
                "the daemon is not at \(daemon)", action: "Build it, or name it by the environment variable CAUSEWAYD.")
        }
    }

    /// Everything, unless a signal comes first.
    func up(interruptedBy stop: SignalStream) async throws -> LabRecord {
        try lab.make()
        return try await lab.locked {
            try refuseIfLive()
            // A relay outlives daemons that were killed.
            if let relay = try lab.readRecord()?.relay {
                LabProcess.find(pid: relay.pid, argument: relay.control)?.signal(SIGTERM)
            }
            try checkDisks()
            let started = StartedProcesses()
            do {
                return try await withThrowingTaskGroup(of: LabRecord.self) { group in
                    group.addTask { try await build(started) }
                    group.addTask {
                        await stop.next()
                        try Task.checkCancellation()
                        throw CommandFailure("interrupted")
                    }
                    defer { group.cancelAll() }
                    guard let record = try await group.next() else { throw CommandFailure("interrupted") }
                    return record
                }
            } catch {
                await started.stop()
                try? FileManager.default.removeItem(atPath: lab.record)
                throw error
            }
        }
    }

    private func refuseIfLive() throws {
        let alive = ["onprem", "cloud"].compactMap {
            LabProcess.daemon(config: lab.configuration($0), state: lab.state($0))
        }
        if alive.isEmpty { return }
        throw CommandFailure(
            "a lab is up in \(lab.path) (process \(alive.map { String($0.pid) }.joined(separator: " and ")))",
            action: "Take it down with causeway lab down --directory \(lab.path), or choose another directory.")
    }

    /// The disks on the command line, and those that the lab had before.
    private var disks: [LabCommand.DiskArgument] {
        let names = Set(options.disks.map(\.name))
        guard let before = try? Configuration.load(lab.configuration("onprem")), case .onprem(let role) = before.role else {
            return options.disks
        }
        return options.disks + role.disks.filter { !names.contains($0.name) }.map { .init(name: $0.name, path: $0.path) }
    }

    private func checkDisks() throws {
        for disk in disks where !FileManager.default.fileExists(atPath: disk.path) {
            throw CommandFailure(
                "disk \(disk.name): there is nothing at \(disk.path)",
                action: "Make it first, for example: truncate -s 1G \(disk.path)")
        }
    }

    private func build(_ started: StartedProcesses) async throws -> LabRecord {
        let previous = FileManager.default.contents(atPath: lab.ports).flatMap {
            try? JSONDecoder().decode(LabPorts.self, from: $0)
        }
        let ports = try LabPorts.choose(previous: previous, portals: options.portals)
        try lab.write(ports, to: lab.ports)
        let disks = disks
        // The ends of a line have their addresses from it, so it comes first.
        let line = options.wan == .packets ? try await startLine(ports, started) : nil
        let configurations = configurations(ports, line?.addresses)
        for configuration in [configurations.onprem, configurations.cloud] {
            try lab.writePrivately(Data(Configuration.render(configuration).utf8), to: lab.configuration(configuration.role.name))
        }
        say("starting the edges")
        let onprem = try start(configurations.onprem, started, in: line?.addresses?.namespace)
        let relay = try line ?? startRelay(ports, started)
        let cloud = try start(configurations.cloud, started)
        let home = try await edge(configurations.onprem, onprem)
        let away = try await edge(configurations.cloud, cloud)
        var record = LabRecord(onprem: home.record, cloud: away.record, relay: relay, volumes: [])
        // From here on `lab down` finds what runs, even if we are killed.
        try lab.write(record, to: lab.record)
        let attachments = LabAttachments(
            onprem: home.client, cloud: away.client, timeout: options.timeout, policy: policy(configurations.cloud),
            isAlive: { onprem.isAlive && cloud.isAlive }, say: say)
        do {
            let identifier = try await attachments.pair(dialling: options.homeDials ? dialled(ports, line?.addresses) : nil)
            record.volumes = try await attachments.serve(disks, at: identifier)
        } catch let failure as CommandFailure {
            throw describe(failure, logs: [home.record.log, away.record.log])
        }
        try lab.write(record, to: lab.record)
        return record
    }

    private func configurations(_ ports: LabPorts, _ line: WANAddresses?) -> (onprem: Configuration, cloud: Configuration) {
        func local(_ port: UInt16) -> NetworkAddress { NetworkAddress(host: "127.0.0.1", port: port) }
        let home = line.map { NetworkAddress(host: $0.home, port: ports.link) }
        var onprem = Configuration.onprem(
            name: "onprem", stateDirectory: lab.state("onprem"), disks: disks.map { .init(name: $0.name, path: $0.path) })
        onprem.api.listen = line.map { NetworkAddress(host: $0.homeBesideLine, port: ports.onpremAPI) } ?? local(ports.onpremAPI)
        onprem.log.level = options.logLevel
        if case .onprem(var role) = onprem.role {
            // Nobody dials an edge that dials: the system chooses a port.
            role.linkListen = options.homeDials ? local(0) : home ?? local(ports.link)
            role.linkConnections = options.linkConnections
            onprem.role = .onprem(role)
        }
        var cloud = Configuration.cloud(name: "cloud", stateDirectory: lab.state("cloud"))
        cloud.api.listen = local(ports.cloudAPI)
        cloud.log.level = options.logLevel
        if case .cloud(var role) = cloud.role {
            if options.homeDials {
                role.linkListen = line.map { NetworkAddress(host: $0.cloud, port: ports.link) } ?? local(ports.link)
            } else {
                role.linkConnect = dialled(ports, line)
            }
            role.linkConnections = options.linkConnections
            role.targetListen = ports.portals.map(local)
            if options.nbd { role.nbd = .init(listen: [local(ports.nbd)]) }
            role.cacheSizeBytes = options.cacheSize
            role.writeLogSizeBytes = options.logSize
            // One point is sent while the next is written.
            role.sealSizeBytes = max(min(role.sealSizeBytes, options.logSize / 4), 1 << 20)
            role.recoveryPointObjective = options.recoveryPointObjective
            cloud.role = .cloud(role)
        }
        return (onprem, cloud)
    }

    /// Where the edge that is dialled is reached from the other one: over the WAN, if there is one.
    private func dialled(_ ports: LabPorts, _ line: WANAddresses?) -> NetworkAddress {
        if let line { return NetworkAddress(host: options.homeDials ? line.cloud : line.home, port: ports.link) }
        return NetworkAddress(host: "127.0.0.1", port: hasRelay ? ports.relay : ports.link)
    }

    private func policy(_ cloud: Configuration) -> Volume.Policy? {
        guard case .cloud(let role) = cloud.role else { return nil }
        return Volume.Policy(recoveryPointObjectiveSeconds: role.recoveryPointObjective.inSeconds, sealBytes: role.sealSizeBytes)
    }

    private var hasRelay: Bool { options.rtt != nil || options.rate != nil }

    private func start(
        _ configuration: Configuration, _ started: StartedProcesses, in namespace: String? = nil
    ) throws -> LabProcess {
        let role = configuration.role.name
        var words = [daemon, "--config", lab.configuration(role)]
        if let namespace { words = [ownExecutable, "line", "enter", namespace] + words }
        let process = try LabProcess.start(words[0], Array(words.dropFirst()), log: lab.log(role))
        started.add(process)
        return process
    }

    private func startRelay(_ ports: LabPorts, _ started: StartedProcesses) throws -> LabRecord.Relay? {
        guard hasRelay else { return nil }
        let listen = "127.0.0.1:\(ports.relay)"
        let control = "127.0.0.1:\(ports.relayControl)"
        var arguments = [
            "relay", "--listen", listen, "--connect", "127.0.0.1:\(ports.link)", "--control", control,
            "--rtt", TimeSpan.text(options.rtt ?? .zero),
        ]
        if let rate = options.rate { arguments += ["--rate", bits(rate)] }
        let process = try LabProcess.start(ownExecutable, arguments, log: lab.log("relay"))
        started.add(process)
        return .init(pid: process.pid, control: control, listen: listen, log: lab.log("relay"))
    }

    /// Waits until an edge answers with its own token.
    private func edge(_ configuration: Configuration, _ process: LabProcess) async throws -> (
        record: LabRecord.Edge, client: APIClient
    ) {
        let role = configuration.role.name
        let api = "http://\(configuration.api.listen)"
        let deadline = ContinuousClock.now.advanced(by: options.timeout)
        var last: CommandFailure?
        while ContinuousClock.now < deadline {
            guard process.isAlive else {
                throw describe(CommandFailure("the \(role) edge ended as it started"), logs: [lab.log(role)])
            }
            if let token = try? readSecret(configuration.api.tokenFile, what: "token") {
                let client = try APIClient(base: api, token: token)
                do {
                    let _: EdgeStatus = try await client.get("/v1/edge")
                    let record = LabRecord.Edge(
                        api: api, token: token, pid: process.pid, config: lab.configuration(role),
                        state: configuration.stateDirectory,
                        log: lab.log(role))
                    return (record, client)
                } catch let failure as CommandFailure { last = failure }
            }
            try await Task.sleep(for: .milliseconds(20))
        }
        let reason = last.map { ": \($0.message)" } ?? ": it made no token file"
        throw describe(CommandFailure("the \(role) edge did not come up\(reason)", status: .notInTime), logs: [lab.log(role)])
    }

    private func describe(_ failure: CommandFailure, logs: [String]) -> CommandFailure {
        var failure = failure
        for log in logs { failure.message += "\n  \(log) ends:\n\(lab.tail(ofLog: log))" }
        return failure
    }

    private func say(_ text: String) {
        if options.outputOptions.output == .table { Terminal.error("lab: \(text)") }
    }
}

/// What was started and must be stopped if the rest fails.
final class StartedProcesses: @unchecked Sendable {
    // Every access to `processes` holds the lock, and `LabProcess` is a plain value.
    private let lock = NSLock()
    private var processes: [LabProcess] = []

    func add(_ process: LabProcess) { lock.withLock { processes.append(process) } }

    /// Asks each to stop, and kills what has not after ten seconds.
    func stop() async {
        let victims = lock.withLock { processes }
        for process in victims.reversed() { process.signal(SIGTERM) }
        let deadline = ContinuousClock.now.advanced(by: .seconds(10))
        for process in victims.reversed() where await !process.waitForExit(deadline: deadline) {
            process.signal(SIGKILL)
            _ = await process.waitForExit(deadline: .now.advanced(by: .seconds(5)))
        }
    }
}
