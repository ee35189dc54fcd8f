import CPlatform

// One record of the journal, 32 bytes, integers big-endian:
//
//     0  1  kind (see JournalRecord)
//     1  1  flags: 1 durable
//     2  2  zero
//     4  4  number of units; for a flush, the epoch
//     8  8  first unit
//    16  8  generation; for a flush, the sequence
//    24  4  zero
//    28  4  CRC-32C of the 28 bytes before it
//
// The journal file begins with 32 bytes: magic "CWLDJRNL", version (4), zero (4), job (8), number of the
// state file that it continues (4), CRC-32C of the 28 bytes before it.

/// One event of a ledger, as the journal keeps it.
public enum JournalRecord: Equatable, Sendable {
    /// A write is about to be sent.
    case issue(Range<Int>)
    /// A write was acknowledged.
    case acknowledge(Range<Int>, generation: UInt64, durable: Bool)
    /// A write ended with an error.
    case fail(Range<Int>, generation: UInt64)
    /// A flush was acknowledged.
    case flush(WriteLedger.FlushTicket)
    /// A session was lost.
    case loss
    /// A session was lost, but nothing that had been acknowledged.
    case interruption
    /// A read ended the doubt about a unit.
    case observe(unit: Int, generation: UInt64)

    /// The bytes in a record, and in the header of a journal.
    public static let byteCount = 32

    /// Appends the record to a buffer.
    public func encode(into bytes: inout [UInt8]) {
        var (kind, flags, count, first, number): (UInt8, UInt8, UInt32, UInt64, UInt64) = (0, 0, 0, 0, 0)
        func set(_ units: Range<Int>) {
            count = UInt32(clamping: units.count)
            first = UInt64(clamping: units.lowerBound)
        }
        switch self {
        case .issue(let units):
            kind = 1
            set(units)
        case .acknowledge(let units, let generation, let durable):
            kind = 2
            set(units)
            (number, flags) = (generation, durable ? 1 : 0)
        case .fail(let units, let generation):
            kind = 3
            set(units)
            number = generation
        case .flush(let ticket): (kind, count, number) = (4, ticket.epoch, ticket.sequence)
        case .loss: kind = 5
        case .interruption: kind = 7
        case .observe(let unit, let generation): (kind, count, first, number) = (6, 1, UInt64(clamping: unit), generation)
        }
        let start = bytes.count
        bytes.append(kind)
        bytes.append(flags)
        bytes.append(contentsOf: [0, 0])
        bytes.appendBigEndian(count)
        bytes.appendBigEndian(first)
        bytes.appendBigEndian(number)
        bytes.appendBigEndian(UInt32(0))
        bytes.appendChecksum(from: start)
    }

    /// Reads a record; nil when it is damaged or makes no sense.
    public init?(decoding bytes: ArraySlice<UInt8>) {
        guard bytes.count == Self.byteCount, bytes.hasChecksum(), let count: UInt32 = bytes.bigEndian(at: 4),
            let first: UInt64 = bytes.bigEndian(at: 8), let number: UInt64 = bytes.bigEndian(at: 16), let kind = bytes.first,
            let start = Int(exactly: first), start <= 1 << 40
        else { return nil }
        let units = start..<start + Int(count)
        switch kind {
        case 1: self = .issue(units)
        case 2: self = .acknowledge(units, generation: number, durable: bytes[bytes.startIndex + 1] & 1 == 1)
        case 3: self = .fail(units, generation: number)
        case 4: self = .flush(.init(sequence: number, epoch: count))
        case 5: self = .loss
        case 6: self = .observe(unit: start, generation: number)
        case 7: self = .interruption
        default: return nil
        }
    }

    /// The header of a journal that continues the state file with the given number.
    public static func header(job: UInt64, stateNumber: UInt32) -> [UInt8] {
        var bytes = Array("CWLDJRNL".utf8)
        bytes.appendBigEndian(UInt32(1))
        bytes.appendBigEndian(UInt32(0))
        bytes.appendBigEndian(job)
        bytes.appendBigEndian(stateNumber)
        bytes.appendChecksum(from: 0)
        return bytes
    }

    /// Reads a header; nil when it is none, or damaged.
    public static func parseHeader(_ bytes: ArraySlice<UInt8>) -> (job: UInt64, stateNumber: UInt32)? {
        guard bytes.count == byteCount, bytes.starts(with: Array("CWLDJRNL".utf8)), bytes.hasChecksum(),
            let version: UInt32 = bytes.bigEndian(at: 8), version == 1, let job: UInt64 = bytes.bigEndian(at: 16),
            let number: UInt32 = bytes.bigEndian(at: 24)
        else { return nil }
        return (job, number)
    }
}

extension WriteLedger {
    /// Repeats an event that the journal kept.
    /// - Returns: false when it can't have happened to this ledger.
    public mutating func apply(_ record: JournalRecord) -> Bool {
        switch record {
        case .issue(let units):
            guard canWrite(units) else { return false }
            _ = issue(units)
        case .acknowledge(let units, let generation, let durable):
            guard units.upperBound <= unitCount else { return false }
            acknowledge(units, generation: generation, durable: durable)
        case .fail(let units, let generation):
            guard units.upperBound <= unitCount else { return false }
            fail(units, generation: generation)
        case .flush(let ticket): completeFlush(ticket)
        case .loss: loseSession()
        case .interruption: interruptSession()
        case .observe(let unit, let generation):
            guard unit < unitCount else { return false }
            _ = observe(unit, generation: generation, issuedInEpoch: epoch)
        }
        return true
    }

    /// Replays the records behind a journal's header. A last record that was cut off is ignored.
    /// - Returns: how many were applied, or nil when a whole record is damaged or impossible.
    public mutating func replay(_ bytes: ArraySlice<UInt8>) -> Int? {
        var position = bytes.startIndex
        var applied = 0
        while position + JournalRecord.byteCount <= bytes.endIndex {
            guard let record = JournalRecord(decoding: bytes[position..<position + JournalRecord.byteCount]), apply(record) else {
                return nil
            }
            position += JournalRecord.byteCount
            applied += 1
        }
        return applied
    }
}
