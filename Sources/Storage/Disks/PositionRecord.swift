import Blocks
import Checksums
import NIOCore

// The file `position`: two slots of 4 KiB that are written in turn, so that a torn write harms only
// the one whose predecessor is in the other. The one with the higher sequence and a right checksum
// counts. The file is made whole under another name and renamed, so it never exists without a valid slot.

/// One state of the position file.
struct PositionRecord: Equatable {
    static let fileName = "position"
    static let temporaryName = "position.new"
    static let slotBytes = 4096
    private static let magic: UInt64 = 0x4357_504f_534e_3032  // "CWPOSN02"
    private static let recordBytes = 256
    /// The first version's, which had no samples.
    private static let firstMagic: UInt64 = 0x4357_504f_534e_3031  // "CWPOSN01"
    private static let firstRecordBytes = 56

    var sequence: UInt64
    var volume: VolumeIdentifier
    var position: PointPosition
    /// What the disk holds at the applied point.
    var fingerprint = DiskFingerprint()

    /// Where this state is written.
    var slotOffset: UInt64 { (sequence % 2) * UInt64(Self.slotBytes) }

    /// The whole slot.
    func encoded() -> ByteBuffer {
        var buffer = ByteBuffer()
        buffer.writeInteger(Self.magic)
        buffer.writeInteger(sequence)
        buffer.writeInteger(volume.high)
        buffer.writeInteger(volume.low)
        buffer.writeInteger(position.received)
        buffer.writeInteger(position.applied)
        buffer.writeInteger(UInt32(fingerprint.samples.count))
        for sample in fingerprint.samples {
            buffer.writeInteger(sample.range.start)
            buffer.writeInteger(sample.range.count)
            buffer.writeInteger(sample.checksum)
        }
        buffer.writeRepeatingByte(0, count: Self.recordBytes - 4 - buffer.readableBytes)
        buffer.writeInteger(CRC32C.checksum(of: buffer))
        buffer.writeRepeatingByte(0, count: Self.slotBytes - Self.recordBytes)
        return buffer
    }

    init(sequence: UInt64, volume: VolumeIdentifier, position: PointPosition, fingerprint: DiskFingerprint = DiskFingerprint()) {
        self.sequence = sequence
        self.volume = volume
        self.position = position
        self.fingerprint = fingerprint
    }

    /// One slot; nil when it holds no state.
    init?(slot: ByteBuffer) {
        var buffer = slot
        guard let magic = buffer.readInteger(as: UInt64.self), magic == Self.magic || magic == Self.firstMagic else { return nil }
        let coveredBytes = (magic == Self.magic ? Self.recordBytes : Self.firstRecordBytes) - 4
        guard let covered = slot.getSlice(at: slot.readerIndex, length: coveredBytes),
            slot.getInteger(at: slot.readerIndex + coveredBytes, as: UInt32.self) == CRC32C.checksum(of: covered),
            let sequence = buffer.readInteger(as: UInt64.self), let high = buffer.readInteger(as: UInt64.self),
            let low = buffer.readInteger(as: UInt64.self), let received = buffer.readInteger(as: UInt64.self),
            let applied = buffer.readInteger(as: UInt64.self), applied <= received,
            let sampleCount = buffer.readInteger(as: UInt32.self), sampleCount <= UInt32(DiskFingerprint.samplesMax)
        else { return nil }
        var samples: [DiskSample] = []
        for _ in 0..<sampleCount {
            guard let start = buffer.readInteger(as: UInt64.self), let count = buffer.readInteger(as: UInt64.self),
                let checksum = buffer.readInteger(as: UInt32.self), let range = SectorRange(start: start, count: count)
            else { return nil }
            samples.append(DiskSample(range: range, checksum: checksum))
        }
        self.init(
            sequence: sequence, volume: VolumeIdentifier(high: high, low: low),
            position: PointPosition(received: received, applied: applied), fingerprint: DiskFingerprint(samples: samples))
    }

    /// The state that a position file holds; nil when it holds none.
    init?(file: ByteBuffer) {
        let slots = (0..<2).compactMap { index in
            file.getSlice(at: file.readerIndex + index * Self.slotBytes, length: Self.slotBytes).flatMap {
                PositionRecord(slot: $0)
            }
        }
        guard let newest = slots.max(by: { $0.sequence < $1.sequence }) else { return nil }
        self = newest
    }
}
