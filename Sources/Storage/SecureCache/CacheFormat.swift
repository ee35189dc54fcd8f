import Blocks
import Checksums
import Ciphers
import NIOCore

// The cache's file is a row of segments of equal size, as docs/reference/cache-format.md describes:
//
//     0       header, 4096 bytes, plaintext, authenticated
//     4096    table: fragments, each at a multiple of 512, each sealed under the cache's key
//     slots   blocks: 4096 bytes and their tag, each sealed under the key of its volume
//
// A fragment holds the entries since the one before it, so that a table grows without a byte of it
// ever being written twice.

/// How a cache's file begins, for those who must not take another one for it.
public enum CacheSignature {
    /// True when `bytes` begin as a cache's first segment does.
    public static func begins(_ bytes: some Sequence<UInt8>) -> Bool {
        bytes.prefix(8).reduce(UInt64(0)) { $0 << 8 | UInt64($1) } == CacheFormat.magic
    }
}

enum CacheFormat {
    static let headerBytes = 4096
    static let magic: UInt64 = 0x4341_5553_4543_4143  // "CAUSECAC"
    static let fragmentMagic: UInt32 = 0x4346_5247  // "CFRG"
    static let version: UInt16 = 1
    static let alignment = 512
    static let saltBytes = 32
    static let blockBytes = BlockGeometry.blockBytes
    /// A sealed block, and so the distance between slots.
    static let slotBytes = blockBytes + BlockCipher.tagByteCount
    static let entryBytes = 32
    static let fragmentHeaderBytes = 32
    /// The part of a fragment's header that its tag covers.
    static let fragmentBoundBytes = 24
    /// Nonces of one segment: slots count from 0, fragments from here, and the header has the last.
    static let fragmentNonceBase: UInt32 = 0x8000_0000
    static let headerNonceIndex = UInt32.max
    /// In a header: nothing older than this segment counts any more.
    static let barrier = UInt32.max
    /// No volume has more blocks.
    static let blocksMax: UInt64 = 1 << 50
    static let tablePurpose = "causeway cache table 1"
    static let blockPurpose = "causeway cache blocks 1"

    /// What a block is bound to: which volume and block it is, and which segment it was put into.
    static func blockContext(_ volume: VolumeIdentifier, _ block: UInt64, sequence: UInt64) -> CipherContext {
        CipherContext(volume.high, volume.low, block, sequence, 0)
    }

    /// What a fragment of that many entries takes in the table.
    static func fragmentBytes(entries: Int) -> Int {
        (fragmentHeaderBytes + entries * entryBytes + BlockCipher.tagByteCount + alignment - 1) / alignment * alignment
    }
}

/// Where things are in a cache of a given size.
struct CacheGeometry: Equatable {
    let segmentBytes: Int
    let segmentCount: Int
    let tableBytes: Int
    let slotCount: Int

    init(byteCount: UInt64, segmentBytes: Int) {
        self.segmentBytes = segmentBytes
        segmentCount = Int(clamping: min(byteCount / UInt64(segmentBytes), UInt64(Int32.max)))
        tableBytes = max(segmentBytes / 64 - CacheFormat.headerBytes, CacheFormat.headerBytes)
        slotCount = (segmentBytes - CacheFormat.headerBytes - tableBytes) / CacheFormat.slotBytes
    }

    func offset(ofSegment position: Int) -> UInt64 { UInt64(position) * UInt64(segmentBytes) }
    func offset(ofTable position: Int) -> UInt64 { offset(ofSegment: position) + UInt64(CacheFormat.headerBytes) }
    func offset(ofSlot slot: Int, segment position: Int) -> UInt64 {
        offset(ofTable: position) + UInt64(tableBytes) + UInt64(slot) * UInt64(CacheFormat.slotBytes)
    }
}

/// The header of one segment.
struct CacheSegmentHeader: Equatable {
    static let boundBytes = 72

    var segmentBytes: UInt32
    var segmentCount: UInt32
    var position: UInt32
    /// Counts the segments of a cache for all its life; the ring holds a row of them without gaps.
    var sequence: UInt64
    /// How many fragments of the segment before this one count, or `CacheFormat.barrier`.
    var predecessorFragments: UInt32
    /// The salt of the run of the program that wrote the segment.
    var salt: [UInt8]

    /// The whole header; nil when the cipher refuses.
    func encoded(cipher: BlockCipher) -> ByteBuffer? {
        var buffer = ByteBuffer()
        buffer.reserveCapacity(CacheFormat.headerBytes)
        buffer.writeInteger(CacheFormat.magic)
        buffer.writeInteger(CacheFormat.version)
        buffer.writeInteger(UInt16(0))
        buffer.writeInteger(segmentBytes)
        buffer.writeInteger(segmentCount)
        buffer.writeInteger(position)
        buffer.writeInteger(sequence)
        buffer.writeInteger(predecessorFragments)
        buffer.writeInteger(UInt32(0))
        buffer.writeBytes(salt)
        var tag = [UInt8](repeating: 0, count: BlockCipher.tagByteCount)
        let nonce = CipherNonce(sequence: sequence, index: CacheFormat.headerNonceIndex)
        let sealed = buffer.withUnsafeReadableBytes { bound in
            tag.withUnsafeMutableBytes {
                cipher.seal(UnsafeRawBufferPointer(start: nil, count: 0), nonce: nonce, authenticating: bound, into: $0)
            }
        }
        guard sealed, buffer.readableBytes == Self.boundBytes else { return nil }
        buffer.writeBytes(tag)
        buffer.writeInteger(CRC32C.checksum(of: buffer))
        buffer.writeRepeatingByte(0, count: CacheFormat.headerBytes - buffer.readableBytes)
        return buffer
    }

