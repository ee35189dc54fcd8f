import Ciphers
import Testing

@Suite struct WrappedKeyTests {
    private let wrapping: SecretKey
    private let key: SecretKey

    init() throws {
        wrapping = try SecretKey([UInt8](repeating: 1, count: SecretKey.byteCount))
        key = try SecretKey([UInt8](repeating: 2, count: SecretKey.byteCount))
    }

    private func bytes(_ key: SecretKey) -> [UInt8] { key.withUnsafeBytes { Array($0) } }

    @Test func opensForItsOwnerUnderItsKeyOnly() throws {
        let wrapped = try key.wrapped(with: wrapping, of: [7])
        #expect(wrapped.count == SecretKey.wrappedByteCount)
        let opened = try #require(try SecretKey.unwrapping(wrapped, with: wrapping, of: [7]))
        #expect(bytes(opened) == bytes(key))
        #expect(try SecretKey.unwrapping(wrapped, with: wrapping, of: [8]) == nil)
        #expect(try SecretKey.unwrapping(wrapped, with: wrapping, of: []) == nil)
        #expect(try SecretKey.unwrapping(wrapped, with: key, of: [7]) == nil)
        #expect(try SecretKey.unwrapping(Array(wrapped.dropLast()), with: wrapping, of: [7]) == nil)
        #expect(try SecretKey.unwrapping([], with: wrapping, of: [7]) == nil)
        for index in wrapped.indices {
            var changed = wrapped
            changed[index] ^= 0x10
            #expect(try SecretKey.unwrapping(changed, with: wrapping, of: [7]) == nil, "byte \(index) may be changed")
        }
    }

    @Test func textsOfAnyLengthAreWrappedToo() throws {
        for length in [0, 1, 32, SecretText.byteCountMax] {
            let text = try SecretText(String(repeating: "t", count: length))
            let wrapped = try text.wrapped(with: wrapping, of: [7])
            #expect(wrapped.count == SecretKey.wrappedByteCount - SecretKey.byteCount + length)
            #expect(try SecretText.unwrapping(wrapped, with: wrapping, of: [7]) == text)
            #expect(try SecretText.unwrapping(wrapped, with: wrapping, of: [8]) == nil)
            #expect(try SecretText.unwrapping(wrapped, with: key, of: [7]) == nil)
            #expect(try SecretText.unwrapping(Array(wrapped.dropLast()), with: wrapping, of: [7]) == nil)
        }
        for length in [0, 1, SecretKey.wrappedByteCount - SecretKey.byteCount - 1, 1_000] {
            #expect(try SecretText.unwrapping([UInt8](repeating: 1, count: length), with: wrapping, of: [7]) == nil)
        }
    }

    @Test func neverLooksTheSame() throws {
        let all = try (0..<1_000).map { _ in try key.wrapped(with: wrapping, of: []) }
        #expect(Set(all).count == all.count)
        #expect(Set(all.map { Array($0[1..<13]) }).count == all.count, "a nonce was used twice")
    }
}
