import Ciphers
import NIOCore
import Testing

func bytes(_ hexadecimal: String) -> [UInt8] {
    let digits = Array(hexadecimal.utf8).map { UInt8(String(UnicodeScalar($0)), radix: 16) ?? 0 }
    return stride(from: 0, to: digits.count, by: 2).map { digits[$0] << 4 | digits[$0 + 1] }
}

func seal(_ cipher: BlockCipher, _ plaintext: [UInt8], nonce: CipherNonce, authenticating data: [UInt8]) -> [UInt8]? {
    var output = [UInt8](repeating: 0, count: plaintext.count + BlockCipher.tagByteCount)
    let sealed = output.withUnsafeMutableBytes { output in
        plaintext.withUnsafeBytes { plaintext in
            data.withUnsafeBytes { cipher.seal(plaintext, nonce: nonce, authenticating: $0, into: output) }
        }
    }
    return sealed ? output : nil
}

func open(_ cipher: BlockCipher, _ sealed: [UInt8], nonce: CipherNonce, authenticating data: [UInt8]) -> (Bool, [UInt8]) {
    var output = [UInt8](repeating: 0xee, count: max(0, sealed.count - BlockCipher.tagByteCount))
    let opened = output.withUnsafeMutableBytes { output in
        sealed.withUnsafeBytes { sealed in
            data.withUnsafeBytes { cipher.open(sealed, nonce: nonce, authenticating: $0, into: output) }
        }
    }
    return (opened, output)
}

@Suite struct CipherTests {
    /// Test case 16 of McGrew and Viega's specification of GCM: 256-bit key, 96-bit nonce, additional data.
    @Test func sealsTheSpecificationsTestVector() throws {
        let key = try SecretKey(bytes("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"))
        let plaintext = bytes(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
        )
        let data = bytes("feedfacedeadbeeffeedfacedeadbeefabaddad2")
        let nonce = CipherNonce(sequence: 0xcafe_babe_face_dbad, index: 0xdeca_f888)
        let expected = bytes(
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
                + "76fc6ece0f4e1768cddf8853bb2d551b")
        let cipher = BlockCipher(key: key)
        #expect(seal(cipher, plaintext, nonce: nonce, authenticating: data) == expected)
        let (opened, back) = open(cipher, expected, nonce: nonce, authenticating: data)
        #expect(opened)
        #expect(back == plaintext)
    }

    @Test func severalThreadsMayShareAKey() async throws {
        let cipher = BlockCipher(key: try SecretKey.random())
        let shared = cipher.shared()
        let answers = await withTaskGroup(of: [UInt8]?.self) { group in
            for number in 0..<16 as Range<UInt64> {
                group.addTask {
                    var last: [UInt8]?
                    for _ in 0..<50 {
                        last = shared.withCipher {
                            seal($0, [UInt8](repeating: 7, count: 4096), nonce: CipherNonce(sequence: number, index: 1), authenticating: [])
                        }
                    }
                    return last
                }
            }
            return await group.reduce(into: []) { $0.append($1) }
        }
        let expected = (0..<16 as Range<UInt64>).map {
            seal(cipher, [UInt8](repeating: 7, count: 4096), nonce: CipherNonce(sequence: $0, index: 1), authenticating: [])
        }
        #expect(Set(answers) == Set(expected))
    }

    @Test func opensOnlyWhatWasSealed() throws {
        let cipher = BlockCipher(key: try SecretKey.random())
        let plaintext = [UInt8](repeating: 0x41, count: 4096)
        let nonce = CipherNonce(sequence: 7, index: 9)
        let sealed = try #require(seal(cipher, plaintext, nonce: nonce, authenticating: [1, 2, 3]))
        #expect(open(cipher, sealed, nonce: nonce, authenticating: [1, 2, 3]).0)
        #expect(!open(cipher, sealed, nonce: nonce, authenticating: [1, 2, 4]).0)
        #expect(!open(cipher, sealed, nonce: CipherNonce(sequence: 8, index: 9), authenticating: [1, 2, 3]).0)
        #expect(!open(cipher, sealed, nonce: CipherNonce(sequence: 7, index: 8), authenticating: [1, 2, 3]).0)
        #expect(!open(BlockCipher(key: try SecretKey.random()), sealed, nonce: nonce, authenticating: [1, 2, 3]).0)
        for position in [0, 2000, 4095, 4096, 4111] {
            var damaged = sealed
            damaged[position] ^= 0x10
            let (opened, output) = open(cipher, damaged, nonce: nonce, authenticating: [1, 2, 3])
            #expect(!opened)
            #expect(output.allSatisfy { $0 == 0 }, "what failed its check must not be seen")
        }
        for count in 0..<BlockCipher.tagByteCount {
            #expect(!open(cipher, Array(sealed.prefix(count)), nonce: nonce, authenticating: []).0)
        }
        // The context is kept: a failure leaves it usable.
        #expect(open(cipher, sealed, nonce: nonce, authenticating: [1, 2, 3]).1 == plaintext)
    }

    @Test func sealsNothingAsATagAlone() throws {
        let cipher = BlockCipher(key: try SecretKey.random())
        let nonce = CipherNonce(sequence: 1, index: 1)
        let sealed = try #require(seal(cipher, [], nonce: nonce, authenticating: [9]))
        #expect(sealed.count == BlockCipher.tagByteCount)
        #expect(open(cipher, sealed, nonce: nonce, authenticating: [9]).0)
        #expect(!open(cipher, sealed, nonce: nonce, authenticating: [8]).0)
    }

