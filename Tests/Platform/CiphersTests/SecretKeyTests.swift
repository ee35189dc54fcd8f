import CPlatform
import Ciphers
import Foundation
import Testing

/// The flags that the kernel has for the mapping with an address, from `/proc/self/smaps`.
func mappingFlags(at address: UInt) throws -> [Substring] {
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

/// Where keys lie in memory, and what is left of them.
@Suite struct SecretKeyTests {
    @Test func liesInLockedMemoryThatNoCoreFileHas() throws {
        let key = try SecretKey.random()
        let address = key.withUnsafeBytes { UInt(bitPattern: $0.baseAddress) }
        let flags = try mappingFlags(at: address)
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

    @Test func textsLieWhereKeysDoAndAreWipedToo() throws {
        var text: SecretText? = try SecretText("known by two only")
        let place = try #require(text?.withUnsafeBytes { $0.baseAddress })
        let flags = try mappingFlags(at: UInt(bitPattern: place))
        #expect(flags.contains("lo") && flags.contains("dd") && flags.contains("wf"), "\(flags)")
        #expect(text?.text == "known by two only")
        #expect(text.map { "\($0)" } == "SecretText(redacted)")
        text = nil
        #expect(!UnsafeRawBufferPointer(start: place, count: 17).elementsEqual("known by two only".utf8))
    }

    @Test func textsAreComparedAndHaveAnEnd() throws {
        #expect(try SecretText("a") == SecretText("a"))
        #expect(try SecretText("a") != SecretText("b"))
        #expect(try SecretText("a") != SecretText("ab"))
        #expect(try SecretText(String(repeating: "x", count: SecretText.byteCountMax)).text.count == SecretText.byteCountMax)
        #expect(throws: CipherError.wrongTextLength(SecretText.byteCountMax + 1)) {
            try SecretText(String(repeating: "x", count: SecretText.byteCountMax + 1))
        }
    }

    /// What a cipher made of a key is as secret as the key.
    @Test func expandedKeysLieWhereKeysDo() throws {
        let place = try #require(causeway_secret_allocate(Int(CAUSEWAY_EXPANDED_KEY_BYTES)))
        let flags = try mappingFlags(at: UInt(bitPattern: place))
        #expect(flags.contains("lo") && flags.contains("dd") && flags.contains("wf"), "\(flags)")
        #expect(UInt(bitPattern: place) % UInt(CAUSEWAY_EXPANDED_KEY_BYTES) == 0)
        let bytes = UnsafeMutableRawBufferPointer(start: place, count: Int(CAUSEWAY_EXPANDED_KEY_BYTES))
        bytes.initializeMemory(as: UInt8.self, repeating: 0xab)
        causeway_secret_free(place)
        // Another may have the place by now, but not with what was in it.
        #expect(!bytes.allSatisfy { $0 == 0xab })
    }

    @Test func secretsOfTwoLengthsStayApart() throws {
        let lengths = (0..<300).map { $0 % 3 == 0 ? Int(CAUSEWAY_EXPANDED_KEY_BYTES) : SecretKey.byteCount }
        let places = lengths.compactMap { length in
            causeway_secret_allocate(length).map { UnsafeMutableRawBufferPointer(start: $0, count: length) }
        }
        #expect(places.count == lengths.count)
        for (number, place) in places.enumerated() {
            place.initializeMemory(as: UInt8.self, repeating: UInt8(truncatingIfNeeded: number))
        }
        for (number, place) in places.enumerated() {
            #expect(place.allSatisfy { $0 == UInt8(truncatingIfNeeded: number) })
        }
        for place in places { place.baseAddress.map { causeway_secret_free($0) } }
        for length in [0, 1, 31, 33, 1008, 4097, 8192] { #expect(causeway_secret_allocate(length) == nil) }
    }

    /// Thousands of secrets come and go, of one length after the other: the pages of one serve the next.
    @Test func emptyPagesServeSecretsOfAnyLength() throws {
        let held = (0..<40).map { _ in causeway_secret_allocate(SecretKey.byteCount) }
        let before = causeway_secret_pages()
        for length in [32, 64, 1024, 4096, 32, 512, 128, 2048, 256, 32] {
            let places = try (0..<300).map { number in
                let place = try #require(causeway_secret_allocate(length))
                #expect(UInt(bitPattern: place) % UInt(length) == 0)
                #expect(UnsafeRawBufferPointer(start: place, count: length).allSatisfy { $0 == 0 })
                place.storeBytes(of: UInt64(number), as: UInt64.self)
                return place
            }
            // Every other one first, so that pages are full, have room and are empty in turn.
            for parity in [1, 0] {
                for (number, place) in places.enumerated() where number % 2 == parity {
                    #expect(place.load(as: UInt64.self) == UInt64(number))
                    causeway_secret_free(place)
                }
            }
        }
        // 300 pages for the longest, which were there for the others, and some for what other tests do meanwhile.
        #expect(causeway_secret_pages() <= before + 400)
        for place in held { place.map { causeway_secret_free($0) } }
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
