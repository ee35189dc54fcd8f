// A wrapped secret is one at rest or on its way: AES-256-GCM under another key, with a random nonce, bound to the name of what it belongs to.
//
//     version 1 (1 byte) │ nonce (12) │ sealed secret (a key's 32, a text's length) │ tag (16)
//
// The name makes a wrapped secret worthless in another's place: one that was copied or swapped does not open. A random nonce of
// 96 bits may be used for some four thousand million secrets under one wrapping key; an edge wraps one for each attachment.

extension SecretKey {
    /// The length of a wrapped key in bytes.
    public static let wrappedByteCount = WrappedSecret.byteCount(of: byteCount)

    /// This key as it may be kept at rest, in `wrappedByteCount` bytes.
    /// - Parameters:
    ///   - wrapping: the key that it is wrapped with.
    ///   - owner: what it belongs to; the same has to be named when it is unwrapped.
    public func wrapped(with wrapping: SecretKey, of owner: [UInt8]) throws(CipherError) -> [UInt8] {
        let wrapped = withUnsafeBytes { WrappedSecret.seal($0, with: wrapping, of: owner) }
        guard let wrapped else { throw .unavailable("AES-256-GCM") }
        return wrapped
    }

    /// The key that was wrapped; nil when it was not wrapped with this key, not for this owner, or was changed since.
    public static func unwrapping(_ bytes: [UInt8], with wrapping: SecretKey, of owner: [UInt8]) throws(CipherError) -> SecretKey? {
        guard bytes.count == wrappedByteCount else { return nil }
        var isOpen = false
        let key = try SecretKey { destination throws(CipherError) in
            isOpen = WrappedSecret.open(bytes, with: wrapping, of: owner, into: destination)
        }
        return isOpen ? key : nil
    }
}

extension SecretText {
    /// This text as it may be sent. Its length can be seen.
    /// - Parameters:
    ///   - wrapping: the key that it is wrapped with.
    ///   - owner: what it belongs to; the same has to be named when it is unwrapped.
    public func wrapped(with wrapping: SecretKey, of owner: [UInt8]) throws(CipherError) -> [UInt8] {
        let wrapped = withUnsafeBytes { WrappedSecret.seal($0, with: wrapping, of: owner) }
        guard let wrapped else { throw .unavailable("AES-256-GCM") }
        return wrapped
    }

    /// The text that was wrapped; nil when it was not wrapped with this key, not for this owner, or was changed since.
    public static func unwrapping(_ bytes: [UInt8], with wrapping: SecretKey, of owner: [UInt8]) throws(CipherError) -> SecretText? {
        let byteCount = bytes.count - WrappedSecret.byteCount(of: 0)
        guard (0...byteCountMax).contains(byteCount) else { return nil }
        var isOpen = false
        let text = try SecretText(byteCount: byteCount) { isOpen = WrappedSecret.open(bytes, with: wrapping, of: owner, into: $0) }
        return isOpen ? text : nil
    }
}

private enum WrappedSecret {
    private static let version: UInt8 = 1
    private static let headerByteCount = 1 + 12

    static func byteCount(of secretByteCount: Int) -> Int { headerByteCount + secretByteCount + BlockCipher.tagByteCount }

    /// Nil when the library refused, which no input brings about.
    static func seal(_ secret: UnsafeRawBufferPointer, with wrapping: SecretKey, of owner: [UInt8]) -> [UInt8]? {
        var generator = SystemRandomNumberGenerator()
        let (sequence, index) = (generator.next() as UInt64, UInt32(truncatingIfNeeded: generator.next() as UInt64))
        var bytes = [version]
        bytes.reserveCapacity(byteCount(of: secret.count))
        for shift in stride(from: 56, through: 0, by: -8) { bytes.append(UInt8(truncatingIfNeeded: sequence >> UInt64(shift))) }
        for shift in stride(from: 24, through: 0, by: -8) { bytes.append(UInt8(truncatingIfNeeded: index >> UInt32(shift))) }
        bytes += [UInt8](repeating: 0, count: secret.count + BlockCipher.tagByteCount)
        let isSealed = bytes.withUnsafeMutableBytes { bytes in
            let destination = UnsafeMutableRawBufferPointer(rebasing: bytes[headerByteCount...])
            return owner.withUnsafeBytes { owner in
                BlockCipher(key: wrapping).seal(
                    secret, nonce: CipherNonce(sequence: sequence, index: index), authenticating: owner, into: destination)
            }
        }
        return isSealed ? bytes : nil
    }

    /// Opens into `destination`, which has the secret's length; false when there is nothing in it that may be used.
    static func open(
        _ bytes: [UInt8], with wrapping: SecretKey, of owner: [UInt8], into destination: UnsafeMutableRawBufferPointer
    ) -> Bool {
        guard bytes.count == byteCount(of: destination.count), bytes[0] == version else { return false }
        let sequence = bytes[1..<9].reduce(0) { $0 << 8 | UInt64($1) }
        let index = bytes[9..<13].reduce(0) { $0 << 8 | UInt32($1) }
        return bytes.withUnsafeBytes { bytes in
            let sealed = UnsafeRawBufferPointer(rebasing: bytes[headerByteCount...])
            return owner.withUnsafeBytes { owner in
                BlockCipher(key: wrapping).open(
                    sealed, nonce: CipherNonce(sequence: sequence, index: index), authenticating: owner, into: destination)
            }
        }
    }
}
