import Blocks
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

    /// What the log of a volume has that is not open here, and what it may have. It blocks.
    static func share(ofUnopened volume: VolumeIdentifier, in state: OpenDirectory, edgeBytes: UInt64) -> LogShares.Log {
        guard let directory = try? OpenDirectory("\(state.path)/\(CloudEdge.volumesDirectory)/\(volume)"),
            let names = try? directory.list()
        else { return LogShares.Log(sizeBytes: edgeBytes, takenBytes: 0) }
        // What is beside the log is small.
        let files = names.compactMap { try? directory.open($0).information() }.filter { $0.kind == .regular }
        return LogShares.Log(
            sizeBytes: (try? kept.read(in: directory)) ?? edgeBytes, takenBytes: files.reduce(0) { $0 &+ $1.allocatedBytes })
    }
}
