import CPlatform
import Glibc

/// Why a state directory could not be taken.
public enum StateDirectoryError: Error, Equatable, Sendable, CustomStringConvertible {
    /// Another process has it; its identifier, when that is known.
    case inUse(path: String, processIdentifier: Int?)
    /// The lock file could not be opened or written.
    case failed(FileSystemError)

    public var description: String {
        switch self {
        case .inUse(let path, let identifier?):
            "the state directory \(path) is in use by process \(identifier): stop it, or give this one a directory of its own"
        case .inUse(let path, nil):
            "the state directory \(path) is in use by another process: stop it, or give this one a directory of its own"
        case .failed(let error): "the state directory can't be locked: \(error)"
        }
    }
}

/// The right to use a state directory, held as long as this object lives. The kernel drops the lock with the process,
/// however it ends, so nothing is ever left behind that would need cleaning up.
public final class StateDirectoryLock: Sendable {
    /// The name of the lock file. It holds the process identifier of the holder, for messages.
    public static let fileName = "lock"
    private let file: OpenFile

    /// Takes the lock, or says who has it.
    public init(directory: OpenDirectory) throws(StateDirectoryError) {
        do throws(FileSystemError) {
            file = try directory.open(Self.fileName, [.write, .create])
        } catch { throw .failed(error) }
        do throws(FileSystemError) {
            try file.lockExclusively()
        } catch {
            throw error.isLocked ? .inUse(directory) : .failed(error)
        }
        do throws(FileSystemError) {
            try file.truncate(to: 0)
            var failure: FileSystemError?
            let text = Array("\(causeway_process_identifier())\n".utf8)
            text.withUnsafeBytes { raw in
                do throws(FileSystemError) { try file.write(raw, at: 0) } catch { failure = error }
            }
            if let failure { throw failure }
        } catch { throw .failed(error) }
    }
}

/// Keeps processes that would write off a state directory as long as this object lives, for those who only read it. Several may
/// do so at once. Nothing is written: where there is no lock file no process has ever used the directory, or it is a copy, and nothing
/// is held.
public final class StateDirectoryGuard: Sendable {
    private let file: OpenFile?

    /// Takes the guard, or says who uses the directory.
    public init(directory: OpenDirectory) throws(StateDirectoryError) {
        do throws(FileSystemError) {
            let file = try directory.open(StateDirectoryLock.fileName)
            try file.lockShared()
            self.file = file
        } catch {
            if error.isLocked { throw .inUse(directory) }
            if !error.isNotFound { throw .failed(error) }
            file = nil
        }
    }
}

extension StateDirectoryError {
    /// The error that names who has the lock. The lock's file tells who took it last to write, which may be somebody who is long gone,
    /// when those who only read hold it now: so that process must have the file open.
    fileprivate static func inUse(_ directory: OpenDirectory) -> StateDirectoryError {
        let text = (try? directory.readFile(StateDirectoryLock.fileName, byteCountMax: 32)) ?? []
        let digits = text.prefix { $0 >= 0x30 && $0 <= 0x39 }
        let last = Int(String(decoding: digits, as: UTF8.self))
        return .inUse(path: directory.path, processIdentifier: last.flatMap { hasLockOpen($0, directory) ? $0 : nil })
    }

    /// False, too, for a process of another user, of which nobody tells.
    private static func hasLockOpen(_ process: Int, _ directory: OpenDirectory) -> Bool {
        var lock = stat()
        guard stat("\(directory.path)/\(StateDirectoryLock.fileName)", &lock) == 0 else { return false }
        let descriptors = "/proc/\(process)/fd"
        let names = (try? OpenDirectory(descriptors).list()) ?? []
        return names.contains { name in
            var file = stat()
            return stat("\(descriptors)/\(name)", &file) == 0 && file.st_dev == lock.st_dev && file.st_ino == lock.st_ino
        }
    }
}
