import Blocks
import Checksums
import Ciphers
import NIOCore

// A cache is a file of blocks, and a directory of records that say which blocks are where. Both are described in
// docs/reference/cache-format.md.
//
//     blocks file    0       header, 4096 bytes, plaintext
//                    4096    segments of equal size: slots of 4096 bytes and a tag, each sealed under the key of its volume;
//                            behind them the owners: which block of which volume each slot was filled with
//     directory      checkpoint.N, journal.N, journal.N+1, ...: records, sealed in fragments under the cache's key

/// Where the records of a cloud edge's cache are, in its state directory.
public enum CacheRecordsDirectory {
    public static let name = "cache-index"
}

/// How a cache's file begins, for those who must not take another one for it.
public enum CacheSignature {
    /// True when `bytes` begin as the file of a cache's blocks does.
    public static func begins(_ bytes: some Sequence<UInt8>) -> Bool {
        bytes.prefix(8).reduce(UInt64(0)) { $0 << 8 | UInt64($1) } == CacheFormat.magic
    }
}

enum CacheFormat {
    static let headerBytes = 4096
    static let magic: UInt64 = 0x4341_5553_4543_4143  // "CAUSECAC"
    static let version: UInt16 = 5
    /// Version 4 shared no blocks, and is the same beside that: a cache goes on from it. That of another version is left, which costs time
    /// only.
    static let versionsRead: ClosedRange<UInt16> = 4...5
    static let saltBytes = 32
    static let blockBytes = BlockGeometry.blockBytes
    /// A sealed block, and so the distance between slots.
    static let slotBytes = blockBytes + BlockCipher.tagByteCount
    /// What a segment says of the block in a slot: volume and number.
    static let ownerBytes = 12
    /// The nonce of a segment's owners; its slots count from 0.
    static func ownersNonce(_ sequence: UInt64) -> CipherNonce { CipherNonce(sequence: sequence, index: .max) }
    /// The owner of a slot that has none.
    static let noOwner = CacheOwner(volume: .max, block: 0)
    /// The owner of a slot with a shared block: who has it is in memory, and in records.
    static let sharedOwner = CacheOwner(volume: .max - 1, block: 0)
    static let segmentBytesMin = 64 << 10
    /// One segment for each queue to fill, one for each being written, and some to evict ahead.
    static let segmentsMin = 6
    /// No volume has more blocks.
    static let blocksMax: UInt64 = 1 << 50
    /// No cache has more slots: four tebibytes.
    static let slotsMax = 1 << 30
    static let recordsPurpose = "causeway cache records 2"
    static let ownersPurpose = "causeway cache owners 2"
    static let veilPurpose = "causeway cache map 4"
    static let blockPurpose = "causeway cache blocks 2"
    static let sharedPurpose = "causeway cache shared 5"
    static let signaturePurpose = "causeway cache signatures 5"

    /// What a block is bound to: which volume and block it is, and which segment it was put into.
    static func blockContext(_ volume: VolumeIdentifier, _ block: UInt64, sequence: UInt64) -> CipherContext {
        CipherContext(volume.high, volume.low, block, sequence, 0)
    }

    /// What a shared block is bound to.
    static func sharedContext(_ signature: BlockSignature, sequence: UInt64) -> CipherContext {
        CipherContext(sharedMagic, signature.high, signature.low, sequence, 0)
    }
    private static let sharedMagic: UInt64 = 0x4341_5553_4553_4852  // "CAUSESHR"

    /// What the owners of a segment are bound to.
    static func ownersContext(segment: Int, sequence: UInt64, count: Int) -> CipherContext {
        CipherContext(UInt64(segment), sequence, UInt64(count), magic, 0)
    }
}

/// Where things are in the file of a cache of a given size.
struct CacheGeometry: Equatable {
    let segmentBytes: Int
    var segmentCount: Int
    /// Slots in a segment.
    let slotCount: Int

