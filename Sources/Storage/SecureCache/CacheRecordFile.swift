import Blocks
import Checksums
import Ciphers
import NIOCore

// A file of records, which is a checkpoint or a journal:
//
//     header      512 bytes: what the file is, the salt of its key, and what of the file before it counts; authenticated
//     fragments   each at a multiple of 512: records sealed together, bound to the tag of the fragment before
//
// Nonces count fragments, and the salt is new for each file. The chain of tags makes a row of fragments that one run
// of the program wrote; the rest of a row that another one had written at the same place does not continue it.

/// What a record file is, as its header says.
struct CacheRecordFileHeader: Equatable {
    enum Kind: UInt8 {
        /// All that the cache knew at a time, in as many records as that takes, and a last fragment that says so.
        case checkpoint = 1
        /// Changes, in their order.
        case journal = 2
        /// Changes of a cache that knew nothing before.
        case firstJournal = 3
    }

    static let byteCount = 512
    static let boundBytes = 88
    static let magic: UInt64 = 0x4341_5553_4543_5244  // "CAUSECRD"

    var version = CacheFormat.version
    var kind: Kind
    /// Checkpoint N is followed by the changes of journal N, N+1, and so on.
    var number: UInt64
    /// The cache that it belongs to.
    var cache: UInt64
    var segmentBytes: UInt32
    /// How many fragments of the journal before this one count, and the tag of the last of them.
    var predecessorFragments: UInt32
    var predecessorTag: CacheChain
    var salt: [UInt8]

    private func bound() -> ByteBuffer {
        var buffer = ByteBuffer()
        buffer.reserveCapacity(Self.byteCount)
        buffer.writeMultipleIntegers(
            Self.magic, version, kind.rawValue, UInt8(0), segmentBytes, number, cache, predecessorFragments, UInt32(0),
            predecessorTag.high, predecessorTag.low)
        buffer.writeBytes(salt)
        return buffer
    }

    private static let nonce = CipherNonce(sequence: 0, index: UInt32.max)

    /// The whole header; nil when the cipher refuses.
    func encoded(cipher: BlockCipher) -> ByteBuffer? {
        var buffer = bound()
        var tag = [UInt8](repeating: 0, count: BlockCipher.tagByteCount)
        let sealed = buffer.withUnsafeReadableBytes { bound in
            tag.withUnsafeMutableBytes {
                cipher.seal(UnsafeRawBufferPointer(start: nil, count: 0), nonce: Self.nonce, authenticating: bound, into: $0)
            }
        }
        guard sealed, buffer.readableBytes == Self.boundBytes else { return nil }
        buffer.writeBytes(tag)
        buffer.writeInteger(CRC32C.checksum(of: buffer))
        buffer.writeRepeatingByte(0, count: Self.byteCount - buffer.readableBytes)
        return buffer
    }

    /// Parses what no key is needed for; nil for bytes that are no header.
    init?(parsing bytes: ByteBuffer) {
        var buffer = bytes
        let checked = Self.boundBytes + BlockCipher.tagByteCount
        guard bytes.readableBytes >= Self.byteCount, let covered = buffer.getSlice(at: buffer.readerIndex, length: checked),
            let checksum: UInt32 = buffer.getInteger(at: buffer.readerIndex + checked), CRC32C.checksum(of: covered) == checksum,
            let (magic, version, kind, _, segmentBytes, number) = buffer.readMultipleIntegers(
                as: (UInt64, UInt16, UInt8, UInt8, UInt32, UInt64).self),
            magic == Self.magic, CacheFormat.versionsRead.contains(version), let kind = Kind(rawValue: kind), number > 0, number < .max - 1,
            let (cache, fragments, _, high, low) = buffer.readMultipleIntegers(as: (UInt64, UInt32, UInt32, UInt64, UInt64).self),
            let salt = buffer.readBytes(length: CacheFormat.saltBytes)
        else { return nil }
        self.init(
            kind: kind, number: number, cache: cache, segmentBytes: segmentBytes, predecessorFragments: fragments,
            predecessorTag: CacheChain(high: high, low: low), salt: salt)
        self.version = version
    }

