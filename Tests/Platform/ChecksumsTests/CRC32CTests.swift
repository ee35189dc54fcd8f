import CPlatform
import Checksums
import NIOCore
import Testing

/// RFC 3720 appendix B.4 and the check value of the Rocksoft catalogue.
@Suite struct CRC32CTests {
    private static let ways: [Int32] = [0, 1, 2]

    private func checksum(_ bytes: [UInt8], way: Int32 = 2, from crc: UInt32 = 0) -> UInt32 {
        bytes.withUnsafeBytes { causeway_crc32c_by(crc, $0.baseAddress, $0.count, way) }
    }

    @Test(arguments: ways) func knownVectors(way: Int32) {
        #expect(checksum([], way: way) == 0)
        #expect(checksum(Array("123456789".utf8), way: way) == 0xE306_9283)
        #expect(checksum(Array(repeating: 0, count: 32), way: way) == 0x8A91_36AA)
        #expect(checksum(Array(repeating: 0xFF, count: 32), way: way) == 0x62A8_AB43)
        #expect(checksum((0..<32).map { UInt8($0) }, way: way) == 0x46DD_794E)
        #expect(checksum((0..<32).reversed().map { UInt8($0) }, way: way) == 0x113F_DB5C)
    }

    /// One bit at a time, by the definition.
    private func definition(_ bytes: some Sequence<UInt8>) -> UInt32 {
        var crc = UInt32.max
        for byte in bytes {
            crc ^= UInt32(byte)
            for _ in 0..<8 { crc = crc & 1 == 1 ? crc >> 1 ^ 0x82F6_3B78 : crc >> 1 }
        }
        return ~crc
    }

    private static func noise(_ count: Int) -> [UInt8] {
        var generator = SystemRandomNumberGenerator()
        return (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
    }

    /// Every length around the borders of the lanes: no lanes, short ones, long ones, and both.
    @Test func everyLengthOfEveryWayIsTheDefinition() {
        let bytes = Self.noise(4_700)
        var expected = UInt32.max
        for length in 0...bytes.count {
            if length > 0 {
                expected ^= UInt32(bytes[length - 1])
                for _ in 0..<8 { expected = expected & 1 == 1 ? expected >> 1 ^ 0x82F6_3B78 : expected >> 1 }
            }
            bytes.withUnsafeBytes { bytes in
                for way in Self.ways where causeway_crc32c_by(0, bytes.baseAddress, length, way) != ~expected {
                    Issue.record("\(length) bytes by way \(way)")
                }
            }
        }
    }

    @Test func aComputationMayBeCutAnywhere() {
        let bytes = Self.noise(13_000)
        let whole = definition(bytes)
        for cut in stride(from: 0, through: bytes.count, by: 61) {
            let first = checksum(Array(bytes[..<cut]))
            #expect(checksum(Array(bytes[cut...]), from: first) == whole)
        }
    }

    @Test(arguments: 0..<16) func aBufferMayBeginAnywhere(offset: Int) {
        let bytes = Self.noise(9_000)
        #expect(CRC32C.checksum(of: ByteBuffer(ByteBuffer(bytes: bytes).readableBytesView[offset...])) == definition(bytes[offset...]))
    }

    @Test func integersAreInNetworkOrder() {
        var crc = CRC32C()
        crc.update(bigEndian: UInt32(0x3132_3334))
        crc.update(ByteBuffer(string: "56789"))
        #expect(crc.value == 0xE306_9283)
    }
}