    init(byteCount: UInt64, segmentBytes: Int) {
        self.segmentBytes = segmentBytes
        slotCount = (segmentBytes - BlockCipher.tagByteCount) / (CacheFormat.slotBytes + CacheFormat.ownerBytes)
        let room = byteCount - min(byteCount, UInt64(CacheFormat.headerBytes))
        segmentCount = min(Int(clamping: room / UInt64(segmentBytes)), CacheFormat.slotsMax / slotCount)
    }

    /// The size of segment that suits a cache: small caches get small ones, so that there are some to choose from.
    static func segmentBytes(forCacheOf byteCount: UInt64, atMost maximum: Int) -> Int {
        let fitting = Int(clamping: byteCount / 64) / CacheFormat.segmentBytesMin * CacheFormat.segmentBytesMin
        return min(max(fitting, CacheFormat.segmentBytesMin), maximum)
    }

    /// Segments that a cache keeps free ahead of need: enough to take what arrives while others are emptied, and little of a small cache.
    static func reserve(segmentCount: Int) -> Int { min(max(2, segmentCount / 16), max(4, min(8, segmentCount / 64))) }

    /// Bits that the number of a slot takes.
    var slotWidth: Int { max(1, Int.bitWidth - (segmentCount * slotCount - 1).leadingZeroBitCount) }
    var byteCount: UInt64 { offset(ofSegment: segmentCount) }

    func offset(ofSegment segment: Int) -> UInt64 { UInt64(CacheFormat.headerBytes) + UInt64(segment) * UInt64(segmentBytes) }
    func offset(ofSlot slot: Int, in segment: Int) -> UInt64 {
        offset(ofSegment: segment) + UInt64(slot) * UInt64(CacheFormat.slotBytes)
    }
    func offset(ofOwnersIn segment: Int) -> UInt64 { offset(ofSlot: slotCount, in: segment) }

    func slot(_ index: Int, in segment: Int) -> CacheSlot { CacheSlot(segment * slotCount + index) }
    func segment(of slot: CacheSlot) -> Int { Int(slot) / slotCount }
    func index(of slot: CacheSlot) -> Int { Int(slot) % slotCount }
}

/// The header of the file of blocks.
struct CacheHeader: Equatable {
    static let checkedBytes = 32

    var version = CacheFormat.version
    var segmentBytes: UInt32
    /// The name of the cache, random: the records name it too.
    var identifier: UInt64

    func encoded() -> ByteBuffer {
        var buffer = ByteBuffer()
        buffer.reserveCapacity(CacheFormat.headerBytes)
        buffer.writeMultipleIntegers(CacheFormat.magic, version, UInt16(0), segmentBytes, identifier, UInt64(0))
        buffer.writeInteger(CRC32C.checksum(of: buffer))
        buffer.writeRepeatingByte(0, count: CacheFormat.headerBytes - buffer.readableBytes)
        return buffer
    }

    /// Nil for bytes that are no header.
    init?(parsing bytes: ByteBuffer) {
        var buffer = bytes
        guard let covered = buffer.getSlice(at: buffer.readerIndex, length: Self.checkedBytes),
            let checksum: UInt32 = buffer.getInteger(at: buffer.readerIndex + Self.checkedBytes),
            CRC32C.checksum(of: covered) == checksum,
            let (magic, version, _, segmentBytes, identifier, _) = buffer.readMultipleIntegers(
                as: (UInt64, UInt16, UInt16, UInt32, UInt64, UInt64).self),
            magic == CacheFormat.magic, CacheFormat.versionsRead.contains(version), segmentBytes >= CacheFormat.segmentBytesMin,
            segmentBytes <= 64 << 20
        else { return nil }
        self.init(segmentBytes: segmentBytes, identifier: identifier)
        self.version = version
    }

    init(segmentBytes: UInt32, identifier: UInt64) {
        self.segmentBytes = segmentBytes
        self.identifier = identifier
    }
}
