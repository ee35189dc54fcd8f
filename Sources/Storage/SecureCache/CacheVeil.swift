import Blocks
import Ciphers
import NIOCore

// Which blocks a volume has, and where, is hidden under the volume's key; the cache's own key, under which a fragment is sealed as a
// whole, shows only how many there are. So a volume whose key was destroyed has left nothing that anybody can read, whoever has the
// other keys.
//
//     before   [opened] [data A ......] [data B ......] [removed A ......]
//     after    [veil A, generation] [veil B, generation] [opened] [data A ~~~~~~] [data B ~~~~~~] [removed A ~~~~~~]
//
// The hidden parts of one volume in a fragment are combined, in their order, with the key stream of one nonce. They keep their places and
// lengths, and the fragment's seal authenticates them.

/// The length of a record, and what of it a veil hides: known without any volume's key.
struct CacheRecordOutline {
    let kind: CacheRecord.Kind
    /// The short name of the volume, or the segment.
    let first: UInt32
    /// Where the record begins, what of it is hidden, and where it ends.
    let start: Int
    let hidden: Range<Int>?
    let end: Int

    /// The record at an index of a buffer; nil when there is none that is whole.
    init?(of buffer: ByteBuffer, at index: Int) {
        guard let value: UInt8 = buffer.getInteger(at: index), let kind = CacheRecord.Kind(rawValue: value),
            let first: UInt32 = buffer.getInteger(at: index + 1)
        else { return nil }
        var count = 0
        if kind == .places {
            guard let places: UInt16 = buffer.getInteger(at: index + CacheRecord.headByteCount) else { return nil }
            count = Int(places)
        }
        let (open, hidden) = kind.bodyByteCounts(placeCount: count)
        let middle = index + CacheRecord.headByteCount + open
        guard middle + hidden <= buffer.writerIndex else { return nil }
        (self.kind, self.first, start, end) = (kind, first, index, middle + hidden)
        self.hidden = hidden > 0 ? middle..<end : nil
    }
}

/// The veils of volumes in one file of records.
final class CacheVeil {
    /// The salt of the file.
    let salt: [UInt8]
    private var ciphers: [UInt32: (generation: KeyGeneration, cipher: BlockCipher)] = [:]

    init(salt: [UInt8]) { self.salt = salt }

    private func cipher(_ ordinal: UInt32, _ generation: KeyGeneration, _ key: SecretKey) -> BlockCipher? {
        if let known = ciphers[ordinal], known.generation == generation { return known.cipher }
        guard let derived = try? key.derive(salt: salt, purpose: CacheFormat.veilPurpose) else { return nil }
        let cipher = BlockCipher(key: derived)
        ciphers[ordinal] = (generation, cipher)
        return cipher
    }

    /// Combines some parts of a buffer with a volume's key stream, as if they were one text.
    private static func combine(_ parts: [Range<Int>], of buffer: inout ByteBuffer, _ cipher: BlockCipher, fragment: UInt32) -> Bool {
        var text = ByteBuffer()
        for part in parts {
            guard let slice = buffer.getSlice(at: part.lowerBound, length: part.count) else { return false }
            text.writeImmutableBuffer(slice)
        }
        guard var combined = cipher.combine(text, nonce: CipherNonce(sequence: 0, index: fragment)) else { return false }
        for part in parts {
            guard let slice = combined.readSlice(length: part.count) else { return false }
            buffer.setBuffer(slice, at: part.lowerBound)
        }
        return true
    }

    // MARK: Hiding

    /// The records of a fragment as they are to be sealed. What is said of a volume without a key says nothing then.
    /// - Returns: nil when the cipher refuses.
    func hide(
        _ records: ByteBuffer, fragment: UInt32, key: (UInt32) -> (generation: KeyGeneration, key: SecretKey)?
    ) -> ByteBuffer? {
        var records = records
        var parts: [UInt32: [Range<Int>]] = [:]
        var order: [UInt32] = []
        var index = records.readerIndex
        while index < records.writerIndex {
            guard let outline = CacheRecordOutline(of: records, at: index) else { return nil }
            index = outline.end
            guard let hidden = outline.hidden else { continue }
            if parts[outline.first, default: []].isEmpty { order.append(outline.first) }
            parts[outline.first, default: []].append(hidden)
        }
        var veiled = ByteBuffer()
        veiled.reserveCapacity(order.count * CacheRecord.veilByteCount + records.readableBytes)
        for ordinal in order {
            let hidden = parts[ordinal] ?? []
            guard let (generation, key) = key(ordinal) else {
                for part in hidden { records.setRepeatingByte(0, count: part.count, at: part.lowerBound) }
                continue
            }
            guard let cipher = cipher(ordinal, generation, key), Self.combine(hidden, of: &records, cipher, fragment: fragment) else {
                return nil
            }
            CacheRecord.veil(ordinal: ordinal, generation).encode(into: &veiled)
        }
        veiled.writeImmutableBuffer(records)
        return veiled
    }

    // MARK: Showing

    /// What a fragment says, as far as there are keys for it.
    struct Shown {
        var records: ByteBuffer
        /// Volumes of which something stays hidden.
        var hiddenVolumes: Set<UInt32> = []
    }

    /// The records of a fragment as they were before they were hidden; nil when something is no record.
    /// - Parameters:
    ///   - identifier: which volume a short name stands for.
    ///   - key: the key of a volume of a generation, if it is at hand.
    func show(
        _ records: ByteBuffer, fragment: UInt32, identifier: (UInt32) -> VolumeIdentifier?,
        key: (VolumeIdentifier, KeyGeneration) -> SecretKey?
    ) -> Shown? {
        var shown = Shown(records: records)
        var parts: [UInt32: [Range<Int>]] = [:]
        var generations: [UInt32: KeyGeneration] = [:]
        var identifiers: [UInt32: VolumeIdentifier] = [:]
        var index = records.readerIndex
        while index < records.writerIndex {
            guard let outline = CacheRecordOutline(of: records, at: index) else { return nil }
            index = outline.end
            if let hidden = outline.hidden { parts[outline.first, default: []].append(hidden) }
            guard outline.kind == .veil || outline.kind == .volume else { continue }
            var reader = records
            reader.moveReaderIndex(to: outline.start)
            switch CacheRecord(from: &reader) {
            case .veil(let ordinal, let generation)?: generations[ordinal] = generation
            case .volume(let ordinal, let volume)?: identifiers[ordinal] = volume
            default: return nil
            }
        }
        for (ordinal, hidden) in parts {
            if let generation = generations[ordinal], let volume = identifiers[ordinal] ?? identifier(ordinal),
                let key = key(volume, generation), let cipher = cipher(ordinal, generation, key),
                Self.combine(hidden, of: &shown.records, cipher, fragment: fragment)
            {
                continue
            }
            shown.hiddenVolumes.insert(ordinal)
        }
        return shown
    }
}
