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
    private static let magic: UInt64 = 0x4357_504f_534e_3031  // "CWPOSN01"
    private static let recordBytes = 56

    var sequence: UInt64
    var volume: VolumeIdentifier
    var position: PointPosition

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
        buffer.writeRepeatingByte(0, count: 4)
        buffer.writeInteger(CRC32C.checksum(of: buffer))
        buffer.writeRepeatingByte(0, count: Self.slotBytes - Self.recordBytes)
        return buffer
    }

    init(sequence: UInt64, volume: VolumeIdentifier, position: PointPosition) {
        self.sequence = sequence
        self.volume = volume
        self.position = position
    }

    /// One slot; nil when it holds no state.
    init?(slot: ByteBuffer) {
        var buffer = slot
        guard let covered = buffer.getSlice(at: buffer.readerIndex, length: Self.recordBytes - 4),
            buffer.readInteger(as: UInt64.self) == Self.magic, let sequence = buffer.readInteger(as: UInt64.self),
            let high = buffer.readInteger(as: UInt64.self), let low = buffer.readInteger(as: UInt64.self),
            let received = buffer.readInteger(as: UInt64.self), let applied = buffer.readInteger(as: UInt64.self),
            buffer.readSlice(length: 4) != nil, buffer.readInteger(as: UInt32.self) == CRC32C.checksum(of: covered),
            applied <= received
        else { return nil }
        self.init(
            sequence: sequence, volume: VolumeIdentifier(high: high, low: low),
            position: PointPosition(received: received, applied: applied))
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
