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
                [$0.lineByteCount, $0.packetCount]
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

    /// What is made of some packets of a train: its fields, and its data.
    private func run(_ packets: Range<Int>, of train: [UInt8]) -> (bytes: [UInt8], data: [UInt8]) {
        train.withUnsafeBytes { memory in
            var headers = [UInt8](repeating: 0, count: LinePacket.headersBytesMaximum)
            guard let packet = memory.baseAddress.flatMap({ LinePacket($0, byteCount: memory.count) }) else { return ([], []) }
            let length = headers.withUnsafeMutableBytes { room in room.baseAddress.map { packet.makeHeaders(of: packets, in: $0) } ?? 0 }
            return (Array(headers.prefix(length)), Array(memory[packet.data(of: packets)]))
        }
    }

    private func number(_ bytes: [UInt8], _ offset: Int, _ count: Int) -> Int {
        bytes[offset..<offset + count].reduce(0) { $0 << 8 | Int($1) }
    }

    /// Ten packets of 100 bytes and one of 50, with FIN, PSH and CWR.
    private var train: [UInt8] {
        var train = bytes(type: 0x81, segmentBytes: 100, dataBytes: 1_050)
        let network = LinePacket.headerBytes
        train.replaceSubrange(network + 2..<network + 4, with: [4, 78])
        train.replaceSubrange(network + 4..<network + 6, with: [0xff, 0xfe])
        train[network + 9] = 6
        train.replaceSubrange(network + 16..<network + 20, with: [10, 0, 0, 2])
        train.replaceSubrange(network + 24..<network + 28, with: [0xff, 0xff, 0xff, 0x9c])
        train[network + 33] = 0x99
        for index in 0..<1_050 { train[network + 52 + index] = UInt8(index / 100) }
        return train
    }

    @Test(arguments: [0..<3, 3..<7, 4..<5, 9..<11, 10..<11, 0..<11])
    func aRunOfPacketsIsATrainOfItsOwn(packets: Range<Int>) {
        let (headers, data) = run(packets, of: train)
        let network = LinePacket.headerBytes
        let length = packets.upperBound == 11 ? packets.count * 100 - 50 : packets.count * 100
        #expect(headers.count == network + 52 && data.count == length)
        #expect(Set(data) == Set(packets.map { UInt8($0) }))
        #expect(number(headers, network + 2, 2) == 52 + length)
        #expect(number(headers, network + 4, 2) == (0xfffe + packets.lowerBound) & 0xffff)
        // The sequence number begins anew within the train.
        #expect(number(headers, network + 24, 4) == (0xffff_ff9c + packets.lowerBound * 100) & 0xffff_ffff)
        let flags = Int(headers[network + 33])
        #expect(flags & 0x09 == (packets.upperBound == 11 ? 0x09 : 0) && flags & 0x80 == (packets.lowerBound == 0 ? 0x80 : 0))
        #expect(flags & 0x10 != 0)
        // The device's header: a train with segments, or a packet; of congestion only the first knows.
        let segment = headers.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 4, as: UInt16.self) }
        #expect(segment == (packets.count == 1 ? 0 : 100))
        #expect(headers[1] == (packets.count == 1 ? 0 : packets.lowerBound == 0 ? 0x81 : 1))
        #expect(headers[0] == 1)
    }

    @Test(arguments: [0..<3, 4..<5, 10..<11]) func aRunHasChecksumsOfItsOwn(packets: Range<Int>) {
        let (headers, data) = run(packets, of: train)
        func sum(_ bytes: some Sequence<UInt8>) -> Int {
            var sum = 0
            for (index, byte) in bytes.enumerated() { sum += index % 2 == 0 ? Int(byte) << 8 : Int(byte) }
            while sum > 0xffff { sum = (sum & 0xffff) + sum >> 16 }
            return sum
        }
        let network = Array(headers[LinePacket.headerBytes..<LinePacket.headerBytes + 20])
        #expect(sum(network) == 0xffff)
        // What the receiver's kernel does: it adds the segment to what is in the field, and that is the sum of a whole packet.
        let transport = Array(headers[(LinePacket.headerBytes + 20)...]) + data
        var whole = transport
        let field = 0xffff - sum(transport)
        whole.replaceSubrange(16..<18, with: [UInt8(field >> 8), UInt8(field & 0xff)])
        #expect(sum(Array(network[12...]) + [0, 6, UInt8(whole.count >> 8), UInt8(whole.count & 0xff)] + whole) == 0xffff)
    }

    @Test func whatATrainTakesIsWhatItsPacketsTake() {
        train.withUnsafeBytes { memory in
            guard let packet = memory.baseAddress.flatMap({ LinePacket($0, byteCount: memory.count) }) else { return }
            #expect((0..<11).map(packet.lineByteCount(of:)).reduce(0, +) == packet.lineByteCount)
            #expect(packet.lineByteCount(of: 10) == 102)
        }
    }
}
