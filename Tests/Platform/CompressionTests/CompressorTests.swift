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

    @Test(arguments: CompressionMethod.allCases, [17, 100, 4096, 16384, 1_000_000])
    func whatIsCompressedComesBack(_ method: CompressionMethod, count: Int) throws {
        let compressor = Compressor()
        let bytes = count < 4096 ? ByteBuffer(repeating: 7, count: count) : Self.text(count)
        guard let compressed = compressor.compress(bytes, using: method, headroom: 5) else {
            #expect(count == 17)
            return
        }
        #expect(compressed.readableBytes - 5 <= count - count / 16)
        let body = try #require(compressed.getSlice(at: compressed.readerIndex + 5, length: compressed.readableBytes - 5))
        #expect(try compressor.decompress(body, using: method.algorithm, expecting: count) == bytes)
    }

    @Test(arguments: CompressionMethod.allCases) func noiseDoesNotPay(_ method: CompressionMethod) {
        let compressor = Compressor()
        #expect(compressor.compress(Self.noise(16384), using: method) == nil)
        #expect(compressor.compress(ByteBuffer(), using: method) == nil)
        #expect(compressor.compress(ByteBuffer(repeating: 0, count: Compressor.maximumBytes + 1), using: method) == nil)
    }

    @Test(arguments: CompressionMethod.allCases) func aLengthThatIsNotTrueIsRefused(_ method: CompressionMethod) throws {
        let compressor = Compressor()
        let compressed = try #require(compressor.compress(Self.text(4096), using: method))
        for length in [1, 4095, 4097, 16384] {
            #expect(throws: DecompressionError.damaged) {
                try compressor.decompress(compressed, using: method.algorithm, expecting: length)
            }
        }
        for length in [0, -1, Int.max] {
            #expect(throws: DecompressionError.unreasonableLength) {
                try compressor.decompress(compressed, using: method.algorithm, expecting: length)
            }
        }
    }

    @Test(arguments: CompressionMethod.allCases) func damageNeverTrapsNorGivesAnotherLength(_ method: CompressionMethod)
        throws
    {
        let compressor = Compressor()
        let good = [UInt8](try #require(compressor.compress(Self.text(4096), using: method)).readableBytesView)
        var generator = SystemRandomNumberGenerator()
        var refused = 0
        for _ in 0..<5000 {
            var bytes = good
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                bytes[Int.random(in: 0..<bytes.count, using: &generator)] = UInt8.random(in: 0...255, using: &generator)
            }
            bytes = [UInt8](bytes.prefix(Int.random(in: 0...bytes.count, using: &generator)))
            if let output = try? compressor.decompress(ByteBuffer(bytes: bytes), using: method.algorithm, expecting: 4096) {
                #expect(output.readableBytes == 4096)
            } else {
                refused += 1
            }
        }
        #expect(refused > 1000)
    }

    /// On text each level is denser than the one before.
    @Test func effortPays() throws {
        let compressor = Compressor()
        var text = ByteBuffer()
        var state: UInt64 = 1
        while text.readableBytes < 65_536 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            text.writeString(["block ", "segment ", "cache ", "\(state >> 52) ", "is written\n", "when "][Int(state >> 40) % 6])
        }
        let sizes = try CompressionMethod.allCases.map { try #require(compressor.compress(text, using: $0)).readableBytes }
        #expect(sizes == sizes.sorted(by: >), "\(sizes)")
    }

    // MARK: The look at data

    @Test(arguments: 1...200 as ClosedRange<UInt64>) func noiseLooksRandom(seed: UInt64) {
        #expect(RandomnessProbe.looksRandom(Self.noise(seed % 2 == 0 ? 4096 : 16_384, seed: seed)))
    }

    @Test func whatShrinksDoesNotLookRandom() throws {
        #expect(!RandomnessProbe.looksRandom(Self.text(16_384)))
        #expect(!RandomnessProbe.looksRandom(ByteBuffer(repeating: 0, count: 4096)))
        // Base64 of noise: three quarters of each byte.
        let letters = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
        #expect(!RandomnessProbe.looksRandom(ByteBuffer(bytes: Self.noise(4096).readableBytesView.map { letters[Int($0 & 63)] })))
        // Half of it is noise.
        var half = Self.noise(2048)
        half.writeRepeatingByte(0, count: 2048)
        #expect(!RandomnessProbe.looksRandom(half))
        #expect(!RandomnessProbe.looksRandom(Self.noise(1023)), "too little to tell")
        #expect(!RandomnessProbe.looksRandom(ByteBuffer()))
    }

    /// The output of a compressor is what it is for.
    @Test func whatIsCompressedLooksRandom() throws {
        let numbers = ByteBuffer(string: (0..<60_000).map { "\($0 &* 7919 % 10_007)" }.joined(separator: " "))
        let compressed = try #require(Compressor().compress(numbers, using: .zstandard5))
        #expect(compressed.readableBytes > 20_000)
        #expect(RandomnessProbe.looksRandom(try #require(compressed.getSlice(at: 4096, length: 16_384))))
    }
}
