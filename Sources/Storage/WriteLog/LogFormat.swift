import Blocks
import Checksums
import Ciphers
import NIOCore

// A log file, as docs/reference/write-log-format.md describes it:
//
//     0      file header, 4096 bytes, of which 144 are used
//     4096   batch | batch | ... each begins at a multiple of 512
//            what the file held before it became this epoch's
//
//     batch: header, 48 bytes, plaintext
//            descriptors, sealed: 17 bytes for each record, and the tag
//            data, sealed: each record's bytes in chunks of 4096, each with its tag
//            zeroes up to the next multiple of 512
//
// This file knows bytes only. Everything in it takes outside bytes and never traps on them.

enum LogFormat {
    static let headerBytes = 4096
    static let headerMagic: UInt64 = 0x4341_5553_454c_4f47  // "CAUSELOG"
    static let batchMagic: UInt32 = 0x434c_4f42  // "CLOB"
    /// The version that is written. Files of version 1, whose batches are not bound to their file's salt, are read as well.
    static let version: UInt16 = 2
    static let versions: ClosedRange<UInt16> = 1...version
    static let alignment = 512
    static let saltBytes = 32
    static let batchHeaderBytes = 48
    /// The part of a batch header that the descriptors' tag covers: all but the checksums.
    static let batchHeaderBoundBytes = 40
    static let descriptorBytes = 17
    static let chunkBytes = 4096
    static let sealedChunkBytes = chunkBytes + BlockCipher.tagByteCount
    static let sectorsPerChunk = UInt64(chunkBytes / BlockGeometry.sectorBytes)
    /// No batch has more sealed data: what a parser believes at most.
    static let batchDataBytesMax = 128 << 20
    /// A batch with at most this much sealed data may be sealed and written on the loop: 32 writes of 4 KiB. It takes about
    /// as long as waking another thread and being woken by it.
    static let atOnceBytesMax = 160 << 10
    /// The zeroes that are written ahead of flushed batches: as many as the file has bytes, within these bounds.
    static let bytesAhead = 64 << 10...1 << 20
    /// Files without an epoch are kept for the next ones, at most so many, and see `WriteLog.idleBytesMax`. Each stays open. A long
    /// write fills a point's 64 MiB in less than a tenth of a second, so a few are soon used up.
    static let sparesMax = 64
    /// Of a file that is too large to be kept, the first part is, if that has so many bytes.
    static let spareBytesMin: UInt64 = 1 << 20
    /// No file of a log is as large; a size beyond it is somebody's who wants sums to overflow.
    static let fileBytesMax: UInt64 = 1 << 44
    /// No batch has more records.
    static let batchRecordsMax = 65_536
    static let keyPurpose = "causeway write log 1"
    /// The nonce of a file header's tag; no batch reaches its sequence.
    static let headerNonce = CipherNonce(sequence: .max, index: .max)

    static func aligned(_ byteCount: Int) -> Int { (byteCount + alignment - 1) / alignment * alignment }

    /// The length of a batch in the file, whose descriptors and data have these sealed lengths.
    static func batchBytes(descriptors: Int, data: Int) -> Int { aligned(batchHeaderBytes + descriptors + data) }

    /// How many bytes `byteCount` bytes of one record take when they are sealed.
    static func sealedBytes(_ byteCount: Int) -> Int {
        byteCount + (byteCount + chunkBytes - 1) / chunkBytes * BlockCipher.tagByteCount
    }

    // MARK: Names

    /// `epoch-<16 hex>.log`, and `epoch-<16 hex>-<part>.log` for what a restart continued.
    static func fileName(epoch: PointNumber, part: UInt32) -> String {
        let digits = String(epoch, radix: 16)
        let epochText = String(repeating: "0", count: 16 - digits.count) + digits
        return part == 0 ? "epoch-\(epochText).log" : "epoch-\(epochText)-\(part).log"
    }