    /// Parses what no key is needed for; nil for bytes that are no header.
    init?(parsing bytes: ByteBuffer) {
        var buffer = bytes
        let checked = Self.boundBytes + BlockCipher.tagByteCount
        guard let covered = buffer.getSlice(at: buffer.readerIndex, length: checked),
            let checksum = buffer.getInteger(at: buffer.readerIndex + checked, as: UInt32.self),
            buffer.readInteger(as: UInt64.self) == CacheFormat.magic, CRC32C.checksum(of: covered) == checksum,
            let (version, _, segmentBytes) = buffer.readMultipleIntegers(as: (UInt16, UInt16, UInt32).self),
            version == CacheFormat.version,
            let (segmentCount, position, sequence) = buffer.readMultipleIntegers(as: (UInt32, UInt32, UInt64).self),
            let (fragments, _) = buffer.readMultipleIntegers(as: (UInt32, UInt32).self), sequence > 0, sequence < .max,
            let salt = buffer.readBytes(length: CacheFormat.saltBytes)
        else { return nil }
        self.init(
            segmentBytes: segmentBytes, segmentCount: segmentCount, position: position, sequence: sequence,
            predecessorFragments: fragments, salt: salt)
    }

    init(
        segmentBytes: UInt32, segmentCount: UInt32, position: UInt32, sequence: UInt64, predecessorFragments: UInt32,
        salt: [UInt8]
    ) {
        self.segmentBytes = segmentBytes
        self.segmentCount = segmentCount
        self.position = position
        self.sequence = sequence
        self.predecessorFragments = predecessorFragments
        self.salt = salt
    }

    /// True when the header's tag was made under the key of `cipher`.
    func isAuthentic(_ bytes: ByteBuffer, cipher: BlockCipher) -> Bool {
        guard let bound = bytes.getSlice(at: bytes.readerIndex, length: Self.boundBytes),
            let tag = bytes.getSlice(at: bytes.readerIndex + Self.boundBytes, length: BlockCipher.tagByteCount)
        else { return false }
        let nonce = CipherNonce(sequence: sequence, index: CacheFormat.headerNonceIndex)
        return tag.withUnsafeReadableBytes { tag in
            bound.withUnsafeReadableBytes {
                cipher.open(tag, nonce: nonce, authenticating: $0, into: UnsafeMutableRawBufferPointer(start: nil, count: 0))
            }
        }
    }
}

/// One line of a segment's table. Later ones count over earlier ones.
struct CacheEntry: Equatable {
    enum Kind: UInt8 {
        /// Blocks whose bytes are in `count` slots from `slot` on.
        case data = 0
        /// Blocks that hold zeroes.
        case zeroes = 1
        /// Blocks that the cache holds no more.
        case tombstone = 2
        /// The volume is gone, with all its blocks.
        case volumeRemoved = 3
    }

    var kind: Kind
    var volume: VolumeIdentifier
    var block: UInt64
    var count: UInt32
    var slot: UInt16

    func encode(into buffer: inout ByteBuffer) {
        buffer.writeInteger(volume.high)
        buffer.writeInteger(volume.low)
        buffer.writeInteger(block)
        buffer.writeInteger(count)
        buffer.writeInteger(slot)
        buffer.writeInteger(kind.rawValue)
        buffer.writeInteger(UInt8(0))
    }

    /// Reads one entry; nil for what breaks a rule.
    init?(from buffer: inout ByteBuffer, slotCount: Int) {
        guard let (high, low, block) = buffer.readMultipleIntegers(as: (UInt64, UInt64, UInt64).self),
            let (count, slot, kindValue, _) = buffer.readMultipleIntegers(as: (UInt32, UInt16, UInt8, UInt8).self),
            let kind = Kind(rawValue: kindValue), block < CacheFormat.blocksMax,
            kind == .volumeRemoved || (count > 0 && block + UInt64(count) <= CacheFormat.blocksMax),
            kind != .data || Int(slot) + Int(count) <= slotCount
        else { return nil }
        self.init(kind: kind, volume: VolumeIdentifier(high: high, low: low), block: block, count: count, slot: slot)
    }

    init(kind: Kind, volume: VolumeIdentifier, block: UInt64, count: UInt32, slot: UInt16) {
        self.kind = kind
        self.volume = volume
        self.block = block
        self.count = count
        self.slot = slot
    }

    /// The blocks that the entry is about.
    var blocks: Range<UInt64> { block..<(block + UInt64(count)) }
}
