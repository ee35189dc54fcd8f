import Foundation
import Glibc

/// A small ext4 file system under the state directory of a lab's cloud edge, or of both edges, or of the on-prem edge and the disks, behind a
/// loop device. It is mounted in a namespace that only the lab's processes see, so it goes when they do.
struct LabFileSystem {
    /// What it is under.
    enum Place { case cloud, home, both }

    /// What a test does to it. Linux does not remount a file system read-only while a file is open for writing, so what refuses
    /// changes here is made immutable: each write, new file and removal is denied with EPERM, as it is with EROFS by a mount that
    /// was read-only all along.
    enum Change {
        /// All but some MiB are taken by a file of somebody else.
        case fill(leavingMiB: Int)
        case empty
        case makeImmutable
        case makeMutable
        /// The kernel finds an error and gives the file system up, as it does when the device fails: EROFS for all, syncs too.
        case giveUp
        /// What an operator does then: unmounts, checks and mounts it. Nothing may have a file open there.
        case mend
        /// What no sync was for is forgotten, but for pages that reached the device by chance, as `seed` decides: what a power cut leaves. No
        /// sync may be on its way, for Linux would say that it succeeded.
        case losePower(seed: Int)
    }

    let place: Place
    /// The file with its blocks, and where it is mounted.
    let image: String
    let mountPoint: String

    /// Makes one in a directory of a test; `start` mounts it.
    init(in directory: URL, mebibytes: Int, under place: Place) async throws {
        self.place = place
        image = directory.appendingPathComponent("state.ext4").path
        let name =
            switch place {
            case .cloud: "lab/cloud"
            case .home: "lab/onprem"
            case .both: "lab"
            }
        mountPoint = directory.appendingPathComponent(name).path
        try FileManager.default.createDirectory(atPath: mountPoint, withIntermediateDirectories: true)
        try await Command.check("truncate", ["-s", "\(mebibytes)M", image])
        try await Command.check("mkfs.ext4", ["-q", "-F", "-m", "0", image])
    }

    /// Whether this machine has what it takes: root, mount namespaces and loop devices.
    @Sendable static func isPossible() async throws -> Bool {
        let directory = try Lab.makeDirectory()
        defer { try? FileManager.default.removeItem(at: directory) }
        guard let one = try? await LabFileSystem(in: directory, mebibytes: 8, under: .cloud) else { return false }
        let start = one.start(["true"], disks: [])
        return try await Command.run(start.program, start.arguments, seconds: 20).isSuccess
    }

    private static let powerCut = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().appendingPathComponent("power-cut").path

    private var mount: String { "mount -o loop,errors=remount-ro '\(image)' '\(mountPoint)'" }

    /// The command that mounts it in a namespace of its own, makes disks there, and runs a program.
    func start(_ words: [String], disks: [(path: String, bytes: Int)]) -> (program: String, arguments: [String]) {
        let making = disks.map { "truncate -s \($0.bytes) '\($0.path)'\n" }.joined()
        return ("unshare", ["--mount", "sh", "-ec", "\(mount)\n\(making)exec \"$@\"", "sh"] + words)
    }

    /// Changes it, in the namespace of a process.
    func make(_ change: Change, besides process: Int32) async throws {
        let script =
            switch change {
            case .fill(let mebibytes):
                // Others may take room between the question and its answer.
                """
                for attempt in 1 2 3 4 5 6 7 8 9 10; do
                    room=$(df --output=avail -k '\(mountPoint)' | tail -1)
                    fallocate -l $((room - \(mebibytes << 10)))K '\(mountPoint)/filler' && exit
                    rm -f '\(mountPoint)/filler'
                done
                exit 1
                """
            case .empty: "rm '\(mountPoint)/filler'"
            case .makeImmutable: "chattr -R +i '\(mountPoint)'"
            case .makeMutable: "chattr -R -i '\(mountPoint)'"
            case .giveUp: "echo 1 >/sys/fs/ext4/$(basename $(findmnt -no SOURCE '\(mountPoint)'))/trigger_fs_error"
            // e2fsck says 1 when it has mended something.
            case .losePower(let seed): "'\(Self.powerCut)' '\(mountPoint)' \(seed)"
            case .mend: "umount '\(mountPoint)'; e2fsck -p '\(image)' || [ $? = 1 ]; \(mount)"
            }
        try await Command.check("nsenter", ["--mount", "--target", "\(process)", "sh", "-ec", script], seconds: 30)
    }
}

extension Lab {
    /// Changes the file system under the cloud edge's state.
    func fileSystem(_ change: LabFileSystem.Change) async throws {
        guard let fileSystem else { throw CommandFailure(description: "this lab has no file system of its own") }
        try await fileSystem.make(change, besides: edge(fileSystem.place == .home ? .cloud : .onprem).pid)
    }

    private var sideOfFileSystem: Side { fileSystem?.place == .home ? .onprem : .cloud }

    /// Cuts the power of the edge that has the file system: there is what a sync was for, and of all else what chance has left. The daemon
    /// stands still first, with no call to the kernel under way, so that nobody is told of a sync that was not.
    func losePower(seed: Int) async throws {
        let pid = edge(sideOfFileSystem).pid
        _ = Glibc.kill(pid, SIGSTOP)
        try await Self.untilTrue(seconds: 20, "process \(pid) to stand still") { Self.threadStates(pid).allSatisfy { $0 == "T" } }
        try await fileSystem(.losePower(seed: seed))
        try await kill(sideOfFileSystem)
    }

    /// Starts the edge whose power was cut.
    func regainPower() async throws {
        try await fileSystem(.mend)
        try await restart(sideOfFileSystem)
    }

    /// The states of a process's threads, as `ps` shows them.
    private static func threadStates(_ pid: Int32) -> [Substring] {
        let threads = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/task")) ?? []
        return threads.compactMap { thread in
            let stat = try? String(contentsOfFile: "/proc/\(pid)/task/\(thread)/stat", encoding: .utf8)
            return stat?.split(separator: ")").last?.split(separator: " ").first
        }
    }
}
