import CNetwork
import Glibc
import NIOCore

/// One direction between two devices: reads packets from one, has the line decide, writes to the other.
struct LineDirection {
    /// Packets that may wait and travel in each direction: two seconds of a gigabit, or a round trip of 200 ms and its queue twice over.
    static let packetLimit = 65_536
    /// The most that is read before what is due is written.
    static let batchPackets = 64
    /// Where an IPv4 header has its addresses.
    static let sourceOffset = 12
    static let destinationOffset = 16

    var line: PacketLine
    /// Packets for which there was no room left here. The line is not what it says when this is above 0.
    private(set) var overrunPackets: UInt64 = 0
    private let pool: PacketPool
    private let source: Int32
    private let destination: Int32
    /// Packets that have this address there go beside the line.
    private let besideLine: (address: UInt32, offset: Int)
    /// Where a packet is read to when the pool is empty.
    private let spare: PacketPool

    init(line: PacketLine, from source: Int32, to destination: Int32, besideLine: (address: UInt32, offset: Int)) {
        self.line = line
        self.source = source
        self.destination = destination
        self.besideLine = besideLine
        pool = PacketPool(count: Self.packetLimit, slotBytes: PacketWAN.maximumPacketBytes)
        spare = PacketPool(count: 1, slotBytes: PacketWAN.maximumPacketBytes)
    }

    /// Reads what has come, at most a batch; true when there may be more.
    mutating func takeIn(now: NIODeadline) throws(PacketWANError) -> Bool {
        for _ in 0..<Self.batchPackets {
            let slot = pool.take()
            let bytes = slot.map(pool.bytes) ?? spare.bytes(0)
            let length = causeway_packet_read(source, bytes, pool.slotBytes)
            guard length > 0 else {
                if let slot { pool.giveBack(slot) }
                if length == -Int64(EAGAIN) || length == 0 { return false }
                throw PacketWANError("a device cannot be read", code: Int32(clamping: -length))
            }
            guard let slot else {
                overrunPackets &+= 1
                continue
            }
            route(slot, byteCount: Int(length), now: now)
        }
        return true
    }

    private mutating func route(_ slot: Int, byteCount: Int, now: NIODeadline) {
        let bytes = pool.bytes(slot)
        // Only IPv4 has addresses here; what a kernel says of itself in IPv6 goes nowhere.
        guard byteCount >= 20, bytes.load(as: UInt8.self) >> 4 == 4 else { return pool.giveBack(slot) }
        if bytes.load(fromByteOffset: besideLine.offset, as: UInt32.self).byteSwapped == besideLine.address {
            write(slot, byteCount: byteCount)
        } else if line.offer(.init(handle: slot, byteCount: byteCount), now: now) != .taken {
            pool.giveBack(slot)
        }
    }

    /// Writes what has arrived.
    mutating func putOut(now: NIODeadline) {
        while let packet = line.nextDue(now: now) { write(packet.handle, byteCount: packet.byteCount) }
    }

    private mutating func write(_ slot: Int, byteCount: Int) {
        if causeway_packet_write(destination, pool.bytes(slot), byteCount) < 0 { overrunPackets &+= 1 }
        pool.giveBack(slot)
    }

    /// Changes the state of the line; what it loses is given back.
    mutating func setState(_ state: LineState, now: NIODeadline) {
        let pool = pool
        line.setState(state, now: now) { pool.giveBack($0.handle) }
    }
}
