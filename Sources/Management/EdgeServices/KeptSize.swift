import Files

/// A size that was set while the edge runs, in a file of its own in the state directory: so it outlives restarts.
struct KeptSize: Sendable {
    let fileName: String
    /// The sizes that may be set.
    let range: ClosedRange<UInt64>
    private static let fileBytesMax = 32

    /// What was set, in bytes; nil when nothing was. A file that was damaged counts as none: it must not make anything of any size.
    func read(in directory: OpenDirectory) throws -> UInt64? {
        guard try directory.list().contains(fileName) else { return nil }
        let text = String(decoding: try directory.readFile(fileName, byteCountMax: Self.fileBytesMax), as: UTF8.self)
        return UInt64(text.split(separator: "\n").first ?? "").flatMap { range.contains($0) ? $0 : nil }
    }

    /// Keeps a size, durably; nil forgets it.
    func keep(_ byteCount: UInt64?, in directory: OpenDirectory) throws(FileSystemError) {
        if let byteCount { return try directory.replaceFile(fileName, with: Array("\(byteCount)\n".utf8)) }
        try directory.remove(fileName)
        try directory.synchronize()
    }
}
