import Blocks
import Checksums
import Ciphers
import NIOCore
import WriteLog

// The files of a cloud-only disk beside those of its journal, as docs/reference/cloud-only-disk-format.md describes them:
//
//     blocks     header, 4096 bytes │ sector 0, sealed, 512 │ sector 1, 512 │ ...
//     seals      nonce and tag of sector 0, 32 bytes │ of sector 1 │ ...
//     presence   root, two slots of 512 bytes │ page 0, two slots of 512 bytes │ page 1 │ ...        a page: 1,024 sectors
//
// This file knows bytes only. Everything in it takes outside bytes and never traps on them.

enum CloudOnlyFormat {
    static let blocksName = "blocks"
    static let sealsName = "seals"
    static let presenceName = "presence"
    static let headerBytes = 4096
    static let magic: UInt64 = 0x4341_5553_4544_534b  // "CAUSEDSK"
    static let version: UInt16 = 1
    static let saltBytes = 32
    static let sealBytes = 32
    static let slotBytes = 512
    static let pageBytes = 2 * slotBytes
    static let journalPurpose = "causeway cloud-only journal 1"
    static let blocksPurpose = "causeway cloud-only blocks 1"
    static let presencePurpose = "causeway cloud-only presence 1"
    static let headerPurpose = "causeway cloud-only header 1"
    static let eraPurpose = "causeway cloud-only era 1"
    /// Pages have smaller numbers; this one is the root's.
    static let rootNumber = UInt32.max
    /// The nonce of the header's tag, which is all that its key seals.
    static let headerNonce = CipherNonce(sequence: 0, index: 0)

    static func blockOffset(_ sector: UInt64) -> UInt64 { UInt64(headerBytes) + sector * UInt64(BlockGeometry.sectorBytes) }
    static func sealOffset(_ sector: UInt64) -> UInt64 { sector * UInt64(sealBytes) }
    static func pageOffset(_ page: UInt64) -> UInt64 { (page + 1) * UInt64(pageBytes) }
    static func slotOffset(of page: PresencePage, number: UInt64) -> UInt64 { pageOffset(number) + UInt64(page.slot * slotBytes) }

    /// The salt of the journal's key: the volume's name, because the key must be known before any file was read.
    static func salt(of volume: VolumeIdentifier) -> [UInt8] {
        var buffer = ByteBuffer()
        buffer.writeMultipleIntegers(volume.high, volume.low)
        return Array(buffer.readableBytesView)
    }
}

/// The header of the blocks' file. It names the journal, whose numbers make the nonces.
struct CloudOnlyHeader: Equatable {
    static let boundBytes = 80

    var volume: VolumeIdentifier
    var journal: LogIdentifier
    var salt: [UInt8]

    /// The whole header with its tag and checksum; nil when the cipher refuses.
    func encoded(cipher: BlockCipher) -> ByteBuffer? {
        var buffer = ByteBuffer()
        buffer.writeMultipleIntegers(
            CloudOnlyFormat.magic, CloudOnlyFormat.version, UInt16(0), UInt32(CloudOnlyFormat.headerBytes), volume.high, volume.low)
        buffer.writeMultipleIntegers(journal.high, journal.low)
        buffer.writeBytes(salt)
        var tag = [UInt8](repeating: 0, count: BlockCipher.tagByteCount)
        let isSealed = buffer.withUnsafeReadableBytes { bound in
            tag.withUnsafeMutableBytes { tag in
                cipher.seal(
                    UnsafeRawBufferPointer(start: nil, count: 0), nonce: CloudOnlyFormat.headerNonce, authenticating: bound, into: tag)
            }
        }
        guard isSealed, buffer.readableBytes == Self.boundBytes else { return nil }
        buffer.writeBytes(tag)
        buffer.writeInteger(CRC32C.checksum(of: buffer))
        buffer.writeRepeatingByte(0, count: CloudOnlyFormat.headerBytes - buffer.readableBytes)
        return buffer
    }

    init(volume: VolumeIdentifier, journal: LogIdentifier, salt: [UInt8]) {
        self.volume = volume
        self.journal = journal
        self.salt = salt
    }

    /// Parses what no key is needed for; nil when the bytes are no header: it was never written, or was torn.
    init?(parsing bytes: ByteBuffer) {
        var buffer = bytes
        let checked = Self.boundBytes + BlockCipher.tagByteCount
        guard let covered = buffer.getSlice(at: buffer.readerIndex, length: checked),
            let checksum = buffer.getInteger(at: buffer.readerIndex + checked, as: UInt32.self),
            CRC32C.checksum(of: covered) == checksum,
            let (magic, version, _, length) = buffer.readMultipleIntegers(as: (UInt64, UInt16, UInt16, UInt32).self),
            magic == CloudOnlyFormat.magic, version == CloudOnlyFormat.version, length == UInt32(CloudOnlyFormat.headerBytes),
            let (volumeHigh, volumeLow, high, low) = buffer.readMultipleIntegers(as: (UInt64, UInt64, UInt64, UInt64).self),
            let salt = buffer.readBytes(length: CloudOnlyFormat.saltBytes)
        else { return nil }
        self.init(
            volume: VolumeIdentifier(high: volumeHigh, low: volumeLow), journal: LogIdentifier(high: high, low: low), salt: salt)
    }

