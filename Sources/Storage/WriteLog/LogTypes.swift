import Blocks
import Ciphers
import NIOCore

/// Why the write log could not do what it was asked.
public enum WriteLogError: Error, Equatable, Sendable {
    /// The files are of this volume, but were not sealed under this key.
    case wrongKey
    /// A file was sealed under a generation of the volume's key that is not among those at hand.
    case missingKey(KeyGeneration)
    /// A file holds what was not written there, or lost what had been made durable; the text says where.
    case corrupt(String)
    /// The files belong to another volume.
    case foreign(VolumeIdentifier)
    /// The file system failed. The log takes no more writes; what is in memory can still be read.
    case file(StorageFileError)
    /// There is no room in the log, or in its file system, and waiting for it took too long.
    case noSpace(String)
    /// One write had more bytes than a batch may hold.
    case tooLarge(Int)
    /// The cipher refused to work; the text names the call.
    case cipher(String)
    /// The log was closed.
    case closed

    /// True when another key may open it.
    public var isOfKey: Bool {
        switch self {
        case .wrongKey, .missingKey: true
        default: false
        }
    }

    /// What is wrong, for people.
    public var text: String {
        switch self {
        case .wrongKey: "it was not written under this key"
        case .missingKey(let generation): "it was written under generation \(generation) of the volume's key, which is not at hand"
        case .corrupt(let text), .noSpace(let text): text
        case .foreign(let volume): "it belongs to volume \(volume)"
        case .file(let error): "\(error)"
        case .tooLarge(let byteCount): "a write of \(byteCount) bytes is too large"
        case .cipher(let text): "the cipher refused to work: \(text)"
        case .closed: "the log was closed"
        }
    }
}

/// The name of one log: 16 random bytes, made when the log is first created and the same in all its files.
///
/// A log that is made anew, because its directory was lost, numbers its points from the start; this
/// identifier is how the other edge notices.
public struct LogIdentifier: Hashable, Sendable, CustomStringConvertible {
    public let high: UInt64
    public let low: UInt64

    public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// From 32 hexadecimal digits; nil for anything else.
    public init?(hexadecimal: String) {
        guard let parsed = VolumeIdentifier(hexadecimal: hexadecimal) else { return nil }
        self.init(high: parsed.high, low: parsed.low)
    }

    /// 32 hexadecimal digits.
    public var description: String { VolumeIdentifier(high: high, low: low).description }
}

/// The bounds of a log, and what happens at each.
public struct WriteLogLimits: Sendable {
    /// Bytes of writes in memory that no file holds yet. Beyond it appends wait, unordered, for the file.
    public var unwrittenBytesMax: Int
    /// Bytes in files and on their way to them. Room that files have without holding anything is given back as those need it.
    /// Beyond it appends wait, unordered, until points are released;
    /// after `failWaiting` they fail.
    public var logBytesMax: UInt64
    /// How many bytes of the log a byte of its index in memory counts as, so that the index takes at most so small a part of `logBytesMax`.
    /// Writes of 4 KiB and more fill the log's files first.
    public var logBytesPerIndexByte: UInt64
    /// The share of `logBytesMax`, in percent, from which on appends are slowed by and by; 100 for never. See `AdmissionPace`.
    public var slowingPercent: Int
    /// A batch that gathers while another is written is closed when it holds this many bytes.
    public var batchBytesMax: Int

    public init(
        unwrittenBytesMax: Int = 32 << 20, logBytesMax: UInt64 = 1 << 30, batchBytesMax: Int = 1 << 20, slowingPercent: Int = 75,
        logBytesPerIndexByte: UInt64 = 8
    ) {
        self.unwrittenBytesMax = unwrittenBytesMax
        self.logBytesMax = logBytesMax
        self.logBytesPerIndexByte = max(logBytesPerIndexByte, 1)
        self.slowingPercent = min(max(slowingPercent, 0), 100)
        self.batchBytesMax = min(max(batchBytesMax, 4096), LogFormat.batchDataBytesMax / 4)
    }

