import EdgeConfiguration
import Files
import WriteLog

/// How large the write log of a volume may grow: what was set for the volume, else what the edge's configuration says.
///
/// What was set stands in a file beside the log, so it outlives restarts without home, and goes when the volume is released.
struct LogSize: Sendable {
    /// The sizes that may be set.
    static var range: ClosedRange<UInt64> { Configuration.Cloud.writeLogSizes }
    private static let kept = KeptSize(fileName: "log-size", range: range)

    /// What was set for the volume; nil when it follows its edge.
    let ownBytes: UInt64?
    let limits: WriteLogLimits

    /// Reads what was set for the volume whose log is in `directory`.
    init(in directory: OpenDirectory, edgeBytes: UInt64, memoryBytes: Int) throws {
        ownBytes = try Self.kept.read(in: directory)
        limits = WriteLogLimits(unwrittenBytesMax: memoryBytes, logBytesMax: ownBytes ?? edgeBytes)
    }

    /// Keeps a size for the volume, durably; nil lets it follow its edge again.
    static func keep(_ byteCount: UInt64?, in directory: OpenDirectory) throws(FileSystemError) {
        try kept.keep(byteCount, in: directory)
    }
}
