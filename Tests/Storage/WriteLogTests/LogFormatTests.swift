import Blocks
import Checksums
import Ciphers
import NIOCore
import SimulatedStorage
import Testing

@testable import WriteLog

enum LogTestTools {
    /// That of a file with such a salt.
    static func binding(salt: UInt8, version: UInt16 = LogFormat.version) -> LogBinding { LogBinding(header(salt: salt, version: version)) }

    static func header(salt: UInt8, version: UInt16 = LogFormat.version, isRecycled: Bool = false) -> LogFileHeader {
        LogFileHeader(
            volume: VolumeIdentifier(high: 1, low: 2), log: LogIdentifier(high: 3, low: 4), epoch: 5, part: 6, firstBatch: 7,
            epochFirstBatch: 8, durableThrough: 9, keyGeneration: 11, salt: [UInt8](repeating: salt, count: 32), isRecycled: isRecycled,
            version: version)
    }

    /// The batch at the start of `bytes` with checksums that fit.
    static func withChecksums(_ bytes: ByteBuffer, _ header: LogBatchHeader, _ binding: LogBinding) -> [UInt8] {
        var bytes = bytes
        let length = Int(header.descriptorBytes) + Int(header.dataBytes)
        if let payload = bytes.getSlice(at: 48, length: length) { bytes.setInteger(CRC32C.checksum(of: payload), at: 40) }
        if let head = bytes.getSlice(at: 0, length: 44) {
            bytes.setInteger(head.withUnsafeReadableBytes { binding.checksum(of: $0) }, at: 44)
        }
        return Array(bytes.readableBytesView)
    }
}

@Suite struct LogFormatTests {
    @Test func namesParseInOneSpellingOnly() {
        #expect(LogFormat.fileName(epoch: 0x1f, part: 0) == "epoch-000000000000001f.log")
        #expect(LogFormat.fileName(epoch: .max, part: 12) == "epoch-ffffffffffffffff-12.log")
        for (epoch, part) in [(1, 0), (0xabcdef, 3), (UInt64.max, .max)] as [(UInt64, UInt32)] {
            let parsed = LogFormat.parse(fileName: LogFormat.fileName(epoch: epoch, part: part))
            #expect(parsed?.epoch == epoch && parsed?.part == part)
        }
        for name in [
            "epoch-1.log", "epoch-000000000000001F.log", "epoch-000000000000001f-0.log", "epoch-000000000000001f-01.log",
            "epoch-000000000000001f-.log", "epoch-000000000000001fx.log", "epoch-+00000000000001f.log", "other", "",
            "epoch-000000000000001f.log.old", "epoch-000000000000001f-99999999999.log", "spare-000000000000001f.log",
        ] {
            #expect(LogFormat.parse(fileName: name) == nil, "\(name)")
        }
        #expect(LogFormat.parse(spareName: "spare-000000000000001f.log") == 0x1f)
        for name in [
            "spare-1.log", "spare-000000000000001F.log", "spare-+00000000000001f.log", "epoch-000000000000001f.log", "spare-.log", "",
        ] {
            #expect(LogFormat.parse(spareName: name) == nil, "\(name)")
        }
    }

    @Test func headersRoundTrip() throws {
        let cipher = BlockCipher(key: try SecretKey([UInt8](repeating: 1, count: 32)))
        for (version, isRecycled) in [(1, false), (2, true)] as [(UInt16, Bool)] {
            let other = LogTestTools.header(salt: 9, version: version, isRecycled: isRecycled)
            #expect(try LogFileHeader(parsing: try #require(other.encoded(cipher: cipher))) == other)
        }
        let unknown = try #require(LogTestTools.header(salt: 9, version: 3).encoded(cipher: cipher))
        #expect(throws: LogFileHeader.ParseError.unknownVersion(3)) { try LogFileHeader(parsing: unknown) }
        let header = LogTestTools.header(salt: 10)
        let bytes = try #require(header.encoded(cipher: cipher))
        #expect(bytes.readableBytes == 4096)
        #expect(try LogFileHeader(parsing: bytes) == header)
        #expect(LogFileHeader.isAuthentic(bytes, cipher: cipher))
        #expect(!LogFileHeader.isAuthentic(bytes, cipher: BlockCipher(key: try SecretKey([UInt8](repeating: 2, count: 32)))))
        for count in 0..<144 {
            var short = bytes
            short.moveWriterIndex(to: count)
            #expect(throws: LogFileHeader.ParseError.incomplete) { try LogFileHeader(parsing: short) }
        }
    }

