import NIOCore

#if canImport(Glibc)
    import Glibc
#endif

/// A network from which clients may come: an address and the length of its prefix, as in `10.0.0.0/8` or `fd00::/8`. A single address has
/// the whole length.
public struct NetworkRule: Hashable, Sendable, CustomStringConvertible {
    /// 4 or 16 bytes, of which those behind the prefix are zero.
    private let bytes: [UInt8]
    private let prefixLength: Int

    /// Reads the text; nil when it is no network.
    public init?(_ text: String) {
        let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        guard let first = parts.first, var bytes = Self.bytes(ofAddress: String(first)) else { return nil }
        var length = bytes.count * 8
        if parts.count == 2 {
            guard let given = Int(parts[1]), (0...length).contains(given), String(given) == parts[1] else { return nil }
            length = given
        }
        for index in bytes.indices { bytes[index] &= Self.mask(index, length) }
        self.bytes = bytes
        prefixLength = length
    }

    /// True when an address is of the network. An IPv4 address that came to an IPv6 socket is what it is in IPv4.
    public func contains(_ address: SocketAddress) -> Bool {
        guard let text = address.ipAddress, var other = Self.bytes(ofAddress: text) else { return false }
        if other.count == 16, other.prefix(12) == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff] { other = Array(other.suffix(4)) }
        guard other.count == bytes.count else { return false }
        return bytes.indices.allSatisfy { other[$0] & Self.mask($0, prefixLength) == bytes[$0] }
    }

    public var description: String {
        let text = withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(INET6_ADDRSTRLEN)) { buffer -> String in
            let family = bytes.count == 4 ? AF_INET : AF_INET6
            guard let base = buffer.baseAddress, inet_ntop(family, bytes, base, socklen_t(buffer.count)) != nil else { return "" }
            return String(cString: base)
        }
        return "\(text)/\(prefixLength)"
    }

    private static func mask(_ index: Int, _ length: Int) -> UInt8 {
        let bits = min(8, max(0, length - index * 8))
        return bits == 0 ? 0 : ~(0xff >> UInt8(bits))
    }

    private static func bytes(ofAddress text: String) -> [UInt8]? {
        var (four, six) = (in_addr(), in6_addr())
        if inet_pton(AF_INET, text, &four) == 1 { return withUnsafeBytes(of: &four) { Array($0) } }
        if inet_pton(AF_INET6, text, &six) == 1 { return withUnsafeBytes(of: &six) { Array($0) } }
        return nil
    }
}
