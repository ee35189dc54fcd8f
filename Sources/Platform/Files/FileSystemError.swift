import CPlatform
import Glibc

/// A file call that failed.
public struct FileSystemError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The call, as the manual names it.
    public let call: String
    /// The file or directory.
    public let path: String
    /// The error number; positive.
    public let errorNumber: CInt

    /// An error of `call` on `path`.
    public init(call: String, path: String, errorNumber: CInt) {
        self.call = call
        self.path = path
        self.errorNumber = errorNumber
    }

    /// The system's text for the error number.
    public var reason: String {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: 256) { text in
            guard let base = text.baseAddress else { return "error \(errorNumber)" }
            causeway_error_text(errorNumber, base, text.count)
            return String(cString: base)
        }
    }

    public var description: String { "\(call) \(path): \(reason) (errno \(errorNumber))" }

    /// The file system is full, or the quota is.
    public var isNoSpace: Bool { errorNumber == ENOSPC || errorNumber == EDQUOT || isOutOfDescriptors }
    /// The process, or the system, has no more descriptors. Nothing was changed, and another attempt may succeed.
    private var isOutOfDescriptors: Bool { errorNumber == EMFILE || errorNumber == ENFILE }
    /// There is nothing of that name.
    public var isNotFound: Bool { errorNumber == ENOENT }
    /// The rights are missing, or the file system is read-only.
    public var isDenied: Bool { errorNumber == EACCES || errorNumber == EPERM || errorNumber == EROFS }
    /// Someone else holds the lock or the device.
    public var isLocked: Bool { errorNumber == EAGAIN || errorNumber == EBUSY }
}

/// Turns a negative errno into an error.
func check(_ result: CInt, _ call: String, _ path: String) throws(FileSystemError) {
    if result < 0 { throw FileSystemError(call: call, path: path, errorNumber: -result) }
}
