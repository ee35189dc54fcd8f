import NIOCore
import Testing

@testable import Ciphers

/// Ciphers of texts that have a key each.
@Suite struct DerivingCipherTests {
    private let root: SecretKey
    private let context = CipherContext(1, 2, 3, 4, 5)
    private let nonce = CipherNonce(sequence: 7, index: 9)

    init() throws { root = try SecretKey([UInt8](repeating: 5, count: 32)) }

    private func name(_ number: UInt64) -> CipherNonce { CipherNonce(sequence: number, index: 3) }

    private func sealed(_ text: [UInt8], _ name: CipherNonce, _ cipher: DerivingCipher) throws -> ByteBuffer {
        var buffer = ByteBuffer()
        let isSealed = cipher.withCipher(of: name, root: SharedBlockCipher(key: root)) { cipher in
            text.withUnsafeBytes { cipher.seal($0, nonce: nonce, context: context, appendingTo: &buffer) }
        }
        #expect(isSealed == true)
        return buffer
    }

    private func opened(_ sealed: ByteBuffer, _ name: CipherNonce, root: SecretKey, _ cipher: DerivingCipher) -> ByteBuffer? {
        var buffer = ByteBuffer()
        let isOpen = cipher.withCipher(of: name, root: SharedBlockCipher(key: root)) { cipher in
            sealed.withUnsafeReadableBytes { cipher.open($0, nonce: nonce, context: context, appendingTo: &buffer) }
        }
        return isOpen == true ? buffer : nil
    }

    @Test func aTextOpensByItsNameAndRootOnly() throws {
        let cipher = try #require(DerivingCipher())
        let text = [UInt8](repeating: 0x5a, count: 4096)
        let (one, two) = (try sealed(text, name(1), cipher), try sealed(text, name(2), cipher))
        #expect(one != two)
        // Whatever key the lent cipher had before.
        for _ in 0..<3 {
            #expect(opened(one, name(1), root: root, cipher) == ByteBuffer(bytes: text))
            #expect(opened(two, name(2), root: root, cipher) == ByteBuffer(bytes: text))
            #expect(opened(one, name(2), root: root, cipher) == nil)
            #expect(opened(one, name(1), root: try SecretKey([UInt8](repeating: 6, count: 32)), cipher) == nil)
        }
    }

    @Test func theKeyIsTheKeyStreamOfTheName() throws {
        let cipher = try #require(DerivingCipher())
        let stream = try #require(BlockCipher(key: root).combine(ByteBuffer(repeating: 0, count: 32), nonce: name(1)))
        let text = [UInt8](repeating: 0x5a, count: 100)
        var expected = ByteBuffer()
        let key = try SecretKey(Array(stream.readableBytesView))
        #expect(text.withUnsafeBytes { BlockCipher(key: key).seal($0, nonce: nonce, context: context, appendingTo: &expected) })
        #expect(try sealed(text, name(1), cipher) == expected)
    }

    @Test func threadsHaveCiphersOfTheirOwn() async throws {
        let cipher = try #require(DerivingCipher())
        let text = [UInt8](repeating: 1, count: 4096)
        let names = (0..<64).map { name($0) }
        let texts = try names.map { try sealed(text, $0, cipher) }
        await withTaskGroup(of: Bool.self) { group in
            for _ in 0..<16 {
                group.addTask {
                    zip(names, texts).allSatisfy { opened($0.1, $0.0, root: root, cipher) == ByteBuffer(bytes: text) }
                }
            }
            for await isOpen in group { #expect(isOpen) }
        }
    }

    @Test func anotherKeyInTheSamePlace() throws {
        let (one, two) = (try SecretKey([UInt8](repeating: 1, count: 32)), try SecretKey([UInt8](repeating: 2, count: 32)))
        for implementation in [BlockCipher(key: one), BlockCipher(.openSSL(OpenSSLCipher(key: one)))] {
            #expect(two.withUnsafeBytes { implementation.take($0) })
            var (taken, made) = (ByteBuffer(), ByteBuffer())
            let text = ByteBuffer(string: "a text")
            _ = text.withUnsafeReadableBytes { implementation.seal($0, nonce: nonce, context: context, appendingTo: &taken) }
            _ = text.withUnsafeReadableBytes { BlockCipher(key: two).seal($0, nonce: nonce, context: context, appendingTo: &made) }
            #expect(taken == made)
        }
    }

    @Test func shortCodesAreThoseOfTheHMAC() throws {
        let authenticator = try #require(MessageAuthenticator(key: root))
        for count in [0, 1, 64, 4096] {
            let message = (0..<count).map { UInt8(truncatingIfNeeded: $0 * 7) }
            let code = try HMACSHA256.authenticationCode(of: message, key: root)
            let short = try #require(message.withUnsafeBytes { authenticator.shortCode(of: $0) })
            var expected = ByteBuffer(bytes: code)
            #expect(expected.readInteger(as: UInt64.self) == short.high && expected.readInteger(as: UInt64.self) == short.low)
        }
    }
}