    /// The epoch and the part of a file's name; nil for every other name.
    static func parse(fileName: String) -> (epoch: PointNumber, part: UInt32)? {
        guard fileName.hasPrefix("epoch-"), fileName.hasSuffix(".log"), fileName.utf8.count >= 26 else { return nil }
        let middle = fileName.dropFirst(6).dropLast(4)
        guard let epoch = UInt64(middle.prefix(16), radix: 16) else { return nil }
        let rest = middle.dropFirst(16)
        let part = rest.isEmpty ? 0 : UInt32(rest.dropFirst())
        // Only the one spelling counts, so that two names never mean the same file.
        guard let part, self.fileName(epoch: epoch, part: part) == fileName else { return nil }
        return (epoch, part)
    }

    /// `spare-<16 hex>.log`: a file whose epoch is gone, and which waits for another.
    static func spareName(_ number: UInt64) -> String {
        let digits = String(number, radix: 16)
        return "spare-\(String(repeating: "0", count: 16 - digits.count))\(digits).log"
    }

    /// The number of a spare file's name; nil for every other name.
    static func parse(spareName: String) -> UInt64? {
        guard spareName.hasPrefix("spare-"), spareName.hasSuffix(".log"), spareName.utf8.count == 26,
            let number = UInt64(spareName.dropFirst(6).dropLast(4), radix: 16), self.spareName(number) == spareName
        else { return nil }
        return number
    }
}

/// The header of one file.
struct LogFileHeader: Equatable {
    static let boundBytes = 124

    var volume: VolumeIdentifier
    var log: LogIdentifier
    var epoch: PointNumber
    var part: UInt32
    /// The first batch of this file, and of its epoch: they differ in a part that continues another one.
    var firstBatch: UInt64
    var epochFirstBatch: UInt64
    /// The last batch that was known to be durable when the file was made. A recovery that ends before it has lost data.
    var durableThrough: UInt64
    /// The generation of the volume's data key that the file's key is derived from.
    var keyGeneration: KeyGeneration
    var salt: [UInt8]
    /// The file held another epoch before, and what is behind its batches may be left of that.
    var isRecycled = false
    var version = LogFormat.version

    /// The whole header with its tag and checksum; nil when the cipher refuses.
    func encoded(cipher: BlockCipher) -> ByteBuffer? {
        var buffer = ByteBuffer()
        buffer.reserveCapacity(LogFormat.headerBytes)
        buffer.writeInteger(LogFormat.headerMagic)
        buffer.writeInteger(version)
        buffer.writeInteger(UInt16(isRecycled ? 1 : 0))
        buffer.writeInteger(UInt32(LogFormat.headerBytes))
        buffer.writeInteger(volume.high)
        buffer.writeInteger(volume.low)
        buffer.writeInteger(log.high)
        buffer.writeInteger(log.low)
        buffer.writeInteger(epoch)
        buffer.writeInteger(part)
        buffer.writeInteger(firstBatch)
        buffer.writeInteger(epochFirstBatch)
        buffer.writeInteger(durableThrough)
        buffer.writeInteger(keyGeneration)
        buffer.writeBytes(salt)
        var tag = [UInt8](repeating: 0, count: BlockCipher.tagByteCount)
        let sealed = buffer.withUnsafeReadableBytes { bound in
            tag.withUnsafeMutableBytes { tag in
                cipher.seal(
                    UnsafeRawBufferPointer(start: nil, count: 0), nonce: LogFormat.headerNonce, authenticating: bound, into: tag)
            }
        }
        guard sealed, buffer.readableBytes == Self.boundBytes else { return nil }
        buffer.writeBytes(tag)
        buffer.writeInteger(CRC32C.checksum(of: buffer))
        buffer.writeRepeatingByte(0, count: LogFormat.headerBytes - buffer.readableBytes)
        return buffer
    }

    enum ParseError: Error, Equatable {
        /// The bytes are no header: it was never written, or was torn.
        case incomplete
        /// The checksum holds, but the version is one that this program does not know.
        case unknownVersion(UInt16)
    }

