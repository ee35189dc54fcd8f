import NIOCore
import Testing

@testable import Compression

@Suite struct CompressorTests {
    static func text(_ count: Int) -> ByteBuffer {
        var buffer = ByteBuffer()
        var number = 0
        while buffer.readableBytes < count {
            buffer.writeString("line \(number % 97) of a file that repeats itself\n")
            number += 1
        }
        return buffer.getSlice(at: 0, length: count) ?? buffer
    }

    static func noise(_ count: Int, seed: UInt64 = 1) -> ByteBuffer {
        var state = seed
        return ByteBuffer(
            bytes: (0..<count).map { _ in
                state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                return UInt8(truncatingIfNeeded: state >> 56)
            })
    }

    @Test(arguments: CompressionAlgorithm.allCases, [17, 100, 4096, 16384, 1_000_000])
    func whatIsCompressedComesBack(_ algorithm: CompressionAlgorithm, count: Int) throws {
        let compressor = Compressor()
        let bytes = count < 4096 ? ByteBuffer(repeating: 7, count: count) : Self.text(count)
        guard let compressed = compressor.compress(bytes, using: algorithm, headroom: 5) else {
            #expect(count == 17)
            return
        }
        #expect(compressed.readableBytes - 5 <= count - count / 16)
        let body = try #require(compressed.getSlice(at: compressed.readerIndex + 5, length: compressed.readableBytes - 5))
        #expect(try compressor.decompress(body, using: algorithm, expecting: count) == bytes)
    }

    @Test(arguments: CompressionAlgorithm.allCases) func noiseDoesNotPay(_ algorithm: CompressionAlgorithm) {
        let compressor = Compressor()
        #expect(compressor.compress(Self.noise(16384), using: algorithm) == nil)
        #expect(compressor.compress(ByteBuffer(), using: algorithm) == nil)
        #expect(compressor.compress(ByteBuffer(repeating: 0, count: Compressor.maximumBytes + 1), using: algorithm) == nil)
    }

    @Test(arguments: CompressionAlgorithm.allCases) func aLengthThatIsNotTrueIsRefused(_ algorithm: CompressionAlgorithm) throws {
        let compressor = Compressor()
        let compressed = try #require(compressor.compress(Self.text(4096), using: algorithm))
        for length in [1, 4095, 4097, 16384] {
            #expect(throws: DecompressionError.damaged) {
                try compressor.decompress(compressed, using: algorithm, expecting: length)
            }
        }
        for length in [0, -1, Int.max] {
            #expect(throws: DecompressionError.unreasonableLength) {
                try compressor.decompress(compressed, using: algorithm, expecting: length)
            }
        }
    }

    @Test(arguments: CompressionAlgorithm.allCases) func damageNeverTrapsNorGivesAnotherLength(_ algorithm: CompressionAlgorithm)
        throws
    {
        let compressor = Compressor()
        let good = [UInt8](try #require(compressor.compress(Self.text(4096), using: algorithm)).readableBytesView)
        var generator = SystemRandomNumberGenerator()
        var refused = 0
        for _ in 0..<5000 {
            var bytes = good
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                bytes[Int.random(in: 0..<bytes.count, using: &generator)] = UInt8.random(in: 0...255, using: &generator)
            }
            bytes = [UInt8](bytes.prefix(Int.random(in: 0...bytes.count, using: &generator)))
            if let output = try? compressor.decompress(ByteBuffer(bytes: bytes), using: algorithm, expecting: 4096) {
                #expect(output.readableBytes == 4096)
            } else {
                refused += 1
            }
        }
        #expect(refused > 1000)
    }
}
