import APIModels
import Blocks
import Disks
import EdgeConfiguration
import Files
import LocalFiles
import ManagementAPI
import StateStore

extension Problem {
    /// The problem that an error is to whoever called: itself, if it is one; nil when the error says nothing to them.
    init?(known error: any Error) {
        switch error {
        case let problem as Problem: self = problem
        case let error as APIError: self = error.problem
        case let error as StateStoreError: self.init(describing: error)
        case let error as FileSystemError where error.isNoSpace: self = .noSpace("\(error)")
        default: return nil
        }
    }

    /// The problem that an error is to whoever called, in any case.
    init(describing error: any Error) {
        self =
            Problem(known: error)
            ?? Problem(
                status: 500, code: "internal", title: "Internal error", detail: "\(error)",
                action: "look at this edge's log; if it does not help, report this with the log")
    }

    /// A call that this edge does not know.
    static func unknownCall(_ method: String) -> Problem {
        Problem(
            status: 404, code: "unknown_call", title: "Unknown call", detail: "this edge does not know the call \(method)",
            action: "run the same version of causewayd on both edges")
    }
}

extension Problem {
    /// The problem that a block device's error is to a caller of the API.
    init(describing error: BlockDeviceError, volume: String) {
        let (status, code, detail): (Int, String, String) =
            switch error {
            case .unreachable(let text): (503, "link_down", text)
            case .noSpace(let text): (507, "no_space", text)
            case .busy(let text): (503, "volume_busy", text)
            case .stopped(let text): (409, "volume_stopped", text)
            case .medium(let text): (500, "medium_error", text)
            case .outOfRange, .writeProtected: (409, "volume_refused", "\(error)")
            }
        self.init(
            status: status, code: code, title: "The volume could not do it", detail: "volume \(volume): \(detail)",
            action: "look at `causeway volume show \(volume)` and `causeway events`")
    }
}

extension Problem {
    /// The volume is not open at the cloud edge, so nobody can say what its log holds.
    static var notOpenHere: Problem {
        Problem(
            status: 503, code: "volume_not_open", title: "The volume is not open at the cloud edge",
            detail: "the cloud edge has not opened this volume yet, or can't: its log may hold writes that are not home",
            action: "look at `causeway volume show` on the cloud edge, and try again when it serves; or give them up with --force")
    }

    /// The other edge has not answered a call in the time that it was given.
    static let noAnswerCode = "no_answer"

    /// A detach has waited long without anything coming home.
    static func notHomeYet(_ name: String, unsentBytes: UInt64?) -> Problem {
        Problem(
            status: 503, code: "not_home_yet", title: "Not everything is at home",
            detail: unsentBytes.map { "volume \(name): \($0) bytes are not home yet, and nothing has come for long" }
                ?? "volume \(name): it is not known how much is not home yet",
            action:
                "see at home why points don't come (`causeway events`, `causeway link list`), then detach it again; it is served on meanwhile"
        )
    }

    /// The volume's disk is not open here.
    static func held(_ count: Int) -> Problem {
        Problem(
            status: 409, code: "points_held", title: "The volume's group has not gone on",
            detail: "home has received \(count) points that wait for other volumes of the group",
            action: "bring the others back, or take the volume out of its group; with force it ends at the group's last common point")
    }

    static var notServed: Problem {
        Problem(
            status: 503, code: "disk_unavailable", title: "The disk is not available",
            detail: "the on-prem edge could not open the volume's disk", action: "look at `causeway disk list` at home")
    }

    /// The problem that a disk is, which can't be opened or made larger.
    init(describing error: LocalDiskError) {
        switch error {
        case .shrunk(let path, let from, let to): self = .shrunk(path, from: from, to: to)
        case .notResizable:
            self.init(
                status: 409, code: "disk_not_resizable", title: "The disk can't be resized here", detail: "\(error)",
                action: "grow the device by its own tools, then run `causeway disk rescan`")
        case .growing:
            self.init(
                status: 409, code: "disk_not_resizable", title: "The disk can't be made that large", detail: "\(error)",
                action: "choose a size that its file system can hold; the disk is as large as before")
        default: self.init(unavailable: error)
        }
    }

    /// A disk that is in use has, or would have, less room than before.
    static func shrunk(_ path: String, from: UInt64, to: UInt64) -> Problem {
        Problem(
            status: 409, code: "disk_shrunk", title: "A disk can't shrink while it is served",
            detail:
                "the disk \(path) is served with \(ByteSize.text(from)), and \(ByteSize.text(to)) is less: a machine's data may lie behind the new end",
            action: "give it at least \(ByteSize.text(from)); to make a disk smaller, shrink what is on it, then detach its volume")
    }

    private init(unavailable error: LocalDiskError) {
        self.init(
            status: 409, code: "disk_unavailable", title: "The disk can't be used", detail: "\(error)",
            action: "see to it that the path exists, is a raw file or a block device, and that nothing else uses it")
    }

    /// The code of a disk that is another one than was served.
    static let diskChangedCode = "disk_changed"

    /// The problem that a journal is.
    init(describing error: PointJournalError, disk: String) {
        switch error {
        case .foreignDisk(_, let isReceivedWaiting):
            self.init(
                status: 409, code: Self.diskChangedCode, title: "The disk is not the one that was served", detail: "disk \(disk): \(error)",
                action: "put the right disk back: nothing was changed on this one. "
                    + (isReceivedWaiting
                        ? "To give up the points that wait for it, detach the volume with --force and move the disk's directory under journals away"
                        : "To go on with this one, detach the volume with --force, which gives up what the cloud edge has not sent, and attach it again")
            )
        case .noSpace: self = .noSpace("disk \(disk): \(error)")
        case .notKept(let point): self = .notKept(point, of: disk)
        default: self.init(failed: error, disk: disk)
        }
    }

    /// What the state store says.
    private init(describing error: StateStoreError) {
        switch error {
        case .notFound: self.init(status: 404, code: "not_found", title: "There is no such thing", detail: "\(error)")
        case .exists, .conflict:
            self.init(status: 409, code: "conflict", title: "The state does not allow it", detail: "\(error)", action: "see the message")
        case .noSpace: self = .noSpace("\(error)")
        case .failed:
            self.init(
                status: 500, code: "state_failed", title: "The state database can't be used", detail: "\(error)",
                action: "see to the file system of the state directory, then start the daemon again")
        }
    }

    static func noSpace(_ detail: String) -> Problem {
        Problem(
            status: 507, code: "no_space", title: "There is no room", detail: detail,
            action: "free space in the file system that is named and try again: nothing was changed")
    }

    private init(failed error: PointJournalError, disk: String) {
        self.init(
            status: 500, code: "journal_failed", title: "The point journal failed", detail: "disk \(disk): \(error)",
            action: "free space or mend the disk, then try again; received points are kept in the state directory")
    }
}
