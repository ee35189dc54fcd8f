import CPlatform
import Foundation
import Testing

@testable import Ciphers

/// The two libraries that do AES-256-GCM.
enum CipherLibrary: CaseIterable {
    case multiBuffer
    case openSSL

    /// A cipher of this library's; nil where this processor is not one for it.
    func cipher(_ key: SecretKey) -> BlockCipher? {
        switch self {
        case .multiBuffer: MultiBufferCipher(key: key).map { BlockCipher(.multiBuffer($0)) }
        case .openSSL: BlockCipher(.openSSL(OpenSSLCipher(key: key)))
        }
    }
}

/// Both libraries make the same of the same, and refuse the same.
@Suite struct CipherLibraryTests {
    private struct Vector {
        let key: String
        let nonce: (UInt64, UInt32)
        var text = ""
        var data = ""
        let sealed: String
    }

    /// Test cases 13 to 16 of McGrew and Viega's specification, and the first of each shape in NIST's gcmEncryptExtIV256.
    private static let vectors = [
        Vector(key: String(repeating: "00", count: 32), nonce: (0, 0), sealed: "530f8afbc74536b9a963b4f1c4cb738b"),
        Vector(
            key: String(repeating: "00", count: 32), nonce: (0, 0), text: String(repeating: "00", count: 16),
            sealed: "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"),
        Vector(
            key: "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308", nonce: (0xcafe_babe_face_dbad, 0xdeca_f888),
            text: "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657"
                + "ba637b391aafd255",
            sealed: "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0a"
                + "bcc9f662898015adb094dac5d93471bdec1a502270e3cc6c"),
        Vector(
            key: "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308", nonce: (0xcafe_babe_face_dbad, 0xdeca_f888),
            text: "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657"
                + "ba637b39",
            data: "feedfacedeadbeeffeedfacedeadbeefabaddad2",
            sealed: "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0a"
                + "bcc9f66276fc6ece0f4e1768cddf8853bb2d551b"),
        Vector(
            key: "b52c505a37d78eda5dd34f20c22540ea1b58963cf8e5bf8ffa85f9f2492505b4", nonce: (0x516c_3392_9df5_a328, 0x4ff4_63d7),
            sealed: "bdc1ac884d332457a1d2664f168c76f0"),
        Vector(
            key: "31bdadd96698c204aa9ce1448ea94ae1fb4a9a0b3c9d773b51bb1822666b8f22", nonce: (0x0d18_e06c_7c72_5ac9, 0xe362_e1ce),
            text: "2db5168e932556f8089a0622981d017d",
            sealed: "fa4362189661d163fcd6a56d8bf0405ad636ac1bbedd5cc3ee727dc2ab4a9489"),
        Vector(
            key: "78dc4e0aaf52d935c3c01eea57428f00ca1fd475f5da86a49c8dd73d68c8e223", nonce: (0xd79c_f22d_504c_c793, 0xc3fb_6c8a),
            data: "b96baa8c1c75a671bfb2d08d06be5f36", sealed: "3e5d486aa2e30b22e040b85723a06e76"),
        Vector(
            key: "92e11dcdaa866f5ce790fd24501f92509aacf4cb8b1339d50c9c1240935dd08b", nonce: (0xac93_a1a6_1452_99bd, 0xe902_f21a),
            text: "2d71bcfa914e4ac045b2aa60955fad24", data: "1e0889016f67601c8ebea4943bc23ad6",
            sealed: "8995ae2e6df3dbf96fac7b7137bae67feca5aa77d51d4a0a14d9c51e1da474ab"),
    ]

    private let nonce = CipherNonce(sequence: 0x0123_4567_89ab_cdef, index: 0x1357_9bdf)

