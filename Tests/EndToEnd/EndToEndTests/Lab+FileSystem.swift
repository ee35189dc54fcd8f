import Foundation

/// A small ext4 file system under the state directory of a lab's cloud edge, or of both edges, behind a loop device. It is mounted in a namespace that
/// only the lab's processes see, so it goes when they do.
struct LabFileSystem {
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
    }

    /// The file with its blocks, and where it is mounted.
    let image: String
    let mountPoint: String

    /// Makes one in a directory of a test; `start` mounts it.
    init(in directory: URL, mebibytes: Int, isShared: Bool = false) async throws {
        image = directory.appendingPathComponent("state.ext4").path
        mountPoint = directory.appendingPathComponent(isShared ? "lab" : "lab/cloud").path
        try FileManager.default.createDirectory(atPath: mountPoint, withIntermediateDirectories: true)
        try await Command.check("truncate", ["-s", "\(mebibytes)M", image])
        try await Command.check("mkfs.ext4", ["-q", "-F", "-m", "0", image])
    }

    /// Whether this machine has what it takes: root, mount namespaces and loop devices.
    @Sendable static func isPossible() async throws -> Bool {
        let directory = try Lab.makeDirectory()
        defer { try? FileManager.default.removeItem(at: directory) }
        guard let one = try? await LabFileSystem(in: directory, mebibytes: 8) else { return false }
        let start = one.start(["true"])
        return try await Command.run(start.program, start.arguments, seconds: 20).isSuccess
    }

    private var mount: String { "mount -o loop,errors=remount-ro '\(image)' '\(mountPoint)'" }

    /// The command that mounts it in a namespace of its own and runs a program there.
    func start(_ words: [String]) -> (program: String, arguments: [String]) {
        ("unshare", ["--mount", "sh", "-ec", "\(mount)\nexec \"$@\"", "sh"] + words)
    }

    /// Changes it, in the namespace of a process.
    func make(_ change: Change, besides process: Int32) async throws {
        let script =
            switch change {
            case .fill(let mebibytes):
                "fallocate -l $(($(df --output=avail -k '\(mountPoint)' | tail -1) - \(mebibytes << 10)))K '\(mountPoint)/filler'"
            case .empty: "rm '\(mountPoint)/filler'"
            case .makeImmutable: "chattr -R +i '\(mountPoint)'"
            case .makeMutable: "chattr -R -i '\(mountPoint)'"
            case .giveUp: "echo 1 >/sys/fs/ext4/$(basename $(findmnt -no SOURCE '\(mountPoint)'))/trigger_fs_error"
            // e2fsck says 1 when it has mended something.
            case .mend: "umount '\(mountPoint)'; e2fsck -p '\(image)' || [ $? = 1 ]; \(mount)"
            }
        try await Command.check("nsenter", ["--mount", "--target", "\(process)", "sh", "-ec", script], seconds: 30)
    }
}

extension Lab {
    /// Changes the file system under the cloud edge's state.
    func fileSystem(_ change: LabFileSystem.Change) async throws {
        guard let fileSystem else { throw CommandFailure(description: "this lab has no file system of its own") }
        try await fileSystem.make(change, besides: edge(.onprem).pid)
    }
}
