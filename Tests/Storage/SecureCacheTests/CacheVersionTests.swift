import Blocks
import Ciphers
import NIOCore
import SimulatedStorage
import Testing

@testable import SecureCache

/// What other versions of the program wrote.
@Suite struct CacheVersionTests {
    private func filled() throws -> CacheHarness {
        let harness = try CacheHarness()
        let cache = try harness.open()
        cache.insert(harness.volume, block: 0, data: CacheHarness.blocks(0..<40, 1))
        try harness.synchronize()
        return harness
    }

    private func fragments(_ harness: CacheHarness, _ file: SimulatedFile) throws -> CacheFragments {
        let bytes = ByteBuffer(bytes: file.content.prefix(512))
        let header = try #require(CacheRecordFileHeader(parsing: bytes))
        let key = try harness.edgeKey.derive(salt: header.salt, purpose: CacheFormat.recordsPurpose)
        return CacheFragments(header: header, cipher: BlockCipher(key: key))
    }

    /// Gives all headers another version, as that one would have sealed them.
    private func setVersion(_ version: UInt16, _ harness: CacheHarness) throws {
        var header = try #require(CacheHeader(parsing: ByteBuffer(bytes: harness.file.content.prefix(4096))))
        header.version = version
        try harness.put(Array(header.encoded().readableBytesView), into: harness.file)
        for name in harness.directory.names {
            let file = try #require(harness.directory.file(name))
            let fragments = try fragments(harness, file)
            var header = fragments.header
            header.version = version
            let bytes = try #require(header.encoded(cipher: fragments.cipher))
            try harness.put(Array(bytes.readableBytesView), into: file)
            file.synchronize { _ in }
        }
        harness.file.synchronize { _ in }
        harness.scheduler.runUntilIdle()
    }

    private func version(_ harness: CacheHarness) -> UInt16? { ByteBuffer(bytes: harness.file.content.prefix(16)).getInteger(at: 8) }

    @Test func aCacheOfVersionTwoGoesOnAsVersionThree() throws {
        let harness = try filled()
        harness.crash(power: false)
        try setVersion(2, harness)
        try harness.open()
        #expect(version(harness) == 3)
        #expect(try harness.read(0..<40) == CacheHarness.blocks(0..<40, 1))
        let cache = try #require(harness.cache)
        cache.insert(harness.volume, block: 3, data: CacheHarness.block(3, 2))
        try harness.synchronize()
        let newest = try #require(harness.directory.names.filter { $0.hasPrefix("journal.") }.max())
        #expect(try fragments(harness, #require(harness.directory.file(newest))).header.version == 3)
        harness.crash(power: true)
        try harness.open()
        #expect(try harness.read(2..<5) == CacheHarness.block(2, 1) + CacheHarness.block(3, 2) + CacheHarness.block(4, 1))
    }

    /// The version is durable before anything is that an older program would misread.
    @Test(arguments: 1..<20 as Range<UInt64>) func noRecordIsOlderThanTheHeaderSays(seed: UInt64) throws {
        let harness = try filled()
        harness.crash(power: false)
        try setVersion(2, harness)
        harness.crash(power: true)
        Cache.open(
            file: harness.file, directory: harness.directory, byteCount: UInt64(harness.byteCount), key: harness.edgeKey,
            limits: harness.limits, random: harness.random.source
        ) { result in
            guard case .success(let cache) = result else { return }
            cache.attach(volume: harness.volume, key: harness.volumeKey, generation: 2)
            cache.synchronize { _ in }
        }
        for _ in 0..<seed { _ = harness.scheduler.step() }
        harness.crash(power: true)
        let isNew = try harness.directory.names.contains { name in
            let file = try #require(harness.directory.file(name))
            return CacheRecordFileHeader(parsing: ByteBuffer(bytes: file.content.prefix(512)))?.version == 3
        }
        #expect(!isNew || version(harness) == 3)
    }

    @Test(arguments: [1, 4] as [UInt16]) func aCacheOfAVersionThatIsNotKnownBeginsAnew(version: UInt16) throws {
        let harness = try filled()
        harness.crash(power: false)
        try setVersion(version, harness)
        let cache = try harness.open()
        #expect(cache.statistics.blocksHeld == 0 && self.version(harness) == 3)
    }

    /// A fragment is authentic, and something in it is no record that this version knows: what it hides nobody knows.
    @Test func recordsThatCannotBeReadCostTheBlocks() throws {
        let harness = try filled()
        harness.crash(power: false)
        let file = try #require(harness.directory.file("journal.1"))
        var fragments = try fragments(harness, file)
        var bytes = ByteBuffer(bytes: file.content.dropFirst(512))
        while case .records = fragments.open(&bytes) {}
        var records = ByteBuffer()
        CacheRecord.current(ordinal: 0, through: 7).encode(into: &records)
        records.writeMultipleIntegers(UInt8(13), UInt32(0), UInt64(1))
        let fragment = fragments.seal(records)
        let sealed = try #require(fragment)
        var ended = false
        file.write(sealed.bytes, at: sealed.offset) { _ in ended = true }
        harness.scheduler.runUntilIdle()
        #expect(ended)
        let cache = try harness.open()
        #expect(cache.statistics.blocksHeld == 0 && cache.statistics.segmentsSkipped == 1)
    }
}

private func + (left: ByteBuffer, right: ByteBuffer) -> ByteBuffer {
    var sum = left
    sum.writeImmutableBuffer(right)
    return sum
}