    private func text(_ count: Int) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 167 &+ $0 >> 8) } }

    @Test(arguments: CipherLibrary.allCases) func knownAnswers(_ library: CipherLibrary) throws {
        for vector in Self.vectors {
            guard let cipher = library.cipher(try SecretKey(bytes(vector.key))) else { return }
            let nonce = CipherNonce(sequence: vector.nonce.0, index: vector.nonce.1)
            #expect(seal(cipher, bytes(vector.text), nonce: nonce, authenticating: bytes(vector.data)) == bytes(vector.sealed))
            let (isOpen, back) = open(cipher, bytes(vector.sealed), nonce: nonce, authenticating: bytes(vector.data))
            #expect(isOpen && back == bytes(vector.text))
        }
    }

    /// What the processor says decides, so this names the processors on which the library must not be missed.
    @Test func isTheMultiBufferLibraryWhereTheProcessorIsOneForIt() throws {
        #if arch(x86_64) && os(Linux)
            let processor = try String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)
            let flags = Set(
                processor.split(separator: "\n").first { $0.hasPrefix("flags") }?.split(separator: " ").map { String($0) } ?? [])
            guard flags.isSuperset(of: ["aes", "pclmulqdq", "avx"]) else { return }
            #expect(BlockCipher.usesMultiBuffer)
            #expect(BlockCipher.library.hasPrefix("Intel's multi-buffer library 1."))
            #expect(BlockCipher.library.hasSuffix("AVX-512") == flags.isSuperset(of: ["vaes", "vpclmulqdq", "avx512vl"]))
        #else
            #expect(BlockCipher.library == "OpenSSL")
        #endif
    }

    /// Every length on both sides of what either library does at once, and some that are long.
    @Test(arguments: [0, 13, 40, 4096]) func bothMakeTheSame(dataCount: Int) throws {
        let key = try SecretKey.random()
        guard let candidate = CipherLibrary.multiBuffer.cipher(key), let reference = CipherLibrary.openSSL.cipher(key) else { return }
        let (data, longest) = (text(dataCount), text(1 << 20 | 5))
        for count in Array(0...1100) + [2047, 4095, 4096, 4097, 65536, 131_072 + 17, longest.count] {
            let text = Array(longest.prefix(count))
            let sealed = try #require(seal(reference, text, nonce: nonce, authenticating: data))
            #expect(seal(candidate, text, nonce: nonce, authenticating: data) == sealed, "\(count)")
            let (isOpen, back) = open(candidate, sealed, nonce: nonce, authenticating: data)
            #expect(isOpen && back == text, "\(count)")
        }
    }

    @Test(arguments: CipherLibrary.allCases) func sealsAndOpensInPlace(_ library: CipherLibrary) throws {
        let key = try SecretKey.random()
        guard let cipher = library.cipher(key), let reference = CipherLibrary.openSSL.cipher(key) else { return }
        let data = text(40)
        for count in Array(0...600) + [4096, 131_072] {
            let text = text(count)
            var buffer = text + [UInt8](repeating: 0, count: BlockCipher.tagByteCount)
            let isSealed = buffer.withUnsafeMutableBytes { buffer in
                data.withUnsafeBytes {
                    cipher.seal(UnsafeRawBufferPointer(rebasing: buffer[..<count]), nonce: nonce, authenticating: $0, into: buffer)
                }
            }
            #expect(isSealed && buffer == seal(reference, text, nonce: nonce, authenticating: data), "\(count)")
            let isOpen = buffer.withUnsafeMutableBytes { buffer in
                data.withUnsafeBytes {
                    cipher.open(
                        UnsafeRawBufferPointer(buffer), nonce: nonce, authenticating: $0,
                        into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<count]))
                }
            }
            #expect(isOpen && Array(buffer.prefix(count)) == text, "\(count)")
        }
    }

    @Test(arguments: CipherLibrary.allCases) func refusesWhatWasChangedAndWipesTheDestination(_ library: CipherLibrary) throws {
        guard let cipher = library.cipher(try SecretKey.random()) else { return }
        let data = text(40)
        func isRefused(_ sealed: [UInt8], _ nonce: CipherNonce, _ data: [UInt8]) -> Bool {
            let (isOpen, output) = open(cipher, sealed, nonce: nonce, authenticating: data)
            return !isOpen && output.allSatisfy { $0 == 0 }
        }
        for count in [0, 1, 15, 16, 100, 256, 512, 769, 4096] {
            let sealed = try #require(seal(cipher, text(count), nonce: nonce, authenticating: data))
            // Each bit of the tag, and one of every byte of the text.
            for bit in 0..<BlockCipher.tagByteCount * 8 {
                var damaged = sealed
                damaged[count + bit / 8] ^= 1 << UInt8(bit % 8)
                #expect(isRefused(damaged, nonce, data))
            }
            for position in stride(from: 0, to: count, by: count > 1000 ? 37 : 1) {
                var damaged = sealed
                damaged[position] ^= 1 << UInt8(position % 8)
                #expect(isRefused(damaged, nonce, data))
            }
            for position in data.indices {
                var other = data
                other[position] ^= 0x80
                #expect(isRefused(sealed, nonce, other))
            }
            #expect(isRefused(sealed, nonce, []) && isRefused(sealed, nonce, data + [0]) && isRefused(sealed, nonce, data.dropLast()))
            #expect(isRefused(sealed, CipherNonce(sequence: nonce.sequence ^ 1 << 63, index: nonce.index), data))
            #expect(isRefused(sealed, CipherNonce(sequence: nonce.sequence, index: nonce.index ^ 1), data))
            #expect(isRefused([UInt8](repeating: 0, count: sealed.count), nonce, data))
            #expect(isRefused([UInt8](repeating: 0xff, count: sealed.count), nonce, data))
            // A failure leaves the cipher as it was.
            #expect(open(cipher, sealed, nonce: nonce, authenticating: data).1 == text(count))
        }
    }

    /// The lengths are refused before a byte is looked at.
    @Test(arguments: CipherLibrary.allCases) func refusesWhatIsLongerThanTheLibrariesCount(_ library: CipherLibrary) throws {
        guard let cipher = library.cipher(try SecretKey.random()) else { return }
        var place: UInt64 = 0
        withUnsafeMutableBytes(of: &place) { place in
            let long = UnsafeMutableRawBufferPointer(start: place.baseAddress, count: Int(Int32.max) + 1 + BlockCipher.tagByteCount)
            let text = UnsafeRawBufferPointer(rebasing: long[..<(Int(Int32.max) + 1)])
            let nothing = UnsafeRawBufferPointer(start: nil, count: 0)
            #expect(!cipher.seal(text, nonce: nonce, authenticating: nothing, into: long))
            #expect(!cipher.seal(nothing, nonce: nonce, authenticating: text, into: long))
            #expect(!cipher.open(UnsafeRawBufferPointer(long), nonce: nonce, authenticating: nothing, into: long))
            #expect(!cipher.open(UnsafeRawBufferPointer(rebasing: long[..<16]), nonce: nonce, authenticating: text, into: long))
            #expect(
                !cipher.seal(nothing, nonce: nonce, authenticating: nothing, into: UnsafeMutableRawBufferPointer(rebasing: place[..<8])))
        }
        #expect(place == 0)
    }

    #if arch(x86_64) && os(Linux)
        @Test func expandedKeysAreLockedAndWiped() throws {
            var cipher = MultiBufferCipher(key: try SecretKey.random())
            guard let place = cipher?.expandedKey else { return }
            let flags = try mappingFlags(at: UInt(bitPattern: place))
            #expect(flags.contains("lo") && flags.contains("dd") && flags.contains("wf"), "\(flags)")
            let bytes = UnsafeRawBufferPointer(start: place, count: Int(CAUSEWAY_EXPANDED_KEY_BYTES))
            let expanded = Array(bytes)
            #expect(expanded.contains { $0 != 0 })
            cipher = nil
            #expect(Array(bytes) != expanded)
        }
    #endif
}
