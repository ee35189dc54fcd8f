import CNetwork

// What a device gives and takes:
//
//     ┌ flags ┬ type ┬ header length ┬ segment ┬ checksum from, at ┬ 2 bytes ┬ IPv4 │ TCP │ data ...
//     0       1      2               4         6                   10        12
//
// The first twelve bytes are Linux's `struct virtio_net_hdr` and what makes a word of it. `type` 1 says that this is a train: TCP segments of one
// connection, with `segment` bytes of data each but for the last, behind one header that stands for the headers of all.

/// An IPv4 packet as a device gives it, or a train of them.
struct LinePacket {
    static let headerBytes = Int(CAUSEWAY_PACKET_HEADER_BYTES)
    /// The longest IP packet.
    static let trainBytesMaximum = 65_535
    /// All headers of a train: the device's, and those of IP and TCP with as many options as they may have.
    static let headersBytesMaximum = headerBytes + 60 + 60
    /// A train of TCP segments over IPv4 (`VIRTIO_NET_HDR_GSO_TCPV4`); what besides it may say of congestion is its highest bit.
    private static let trainType: UInt8 = 1
    private static let congestionBit: UInt8 = 0x80
    /// That the checksum is left to who takes the packet (`VIRTIO_NET_HDR_F_NEEDS_CSUM`).
    private static let needsChecksum: UInt8 = 1
    private static let transportProtocol: UInt32 = 6

    private let bytes: UnsafeRawPointer
    private let byteCount: Int
    /// Where the TCP header of a train begins in its IP packet, and where its data does.
    private let transportAt: Int
    private let dataAt: Int
    private let segmentBytes: Int
    /// How many IP packets it is.
    let packetCount: Int

    /// The packet in `byteCount` bytes with their header, which outlive it; nil when it is none of IPv4.
    init?(_ bytes: UnsafeRawPointer, byteCount: Int) {
        func byte(at offset: Int) -> UInt8 { bytes.load(fromByteOffset: offset, as: UInt8.self) }
        guard byteCount >= Self.headerBytes + 20, byte(at: Self.headerBytes) >> 4 == 4 else { return nil }
        self.bytes = bytes
        self.byteCount = byteCount
        transportAt = Int(byte(at: Self.headerBytes) & 0x0f) * 4
        let segmentBytes = Int(bytes.loadUnaligned(fromByteOffset: 4, as: UInt16.self))
        guard byte(at: 1) & ~Self.congestionBit == Self.trainType, segmentBytes > 0, byteCount - Self.headerBytes >= transportAt + 20 else {
            (self.segmentBytes, dataAt, packetCount) = (0, transportAt, 1)
            return
        }
        self.segmentBytes = segmentBytes
        dataAt = transportAt + Int(byte(at: Self.headerBytes + transportAt + 12) >> 4) * 4
        packetCount = (max(byteCount - Self.headerBytes - dataAt, 1) + segmentBytes - 1) / segmentBytes
    }

    /// Four bytes of the IP header, as a number.
    func word(at offset: Int) -> UInt32 { bytes.loadUnaligned(fromByteOffset: Self.headerBytes + offset, as: UInt32.self).bigEndian }

    /// The bytes of IP packets that it takes on the line, with all their headers.
    var lineByteCount: Int { byteCount - Self.headerBytes + (packetCount - 1) * dataAt }

    /// What one packet of a train takes of that.
    func lineByteCount(of packet: Int) -> Int { dataAt + data(of: packet..<packet + 1).count }

    /// Where the data of some packets of a train is among its bytes.
    func data(of packets: Range<Int>) -> Range<Int> {
        let start = Self.headerBytes + dataAt
        return min(start + packets.lowerBound * segmentBytes, byteCount)..<min(start + packets.upperBound * segmentBytes, byteCount)
    }

    /// Makes the headers of a train that is some packets of this one, as if the others had never been between them; returns their length.
    /// - Parameter headers: room for `headersBytesMaximum`.
    func makeHeaders(of packets: Range<Int>, in headers: UnsafeMutableRawPointer) -> Int {
        let length = Self.headerBytes + dataAt
        headers.copyMemory(from: bytes, byteCount: length)
        let isFirst = packets.lowerBound == 0
        headers.storeBytes(of: Self.needsChecksum, toByteOffset: 0, as: UInt8.self)
        if packets.count == 1 {
            headers.storeBytes(of: 0, toByteOffset: 1, as: UInt8.self)
            headers.storeBytes(of: 0, toByteOffset: 4, as: UInt16.self)
        } else if !isFirst {
            headers.storeBytes(of: Self.trainType, toByteOffset: 1, as: UInt8.self)
        }
        headers.storeBytes(of: UInt16(clamping: dataAt), toByteOffset: 2, as: UInt16.self)
        headers.storeBytes(of: UInt16(clamping: transportAt), toByteOffset: 6, as: UInt16.self)
        headers.storeBytes(of: 16, toByteOffset: 8, as: UInt16.self)
        fill(network: headers + Self.headerBytes, packets, packetBytes: dataAt + data(of: packets).count)
        return length
    }

    /// The fields of IP and TCP that are each packet's own (RFC 791, RFC 9293).
    private func fill(network: UnsafeMutableRawPointer, _ packets: Range<Int>, packetBytes: Int) {
        func number<Number: FixedWidthInteger>(_ offset: Int, _: Number.Type) -> Number {
            Number(bigEndian: network.loadUnaligned(fromByteOffset: offset, as: Number.self))
        }
        func put<Number: FixedWidthInteger>(_ value: Number, _ offset: Int) {
            network.storeBytes(of: value.bigEndian, toByteOffset: offset, as: Number.self)
        }

        put(UInt16(clamping: packetBytes), 2)
        put(number(4, UInt16.self) &+ UInt16(truncatingIfNeeded: packets.lowerBound), 4)
        put(0 as UInt16, 10)
        put(~Self.sum(network, byteCount: transportAt), 10)

        put(number(transportAt + 4, UInt32.self) &+ UInt32(truncatingIfNeeded: packets.lowerBound * segmentBytes), transportAt + 4)
        var flags = number(transportAt + 13, UInt8.self)
        // FIN and PSH are the last packet's, CWR is the first one's.
        if packets.upperBound < packetCount { flags &= ~0x09 }
        if packets.lowerBound > 0 { flags &= ~0x80 }
        put(flags, transportAt + 13)
        // Who takes the packet adds its bytes to what the addresses and the length give.
        let pseudoHeader = Self.transportProtocol + UInt32(clamping: packetBytes - transportAt)
        put(Self.sum(network + 12, byteCount: 8, adding: pseudoHeader), transportAt + 16)
    }

    /// The sum of words of 16 bits in one's complement (RFC 1071). `byteCount` is even.
    private static func sum(_ bytes: UnsafeRawPointer, byteCount: Int, adding first: UInt32 = 0) -> UInt16 {
        var sum = first
        for offset in stride(from: 0, to: byteCount, by: 2) {
            sum &+= UInt32(bytes.loadUnaligned(fromByteOffset: offset, as: UInt16.self).bigEndian)
        }
        while sum >> 16 != 0 { sum = sum & 0xffff + sum >> 16 }
        return UInt16(truncatingIfNeeded: sum)
    }
}
