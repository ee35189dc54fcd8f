import NIOCore
import Testing

@testable import Compression

@Suite struct CompressionStreamTests {
    static let overheadMax = 64
    static let methods: [CompressionMethod] = [.zstandard1, .zstandard3, .zstandard5]

    /// Pieces of something that comes up again and again, but never within a piece.
    static func pieces(_ count: Int, byteCount: Int = 4096) -> [ByteBuffer] {
        (0..<count).map { CompressorTests.noise(byteCount, seed: UInt64($0 % 5 + 1)) }
    }

    @Test(arguments: methods) func whatComesUpAgainIsSentOnce(_ method: CompressionMethod) throws {
        let (sender, receiver) = (CompressionStream(), DecompressionStream())
        #expect(sender.start(method))
        try receiver.start()
        for (number, piece) in Self.pieces(20).enumerated() {
            let compressed = try #require(sender.compress(piece, headroom: 7, overheadMax: Self.overheadMax))
            #expect(compressed.readableBytes <= 7 + piece.readableBytes + Self.overheadMax)
            if number >= 5 { #expect(compressed.readableBytes < 100) }
            let body = try #require(compressed.getSlice(at: 7, length: compressed.readableBytes - 7))
            #expect(try receiver.decompress(body, expecting: piece.readableBytes) == piece)
        }
        #expect(sender.method == method)
    }

    /// Noise, text and zeroes, of all lengths, and starts in between.
    @Test func whateverGoesInComesOut() throws {
        var generator = SystemRandomNumberGenerator()
        let (sender, receiver) = (CompressionStream(), DecompressionStream())
        for number in 0..<2000 {
            let isNew = number == 0 || Int.random(in: 0..<100, using: &generator) == 0
            if isNew {
                #expect(sender.start(Self.methods.randomElement(using: &generator) ?? .zstandard1))
                try receiver.start()
            }
            let count = Int.random(in: 1...16_448, using: &generator)
            let piece =
                switch Int.random(in: 0..<3, using: &generator) {
                case 0: CompressorTests.noise(count, seed: .random(in: 1...9, using: &generator))
                case 1: CompressorTests.text(count)
                default: ByteBuffer(repeating: 0, count: count)
                }
            let compressed = try #require(sender.compress(piece, overheadMax: Self.overheadMax))
            #expect(compressed.readableBytes <= count + Self.overheadMax)
            #expect(try receiver.decompress(compressed, expecting: count) == piece)
        }
    }

    @Test func aStreamThatWasNotStartedTakesNothing() {
        #expect(CompressionStream().compress(CompressorTests.text(100), overheadMax: Self.overheadMax) == nil)
        #expect(!CompressionStream().start(.lz4))
        #expect(throws: DecompressionError.damaged) { try DecompressionStream().decompress(CompressorTests.text(100), expecting: 100) }
    }

    @Test(arguments: [1, 4095, 4097, 16_384]) func aLengthThatIsNotTrueIsRefused(_ length: Int) throws {
        let (sender, receiver) = (CompressionStream(), DecompressionStream())
        #expect(sender.start(.zstandard3))
        let first = try #require(sender.compress(CompressorTests.text(4096), overheadMax: Self.overheadMax))
        try receiver.start()
        #expect(throws: DecompressionError.damaged) { try receiver.decompress(first, expecting: length) }
        // Nothing goes on behind that, but a start.
        #expect(throws: DecompressionError.damaged) { try receiver.decompress(first, expecting: 4096) }
        try receiver.start()
        #expect(try receiver.decompress(first, expecting: 4096) == CompressorTests.text(4096))
    }

    @Test func aWindowThatIsTooLargeIsRefused() throws {
        // A frame of Zstandard that asks for 2 MiB of window (descriptor 0x58), with a raw block of one byte.
        let frame = ByteBuffer(bytes: [0x28, 0xB5, 0x2F, 0xFD, 0x00, 0x58, 0x08, 0x00, 0x00, 0x41])
        let receiver = DecompressionStream()
        try receiver.start()
        #expect(throws: DecompressionError.damaged) { try receiver.decompress(frame, expecting: 1) }
        // The same with 1 MiB.
        var smaller = frame
        smaller.setInteger(UInt8(0x50), at: 5)
        try receiver.start()
        #expect(try receiver.decompress(smaller, expecting: 1) == ByteBuffer(bytes: [0x41]))
    }

    /// A last block, what may be skipped, and formats of older versions, whose decoders know no limit of the window.
    @Test(
        arguments: [
            [0x28, 0xB5, 0x2F, 0xFD, 0x00, 0x50, 0x09, 0x00, 0x00, 0x41], [0x50, 0x2A, 0x4D, 0x18, 0x01, 0x00, 0x00, 0x00, 0x41],
            [0x27, 0xB5, 0x2F, 0xFD, 0x00, 0x50, 0x08, 0x00, 0x00, 0x41], [0x28, 0xB5],
        ] as [[UInt8]])
    func nothingElseIsAStream(_ bytes: [UInt8]) throws {
        let receiver = DecompressionStream()
        try receiver.start()
        #expect(throws: DecompressionError.damaged) { try receiver.decompress(ByteBuffer(bytes: bytes), expecting: 1) }
    }

    @Test func damageNeverTrapsNorGivesAnotherLength() throws {
        let sender = CompressionStream()
        #expect(sender.start(.zstandard3))
        let good = try (0..<3).map { _ in
            [UInt8](try #require(sender.compress(CompressorTests.text(4096), overheadMax: Self.overheadMax)).readableBytesView)
        }
        var generator = SystemRandomNumberGenerator()
        let receiver = DecompressionStream()
        for _ in 0..<3000 {
            try receiver.start()
            for piece in good {
                var bytes = piece
                if Bool.random(using: &generator) {
                    bytes[Int.random(in: 0..<bytes.count, using: &generator)] = UInt8.random(in: 0...255, using: &generator)
                    bytes = [UInt8](bytes.prefix(Int.random(in: 0...bytes.count, using: &generator)))
                }
                guard let output = try? receiver.decompress(ByteBuffer(bytes: bytes), expecting: 4096) else { break }
                #expect(output.readableBytes == 4096)
            }
        }
    }
}