    @Test func appendsToBuffersAndLeavesThemAloneOnFailure() throws {
        let cipher = BlockCipher(key: try SecretKey.random())
        let context = CipherContext(1, 2, 3, 4, 5)
        let nonce = CipherNonce(sequence: 3, index: 0)
        var sealed = ByteBuffer(string: "before ")
        let done = Array("plaintext".utf8).withUnsafeBytes {
            cipher.seal($0, nonce: nonce, context: context, appendingTo: &sealed)
        }
        #expect(done)
        #expect(sealed.readableBytes == 7 + 9 + BlockCipher.tagByteCount)
        sealed.moveReaderIndex(forwardBy: 7)
        var opened = ByteBuffer(string: "again ")
        let wasOpened = sealed.withUnsafeReadableBytes { cipher.open($0, nonce: nonce, context: context, appendingTo: &opened) }
        #expect(wasOpened)
        #expect(String(buffer: opened) == "again plaintext")
        let other = CipherContext(1, 2, 3, 4, 6)
        let wasOpenedElsewhere = sealed.withUnsafeReadableBytes {
            cipher.open($0, nonce: nonce, context: other, appendingTo: &opened)
        }
        #expect(!wasOpenedElsewhere)
        #expect(String(buffer: opened) == "again plaintext")
    }

    /// RFC 5869, appendices A.1 and A.3: with and without a salt and a purpose.
    @Test(arguments: [
        (
            "000102030405060708090a0b0c", "f0f1f2f3f4f5f6f7f8f9",
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
        ), ("", "", "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"),
    ])
    func derivesKeysAsTheRFCDoes(salt: String, info: String, expected: String) throws {
        var output = [UInt8](repeating: 0, count: 42)
        let input = [UInt8](repeating: 0x0b, count: 22)
        let result = output.withUnsafeMutableBytes { output in
            input.withUnsafeBytes { input in
                Result { try HKDF.derive(input: input, salt: bytes(salt), info: bytes(info), into: output) }
            }
        }
        try result.get()
        #expect(output == bytes(expected))
    }

    @Test func derivedKeysDependOnSaltAndPurpose() throws {
        let key = try SecretKey([UInt8](0..<32))
        let salt = [UInt8](repeating: 1, count: 32)
        let contents = try [
            key.derive(salt: salt, purpose: "a"), key.derive(salt: salt, purpose: "b"),
            key.derive(salt: [UInt8](repeating: 2, count: 32), purpose: "a"), key,
        ].map { $0.withUnsafeBytes { Array($0) } }
        #expect(Set(contents).count == 4)
        #expect(try key.derive(salt: salt, purpose: "a").withUnsafeBytes { Array($0) } == contents[0])
    }

    /// RFC 4231, test case 2 has a key of another length, so this goes by the unsafe entry.
    @Test func authenticatesAsTheRFCDoes() throws {
        let code = Array("what do ya want for nothing?".utf8).withUnsafeBytes { message in
            Array("Jefe".utf8).withUnsafeBytes { key in Result { try HMACSHA256.authenticationCode(of: message, key: key) } }
        }
        #expect(try code.get() == bytes("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"))
    }

    @Test func keysShowNothing() throws {
        let key = try SecretKey([UInt8](repeating: 0x5a, count: 32))
        var dumped = ""
        dump(key, to: &dumped)
        for text in ["\(key)", String(reflecting: key), dumped] {
            #expect(!text.contains("5a"))
            #expect(!text.contains("90"))
            #expect(!text.contains("0x"))
        }
    }

    @Test func keysHaveThirtyTwoBytes() {
        #expect(throws: CipherError.wrongKeyLength(31)) { try SecretKey([UInt8](repeating: 0, count: 31)) }
        #expect(throws: CipherError.wrongKeyLength(0)) { try SecretKey([]) }
    }

    @Test func manyKeysSharePagesAndStayApart() throws {
        var keys = try (0..<1000).map { number in try SecretKey([UInt8](repeating: UInt8(truncatingIfNeeded: number), count: 32))
        }
        for number in stride(from: 0, to: 1000, by: 3) { keys[number] = try SecretKey([UInt8](repeating: 0xff, count: 32)) }
        for (number, key) in keys.enumerated() {
            let expected = number % 3 == 0 ? 0xff : UInt8(truncatingIfNeeded: number)
            #expect(key.withUnsafeBytes { $0.allSatisfy { $0 == expected } })
        }
    }
}

@Suite struct MessageDigestTests {
    /// RFC 1321 appendix A.5 and FIPS 180-2 appendix B.1.
    @Test func vectors() throws {
        let text = Array("abc".utf8)
        #expect(MessageDigest.md5.hash(text) == bytes("900150983cd24fb0d6963f7d28e17f72"))
        #expect(MessageDigest.sha256.hash(text) == bytes("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"))
        #expect(MessageDigest.md5.hash([]) == bytes("d41d8cd98f00b204e9800998ecf8427e"))
        for digest in [MessageDigest.md5, .sha256] {
            #expect(try digest.hash([1], SecretText("a secret"), [2, 3]) == digest.hash([1] + Array("a secret".utf8) + [2, 3]))
            #expect(try digest.hash([], SecretText(""), []) == digest.hash([]))
        }
    }
}
