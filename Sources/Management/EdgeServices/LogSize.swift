import EdgeConfiguration
import Files
import WriteLog

/// How large the write log of a volume may grow: what was set for the volume, else what the edge's configuration says.
///
/// What was set stands in a file beside the log, so it outlives restarts without home, and goes when the volume is released.
struct LogSize: Sendable {
    /// The sizes that may be set.
    static var range: ClosedRange<UInt64> { Configuration.Cloud.writeLogSizes }
    private static let fileName = "log-size"
    private static let fileBytesMax = 32

    /// What was set for the volume; nil when it follows its edge.
    let ownBytes: UInt64?
    let limits: WriteLogLimits

    /// Reads what was set for the volume whose log is in `directory`.
    init(in directory: OpenDirectory, edgeBytes: UInt64, memoryBytes: Int) throws {
        ownBytes = try Self.read(in: directory)
        limits = WriteLogLimits(unwrittenBytesMax: memoryBytes, logBytesMax: ownBytes ?? edgeBytes)
    }

    private static func read(in directory: OpenDirectory) throws -> UInt64? {
        guard try directory.list().contains(fileName) else { return nil }
        let text = String(decoding: try directory.readFile(fileName, byteCountMax: fileBytesMax), as: UTF8.self)
        // A file that was damaged must not make a log of any size: the edge's own holds then.
        return UInt64(text.split(separator: "\n").first ?? "").flatMap { range.contains($0) ? $0 : nil }
    }

    /// Keeps a size for the volume, durably; nil lets it follow its edge again.
    static func keep(_ byteCount: UInt64?, in directory: OpenDirectory) throws(FileSystemError) {
        if let byteCount { return try directory.replaceFile(fileName, with: Array("\(byteCount)\n".utf8)) }
        try directory.remove(fileName)
        try directory.synchronize()
    }
}
