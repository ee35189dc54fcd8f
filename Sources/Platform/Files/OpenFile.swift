import CPlatform
import Glibc

/// How a file is opened.
public struct OpenOptions: OptionSet, Sendable {
    public let rawValue: CInt
    public init(rawValue: CInt) { self.rawValue = rawValue }

    /// For reading and writing; without it, for reading only.
    public static let write = OpenOptions(rawValue: CInt(CAUSEWAY_OPEN_WRITE))
    /// Makes the file when it is missing.
    public static let create = OpenOptions(rawValue: CInt(CAUSEWAY_OPEN_CREATE))
    /// With `create`: fails when the file exists. Alone, of a block device: fails when it is in use.
    public static let exclusive = OpenOptions(rawValue: CInt(CAUSEWAY_OPEN_EXCLUSIVE))
    /// Past the page cache (O_DIRECT); addresses, offsets and lengths must then be aligned.
    public static let direct = OpenOptions(rawValue: CInt(CAUSEWAY_OPEN_DIRECT))
    /// Empties the file.
    public static let truncate = OpenOptions(rawValue: CInt(CAUSEWAY_OPEN_TRUNCATE))
}

/// What an open file is.
public enum FileKind: Sendable, Equatable {
    case regular
    case blockDevice
    case directory
    case other
}

/// What the kernel says about an open file.
public struct FileInformation: Sendable, Equatable {
    public let kind: FileKind
    /// In bytes; of a block device, the size of the medium.
    public let size: UInt64
    /// What the file system has given a regular file room for, in bytes: less than its size where it has holes.
    public let allocatedBytes: UInt64
    /// What direct I/O asks of memory addresses and of offsets. Nil when the kernel doesn't say, zeroes when it says that
    /// direct I/O is not possible.
    public let directAlignment: (memory: Int, offset: Int)?
    /// The permission bits.
    public let permissions: UInt32
    /// How many names the file has.
    public let nameCount: UInt64
    /// The number of the file system that it is on: the same for all files there while it is mounted.
    public let fileSystem: UInt64

    public static func == (left: FileInformation, right: FileInformation) -> Bool {
        left.kind == right.kind && left.size == right.size && left.allocatedBytes == right.allocatedBytes
            && left.permissions == right.permissions && left.nameCount == right.nameCount
            && left.fileSystem == right.fileSystem
            && left.directAlignment?.memory == right.directAlignment?.memory
            && left.directAlignment?.offset == right.directAlignment?.offset
    }
}

/// An open file or block device. It closes its descriptor when the last reference to it goes, so whoever has a
/// reference may use it; calls from several threads at once are fine, as they are for the kernel.
public final class OpenFile: Sendable {
    let descriptor: CInt
    /// The path under which it was opened, for messages.
    public let path: String

    /// Opens a file. `permissions` are those of a file that is made.
    public init(_ path: String, _ options: OpenOptions = [], permissions: UInt32 = 0o600) throws(FileSystemError) {
        let result = causeway_open(-1, path, options.rawValue, permissions)
        try check(result, "open", path)
        self.descriptor = result
        self.path = path
    }

    init(descriptor: CInt, path: String) {
        self.descriptor = descriptor
        self.path = path
    }

    deinit { causeway_close(descriptor) }

    /// Reads into the whole of `bytes`; fewer arrive only at the end of the file.
    public func read(into bytes: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(FileSystemError) -> Int {
        guard let base = bytes.baseAddress, bytes.count > 0 else { return 0 }
        let count = causeway_read_all(descriptor, base, bytes.count, offset)
        try check(CInt(truncatingIfNeeded: min(count, 0)), "pread", path)
        return Int(count)
    }

    /// Reads what needs no waiting for a device. Returns how many bytes arrived; 0 when none are resident, and on any error.
    public func readResident(into bytes: UnsafeMutableRawBufferPointer, at offset: UInt64) -> Int {
        guard let base = bytes.baseAddress, bytes.count > 0 else { return 0 }
        return Int(max(0, causeway_read_resident(descriptor, base, bytes.count, offset)))
    }

    /// Writes all of `bytes`.
    public func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(FileSystemError) {
        guard let base = bytes.baseAddress, bytes.count > 0 else { return }
        try check(causeway_write_all(descriptor, base, bytes.count, offset), "pwrite", path)
    }

    /// Makes every completed write survive a crash, and the size with them (fdatasync).
    public func synchronizeData() throws(FileSystemError) {
        try check(causeway_synchronize_data(descriptor), "fdatasync", path)
    }

    /// Has the kernel forget what it keeps of the file in memory, as far as that has been written: later reads come from the device.
    public func forgetResident() { causeway_forget_resident(descriptor) }

    /// Sets the size.
    public func truncate(to byteCount: UInt64) throws(FileSystemError) {
        guard byteCount <= UInt64(Int64.max) else {
            throw FileSystemError(call: "ftruncate", path: path, errorNumber: EFBIG)
        }
        try check(causeway_truncate(descriptor, byteCount), "ftruncate", path)
    }

    /// The kind, the size and the alignment of direct I/O.
    public func information() throws(FileSystemError) -> FileInformation {
        var raw = causeway_file_information()
        try check(causeway_information(descriptor, &raw), "fstat", path)
        let kind: FileKind =
            switch raw.kind {
            case CInt(CAUSEWAY_KIND_REGULAR): .regular
            case CInt(CAUSEWAY_KIND_BLOCK_DEVICE): .blockDevice
            case CInt(CAUSEWAY_KIND_DIRECTORY): .directory
            default: .other
            }
        return FileInformation(
            kind: kind, size: raw.size, allocatedBytes: raw.allocated,
            directAlignment: raw.direct_alignment_known == 0
                ? nil : (Int(raw.direct_memory_alignment), Int(raw.direct_offset_alignment)),
            permissions: raw.permissions, nameCount: raw.links, fileSystem: raw.file_system)
    }

    /// Sets the permission bits.
    public func setPermissions(_ permissions: UInt32) throws(FileSystemError) {
        try check(causeway_set_permissions(descriptor, permissions), "fchmod", path)
    }

    /// Takes an exclusive lock on the whole file, which holds until the file is closed. The error `isLocked` when
    /// another open of the file, in this process or in another, has a lock.
    public func lockExclusively() throws(FileSystemError) {
        try check(causeway_lock_exclusive(descriptor), "fcntl(F_OFD_SETLK)", path)
    }

    /// Takes a lock on the whole file that several may have, and that keeps exclusive ones out, until the file is closed.
    public func lockShared() throws(FileSystemError) {
        try check(causeway_lock_shared(descriptor), "fcntl(F_OFD_SETLK)", path)
    }

    /// Takes the lock of a disk image's only writer, which QEMU's programs respect; they may still read the image when they
    /// are told to share it (`-U`). The error `isLocked` when another has the image.
    public func lockAsDisk() throws(FileSystemError) {
        try check(causeway_lock_disk(descriptor), "fcntl(F_OFD_SETLK)", path)
    }
}
