import Foundation

/// A Linux machine in QEMU with an emulated processor, which a test drives through the agent in its root.
///
/// It reaches what listens on this machine's loopback at 10.0.2.2.
final class Guest {
    /// What a machine starts from.
    enum Boot {
        /// The kernel that QEMU loads, and the root on a private copy of the image's disk.
        case image
        /// The firmware's boot loader, from a drive in QEMU's words, such as the URL of a volume.
        case drive(String)
        /// iPXE, which runs a script: its lines after `#!ipxe`.
        case network(String)
    }

    /// True in `make soak-guests`.
    static let isSoaking = ProcessInfo.processInfo.environment["CAUSEWAY_GUEST_ROUNDS"] != nil
    /// How often tests repeat what guests must outlast: `make soak-guests` sets it.
    static let rounds = Int(ProcessInfo.processInfo.environment["CAUSEWAY_GUEST_ROUNDS"] ?? "") ?? 1

    /// Where a guest finds this machine's loopback.
    static let host = "10.0.2.2"

    private let directory: URL
    private let machine: RunningCommand
    private let agent: GuestAgent
    private let toAgent: FileHandle
    private let fromAgent: FileHandle
    private let ended: Task<CommandResult, any Error>
    private var lastIdentifier = GuestAgent.readiness

    /// Boots a machine, runs `body` when it is up, and ends it whatever happens.
    static func with(
        _ boot: Boot = .image, drives: [String] = [], lifetimeSeconds: Double = 600, _ body: (Guest) async throws -> Void
    ) async throws {
        let guest = try await Guest(boot, drives: drives, lifetimeSeconds: lifetimeSeconds)
        do {
            _ = try await guest.agent.result(of: GuestAgent.readiness, seconds: 240)
            try await body(guest)
        } catch {
            let console = guest.consoleTail()
            await guest.end()
            throw CommandFailure(description: "\(error)\n--- the guest's console\n\(console)")
        }
        await guest.end()
    }

    private init(_ boot: Boot, drives: [String], lifetimeSeconds: Double) async throws {
        let image = try await GuestImage.make()
        directory = try Lab.makeDirectory()
        let port = directory.appendingPathComponent("agent").path
        let agent = GuestAgent()
        self.agent = agent
        var arguments = [
            "-accel", "tcg", "-cpu", "max", "-m", "768", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-serial", "file:\(directory.appendingPathComponent("console").path)",
            "-device", "virtio-serial-pci", "-chardev", "pipe,id=agent,path=\(port)",
            "-device", "virtserialport,chardev=agent,name=causeway.test",
            "-netdev", "user,id=network",
        ]
        switch boot {
        case .image:
            arguments += [
                "-device", "virtio-net-pci,netdev=network,romfile=", "-kernel", image.kernel, "-initrd", image.initramfs,
                "-append", "console=ttyS0 quiet mitigations=off panic=-1 random.trust_cpu=on net.ifnames=0",
                "-drive", "file=\(image.disk),format=raw,if=virtio,snapshot=on",
            ]
        case .drive(let drive):
            arguments += ["-device", "virtio-net-pci,netdev=network,romfile=", "-drive", "\(drive),if=virtio"]
        case .network(let script):
            let path = directory.appendingPathComponent("script.ipxe").path
            try Data("#!ipxe\n\(script)\n".utf8).write(to: URL(fileURLWithPath: path))
            arguments += ["-device", "virtio-net-pci,netdev=network", "-kernel", "/usr/lib/ipxe/ipxe.lkrn", "-initrd", path]
        }
        for drive in drives { arguments += ["-drive", "\(drive),if=virtio"] }
        // The pipes are open at this end first, for both directions, so that neither opening waits for the other end.
        (toAgent, fromAgent) = (try Self.makePipe(port + ".in"), try Self.makePipe(port + ".out"))
        let (bytes, continuation) = AsyncStream.makeStream(of: [UInt8].self)
        fromAgent.readabilityHandler = { continuation.yield([UInt8]($0.availableData)) }
        Task { for await chunk in bytes { await agent.receive(chunk) } }
        let machine = try Command.start("qemu-system-x86_64", arguments)
        self.machine = machine
        ended = Task {
            defer { continuation.finish() }
            do {
                let result = try await machine.wait(seconds: lifetimeSeconds)
                await agent.end(CommandFailure(description: "the guest ended: \(result)"))
                return result
            } catch {
                await agent.end(CommandFailure(description: "the guest ended: \(error)"))
                throw error
            }
        }
    }

    private static func makePipe(_ path: String) throws -> FileHandle {
        guard mkfifo(path, 0o600) == 0 else { throw CommandFailure(description: "can't make \(path)") }
        let descriptor = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC)
        guard descriptor >= 0 else { throw CommandFailure(description: "can't open \(path)") }
        return FileHandle(fileDescriptor: descriptor, closeOnDealloc: true)
    }

    /// Starts a command in the guest's bash; `result` waits for its end.
    func start(_ command: String) throws -> Int {
        lastIdentifier += 1
        try toAgent.write(contentsOf: Data("run \(lastIdentifier) \(Data(command.utf8).base64EncodedString())\n".utf8))
        return lastIdentifier
    }

    func result(of identifier: Int, seconds: Double) async throws -> GuestResult {
        try await agent.result(of: identifier, seconds: seconds)
    }

    /// Runs a command to its end.
    func run(_ command: String, seconds: Double = 60) async throws -> GuestResult {
        try await result(of: start(command), seconds: seconds)
    }

    /// Runs a command that must succeed, each of its lines, and returns what it wrote.
    @discardableResult
    func check(_ command: String, seconds: Double = 60) async throws -> String {
        let result = try await run("set -e\n\(command)", seconds: seconds)
        guard result.isSuccess else { throw CommandFailure(description: "in the guest: \(command)\n\(result)") }
        return result.output
    }

    /// Waits until a command in the guest succeeds: another machine's state has no event to wait for.
    func untilTrue(_ command: String, seconds: Double = 120) async throws {
        let loop = "timeout \(Int(seconds)) bash -c \"$(cat <<'CONDITION'\nuntil { \(command)\n} ; do sleep 0.2; done\nCONDITION\n)\""
        let result = try await run(loop, seconds: seconds + 20)
        guard result.isSuccess else {
            throw CommandFailure(description: "the guest waited \(seconds) s for: \(command)\n\(result)")
        }
    }

    /// Stops the machine in the orderly way: its root is clean.
    func powerOff(seconds: Double = 60) async throws {
        _ = try start("sync; mount -o remount,ro /; busybox poweroff -f")
        let limit = Task { [machine] in
            try await Task.sleep(for: .seconds(seconds))
            machine.signal(SIGKILL)
        }
        defer { limit.cancel() }
        let result = try await ended.value
        guard result.isSuccess else { throw CommandFailure(description: "the guest did not power off: \(result)") }
    }

    private func end() async {
        if machine.isRunning { machine.signal(SIGKILL) }
        _ = try? await ended.value
        fromAgent.readabilityHandler = nil
        try? FileManager.default.removeItem(at: directory)
    }

    private func consoleTail() -> String {
        let text = (try? Data(contentsOf: directory.appendingPathComponent("console"))) ?? Data()
        return String(decoding: text, as: UTF8.self).split(whereSeparator: \.isNewline).suffix(40).joined(separator: "\n")
    }
}
