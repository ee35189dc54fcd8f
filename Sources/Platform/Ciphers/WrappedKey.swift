// A wrapped key is a key at rest: AES-256-GCM under another key, with a random nonce, bound to the name of what it belongs to.
//
//     version 1 (1 byte) │ nonce (12) │ sealed key (32) │ tag (16)
//
// The name makes a wrapped key worthless in another's place: one that was copied or swapped does not open. A random nonce of
// 96 bits may be used for some four thousand million keys under one wrapping key; an edge wraps one for each attachment.

extension SecretKey {
    /// The length of a wrapped key in bytes.
    public static let wrappedByteCount = wrappedHeaderByteCount + byteCount + BlockCipher.tagByteCount

    private static let wrappedVersion: UInt8 = 1
    private static let wrappedHeaderByteCount = 1 + 12

    /// This key as it may be kept at rest, in `wrappedByteCount` bytes.
    /// - Parameters:
    ///   - wrapping: the key that it is wrapped with.
    ///   - owner: what it belongs to; the same has to be named when it is unwrapped.
    public func wrapped(with wrapping: SecretKey, of owner: [UInt8]) throws(CipherError) -> [UInt8] {
        var generator = SystemRandomNumberGenerator()
        let (sequence, index) = (generator.next() as UInt64, UInt32(truncatingIfNeeded: generator.next() as UInt64))
        var bytes = [Self.wrappedVersion]
        bytes.reserveCapacity(Self.wrappedByteCount)
        for shift in stride(from: 56, through: 0, by: -8) { bytes.append(UInt8(truncatingIfNeeded: sequence >> UInt64(shift))) }
        for shift in stride(from: 24, through: 0, by: -8) { bytes.append(UInt8(truncatingIfNeeded: index >> UInt32(shift))) }
        bytes += [UInt8](repeating: 0, count: Self.byteCount + BlockCipher.tagByteCount)
        let isSealed = bytes.withUnsafeMutableBytes { bytes in
            let destination = UnsafeMutableRawBufferPointer(rebasing: bytes[Self.wrappedHeaderByteCount...])
            return owner.withUnsafeBytes { owner in
                withUnsafeBytes { key in
                    BlockCipher(key: wrapping).seal(
                        key, nonce: CipherNonce(sequence: sequence, index: index), authenticating: owner, into: destination)
                }
            }
        }
        guard isSealed else { throw .unavailable("AES-256-GCM") }
        return bytes
    }

    /// The key that was wrapped; nil when it was not wrapped with this key, not for this owner, or was changed since.
    public static func unwrapping(_ bytes: [UInt8], with wrapping: SecretKey, of owner: [UInt8]) throws(CipherError) -> SecretKey? {
        guard bytes.count == wrappedByteCount, bytes[0] == wrappedVersion else { return nil }
        let sequence = bytes[1..<9].reduce(0) { $0 << 8 | UInt64($1) }
        let index = bytes[9..<13].reduce(0) { $0 << 8 | UInt32($1) }
        var isOpen = false
        let key = try SecretKey { destination throws(CipherError) in
            isOpen = bytes.withUnsafeBytes { bytes in
                let sealed = UnsafeRawBufferPointer(rebasing: bytes[wrappedHeaderByteCount...])
                return owner.withUnsafeBytes { owner in
                    BlockCipher(key: wrapping).open(
                        sealed, nonce: CipherNonce(sequence: sequence, index: index), authenticating: owner, into: destination)
                }
            }
        }
        return isOpen ? key : nil
    }
}