    init(
        kind: Kind, number: UInt64, cache: UInt64, segmentBytes: UInt32, predecessorFragments: UInt32, predecessorTag: CacheChain,
        salt: [UInt8]
    ) {
        self.kind = kind
        self.number = number
        self.cache = cache
        self.segmentBytes = segmentBytes
        self.predecessorFragments = predecessorFragments
        self.predecessorTag = predecessorTag
        self.salt = salt
    }

    /// True when the header's tag was made under the key of `cipher`.
    func isAuthentic(_ bytes: ByteBuffer, cipher: BlockCipher) -> Bool {
        guard let bound = bytes.getSlice(at: bytes.readerIndex, length: Self.boundBytes),
            let tag = bytes.getSlice(at: bytes.readerIndex + Self.boundBytes, length: BlockCipher.tagByteCount)
        else { return false }
        return tag.withUnsafeReadableBytes { tag in
            bound.withUnsafeReadableBytes {
                cipher.open(
                    tag, nonce: Self.nonce, authenticating: $0, into: UnsafeMutableRawBufferPointer(start: nil, count: 0))
            }
        }
    }
}

/// The tag of a fragment, to which the next one is bound; zeroes before the first.
struct CacheChain: Equatable {
    var high: UInt64 = 0
    var low: UInt64 = 0
}

/// Seals records into the fragments of one file, and opens them again.
struct CacheFragments {
    static let magic: UInt32 = 0x4346_5232  // "CFR2"
    static let headerBytes = 16
    static let alignment = 512
    /// A fragment has at most this many bytes of records, and at most as many once it is said whose key hides what of them.
    static let recordBytesMax = 256 << 10
    static let veiledBytesMax = 2 * recordBytesMax
    private static let lastFlag: UInt32 = 1

    let header: CacheRecordFileHeader
    let cipher: BlockCipher
    private let veil: CacheVeil
    /// The next fragment's number, the tag of the one before, and where it goes.
    private(set) var count: UInt32 = 0
    private(set) var chain = CacheChain()
    private(set) var offset = UInt64(CacheRecordFileHeader.byteCount)

    init(header: CacheRecordFileHeader, cipher: BlockCipher) {
        self.header = header
        self.cipher = cipher
        veil = CacheVeil(salt: header.salt)
    }

    private func context(sealedBytes: UInt32, flags: UInt32) -> CipherContext {
        CipherContext(
            header.number << 2 | UInt64(header.kind.rawValue), UInt64(count) << 32 | UInt64(flags), UInt64(sealedBytes), chain.high,
            chain.low)
    }

    private static func padded(_ sealedBytes: Int) -> Int { (headerBytes + sealedBytes + alignment - 1) / alignment * alignment }

    /// The next fragment as it stands in the file, padded; nil when the cipher refuses.
    /// - Parameters:
    ///   - isLast: that the file is complete with it.
    ///   - key: the key of a volume by its short name, which hides what is said of its blocks.
    mutating func seal(
        _ records: ByteBuffer, isLast: Bool = false, key: (UInt32) -> (generation: KeyGeneration, key: SecretKey)?
    ) -> (bytes: ByteBuffer, offset: UInt64)? {
        guard let veiled = veil.hide(records, fragment: count, key: key) else { return nil }
        return sealVeiled(veiled, isLast: isLast)
    }

