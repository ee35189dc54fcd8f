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
    /// A train of TCP segments over IPv4 (`VIRTIO_NET_HDR_GSO_TCPV4`); what besides it may say of congestion is its highest bit.
    private static let trainType: UInt8 = 1

    private let bytes: UnsafeRawPointer
    private let byteCount: Int

    /// The packet in `byteCount` bytes with their header, which outlive it; nil when it is none of IPv4.
    init?(_ bytes: UnsafeRawPointer, byteCount: Int) {
        guard byteCount >= Self.headerBytes + 20, bytes.load(fromByteOffset: Self.headerBytes, as: UInt8.self) >> 4 == 4 else { return nil }
        self.bytes = bytes
        self.byteCount = byteCount
    }

    private func byte(at offset: Int) -> Int { Int(bytes.load(fromByteOffset: offset, as: UInt8.self)) }

    /// Four bytes of the IP header, as a number.
    func word(at offset: Int) -> UInt32 { bytes.loadUnaligned(fromByteOffset: Self.headerBytes + offset, as: UInt32.self).bigEndian }

    /// What it takes on the line: IP packets, and bytes of them with all their headers.
    var lineBytes: (byteCount: Int, packetCount: Int) {
        let packetBytes = byteCount - Self.headerBytes
        let segmentBytes = Int(bytes.loadUnaligned(fromByteOffset: 4, as: UInt16.self))
        let transportAt = (byte(at: Self.headerBytes) & 0x0f) * 4
        guard UInt8(byte(at: 1)) & 0x7f == Self.trainType, segmentBytes > 0, packetBytes >= transportAt + 20 else {
            return (packetBytes, 1)
        }
        let headers = transportAt + (byte(at: Self.headerBytes + transportAt + 12) >> 4) * 4
        let data = max(packetBytes - headers, 1)
        let count = (data + segmentBytes - 1) / segmentBytes
        return (packetBytes + (count - 1) * headers, count)
    }
}
