import Blocks
import Checksums
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

    /// Gives the headers another version: where it stands, and in the checksums.
    private func setVersion(_ version: UInt16, _ harness: CacheHarness) throws {
        func put(_ file: SimulatedFile, byteCount: Int, checked: Int) throws {
            var bytes = ByteBuffer(bytes: file.content.prefix(byteCount))
            bytes.setInteger(version, at: 8)
            let checksum = CRC32C.checksum(of: try #require(bytes.getSlice(at: 0, length: checked)))
            bytes.setInteger(checksum, at: checked)
            try harness.put(Array(bytes.readableBytesView), into: file)
        }
        try put(harness.file, byteCount: 4096, checked: CacheHeader.checkedBytes)
        for name in harness.directory.names {
            try put(#require(harness.directory.file(name)), byteCount: 512, checked: CacheRecordFileHeader.boundBytes + 16)
        }
    }

    private func version(_ harness: CacheHarness) -> UInt16? { ByteBuffer(bytes: harness.file.content.prefix(16)).getInteger(at: 8) }

    /// What the version before wrote is read, and the header says then that this one may have written.
    @Test func aCacheOfVersion4GoesOn() throws {
        let harness = try filled()
        harness.crash(power: false)
        var header = try #require(CacheHeader(parsing: ByteBuffer(bytes: harness.file.content.prefix(4096))))
        header.version = 4
        try harness.put(Array(header.encoded().readableBytesView), into: harness.file)
        for name in harness.directory.names {
            let file = try #require(harness.directory.file(name))
            var header = try #require(CacheRecordFileHeader(parsing: ByteBuffer(bytes: file.content.prefix(512))))
            header.version = 4
            let key = try harness.edgeKey.derive(salt: header.salt, purpose: CacheFormat.recordsPurpose)
            let bytes = try #require(header.encoded(cipher: BlockCipher(key: key)))
            try harness.put(Array(bytes.readableBytesView), into: file)
        }
        let cache = try harness.open()
        #expect(cache.statistics.blocksHeld == 40 && cache.statistics.segmentsSkipped == 0 && version(harness) == CacheFormat.version)
        #expect(try harness.read(0..<40) == CacheHarness.blocks(0..<40, 1))
        cache.insert(harness.volume, block: 3, data: CacheHarness.block(3, 2))
        try harness.synchronize()
        harness.crash(power: true)
        try harness.open()
        #expect(try harness.read(3..<4) == CacheHarness.block(3, 2) && harness.read(4..<5) == CacheHarness.block(4, 1))
    }

    /// Earlier versions, and later ones.
    @Test(arguments: [1, 2, 3, 6] as [UInt16]) func aCacheOfAnotherVersionBeginsAnew(version: UInt16) throws {
        let harness = try filled()
        harness.crash(power: false)
        try setVersion(version, harness)
        let cache = try harness.open()
        #expect(cache.statistics.blocksHeld == 0 && self.version(harness) == CacheFormat.version)
        cache.insert(harness.volume, block: 3, data: CacheHarness.block(3, 2))
        try harness.synchronize()
        harness.crash(power: true)
        try harness.open()
        #expect(try harness.read(3..<4) == CacheHarness.block(3, 2))
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
        records.writeMultipleIntegers(UInt8(99), UInt32(0), UInt64(1))
        let fragment = fragments.sealVeiled(records)
        let sealed = try #require(fragment)
        var ended = false
        file.write(sealed.bytes, at: sealed.offset) { _ in ended = true }
        harness.scheduler.runUntilIdle()
        #expect(ended)
        let cache = try harness.open()
        #expect(cache.statistics.blocksHeld == 0 && cache.statistics.segmentsSkipped == 1)
    }
}
