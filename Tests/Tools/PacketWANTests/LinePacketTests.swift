import Testing

@testable import PacketWAN

/// What a packet of a device takes on the line.
struct LinePacketTests {
    /// A packet of TCP over IPv4 with options, from 10.0.0.1, behind the header of a device.
    private func bytes(type: UInt8, segmentBytes: UInt16, dataBytes: Int, optionBytes: Int = 12) -> [UInt8] {
        var header = [UInt8](repeating: 0, count: LinePacket.headerBytes)
        header[1] = type
        withUnsafeBytes(of: segmentBytes) { header.replaceSubrange(4..<6, with: $0) }
        var network = [UInt8](repeating: 0, count: 20)
        network[0] = 0x45
        network.replaceSubrange(12..<16, with: [10, 0, 0, 1])
        var transport = [UInt8](repeating: 0, count: 20 + optionBytes)
        transport[12] = UInt8((20 + optionBytes) / 4) << 4
        return header + network + transport + [UInt8](repeating: 7, count: dataBytes)
    }

    private func onLine(_ bytes: [UInt8]) -> [Int]? {
        bytes.withUnsafeBytes { memory in
            memory.baseAddress.flatMap { LinePacket($0, byteCount: memory.count) }.map {
                [$0.lineBytes.byteCount, $0.lineBytes.packetCount]
            }
        }
    }

    @Test func aPacketTakesWhatItIs() {
        #expect(onLine(bytes(type: 0, segmentBytes: 0, dataBytes: 1_448)) == [1_500, 1])
        #expect(onLine(bytes(type: 0, segmentBytes: 0, dataBytes: 0)) == [52, 1])
    }

    @Test func aTrainTakesTheHeadersOfAllItsPackets() {
        #expect(onLine(bytes(type: 1, segmentBytes: 1_448, dataBytes: 44 * 1_448)) == [44 * 1_500, 44])
        #expect(onLine(bytes(type: 0x81, segmentBytes: 1_448, dataBytes: 1_449)) == [1_500 + 53, 2])
        #expect(onLine(bytes(type: 1, segmentBytes: 1_460, dataBytes: 1_461, optionBytes: 0)) == [1_500 + 41, 2])
        #expect(onLine(bytes(type: 1, segmentBytes: 1_448, dataBytes: 100)) == [152, 1])
    }

    @Test func whatIsNotIPv4IsNone() {
        var other = bytes(type: 0, segmentBytes: 0, dataBytes: 100)
        other[LinePacket.headerBytes] = 0x60
        #expect(onLine(other) == nil)
        #expect(onLine(Array(bytes(type: 0, segmentBytes: 0, dataBytes: 0).prefix(LinePacket.headerBytes + 19))) == nil)
    }

    @Test func addressesAreNumbers() {
        bytes(type: 0, segmentBytes: 0, dataBytes: 0).withUnsafeBytes { memory in
            let packet = memory.baseAddress.flatMap { LinePacket($0, byteCount: memory.count) }
            #expect(packet?.word(at: LineDirection.sourceOffset) == 0x0a00_0001)
        }
    }
}
