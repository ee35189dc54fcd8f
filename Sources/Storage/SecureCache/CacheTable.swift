import Checksums
import Ciphers
import NIOCore

/// Turning entries into the fragments of a segment's table, and back.
enum CacheTable {
    /// A fragment as it stands in the file, padded; nil when the cipher refuses.
    static func encodeFragment(
        _ entries: ArraySlice<CacheEntry>, sequence: UInt64, position: Int, index: Int, cipher: BlockCipher
    ) -> ByteBuffer? {
        var plaintext = ByteBuffer()
        plaintext.reserveCapacity(entries.count * CacheFormat.entryBytes)
        for entry in entries { entry.encode(into: &plaintext) }
        var buffer = ByteBuffer()
        buffer.reserveCapacity(CacheFormat.fragmentBytes(entries: entries.count))
        buffer.writeInteger(CacheFormat.fragmentMagic)
        buffer.writeInteger(CacheFormat.version)
        buffer.writeInteger(UInt16(0))
        buffer.writeInteger(sequence)
        buffer.writeInteger(UInt32(index))
        buffer.writeInteger(UInt32(plaintext.readableBytes + BlockCipher.tagByteCount))
        buffer.writeInteger(UInt64(0))  // the two checksums
        let sealed = plaintext.withUnsafeReadableBytes {
            cipher.seal(
                $0, nonce: nonce(sequence: sequence, index: index),
                context: context(sequence: sequence, position: position, index: index, entries: entries.count),
                appendingTo: &buffer)
        }
        guard sealed else { return nil }
        var payload = CRC32C()
        buffer.withUnsafeReadableBytes {
            payload.update(UnsafeRawBufferPointer(rebasing: $0[CacheFormat.fragmentHeaderBytes...]))
        }
        buffer.setInteger(payload.value, at: CacheFormat.fragmentBoundBytes)
        var header = CRC32C()
        buffer.withUnsafeReadableBytes {
            header.update(UnsafeRawBufferPointer(rebasing: $0[..<(CacheFormat.fragmentHeaderBytes - 4)]))
        }
        buffer.setInteger(header.value, at: CacheFormat.fragmentHeaderBytes - 4)
        buffer.writeRepeatingByte(0, count: CacheFormat.fragmentBytes(entries: entries.count) - buffer.readableBytes)
        return buffer
    }

    /// The entries of the first fragments of a table, as far as they are whole, at most `limit` of them.
    /// - Returns: the fragments' entries, one array each.
    static func decode(
        _ table: ByteBuffer, sequence: UInt64, position: Int, slotCount: Int, limit: Int, cipher: BlockCipher
    ) -> [[CacheEntry]] {
        var rest = table
        var fragments: [[CacheEntry]] = []
        while fragments.count < limit,
            let entries = decodeFragment(
                &rest, sequence: sequence, position: position, index: fragments.count, slotCount: slotCount, cipher: cipher)
        {
            fragments.append(entries)
        }
        return fragments
    }

    private static func decodeFragment(
        _ rest: inout ByteBuffer, sequence: UInt64, position: Int, index: Int, slotCount: Int, cipher: BlockCipher
    ) -> [CacheEntry]? {
        var buffer = rest
        let checked = CacheFormat.fragmentHeaderBytes - 4
        guard let covered = buffer.getSlice(at: buffer.readerIndex, length: checked),
            let checksum = buffer.getInteger(at: buffer.readerIndex + checked, as: UInt32.self),
            CRC32C.checksum(of: covered) == checksum, buffer.readInteger(as: UInt32.self) == CacheFormat.fragmentMagic,
            let (version, _) = buffer.readMultipleIntegers(as: (UInt16, UInt16).self), version == CacheFormat.version,
            buffer.readInteger(as: UInt64.self) == sequence,
            let (number, sealedBytes, payloadChecksum, _) = buffer.readMultipleIntegers(
                as: (UInt32, UInt32, UInt32, UInt32).self),
            Int(number) == index
        else { return nil }
        let entryBytes = Int(sealedBytes) - BlockCipher.tagByteCount
        guard entryBytes > 0, entryBytes % CacheFormat.entryBytes == 0, let payload = buffer.readSlice(length: Int(sealedBytes)),
            CRC32C.checksum(of: payload) == payloadChecksum
        else { return nil }
        let count = entryBytes / CacheFormat.entryBytes
        var plaintext = ByteBuffer()
        let opened = payload.withUnsafeReadableBytes {
            cipher.open(
                $0, nonce: nonce(sequence: sequence, index: index),
                context: context(sequence: sequence, position: position, index: index, entries: count), appendingTo: &plaintext)
        }
        guard opened, rest.readableBytes >= CacheFormat.fragmentBytes(entries: count) else { return nil }
        var entries: [CacheEntry] = []
        entries.reserveCapacity(count)
        for _ in 0..<count {
            guard let entry = CacheEntry(from: &plaintext, slotCount: slotCount) else { return nil }
            entries.append(entry)
        }
        rest.moveReaderIndex(forwardBy: CacheFormat.fragmentBytes(entries: count))
        return entries
    }

    private static func nonce(sequence: UInt64, index: Int) -> CipherNonce {
        CipherNonce(sequence: sequence, index: CacheFormat.fragmentNonceBase | UInt32(index))
    }

    private static func context(sequence: UInt64, position: Int, index: Int, entries: Int) -> CipherContext {
        CipherContext(sequence, UInt64(position), UInt64(index), UInt64(entries), UInt64(CacheFormat.fragmentMagic))
    }
}
