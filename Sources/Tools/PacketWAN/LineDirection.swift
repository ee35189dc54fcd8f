import CNetwork
import Glibc
import NIOCore

/// One direction between two devices: reads packets from one, has the line decide, writes to the other.
struct LineDirection {
    /// Packets that may wait and travel in each direction: two seconds of a gigabit, or a round trip of 200 ms and its queue twice over.
    static let packetLimit = 65_536
    /// Trains besides, of at most 64 KiB: four seconds of a gigabit when they are long, a fifth of one when each is two packets.
    static let trainLimit = 8_192
    /// The most that is read before what is due is written.
    static let batchPackets = 64
    /// Where an IPv4 header has its addresses.
    static let sourceOffset = 12
    static let destinationOffset = 16

    var line: PacketLine
    /// Packets for which there was no room left here. The line is not what it says when this is above 0.
    private(set) var overrunPackets: UInt64 = 0
    private let packets = PacketPool(count: Self.packetLimit, slotBytes: LinePacket.headerBytes + PacketWAN.maximumPacketBytes)
    private let trains = PacketPool(count: Self.trainLimit, slotBytes: LinePacket.headerBytes + LinePacket.trainBytesMaximum)
    /// Where what finds no room is read to, and where headers are made.
    private let spare = PacketPool(count: 2, slotBytes: LinePacket.headerBytes + LinePacket.trainBytesMaximum)
    private let source: Int32
    private let destination: Int32
    /// Packets that have this address there go beside the line.
    private let besideLine: (address: UInt32, offset: Int)

    init(line: PacketLine, from source: Int32, to destination: Int32, besideLine: (address: UInt32, offset: Int)) {
        self.line = line
        self.source = source
        self.destination = destination
        self.besideLine = besideLine
    }

    /// Room for a packet: of `packets`, or of `trains`. The line knows it as a number.
    private struct Room {
        var slot: Int
        var isTrain: Bool

        init(slot: Int, isTrain: Bool) {
            self.slot = slot
            self.isTrain = isTrain
        }

        init(handle: Int) {
            slot = handle / 2
            isTrain = handle % 2 == 1
        }

        var handle: Int { slot * 2 + (isTrain ? 1 : 0) }
    }

    private func pool(of room: Room) -> PacketPool { room.isTrain ? trains : packets }

    /// Reads what has come, at most a batch; true when there may be more.
    mutating func takeIn(now: NIODeadline) throws(PacketWANError) -> Bool {
        for _ in 0..<Self.batchPackets {
            let (slot, train) = (packets.take(), trains.take())
            let bytes = slot.map(packets.bytes) ?? spare.bytes(0)
            let long = train.map(trains.bytes) ?? spare.bytes(1)
            let length = causeway_packet_read(
                source, bytes, packets.slotBytes, long + packets.slotBytes, trains.slotBytes - packets.slotBytes)
            guard length > 0 else {
                if let slot { packets.giveBack(slot) }
                if let train { trains.giveBack(train) }
                if length == -Int64(EAGAIN) || length == 0 { return false }
                throw PacketWANError("a device cannot be read", code: Int32(clamping: -length))
            }
            if length > packets.slotBytes {
                long.copyMemory(from: bytes, byteCount: packets.slotBytes)
                if let slot { packets.giveBack(slot) }
                take(train.map { Room(slot: $0, isTrain: true) }, byteCount: Int(length), now: now)
            } else {
                if let train { trains.giveBack(train) }
                take(slot.map { Room(slot: $0, isTrain: false) }, byteCount: Int(length), now: now)
            }
        }
        return true
    }

    /// Takes a packet that has been read; nil when there was no room for it.
    private mutating func take(_ room: Room?, byteCount: Int, now: NIODeadline) {
        guard let room else {
            overrunPackets &+= 1
            return
        }
        pool(of: room)[byteCountOf: room.slot] = byteCount
        // Only IPv4 has addresses here; what a kernel says of itself in IPv6 goes nowhere.
        guard let packet = LinePacket(pool(of: room).bytes(room.slot), byteCount: byteCount) else { return giveBack(room) }
        if packet.word(at: besideLine.offset) == besideLine.address {
            write(room)
        } else {
            let offered = PacketLine.Packet(
                handle: room.handle, byteCount: packet.lineByteCount, packetCount: packet.packetCount)
            if line.offer(offered, now: now) != .taken { giveBack(room) }
        }
    }

    /// Writes what has arrived.
    mutating func putOut(now: NIODeadline) {
        while let packet = line.nextDue(now: now) {
            let room = Room(handle: packet.handle)
            if packet.packetCount > 1, line.conditions.loss != .none { writeWhatIsLeft(of: room) } else { write(room) }
        }
    }

    private mutating func write(_ room: Room) {
        let pool = pool(of: room)
        write(pool.bytes(room.slot), pool[byteCountOf: room.slot])
        giveBack(room)
    }

    /// Writes a train in pieces, without the packets that the line takes from it.
    private mutating func writeWhatIsLeft(of room: Room) {
        let pool = pool(of: room)
        let bytes = pool.bytes(room.slot)
        guard let train = LinePacket(bytes, byteCount: pool[byteCountOf: room.slot]) else { return giveBack(room) }
        var start = 0
        for packet in 0...train.packetCount {
            let isEnd = packet == train.packetCount
            guard isEnd || line.losesOfTrain(train.lineByteCount(of: packet)) else { continue }
            if start == 0, isEnd {
                write(bytes, pool[byteCountOf: room.slot])
            } else if start < packet {
                let headers = spare.bytes(0)
                let headerBytes = train.makeHeaders(of: start..<packet, in: headers)
                let data = train.data(of: start..<packet)
                write(headers, headerBytes, bytes + data.lowerBound, data.count)
            }
            start = packet + 1
        }
        giveBack(room)
    }

    private mutating func write(
        _ bytes: UnsafeRawPointer, _ byteCount: Int, _ rest: UnsafeRawPointer? = nil, _ restByteCount: Int = 0
    ) {
        if causeway_packet_write(destination, bytes, byteCount, rest, restByteCount) < 0 { overrunPackets &+= 1 }
    }

    private func giveBack(_ room: Room) { pool(of: room).giveBack(room.slot) }

    /// Changes the state of the line; what it loses is given back.
    mutating func setState(_ state: LineState, now: NIODeadline) {
        let (packets, trains) = (packets, trains)
        line.setState(state, now: now) { packet in
            let room = Room(handle: packet.handle)
            (room.isTrain ? trains : packets).giveBack(room.slot)
        }
    }
}