    /// What so much memory counts as.
    func logBytes(ofIndex byteCount: Int) -> UInt64 {
        if isPlanted(.ignoresIndexSize) { return 0 }
        let (bytes, overflow) = UInt64(max(byteCount, 0)).multipliedReportingOverflow(by: logBytesPerIndexByte)
        return overflow ? .max : bytes
    }
}

/// A point that was sealed, is durable in the log and was not released yet.
public struct SealedPoint: Equatable, Sendable {
    /// Its number.
    public let number: PointNumber
    /// The bytes of data that it holds after overlaps were removed; zeroes count nothing.
    public let byteCount: UInt64
    /// When it was sealed; after a restart, when it was found.
    public let sealedAt: NIODeadline
}

/// A write that waited for room and was taken out of the log before it was ordered.
public struct HeldAppend {
    /// The sectors.
    public let range: SectorRange
    /// Their bytes; nil for zeroes.
    public let data: ByteBuffer?
    /// Answers whoever wrote. On success he believes that it survives the death of the process, and flushes this log if he wants more.
    public let completion: (Result<Void, WriteLogError>) -> Void
}

/// A run of sectors in the log, and where its newest content is.
public struct LogSegment {
    /// The sectors.
    public let range: SectorRange
    /// What they hold.
    public let content: LogContent

    public init(range: SectorRange, content: LogContent) {
        self.range = range
        self.content = content
    }

    /// The point that its bytes belong to; nil when there are none.
    public var point: PointNumber? { if case .data(let location) = content { location.extent.batch.epoch } else { nil } }
}

/// What a run of sectors in the log holds.
public enum LogContent {
    /// Zeroes.
    case zeroes
    /// Bytes, in memory or in a file.
    case data(LogLocation)
    /// Nothing: what is below this layer shows. Only the journal of a cloud-only disk says so; see `WriteLog.appendAbsence`.
    case absent
}

/// Where bytes of the log are. Holding one keeps them readable, even after their point was released.
public struct LogLocation {
    let extent: LogExtent
}

/// What a log holds of writes that came after a point.
public struct LogBacklog: Equatable, Sendable {
    /// Bytes of data, after overlaps within each point were removed.
    public let bytes: UInt64
    /// Sealed points.
    public let points: Int
    /// When the oldest of the writes was appended; nil when there is none.
    public let oldestAppendAt: NIODeadline?
}

/// What a log has done and holds, for the owner to show.
public struct WriteLogStatistics: Equatable, Sendable {
    /// Bytes in files: also of those that wait for an epoch, and the room that files have behind their batches.
    public var fileBytes: UInt64 = 0
    /// What counts for `WriteLogLimits.logBytesMax`: bytes of writes in files and on their way to them, or what the index stands for when
    /// that is more.
    public var usedBytes: UInt64 = 0
    /// What the index takes of memory.
    public var indexBytes: Int = 0
    /// Bytes of writes in memory that no file holds yet.
    public var unwrittenBytes: Int = 0
    /// When the oldest write that was not released was appended; nil when there is none.
    public var oldestAppendAt: NIODeadline?
    /// Bytes of data that were ever appended by this process.
    public var appendedBytes: UInt64 = 0
    /// Completed fdatasyncs of log files.
    public var syncs: UInt64 = 0
    /// Batches that were written.
    public var batches: UInt64 = 0
    /// Appends that wait for room, or because the log is nearly full.
    public var waitingAppends: Int = 0
    /// Appends that had to wait so and went on, and how long they did, all together.
    public var waitedAppends: UInt64 = 0
    public var waitedTime: TimeAmount = .zero
    /// Bytes that are released a second while there is something to release; 0 before the first release.
    public var releasedBytesPerSecond: UInt64 = 0

    public init() {}
}

/// The files of a log, as whoever has the directory sees them.
public enum WriteLogFiles {
    /// True for the name of a file that a log makes.
    public static func isName(_ name: String) -> Bool { LogFormat.parse(fileName: name) != nil }
}