    @Test func batchesRoundTrip() throws {
        let encoding = LogEncoding(volume: VolumeIdentifier(high: 1, low: 2))
        let cipher = BlockCipher(key: try SecretKey([UInt8](repeating: 1, count: 32)))
        let batch = LogBatch(epoch: 4, sequence: 9)
        _ = batch.add(.data, start: 100, count: 3, data: ByteBuffer(repeating: 1, count: 1536))
        _ = batch.add(.zeroes, start: 0, count: 1 << 40, data: nil)
        _ = batch.add(.data, start: 7, count: 17, data: ByteBuffer(repeating: 2, count: 17 * 512))
        _ = batch.add(.seal, start: 4, count: 0, data: nil)
        var bytes = ByteBuffer()
        let binding = LogTestTools.binding(salt: 3)
        #expect(encoding.encode(LogBatchContent(batch, durableThrough: 8), cipher: cipher, binding: binding, into: &bytes))
        #expect(bytes.readableBytes % 512 == 0)
        let header = try #require(LogBatchHeader(parsing: bytes, binding: binding))
        for other in [LogTestTools.binding(salt: 4), LogTestTools.binding(salt: 3, version: 1)] {
            #expect(LogBatchHeader(parsing: bytes, binding: other) == nil, "it is a batch of another file")
        }
        #expect(header.byteCount == bytes.readableBytes)
        let decoded = try encoding.decode(header, from: bytes, cipher: cipher)
        #expect(decoded.records.map(\.kind) == batch.records.map(\.kind))
        #expect(decoded.records.map(\.start) == batch.records.map(\.start))
        #expect(decoded.records.map(\.count) == batch.records.map(\.count))
        #expect(decoded.records.map(\.sealedOffset) == batch.records.map(\.sealedOffset))
        let elsewhere = LogEncoding(volume: VolumeIdentifier(high: 1, low: 3))
        #expect(throws: LogEncoding.BatchError.forged) { try elsewhere.decode(header, from: bytes, cipher: cipher) }
    }

    /// Whatever stands in the files, recovery ends in a log or in an error, and never traps.
    @Test(arguments: 0..<3 as Range<UInt64>)
    func recoveryTakesAnyBytes(seed: UInt64) throws {
        let harness = try LogHarness(seed: seed)
        try harness.open()
        for number in 0..<12 as Range<UInt64> {
            try harness.append(range(number * 3, 9), fill: UInt8(number))
            if number % 4 == 3 { _ = try harness.seal() }
        }
        try harness.flush()
        let random = harness.random
        for _ in 0..<60 {
            let copy = try LogHarness(seed: random.next())
            var damages = random.within(1...4)
            for name in harness.directory.names {
                var content = try #require(harness.directory.file(name)).content
                if damages > 0, !content.isEmpty {
                    damages -= 1
                    LogFuzzer.mutate(&content, random)
                }
                try copy.write(content, to: name)
            }
            let error = copy.openError()
            if error == nil {
                // Whatever was accepted can be read, or says that it can not.
                let log = try #require(copy.opened)
                for segment in log.segments(in: range(0, 100)) {
                    var result: Result<ByteBuffer, WriteLogError>?
                    log.read(segment) { result = $0 }
                    copy.scheduler.runUntilIdle()
                    #expect(result != nil)
                }
            }
        }
    }

    @Test func parsersTakeAnyBytes() throws {
        let random = SeededRandom(seed: 11)
        let encoding = LogEncoding(volume: VolumeIdentifier(high: 1, low: 2))
        var accepted = 0
        for _ in 0..<5000 {
            // Descriptors that pass every checksum and tag, as a bug of our own could make them.
            var descriptors = ByteBuffer()
            for _ in 0..<random.within(0...4) {
                descriptors.writeInteger(UInt8(random.below(4)))
                descriptors.writeInteger(random.chance(percent: 50) ? random.below(1000) : random.next())
                descriptors.writeInteger(random.chance(percent: 50) ? random.below(20) : random.next())
            }
            if random.chance(percent: 10) { descriptors.writeInteger(UInt8(0)) }
            var header = LogBatchHeader(epoch: random.below(4), sequence: 1, durableThrough: 0, descriptorBytes: 33, dataBytes: 0)
            header.dataBytes = UInt32(truncatingIfNeeded: random.below(40_000))
            if encoding.parse(&descriptors, of: header) != nil { accepted += 1 }
            _ = LogBatchHeader(
                parsing: ByteBuffer(bytes: (0..<48).map { _ in UInt8(truncatingIfNeeded: random.next()) }),
                binding: LogTestTools.binding(salt: 1))
        }
        #expect(accepted < 5000)
    }
}

enum LogFuzzer {
    static func mutate(_ content: inout [UInt8], _ random: SeededRandom) {
        switch random.below(4) {
        case 0:
            content.removeLast(Int(random.below(UInt64(content.count))))
        case 1:
            for _ in 0..<random.within(1...8) {
                content[Int(random.below(UInt64(content.count)))] = UInt8(truncatingIfNeeded: random.next())
            }
        case 2:
            let start = Int(random.below(UInt64(content.count)))
            content.replaceSubrange(
                start..., with: (0..<random.within(0...6000)).map { _ in UInt8(truncatingIfNeeded: random.next()) })
        default:
            // Fields of a batch header with a checksum that fits.
            guard content.count >= 4096 + 512, let header = try? LogFileHeader(parsing: ByteBuffer(bytes: content[..<4096])) else { return }
            let position = 4096 + random.within(0...39)
            content[position] = UInt8(truncatingIfNeeded: random.next())
            var head = ByteBuffer(bytes: content[4096..<4096 + 44])
            head.writeInteger(head.withUnsafeReadableBytes { LogBinding(header).checksum(of: $0) })
            content.replaceSubrange(4096..<4096 + 48, with: Array(head.readableBytesView))
        }
    }
}