    /// Parses what no key is needed for.
    init(parsing bytes: ByteBuffer) throws(ParseError) {
        var buffer = bytes
        let checked = Self.boundBytes + BlockCipher.tagByteCount
        guard let covered = buffer.getSlice(at: buffer.readerIndex, length: checked),
            let checksum = buffer.getInteger(at: buffer.readerIndex + checked, as: UInt32.self),
            buffer.readInteger(as: UInt64.self) == LogFormat.headerMagic, CRC32C.checksum(of: covered) == checksum,
            let version = buffer.readInteger(as: UInt16.self)
        else { throw .incomplete }
        guard LogFormat.versions.contains(version) else { throw .unknownVersion(version) }
        guard let flags = buffer.readInteger(as: UInt16.self), buffer.readInteger(as: UInt32.self) == UInt32(LogFormat.headerBytes),
            let (volumeHigh, volumeLow) = buffer.readMultipleIntegers(as: (UInt64, UInt64).self),
            let (logHigh, logLow) = buffer.readMultipleIntegers(as: (UInt64, UInt64).self),
            let (epoch, part) = buffer.readMultipleIntegers(as: (UInt64, UInt32).self),
            let (first, epochFirst, durable, generation) = buffer.readMultipleIntegers(as: (UInt64, UInt64, UInt64, UInt64).self),
            let salt = buffer.readBytes(length: LogFormat.saltBytes)
        else { throw .incomplete }
        self.init(
            volume: VolumeIdentifier(high: volumeHigh, low: volumeLow), log: LogIdentifier(high: logHigh, low: logLow),
            epoch: epoch, part: part, firstBatch: first, epochFirstBatch: epochFirst, durableThrough: durable,
            // Files from before keys had generations say 0.
            keyGeneration: max(generation, 1), salt: salt, isRecycled: version > 1 && flags & 1 != 0, version: version)
    }

    init(
        volume: VolumeIdentifier, log: LogIdentifier, epoch: PointNumber, part: UInt32, firstBatch: UInt64,
        epochFirstBatch: UInt64, durableThrough: UInt64, keyGeneration: KeyGeneration, salt: [UInt8], isRecycled: Bool = false,
        version: UInt16 = LogFormat.version
    ) {
        self.volume = volume
        self.log = log
        self.epoch = epoch
        self.part = part
        self.firstBatch = firstBatch
        self.epochFirstBatch = epochFirstBatch
        self.durableThrough = durableThrough
        self.keyGeneration = keyGeneration
        self.salt = salt
        self.isRecycled = isRecycled
        self.version = version
    }

    /// True when the header's tag was made under the key of `cipher`.
    static func isAuthentic(_ bytes: ByteBuffer, cipher: BlockCipher) -> Bool {
        guard let bound = bytes.getSlice(at: bytes.readerIndex, length: boundBytes),
            let tag = bytes.getSlice(at: bytes.readerIndex + boundBytes, length: BlockCipher.tagByteCount)
        else { return false }
        return tag.withUnsafeReadableBytes { tag in
            bound.withUnsafeReadableBytes { bound in
                cipher.open(
                    tag, nonce: LogFormat.headerNonce, authenticating: bound,
                    into: UnsafeMutableRawBufferPointer(start: nil, count: 0))
            }
        }
    }
}

/// What ties a batch to the file that it was written to.
///
/// The space behind the batches of a file may hold those of an epoch that had the file before, whole and with the numbers that come
/// next: numbers are given out again after a crash. The checksum of a batch's header goes over the file's salt too, so such a batch is
/// none in this file, and nobody has to prove that it can't be met.
struct LogBinding: Sendable {
    let version: UInt16
    /// The checksum over what stands, as it were, before a batch's header.
    let checksum: CRC32C

    init(_ header: LogFileHeader) {
        version = header.version
        var checksum = CRC32C()
        if version > 1 { header.salt.withUnsafeBytes { checksum.update($0) } }
        self.checksum = checksum
    }

