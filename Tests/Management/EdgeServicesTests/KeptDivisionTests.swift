import APIModels
import Blocks
import Ciphers
import Files
import Foundation
import NIOCore
import SecureCache
import Testing

@testable import EdgeServices

/// How the cache is divided, as it is kept, changed and told.
@Suite struct KeptDivisionTests {
    private let path = FileManager.default.temporaryDirectory.appendingPathComponent("causeway-division-\(UUID().uuidString)").path
    private let key: SecretKey
    private let volume = VolumeIdentifier(high: 1, low: 2)

    init() throws { key = try SecretKey([UInt8](repeating: 7, count: 32)) }

    private func withDirectory(_ body: (OpenDirectory) throws -> Void) throws {
        let directory = try OpenDirectory(path, create: true)
        defer { try? FileManager.default.removeItem(atPath: path) }
        try body(directory)
    }

    @Test func whatWasKeptComesBack() throws {
        try withDirectory { directory in
            #expect(try KeptDivision.read(in: directory, key: key) == CacheDivision())
            var division = CacheDivision()
            division.partitions = ["lab": 1 << 30]
            var share = CacheDivision.Share()
            (share.partition, share.guaranteedBytes, share.bytesMax, share.pins) = ("lab", 5, 1 << 29, [0..<7, 9..<10])
            division.shares = [volume: share, VolumeIdentifier(high: .max, low: 0): CacheDivision.Share()]
            try KeptDivision.keep(division, in: directory, key: key)
            #expect(try KeptDivision.read(in: directory, key: key) == division)
            try KeptDivision.keep(CacheDivision(), in: directory, key: key)
            #expect(try KeptDivision.read(in: directory, key: key) == CacheDivision())
        }
    }

    /// What names it has, and how many, is nobody's business who has no key.
    @Test func nothingOfItCanBeRead() throws {
        try withDirectory { directory in
            try KeptDivision.keep(CacheDivision(), in: directory, key: key)
            let empty = try directory.readFile("cache-division", byteCountMax: 1 << 20)
            var division = CacheDivision()
            for number in 0..<20 { division.partitions["payroll-\(number)"] = 1 << 30 }
            try KeptDivision.keep(division, in: directory, key: key)
            let bytes = try directory.readFile("cache-division", byteCountMax: 1 << 20)
            #expect(!String(decoding: bytes, as: UTF8.self).contains("payroll") && bytes.count == empty.count)
            let other = try SecretKey([UInt8](repeating: 8, count: 32))
            #expect(throws: KeptDivision.Damage.self) { try KeptDivision.read(in: directory, key: other) }
        }
    }

    @Test(arguments: [
        "", "{}", #"{"version":2,"partitions":{},"shares":{}}"#,
        #"{"version":1,"partitions":{},"shares":{"nobody":{"guaranteedBytes":0,"pins":[]}}}"#,
        #"{"version":1,"partitions":{},"shares":{"00000000000000010000000000000002":{"guaranteedBytes":0,"pins":[5,5]}}}"#,
        #"{"version":1,"partitions":{},"shares":{"00000000000000010000000000000002":{"guaranteedBytes":0,"pins":[5]}}}"#,
        #"{"version":1,"partitions":{},"shares":{"00000000000000010000000000000002":{"guaranteedBytes":0,"pins":[0,1125899906842625]}}}"#,
    ])
    func damageIsTold(text: String) throws {
        let sealed = try KeptDivision.format.seal(
            ByteBuffer(string: text), owner: KeptDivision.owner, key: key, salt: [UInt8](repeating: 3, count: SealedFile.saltBytes))
        for bytes in [Array(sealed.readableBytesView), Array(text.utf8)] {
            try withDirectory { directory in
                try directory.replaceFile("cache-division", with: bytes)
                #expect(throws: KeptDivision.Damage.self) { try KeptDivision.read(in: directory, key: key) }
                #expect(try KeptDivision.setAside(in: directory) == "cache-division.damaged")
                #expect(try directory.readFile("cache-division.damaged", byteCountMax: 1 << 20) == bytes)
                #expect(try KeptDivision.read(in: directory, key: key) == CacheDivision())
            }
        }
    }

    @Test func aChangeLeavesWhatItDoesNotName() throws {
        var share = CacheDivision.Share()
        try share.change(CacheShareChange(partition: "lab", mostBytes: 1 << 20), sectorCount: 800)
        try share.change(CacheShareChange(guaranteedBytes: 7), sectorCount: 800)
        #expect(share.partition == "lab" && share.bytesMax == 1 << 20 && share.guaranteedBytes == 7)
        try share.change(CacheShareChange(partition: "", guaranteedBytes: 0, mostBytes: 0), sectorCount: 800)
        #expect(share.isEmpty)
    }

    /// Ranges are rounded outwards to blocks, joined and cut.
    @Test func pinsAreJoinedAndCut() throws {
        var share = CacheDivision.Share()
        let pin = { (start: UInt64, size: UInt64) in CacheShare.Pin(startBytes: start, sizeBytes: size) }
        try share.change(CacheShareChange(pin: [pin(4_095, 2), pin(81_920, 4_096), pin(8_192, 8_192)]), sectorCount: 800)
        #expect(share.pins == [0..<4, 20..<21])
        try share.change(CacheShareChange(pin: [pin(40_960, 4_096)], unpin: [pin(4_096, 4_096), pin(81_920, 512)]), sectorCount: 800)
        #expect(share.pins == [0..<1, 2..<4, 10..<11])
        try share.change(CacheShareChange(unpin: [pin(0, 800 * 512)]), sectorCount: 800)
        #expect(share.isEmpty)
        for wrong in [pin(0, 801 * 512), pin(.max, 2), pin(0, 0)] {
            #expect(throws: (any Error).self) { try share.change(CacheShareChange(pin: [wrong]), sectorCount: 800) }
        }
    }
}
