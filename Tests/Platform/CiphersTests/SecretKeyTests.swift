import Ciphers
import Foundation
import Testing

/// Where keys lie in memory, and what is left of them.
@Suite struct SecretKeyTests {
    /// The flags that the kernel has for the mapping with an address, from `/proc/self/smaps`.
    private func flags(at address: UInt) throws -> [Substring] {
        var isThere = false
        let file = try #require(FileHandle(forReadingAtPath: "/proc/self/smaps"))
        let maps = try file.readToEnd() ?? Data()
        for line in String(decoding: maps, as: UTF8.self).split(separator: "\n") {
            let range = line.prefix { $0 != " " }.split(separator: "-").compactMap { UInt($0, radix: 16) }
            if range.count == 2 { isThere = (range[0]..<range[1]).contains(address) }
            if isThere, line.hasPrefix("VmFlags:") { return line.split(separator: " ").dropFirst().map { $0 } }
        }
        return []
    }

    @Test func liesInLockedMemoryThatNoCoreFileHas() throws {
        let key = try SecretKey.random()
        let address = key.withUnsafeBytes { UInt(bitPattern: $0.baseAddress) }
        let flags = try flags(at: address)
        #expect(flags.contains("lo"), "locked: \(flags)")
        #expect(flags.contains("dd"), "left out of core files: \(flags)")
        #expect(flags.contains("wf"), "not for child processes: \(flags)")
    }

    @Test func isWipedWhenNobodyHasItAnyMore() throws {
        let secret = (0..<32).map { UInt8(0x40 + $0) }
        var key: SecretKey? = try SecretKey(secret)
        // The page stays with the process: what stands in the key's place can be looked at when it is gone.
        let place = try #require(key?.withUnsafeBytes { $0.baseAddress })
        #expect(Array(UnsafeRawBufferPointer(start: place, count: 32)) == secret)
        key = nil
        #expect(Array(UnsafeRawBufferPointer(start: place, count: 32)) != secret)
    }

    @Test func keysAreCompared() throws {
        let key = try SecretKey([UInt8](repeating: 1, count: 32))
        #expect(key.hasSameBytes(as: try SecretKey([UInt8](repeating: 1, count: 32))))
        #expect(!key.hasSameBytes(as: try SecretKey([UInt8](repeating: 1, count: 31) + [2])))
    }

    @Test func theNewestOfSeveralSeals() throws {
        let (first, second) = (try SecretKey.random(), try SecretKey.random())
        let keys = try #require(DataKeys([1: first, 3: second]))
        #expect(keys.newest == 3 && keys.newestKey === second && keys[1] === first && keys[2] == nil)
        #expect(keys.generations == [3, 1])
        #expect(DataKeys([:]) == nil)
        #expect(DataKeys(first).generations == [1])
    }
}
