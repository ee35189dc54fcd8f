import Blocks
import Ciphers
import NIOCore

/// Hears how a change of the log ended.
typealias LogCompletion = (Result<Void, WriteLogError>) -> Void

/// A write on its way into the log.
struct PendingAppend {
    let range: SectorRange
    /// Only with `kind` data.
    let data: ByteBuffer?
    var kind = LogRecordKind.data
    let now: NIODeadline
    let completion: LogCompletion
}

/// What one record of a batch does.
enum LogRecordKind: UInt8 {
    case data = 0
    case zeroes = 1
    /// Ends the epoch, whose number stands where the first sector does.
    case seal = 2
    /// Sixteen bytes of what the point carries, in place of sector and count. Such records stand right before the seal.
    case attributes = 3
    /// The sectors are no longer in this layer: what is below it shows. Only the journal of a cloud-only disk has it.
    case absent = 4
}

/// One write in a batch.
struct LogRecord {
    let kind: LogRecordKind
    let start: UInt64
    let count: UInt64
    /// Where the sealed bytes begin, counted from the batch's first, and the number of the first chunk.
    var sealedOffset = 0
    var firstChunk: UInt32 = 0
    /// The plaintext, until a file holds it.
    var data: ByteBuffer?

    /// The length of the plaintext.
    var byteCount: Int { kind == .data ? Int(count) * BlockGeometry.sectorBytes : 0 }

    /// How many sectors chunk `index` of this record holds.
    func sectorsInChunk(_ index: UInt64) -> UInt64 { min(LogFormat.sectorsPerChunk, count - index * LogFormat.sectorsPerChunk) }
}

/// Some writes that go to the file together. It lives as long as an extent points at it, and keeps its file open so long.
final class LogBatch {
    let epoch: PointNumber
    let sequence: UInt64
    private(set) var records: [LogRecord] = []
    /// The sealed length of all data so far.
    private(set) var sealedBytes = 0
    private(set) var chunkCount: UInt32 = 0
    /// The plaintext bytes that no file holds yet.
    private(set) var unwrittenBytes = 0
    /// Where the batch is, once it was written: the file, and the position of its first data byte there.
    private(set) var file: LogFile?
    private(set) var dataOffset: UInt64 = 0

    init(epoch: PointNumber, sequence: UInt64) {
        self.epoch = epoch
        self.sequence = sequence
    }

    /// The sealed length of the descriptors.
    var descriptorBytes: Int { records.count * LogFormat.descriptorBytes + BlockCipher.tagByteCount }
    var isEmpty: Bool { records.isEmpty }
    /// The length of the batch in the file.
    var byteCount: Int { LogFormat.batchBytes(descriptors: descriptorBytes, data: sealedBytes) }

    /// Adds a record and gives its extent.
    func add(_ kind: LogRecordKind, start: UInt64, count: UInt64, data: ByteBuffer?) -> LogExtent {
        var record = LogRecord(kind: kind, start: start, count: count, sealedOffset: sealedBytes, firstChunk: chunkCount)
        record.data = data
        let byteCount = record.byteCount
        sealedBytes += LogFormat.sealedBytes(byteCount)
        chunkCount += UInt32((byteCount + LogFormat.chunkBytes - 1) / LogFormat.chunkBytes)
        if data != nil { unwrittenBytes += byteCount }
        records.append(record)
        return LogExtent(batch: self, record: UInt32(records.count - 1), skip: 0)
    }

    /// The bytes are in `file` now, and leave the memory.
    func place(in file: LogFile, dataOffset: UInt64) {
        self.file = file
        self.dataOffset = dataOffset
        unwrittenBytes = 0
        for index in records.indices { records[index].data = nil }
    }
}

/// A batch as it is when it goes to the file, in values that any thread may have.
struct LogBatchContent: Sendable {
    let epoch: PointNumber
    let sequence: UInt64
    let records: [LogRecord]
    let descriptorBytes: Int
    let sealedBytes: Int
    /// What was durable then; it stands in the batch's header.
    let durableThrough: UInt64

    init(_ batch: LogBatch, durableThrough: UInt64) {
        epoch = batch.epoch
        sequence = batch.sequence
        records = batch.records
        descriptorBytes = batch.descriptorBytes
        sealedBytes = batch.sealedBytes
        self.durableThrough = durableThrough
    }
}

/// The value of the log's maps: which record holds a sector, and how far into it.
struct LogExtent: ExtentValue {
    let batch: LogBatch
    let record: UInt32
    /// Sectors of the record before this one. Zeroes may be longer than this counts; it says nothing for them.
    let skip: UInt32

    func dropping(sectors: UInt64) -> LogExtent {
        LogExtent(batch: batch, record: record, skip: skip &+ UInt32(truncatingIfNeeded: sectors))
    }

    var content: LogContent {
        switch batch.records[Int(record)].kind {
        case .data: .data(LogLocation(extent: self))
        case .absent: .absent
        case .zeroes, .seal, .attributes: .zeroes
        }
    }
}

/// One epoch that was not released.
final class LogEpoch {
    let number: PointNumber
    /// The epoch's own writes, each sector once.
    var map = ExtentMap<LogExtent>()
    /// Sectors with data in `map`.
    var dataSectors: UInt64 = 0
    var files: [LogFile] = []
    /// The first batch of the epoch, once there is one.
    var firstBatch: UInt64?
    /// When the first write was appended.
    var firstAppendAt: NIODeadline?
    /// When it was closed, and the batch with the seal.
    var sealedAt: NIODeadline?
    var sealBatch: UInt64?
    /// The seal is durable.
    var isSealed = false
    /// What the seal says of the point; nil for nothing.
    var attributes: PointAttributes?
    /// The batches of the epoch, those that are overwritten too, and the records in them.
    private var batchCount = 0
    private var recordCount = 0

    init(number: PointNumber) {
        self.number = number
    }

    var hasWrites: Bool { firstAppendAt != nil }
    var byteCount: UInt64 { dataSectors * UInt64(BlockGeometry.sectorBytes) }

    /// What the epoch takes of memory.
    var indexSize: LogIndexSize { LogIndexSize(batches: batchCount, records: recordCount, extents: map.count) }

    /// A batch is the epoch's, with so many records.
    func countBatch(records: Int) {
        batchCount += 1
        recordCount += records
    }

    /// A batch of the epoch has another record.
    func countRecord() { recordCount += 1 }

    /// Takes a write into the epoch's map.
    func insert(_ range: SectorRange, _ extent: LogExtent, isData: Bool) {
        var replaced: UInt64 = 0
        map.insert(range, extent) { old in
            if old.value.batch.records[Int(old.value.record)].kind == .data { replaced += old.range.count }
        }
        dataSectors = dataSectors - replaced + (isData ? range.count : 0)
    }

    /// The bytes of the epoch's files, and how many of them are headers and batches.
    var fileBytes: UInt64 { files.reduce(0) { $0 + $1.byteCount } }
    var contentBytes: UInt64 { files.reduce(0) { $0 + $1.writeOffset } }
}