    /// True when the header's tag was made under the key of `cipher`.
    static func isAuthentic(_ bytes: ByteBuffer, cipher: BlockCipher) -> Bool {
        guard let bound = bytes.getSlice(at: bytes.readerIndex, length: boundBytes),
            let tag = bytes.getSlice(at: bytes.readerIndex + boundBytes, length: BlockCipher.tagByteCount)
        else { return false }
        return tag.withUnsafeReadableBytes { tag in
            bound.withUnsafeReadableBytes { bound in
                cipher.open(
                    tag, nonce: CloudOnlyFormat.headerNonce, authenticating: bound,
                    into: UnsafeMutableRawBufferPointer(start: nil, count: 0))
            }
        }
    }
}

/// What the disk knows of all its pages together, as one epoch leaves them.
struct PresenceRoot: Equatable {
    static let byteCount = 16

    /// The sum of the epochs that last changed each page. A page that is lost, or older than it was, makes it smaller, and nothing
    /// makes it larger again.
    var epochSum: UInt64
    /// The sectors that are held.
    var heldSectors: UInt64
}

/// Sealing sectors and pages, and opening them.
struct CloudOnlyEncoding: Sendable {
    let volume: VolumeIdentifier

    /// What a sector is bound to, and a page: the volume and the place.
    private func context(sector: UInt64) -> CipherContext { CipherContext(volume.high, volume.low, sector, 0, 0) }
    private func context(page: UInt32) -> CipherContext { CipherContext(volume.high, volume.low, UInt64(page), 1, 0) }

    // MARK: Sectors

    /// Seals a run of sectors in era `era`, of which the first is the `number`th sector that the era seals.
    /// - Returns: what goes to the blocks' file and what to the seals'; nil when the cipher refused.
    func seal(
        _ plaintext: ByteBuffer, start: UInt64, era: UInt64, number: UInt64, cipher: BlockCipher
    ) -> (blocks: ByteBuffer, seals: ByteBuffer)? {
        let count = plaintext.readableBytes / BlockGeometry.sectorBytes
        var blocks = ByteBufferAllocator().buffer(capacity: plaintext.readableBytes)
        var seals = ByteBufferAllocator().buffer(capacity: count * CloudOnlyFormat.sealBytes)
        let isSealed = withUnsafeTemporaryAllocation(byteCount: BlockGeometry.sectorBytes + BlockCipher.tagByteCount, alignment: 16) {
            sealed in
            plaintext.withUnsafeReadableBytes { bytes in
                for index in 0..<count {
                    let place = index * BlockGeometry.sectorBytes
                    let sector = UnsafeRawBufferPointer(rebasing: bytes[place..<place + BlockGeometry.sectorBytes])
                    let number = number &+ UInt64(index)
                    guard
                        cipher.seal(
                            sector, nonce: CipherNonce(sequence: number, index: 0), context: context(sector: start + UInt64(index)),
                            into: sealed)
                    else { return false }
                    blocks.writeBytes(sealed[..<BlockGeometry.sectorBytes])
                    seals.writeMultipleIntegers(era, number)
                    seals.writeBytes(sealed[BlockGeometry.sectorBytes...])
                }
                return true
            }
        }
        return isSealed ? (blocks, seals) : nil
    }

