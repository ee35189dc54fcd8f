import Files
import SecureCache

/// The file or device of the cloud edge's cache, taken for us alone.
enum CacheFile {
    /// How far a place that is to become a cache must be empty: file systems, partition tables, volume managers and disk images
    /// all have something there.
    private static let emptyByteCount = 128 << 10

    /// Opens it, making a file that is missing, and tells the size of a device. Whatever is neither empty nor a cache is left alone, and so is what another
    /// program uses.
    static func open(_ path: String) throws(EdgeFailure) -> (file: OpenFile, deviceBytes: UInt64?) {
        let (file, isOurs): (OpenFile?, Bool)
        var deviceBytes: UInt64?
        do throws(FileSystemError) {
            file = try openAlone(path)
            isOurs = try file.map { file throws(FileSystemError) in try self.isOurs(file) } ?? false
            if let information = try file?.information(), information.kind == .blockDevice { deviceBytes = information.size }
        } catch {
            let advice =
                error.isLocked ? "another program uses it: name another one in cache.path" : "mend that, or name another one in cache.path"
            throw EdgeFailure(.state, "the cache \(path) can't be opened: \(error); \(advice)")
        }
        guard let file else {
            throw EdgeFailure(.state, "the cache \(path) is neither a file nor a block device: name one in cache.path")
        }
        guard isOurs else {
            throw EdgeFailure(
                .state,
                "the cache \(path) holds something else, which is left as it is: name an empty file or device in cache.path, or wipe this one"
            )
        }
        return (file, deviceBytes)
    }

    /// How large the file of the cache can become on its file system as that is now; nil when that is not known, or it is a device.
    static func room(at path: String) -> UInt64? {
        guard let information = try? OpenFile(path).information(), information.kind == .regular,
            let slash = path.lastIndex(of: "/"), let directory = try? OpenDirectory(String(path[..<slash]) + "/"),
            let space = try? directory.space()
        else { return nil }
        return space.freeBytes + information.allocatedBytes
    }

    /// Whether a file takes room of the file system that a directory is on.
    static func isOnFileSystem(of directory: OpenDirectory, _ file: OpenFile) -> Bool {
        guard let information = try? file.information(), information.kind == .regular else { return false }
        return (try? directory.open(".").information().fileSystem) == information.fileSystem
    }

    /// Nil for what is neither a regular file nor a block device.
    private static func openAlone(_ path: String) throws(FileSystemError) -> OpenFile? {
        // A device that is missing is waited for: a file in its place would be memory, and keep its name from it.
        let file = try OpenFile(path, path.hasPrefix("/dev/") ? [.write] : [.write, .create])
        switch try file.information().kind {
        case .regular:
            try file.lockExclusively()
            return file
        case .blockDevice: return try OpenFile(path, [.write, .exclusive])
        case .directory, .other: return nil
        }
    }

    private static func isOurs(_ file: OpenFile) throws(FileSystemError) -> Bool {
        var start = [UInt8](repeating: 0, count: emptyByteCount)
        var failure: FileSystemError?
        start.withUnsafeMutableBytes { bytes in
            do throws(FileSystemError) { _ = try file.read(into: bytes, at: 0) } catch { failure = error }
        }
        if let failure { throw failure }
        return CacheSignature.begins(start) || start.allSatisfy { $0 == 0 }
    }
}