    func checksum(of head: UnsafeRawBufferPointer) -> UInt32 {
        var checksum = checksum
        checksum.update(head)
        return checksum.value
    }
}

/// The plaintext header of one batch.
struct LogBatchHeader: Equatable {
    var epoch: PointNumber
    /// Counts the batches of a log over all its files, without gaps.
    var sequence: UInt64
    /// The last batch that was known to be durable when this one was written.
    var durableThrough: UInt64
    /// The sealed lengths of the descriptors and of the data.
    var descriptorBytes: UInt32
    var dataBytes: UInt32
    /// CRC-32C of descriptors and data as they stand in the file.
    var payloadChecksum: UInt32 = 0
    /// The version of the file.
    let version: UInt16

    /// The length of the whole batch in the file.
    var byteCount: Int { LogFormat.batchBytes(descriptors: Int(descriptorBytes), data: Int(dataBytes)) }
    /// How many records the descriptors hold.
    var recordCount: Int { (Int(descriptorBytes) - BlockCipher.tagByteCount) / LogFormat.descriptorBytes }

    /// Magic, version and two bytes of zero, as one number.
    private var start: UInt64 { UInt64(LogFormat.batchMagic) << 32 | UInt64(version) << 16 }
    private var lengths: UInt64 { UInt64(descriptorBytes) << 32 | UInt64(dataBytes) }

    /// Writes the first 40 bytes, which the descriptors are bound to.
    func encodeBound(into buffer: inout ByteBuffer) {
        buffer.writeMultipleIntegers(start, epoch, sequence, durableThrough, lengths)
    }

    /// Lends what the descriptors are bound to: the first 40 bytes and the volume.
    func withBoundBytes<Result>(of volume: VolumeIdentifier, _ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        let words = (
            start.bigEndian, epoch.bigEndian, sequence.bigEndian, durableThrough.bigEndian, lengths.bigEndian, volume.high.bigEndian,
            volume.low.bigEndian
        )
        return withUnsafeBytes(of: words, body)
    }

    /// Parses a header at the reader index; nil for anything that is none of a file with this binding.
    init?(parsing bytes: ByteBuffer, binding: LogBinding) {
        var buffer = bytes
        let checked = LogFormat.batchHeaderBytes - 4
        guard let covered = buffer.getSlice(at: buffer.readerIndex, length: checked),
            let checksum = buffer.getInteger(at: buffer.readerIndex + checked, as: UInt32.self),
            covered.withUnsafeReadableBytes({ binding.checksum(of: $0) }) == checksum,
            buffer.readInteger(as: UInt32.self) == LogFormat.batchMagic,
            let (version, _) = buffer.readMultipleIntegers(as: (UInt16, UInt16).self), version == binding.version,
            let (epoch, sequence, durable) = buffer.readMultipleIntegers(as: (UInt64, UInt64, UInt64).self),
            let (descriptors, data, payload) = buffer.readMultipleIntegers(as: (UInt32, UInt32, UInt32).self)
        else { return nil }
        let records = Int(descriptors) - BlockCipher.tagByteCount
        guard records > 0, records % LogFormat.descriptorBytes == 0,
            records / LogFormat.descriptorBytes <= LogFormat.batchRecordsMax,
            Int(data) <= LogFormat.batchDataBytesMax
        else { return nil }
        self.init(
            epoch: epoch, sequence: sequence, durableThrough: durable, descriptorBytes: descriptors, dataBytes: data, version: version)
        payloadChecksum = payload
    }

    init(
        epoch: PointNumber, sequence: UInt64, durableThrough: UInt64, descriptorBytes: UInt32, dataBytes: UInt32,
        version: UInt16 = LogFormat.version
    ) {
        self.epoch = epoch
        self.sequence = sequence
        self.durableThrough = durableThrough
        self.descriptorBytes = descriptorBytes
        self.dataBytes = dataBytes
        self.version = version
    }
}