    /// Seals what is hidden where it is to be.
    mutating func sealVeiled(_ records: ByteBuffer, isLast: Bool = false) -> (bytes: ByteBuffer, offset: UInt64)? {
        let flags = isLast ? Self.lastFlag : 0
        let sealedBytes = records.readableBytes + BlockCipher.tagByteCount
        var buffer = ByteBuffer()
        buffer.reserveCapacity(Self.padded(sealedBytes))
        buffer.writeMultipleIntegers(Self.magic, count, UInt32(clamping: sealedBytes), flags)
        let context = context(sealedBytes: UInt32(clamping: sealedBytes), flags: flags)
        let sealed = records.withUnsafeReadableBytes {
            cipher.seal($0, nonce: CipherNonce(sequence: 0, index: count), context: context, appendingTo: &buffer)
        }
        guard sealed, count < .max - 1 else { return nil }
        advance(over: buffer, sealedBytes: sealedBytes)
        let place = offset
        offset += UInt64(Self.padded(sealedBytes))
        buffer.writeRepeatingByte(0, count: Self.padded(sealedBytes) - buffer.readableBytes)
        return (buffer, place)
    }

    private mutating func advance(over fragment: ByteBuffer, sealedBytes: Int) {
        let tag = fragment.readerIndex + Self.headerBytes + sealedBytes - BlockCipher.tagByteCount
        chain = CacheChain(
            high: fragment.getInteger(at: tag) ?? 0, low: fragment.getInteger(at: tag + 8) ?? 0)
        count += 1
    }

    enum Opened {
        /// A fragment's records, and whether it is the last of the file.
        case records(ByteBuffer, isLast: Bool)
        /// More bytes of the file are needed.
        case incomplete
        /// There is no next fragment here.
        case none
    }

    /// Takes the next fragment from the file's bytes.
    mutating func open(_ bytes: inout ByteBuffer) -> Opened {
        guard
            let (magic, number, sealed, flags) = bytes.getMultipleIntegers(
                at: bytes.readerIndex, as: (UInt32, UInt32, UInt32, UInt32).self)
        else { return .incomplete }
        let sealedBytes = Int(sealed)
        guard magic == Self.magic, number == count, sealedBytes >= BlockCipher.tagByteCount,
            sealedBytes <= Self.veiledBytesMax + BlockCipher.tagByteCount
        else { return .none }
        guard bytes.readableBytes >= Self.padded(sealedBytes),
            let payload = bytes.getSlice(at: bytes.readerIndex + Self.headerBytes, length: sealedBytes)
        else { return .incomplete }
        var records = ByteBuffer()
        let context = context(sealedBytes: sealed, flags: flags)
        let isOpen = payload.withUnsafeReadableBytes {
            cipher.open($0, nonce: CipherNonce(sequence: 0, index: count), context: context, appendingTo: &records)
        }
        guard isOpen else { return .none }
        advance(over: bytes, sealedBytes: sealedBytes)
        bytes.moveReaderIndex(forwardBy: Self.padded(sealedBytes))
        offset += UInt64(Self.padded(sealedBytes))
        return .records(records, isLast: flags & Self.lastFlag != 0)
    }
}

extension ByteBuffer {
    /// Four numbers without moving the reader index.
    fileprivate func getMultipleIntegers(at index: Int, as: (UInt32, UInt32, UInt32, UInt32).Type) -> (UInt32, UInt32, UInt32, UInt32)? {
        guard let first: UInt32 = getInteger(at: index), let second: UInt32 = getInteger(at: index + 4),
            let third: UInt32 = getInteger(at: index + 8), let fourth: UInt32 = getInteger(at: index + 12)
        else { return nil }
        return (first, second, third, fourth)
    }
}

/// The names of the record files in a cache's directory.
enum CacheFileName {
    static func checkpoint(_ number: UInt64) -> String { "checkpoint.\(number)" }
    static func journal(_ number: UInt64) -> String { "journal.\(number)" }

    /// The kind and the number that a name says; nil for a file that is not the cache's.
    static func parse(_ name: String) -> (isCheckpoint: Bool, number: UInt64)? {
        for (prefix, isCheckpoint) in [("checkpoint.", true), ("journal.", false)] where name.hasPrefix(prefix) {
            guard let number = UInt64(name.dropFirst(prefix.count)), number > 0, "\(number)" == name.dropFirst(prefix.count) else {
                return nil
            }
            return (isCheckpoint, number)
        }
        return nil
    }
}
