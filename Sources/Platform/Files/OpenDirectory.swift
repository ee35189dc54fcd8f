import CPlatform
import Glibc

/// An open directory: what is done to names below it.
public final class OpenDirectory: Sendable {
    let descriptor: CInt
    /// The path under which it was opened, for messages.
    public let path: String

    /// Opens a directory. With `create`, makes it (and its parents) when it is missing, open to its owner only.
    public init(_ path: String, create: Bool = false) throws(FileSystemError) {
        if create { try Self.makeDirectories(path) }
        let result = causeway_open(-1, path, CInt(CAUSEWAY_OPEN_DIRECTORY), 0)
        try check(result, "open", path)
        self.descriptor = result
        self.path = path
    }

    deinit { causeway_close(descriptor) }

    private static func makeDirectories(_ path: String) throws(FileSystemError) {
        var ends: [String.Index] = path.indices.filter { path[$0] == "/" && $0 != path.startIndex }
        ends.append(path.endIndex)
        for end in ends {
            let prefix = String(path[..<end])
            let result = causeway_make_directory(prefix, 0o700)
            if result == 0 {
                // The new name must survive a crash, else all that is made durable below it can be lost with it.
                let parent = prefix.lastIndex(of: "/").map { $0 == prefix.startIndex ? "/" : String(prefix[..<$0]) } ?? "."
                try OpenDirectory(parent).synchronize()
            } else if result != -EEXIST && !(result == -EROFS || result == -EACCES) {
                try check(result, "mkdir", prefix)
            }
        }
    }

    private func pathOf(_ name: String) -> String { "\(path)/\(name)" }

    /// Opens a file of the directory.
    public func open(_ name: String, _ options: OpenOptions = [], permissions: UInt32 = 0o600) throws(FileSystemError) -> OpenFile {
        let result = causeway_open(descriptor, name, options.rawValue, permissions)
        try check(result, "open", pathOf(name))
        return OpenFile(descriptor: result, path: pathOf(name))
    }

    /// The names in the directory, in no order.
    public func list() throws(FileSystemError) -> [String] {
        final class Names { var names: [String] = [] }
        let found = Names()
        let result = withExtendedLifetime(found) {
            causeway_list(descriptor, Unmanaged.passUnretained(found).toOpaque()) { context, name in
                guard let context else { return }
                Unmanaged<Names>.fromOpaque(context).takeUnretainedValue().names.append(String(cString: name))
            }
        }
        try check(result, "readdir", path)
        return found.names
    }

    /// Removes a file; one that is not there is no error.
    public func remove(_ name: String) throws(FileSystemError) {
        let result = causeway_unlink(descriptor, name)
        if result != -ENOENT { try check(result, "unlink", pathOf(name)) }
    }

    /// Renames a file over whatever has the new name.
    public func rename(_ name: String, to newName: String) throws(FileSystemError) {
        try check(causeway_rename(descriptor, name, newName), "rename", pathOf(name))
    }

    /// Makes names that were created, removed or renamed survive a crash.
    public func synchronize() throws(FileSystemError) {
        try check(causeway_synchronize(descriptor), "fsync", path)
    }

    /// How many bytes may still be written to the file system, and how many it has.
    public func space() throws(FileSystemError) -> (freeBytes: UInt64, totalBytes: UInt64) {
        var free: UInt64 = 0
        var total: UInt64 = 0
        try check(causeway_free_bytes(descriptor, &free, &total), "fstatvfs", path)
        return (free, total)
    }

    /// Puts `bytes` under `name` in one step: whatever crashes when, the name has the old content or the new, and after
    /// the call the new one is durable. Permissions are set before a byte is written.
    public func replaceFile(_ name: String, with bytes: some Sequence<UInt8>, permissions: UInt32 = 0o600) throws(FileSystemError) {
        let temporary = ".\(name).new"
        let content = Array(bytes)
        do throws(FileSystemError) {
            // Whatever an interrupted replacement left under the temporary name may have other permissions.
            try remove(temporary)
            let file = try open(temporary, [.write, .create, .exclusive], permissions: permissions)
            try file.setPermissions(permissions)
            var failure: FileSystemError?
            content.withUnsafeBytes { raw in
                do throws(FileSystemError) { try file.write(raw, at: 0) } catch { failure = error }
            }
            if let failure { throw failure }
            try file.synchronizeData()
            try rename(temporary, to: name)
        } catch {
            _ = causeway_unlink(descriptor, temporary)
            throw error
        }
        try synchronize()
    }

    /// The whole of a small file; at most `byteCountMax` bytes of it.
    public func readFile(_ name: String, byteCountMax: Int) throws(FileSystemError) -> [UInt8] {
        let file = try open(name)
        let size = Int(clamping: min(try file.information().size, UInt64(max(0, byteCountMax))))
        var failure: FileSystemError?
        let bytes = [UInt8](unsafeUninitializedCapacity: size) { buffer, count in
            do throws(FileSystemError) {
                count = try file.read(into: UnsafeMutableRawBufferPointer(buffer), at: 0)
            } catch {
                count = 0
                failure = error
            }
        }
        if let failure { throw failure }
        return bytes
    }
}
