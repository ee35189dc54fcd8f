import Blocks
import Ciphers
import NIOCore

/// The records that wait, and the file that they go to.
struct CacheJournal<File: StorageFile> {
    /// The file that takes records, and what seals them; nil until the first write of this run.
    var file: File?
    var fragments: CacheFragments?
    /// The number of that file, or of the next one; and the kind of the next one.
    var number: UInt64
    /// Where the journal before that ends, as far as it counts.
    var predecessor: (fragments: UInt32, chain: CacheChain)
    /// The next file begins a row of its own: what is older counts no more.
    var startsAnew: Bool
    /// Bytes of all files since the last checkpoint.
    var byteCount: UInt64
    /// Journals since the last checkpoint.
    var fileCount: Int
    /// The size of the last checkpoint.
    var checkpointBytes: UInt64 = 0
    /// Records so far in this run, and how many of them no crash takes back.
    private(set) var appended: UInt64 = 0
    var durable: UInt64 = 0
    /// Records that are in no fragment yet.
    private(set) var pending = ByteBuffer()
    private var last: CacheRecord?
    /// A fragment that is to be written, again if need be: the same nonce seals the same bytes.
    var encoded: (bytes: ByteBuffer, offset: UInt64)?
    var isDirty = false
    /// A checkpoint is needed, however short the journal is.
    var wantsCheckpoint = false
    /// The first journal of a row that began anew in this run: once it is durable, files before it are of no use.
    var firstOfRow: UInt64?

    init(
        number: UInt64, predecessor: (fragments: UInt32, chain: CacheChain), startsAnew: Bool, byteCount: UInt64 = 0, fileCount: Int = 0,
        checkpointBytes: UInt64 = 0
    ) {
        self.number = number
        self.predecessor = predecessor
        self.startsAnew = startsAnew
        self.byteCount = byteCount
        self.fileCount = fileCount
        self.checkpointBytes = checkpointBytes
    }

    var pendingBytes: Int { pending.readableBytes }

    /// Adds a record, or makes the last one longer.
    mutating func append(_ record: CacheRecord) {
        appended += 1
        if let joined = last?.joined(with: record) {
            last = joined
        } else {
            last?.encode(into: &pending)
            last = record
        }
    }

    /// The file that takes the records from now on.
    mutating func start(_ file: File, _ fragments: CacheFragments) {
        self.file = file
        self.fragments = fragments
        if startsAnew { firstOfRow = number }
        startsAnew = false
        isDirty = true
        byteCount += UInt64(CacheRecordFileHeader.byteCount)
        fileCount += 1
    }

    /// The file takes no more: the next one goes on behind `fragments`, and a checkpoint is to begin with it.
    mutating func end(at fragments: CacheFragments) {
        predecessor = (fragments.count, fragments.chain)
        file?.close()
        file = nil
        self.fragments = nil
        number += 1
        wantsCheckpoint = true
    }

    /// Ends the last record: none is joined to it any more.
    mutating func settle() {
        last?.encode(into: &pending)
        last = nil
    }

    /// Drops all that waits. What was to be hidden stays hidden: the next file begins anew.
    mutating func giveUp() {
        last = nil
        pending.clear()
        encoded = nil
        file?.close()
        file = nil
        fragments = nil
        number += 1
        startsAnew = true
        (byteCount, fileCount) = (0, 0)
        // What the index has can be found again only when all of it is written down once more.
        wantsCheckpoint = true
    }

    /// Takes up to a fragment of the first `byteCount` bytes of records that wait, which end with a record.
    mutating func take(_ byteCount: Int, fragmentBytesMax: Int) -> ByteBuffer? {
        guard let records = Self.cut(&pending, at: byteCount, fragmentBytesMax: fragmentBytesMax) else { return nil }
        return Self.gathered(records)
    }

    /// Puts the records of each volume about blocks together, as far as nothing between them speaks of segments or of volumes as a whole. In
    /// the order in which they came those of a shared block would tell who has it, also of a volume whose key is gone.
    static func gathered(_ records: ByteBuffer) -> ByteBuffer {
        var outlines: [CacheRecordOutline] = []
        var index = records.readerIndex
        while let outline = CacheRecordOutline(of: records, at: index) {
            outlines.append(outline)
            index = outline.end
        }
        guard index == records.writerIndex, outlines.contains(where: { $0.kind == .shared }) else { return records }
        var result = ByteBuffer()
        result.reserveCapacity(records.readableBytes)
        var rest = outlines[...]
        while let first = rest.first {
            let run = first.hidden == nil ? rest.prefix(1) : rest.prefix { $0.hidden != nil }
            rest = rest.dropFirst(run.count)
            for outline in run.sorted(by: { ($0.first, $0.start) < ($1.first, $1.start) }) {
                guard let bytes = records.getSlice(at: outline.start, length: outline.end - outline.start) else { return records }
                result.writeImmutableBuffer(bytes)
            }
        }
        return result
    }

    /// Takes as many of the first `byteCount` bytes of records, which end with a record, as one fragment holds: whole records only.
    static func cut(_ records: inout ByteBuffer, at byteCount: Int, fragmentBytesMax: Int) -> ByteBuffer? {
        var end = min(byteCount, records.readableBytes)
        if end > fragmentBytesMax {
            var reader = records
            end = 0
            while CacheRecord(from: &reader) != nil {
                let read = records.readableBytes - reader.readableBytes
                if read > fragmentBytesMax { break }
                end = read
            }
        }
        guard end > 0, let taken = records.readSlice(length: end) else { return nil }
        records.discardReadBytes()
        return taken
    }
}

/// One round of the writer: what is to be durable at its end.
struct CacheCycle {
    /// How many slots of which segments, and how many bytes and records of those that waited.
    var slots: [(segment: FillingSegment, count: Int)]
    var recordBytes: Int
    var records: UInt64
}
