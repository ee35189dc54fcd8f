// What the log keeps in memory of each unreleased write: that a batch is there, its records, and extents in two maps. It is counted, not
// measured, with what each of them takes on a 64-bit machine, the slack of growing arrays included: rather too much than too little.
//
//     4 KiB, flushed alone         5 KiB of the log    a batch, a record, two extents    about a thirteenth
//     4 KiB, many at once        4.1 KiB of the log             a record, two extents    about a twenty-second
//     zeroes of 512 bytes, many   17 bytes of the log            a record, two extents    eleven times as much
//
// So the log has a second measure of how full it is: a machine that unmaps every other block must not have the edge's memory.

/// How much memory some part of a log's index takes.
struct LogIndexSize: Equatable {
    /// A batch with its list of records, and one record there.
    static let batchBytes = 224
    static let recordBytes = 96
    /// An extent in a map.
    static let extentBytes = 48
    /// What one write adds at most, of a batch of its own: it may cut an extent in two in both maps.
    static let writeBytesMax = batchBytes + recordBytes + 4 * extentBytes

    var batches = 0
    var records = 0
    var extents = 0

    var byteCount: Int { batches * Self.batchBytes + records * Self.recordBytes + extents * Self.extentBytes }
}
