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
    /// The version of a volume whose points have carried attributes, or are kept. Longer than a sector of the medium: a crash may tear it, and
    /// leaves the one in the other slot.
    private static let attributesMagic: UInt64 = 0x4357_504f_534e_3033  // "CWPOSN03"
    private static let attributesRecordBytes = 2048
    /// The first version's, which had no samples.
    private static let firstMagic: UInt64 = 0x4357_504f_534e_3031  // "CWPOSN01"
    private static let firstRecordBytes = 56

    var sequence: UInt64
    var volume: VolumeIdentifier
    var position: PointPosition
    /// What the disk holds at the applied point.
    var fingerprint = DiskFingerprint()
    /// Points up to here may be applied, whatever else is there: all of their cut had been received.
    var agreed: PointNumber = 0
    /// The last cut that was agreed to. It stays when its point is applied: another disk of the group may have to learn of it here.
    var cut: GroupPoint?
    /// What the applied point carried besides its bytes; nil for nothing.
    var mark: PointAttributes?

    /// From this point on, what a point overwrites is in its undo file before the disk has the point; 0 when nothing is kept.
    var keptFrom: PointNumber = 0
    /// The disk is on its way back to this point; nil when it is not.
    var rollingBackTo: PointNumber?

    /// True when it is of the longer kind.
    var isLong: Bool { cut != nil || mark != nil || agreed > 0 || keptFrom > 0 || rollingBackTo != nil }

    /// Where this state is written.
    var slotOffset: UInt64 { (sequence % 2) * UInt64(Self.slotBytes) }

    /// The whole slot.
    func encoded() -> ByteBuffer {
        let recordBytes = isLong ? Self.attributesRecordBytes : Self.recordBytes
        var buffer = ByteBuffer()
        buffer.reserveCapacity(Self.slotBytes)
        buffer.writeInteger(isLong ? Self.attributesMagic : Self.magic)
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
        if isLong {
            buffer.writeInteger(agreed)
            for attributes in [cut.map { PointAttributes(group: $0) }, mark] {
                buffer.writeInteger(UInt16(clamping: attributes?.encodedBytes ?? 0))
                attributes?.encode(into: &buffer)
            }
            buffer.writeInteger(keptFrom)
            buffer.writeInteger(UInt8(rollingBackTo == nil ? 0 : 1))
            buffer.writeInteger(rollingBackTo ?? 0)
        }
        buffer.writeRepeatingByte(0, count: recordBytes - 4 - buffer.readableBytes)
        buffer.writeInteger(CRC32C.checksum(of: buffer))
        buffer.writeRepeatingByte(0, count: Self.slotBytes - recordBytes)
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
        guard let magic = buffer.readInteger(as: UInt64.self), let recordBytes = Self.recordBytes(magic: magic) else { return nil }
        let coveredBytes = recordBytes - 4
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
        guard magic == Self.attributesMagic else { return }
        guard let agreed = buffer.readInteger(as: UInt64.self), let cut = Self.attributes(from: &buffer),
            let mark = Self.attributes(from: &buffer)
        else { return nil }
        self.agreed = agreed
        self.cut = cut.first?.group
        self.mark = mark.first
        // A record of a version that kept nothing has zeroes here.
        guard let keptFrom = buffer.readInteger(as: UInt64.self), let isRollingBack = buffer.readInteger(as: UInt8.self),
            let target = buffer.readInteger(as: UInt64.self), isRollingBack <= 1, isRollingBack == 0 || target <= applied
        else { return nil }
        self.keptFrom = keptFrom
        rollingBackTo = isRollingBack == 1 ? target : nil
    }

    /// None or one, behind their length; nil for what is neither.
    private static func attributes(from buffer: inout ByteBuffer) -> [PointAttributes]? {
        guard let byteCount = buffer.readInteger(as: UInt16.self), var encoded = buffer.readSlice(length: Int(byteCount)) else {
            return nil
        }
        if byteCount == 0 { return [] }
        guard let attributes = PointAttributes(from: &encoded), encoded.readableBytes == 0 else { return nil }
        return [attributes]
    }

    private static func recordBytes(magic: UInt64) -> Int? {
        switch magic {
        case firstMagic: firstRecordBytes
        case Self.magic: recordBytes
        case attributesMagic: attributesRecordBytes
        default: nil
        }
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