    /// Opens a run of sectors and appends the plaintext to `buffer`; false, with the buffer unchanged, when one is not what was sealed.
    func open(blocks: ByteBuffer, seals: ByteBuffer, range: SectorRange, ciphers: EraCiphers, into buffer: inout ByteBuffer) -> Bool {
        guard blocks.readableBytes == range.byteCount, seals.readableBytes == Int(range.count) * CloudOnlyFormat.sealBytes else {
            return false
        }
        let before = buffer.writerIndex
        let isOpen = withUnsafeTemporaryAllocation(byteCount: BlockGeometry.sectorBytes + BlockCipher.tagByteCount, alignment: 16) {
            sealed in
            blocks.withUnsafeReadableBytes { bytes in
                var seals = seals
                for index in 0..<Int(range.count) {
                    guard let (era, number) = seals.readMultipleIntegers(as: (UInt64, UInt64).self), let cipher = ciphers.cipher(of: era),
                        let tag = seals.readSlice(length: BlockCipher.tagByteCount)
                    else { return false }
                    let place = index * BlockGeometry.sectorBytes
                    sealed.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[place..<place + BlockGeometry.sectorBytes]))
                    tag.withUnsafeReadableBytes {
                        UnsafeMutableRawBufferPointer(rebasing: sealed[BlockGeometry.sectorBytes...]).copyMemory(from: $0)
                    }
                    let isOpen = cipher.open(
                        UnsafeRawBufferPointer(sealed), nonce: CipherNonce(sequence: number, index: 0),
                        context: context(sector: range.start + UInt64(index)), appendingTo: &buffer)
                    if !isOpen { return false }
                }
                return true
            }
        }
        if !isOpen { buffer.moveWriterIndex(to: before) }
        return isOpen
    }

    // MARK: Pages

    /// One slot with a page as its epoch leaves it; nil when the cipher refused.
    func encode(_ page: PresencePage, number: UInt64, ciphers: EraCiphers) -> ByteBuffer? {
        guard let number = UInt32(exactly: number), number != CloudOnlyFormat.rootNumber else { return nil }
        var plaintext = ByteBuffer()
        for word in page.words { plaintext.writeInteger(word) }
        return encode(plaintext, number, page.epoch, ciphers)
    }

    /// What one slot holds: nil when it is not what was sealed there.
    func decode(_ slot: ByteBuffer, number: UInt64, ciphers: EraCiphers) -> PresencePage? {
        guard let number = UInt32(exactly: number), number != CloudOnlyFormat.rootNumber,
            let decoded = decode(slot, number, byteCount: PresencePage.wordCount * 8, ciphers)
        else { return nil }
        var plaintext = decoded.plaintext
        var words: [UInt64] = []
        words.reserveCapacity(PresencePage.wordCount)
        while let word = plaintext.readInteger(as: UInt64.self) { words.append(word) }
        return PresencePage(words: words, epoch: decoded.epoch)
    }

    /// One slot with the root as epoch `epoch` leaves it; nil when the cipher refused.
    func encode(_ root: PresenceRoot, epoch: PointNumber, ciphers: EraCiphers) -> ByteBuffer? {
        var plaintext = ByteBuffer()
        plaintext.writeMultipleIntegers(root.epochSum, root.heldSectors)
        return encode(plaintext, CloudOnlyFormat.rootNumber, epoch, ciphers)
    }

    /// The root that one slot holds, and its epoch; nil when it is not what was sealed there.
    func decodeRoot(_ slot: ByteBuffer, ciphers: EraCiphers) -> (epoch: PointNumber, root: PresenceRoot)? {
        guard let decoded = decode(slot, CloudOnlyFormat.rootNumber, byteCount: PresenceRoot.byteCount, ciphers) else { return nil }
        var plaintext = decoded.plaintext
        guard let (epochSum, heldSectors) = plaintext.readMultipleIntegers(as: (UInt64, UInt64).self) else { return nil }
        return (decoded.epoch, PresenceRoot(epochSum: epochSum, heldSectors: heldSectors))
    }

    /// What an epoch leaves of a page does not change, so writing it again in one era seals the very same bytes.
    private func encode(_ plaintext: ByteBuffer, _ number: UInt32, _ epoch: PointNumber, _ ciphers: EraCiphers) -> ByteBuffer? {
        var slot = ByteBuffer()
        slot.writeMultipleIntegers(epoch, ciphers.era)
        let isSealed = plaintext.withUnsafeReadableBytes {
            ciphers.current.seal(
                $0, nonce: CipherNonce(sequence: epoch, index: number), context: context(page: number), appendingTo: &slot)
        }
        guard isSealed, slot.readableBytes <= CloudOnlyFormat.slotBytes else { return nil }
        slot.writeRepeatingByte(0, count: CloudOnlyFormat.slotBytes - slot.readableBytes)
        return slot
    }

    private func decode(
        _ slot: ByteBuffer, _ number: UInt32, byteCount: Int, _ ciphers: EraCiphers
    ) -> (epoch: PointNumber, plaintext: ByteBuffer)? {
        var slot = slot
        guard let (epoch, era) = slot.readMultipleIntegers(as: (UInt64, UInt64).self), let cipher = ciphers.cipher(of: era),
            let sealed = slot.readSlice(length: byteCount + BlockCipher.tagByteCount)
        else { return nil }
        var plaintext = ByteBuffer()
        let isOpen = sealed.withUnsafeReadableBytes {
            cipher.open(
                $0, nonce: CipherNonce(sequence: epoch, index: number), context: context(page: number), appendingTo: &plaintext)
        }
        return isOpen ? (epoch, plaintext) : nil
    }
}
