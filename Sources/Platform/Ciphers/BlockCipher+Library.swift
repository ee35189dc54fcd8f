// Which library does AES-256-GCM in this process. It is settled once, before the first cipher is made: the multi-buffer library
// where it likes the processor and passes the test here, OpenSSL otherwise. A processor of a later make than the library, or an
// emulator that has an instruction wrong, costs speed and no data.

extension BlockCipher {
    /// The name of the library that does AES-256-GCM here, for people.
    public static var library: String { (usesMultiBuffer ? MultiBufferCipher.name : nil) ?? "OpenSSL" }

    /// True when ciphers are the multi-buffer library's.
    static let usesMultiBuffer = MultiBufferCipher.name != nil && passesSelfTest()

    /// Known answers, and what OpenSSL makes of the same.
    private static func passesSelfTest() -> Bool {
        // Test case 16 of McGrew and Viega's specification of GCM.
        let half: [UInt8] = [0xfe, 0xff, 0xe9, 0x92, 0x86, 0x65, 0x73, 0x1c, 0x6d, 0x6a, 0x8f, 0x94, 0x67, 0x30, 0x83, 0x08]
        let text: [UInt8] = [
            0xd9, 0x31, 0x32, 0x25, 0xf8, 0x84, 0x06, 0xe5, 0xa5, 0x59, 0x09, 0xc5, 0xaf, 0xf5, 0x26, 0x9a, 0x86, 0xa7, 0xa9, 0x53,
            0x15, 0x34, 0xf7, 0xda, 0x2e, 0x4c, 0x30, 0x3d, 0x8a, 0x31, 0x8a, 0x72, 0x1c, 0x3c, 0x0c, 0x95, 0x95, 0x68, 0x09, 0x53,
            0x2f, 0xcf, 0x0e, 0x24, 0x49, 0xa6, 0xb5, 0x25, 0xb1, 0x6a, 0xed, 0xf5, 0xaa, 0x0d, 0xe6, 0x57, 0xba, 0x63, 0x7b, 0x39,
        ]
        let data: [UInt8] = [
            0xfe, 0xed, 0xfa, 0xce, 0xde, 0xad, 0xbe, 0xef, 0xfe, 0xed, 0xfa, 0xce, 0xde, 0xad, 0xbe, 0xef, 0xab, 0xad, 0xda, 0xd2,
        ]
        let tag: [UInt8] = [0x76, 0xfc, 0x6e, 0xce, 0x0f, 0x4e, 0x17, 0x68, 0xcd, 0xdf, 0x88, 0x53, 0xbb, 0x2d, 0x55, 0x1b]
        let nonce = CipherNonce(sequence: 0xcafe_babe_face_dbad, index: 0xdeca_f888)
        guard let key = try? SecretKey(half + half), let candidate = MultiBufferCipher(key: key).map({ BlockCipher(.multiBuffer($0)) })
        else { return false }
        let reference = BlockCipher(.openSSL(OpenSSLCipher(key: key)))
        guard let sealed = candidate.sealed(text, nonce, data), sealed.suffix(tagByteCount) == tag[...] else { return false }
        guard candidate.tagOfNothing(nonce, data) == reference.tagOfNothing(nonce, data) else { return false }
        // Lengths on both sides of what is done at once: 16 blocks, and 48.
        return [0, 1, 16, 60, 255, 256, 257, 512, 767, 768, 769, 4096].allSatisfy { count in
            let text = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31) }
            guard let sealed = candidate.sealed(text, nonce, data), sealed == reference.sealed(text, nonce, data) else { return false }
            var damaged = sealed
            damaged[count / 2] ^= 1
            return candidate.opened(sealed, nonce, data) == text && candidate.opened(damaged, nonce, data) == nil
        }
    }

    /// The tag of an empty text that is nowhere, as headers have it.
    private func tagOfNothing(_ nonce: CipherNonce, _ data: [UInt8]) -> [UInt8]? {
        var tag = [UInt8](repeating: 0, count: Self.tagByteCount)
        let isSealed = tag.withUnsafeMutableBytes { tag in
            data.withUnsafeBytes { seal(UnsafeRawBufferPointer(start: nil, count: 0), nonce: nonce, authenticating: $0, into: tag) }
        }
        return isSealed ? tag : nil
    }

    private func sealed(_ text: [UInt8], _ nonce: CipherNonce, _ data: [UInt8]) -> [UInt8]? {
        var sealed = [UInt8](repeating: 0, count: text.count + Self.tagByteCount)
        let isSealed = sealed.withUnsafeMutableBytes { sealed in
            text.withUnsafeBytes { text in data.withUnsafeBytes { seal(text, nonce: nonce, authenticating: $0, into: sealed) } }
        }
        return isSealed ? sealed : nil
    }

    private func opened(_ sealed: [UInt8], _ nonce: CipherNonce, _ data: [UInt8]) -> [UInt8]? {
        var text = [UInt8](repeating: 0, count: sealed.count - Self.tagByteCount)
        let isOpen = text.withUnsafeMutableBytes { text in
            sealed.withUnsafeBytes { sealed in data.withUnsafeBytes { open(sealed, nonce: nonce, authenticating: $0, into: text) } }
        }
        return isOpen ? text : nil
    }
}
