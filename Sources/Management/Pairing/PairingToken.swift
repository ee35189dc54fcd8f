import Crypto
import Foundation

// The text of a token: `cwp1.` and, in base64 for URLs without padding,
//
//      secret 32 │ fingerprint of the authority 32 │ expiry, seconds since 1970, 8 │ number of addresses 1
//      │ each address: length 1, UTF-8 │ the first 4 bytes of the SHA-256 of all that
//
// The sum at the end finds typing errors; it proves nothing.

/// The invitation of an on-prem edge to one cloud edge: it is good once, and for a short time.
public struct PairingToken: Equatable, Sendable {
    /// What the text begins with; the digit is the version.
    public static let prefix = "cwp1."
    /// The number of random bytes that prove possession.
    public static let secretBytes = 32
    /// Addresses in one token, and the bytes of one.
    public static let addressesMax = 8
    public static let addressBytesMax = 255
    private static let textBytesMax = 4096
    private static let sumBytes = 4

    /// What the joining edge shows. It is stored nowhere but in the token.
    public let secret: [UInt8]
    /// The authority that the joining edge must find at the other end.
    public let authority: Fingerprint
    /// Where the on-prem edge listens for the link, as HOST:PORT; none when it will dial the joining edge itself.
    public let addresses: [String]
    /// The end of the token's life, in whole seconds.
    public let expires: Date

    /// Makes a token with a fresh secret.
    public init(authority: Fingerprint, addresses: [String], expires: Date) throws(PairingError) {
        guard addresses.count <= Self.addressesMax,
            addresses.allSatisfy({ (1...Self.addressBytesMax).contains($0.utf8.count) })
        else { throw .badToken("it has at most \(Self.addressesMax) addresses of at most \(Self.addressBytesMax) bytes") }
        secret = SymmetricKey(size: .bits256).withUnsafeBytes { Array($0) }
        self.authority = authority
        self.addresses = addresses
        self.expires = Date(timeIntervalSince1970: expires.timeIntervalSince1970.rounded(.down))
    }

    /// The text that a person copies.
    public var text: String {
        var bytes = secret + authority.bytes
        let seconds = UInt64(max(0, min(expires.timeIntervalSince1970, 1e15)))
        withUnsafeBytes(of: seconds.bigEndian) { bytes.append(contentsOf: $0) }
        bytes.append(UInt8(clamping: addresses.count))
        for address in addresses {
            bytes.append(UInt8(clamping: address.utf8.count))
            bytes.append(contentsOf: address.utf8)
        }
        return Self.prefix + Base64URL.encode(bytes + Self.sum(bytes))
    }

    /// Reads the text of a token. Spaces and line ends around it are no matter.
    public init(text: String) throws(PairingError) {
        let trimmed = text.trimmingCharacters(in: .whitespacesAndNewlines)
        guard trimmed.utf8.count <= Self.textBytesMax else { throw .badToken("it is too long") }
        guard trimmed.hasPrefix(Self.prefix) else { throw .badToken("it does not begin with \(Self.prefix)") }
        guard let all = Base64URL.decode(String(trimmed.dropFirst(Self.prefix.count))), all.count > Self.sumBytes else {
            throw .badToken("it has characters that no token has, or is cut off")
        }
        var rest = all.dropLast(Self.sumBytes)
        guard Self.sum(Array(rest)) == Array(all.suffix(Self.sumBytes)) else { throw .badToken("it is cut off or mistyped") }
        func take(_ count: Int) throws(PairingError) -> [UInt8] {
            guard rest.count >= count else { throw .badToken("it is cut off") }
            defer { rest = rest.dropFirst(count) }
            return Array(rest.prefix(count))
        }
        secret = try take(Self.secretBytes)
        guard let authority = Fingerprint(bytes: try take(32)) else { throw .badToken("it is cut off") }
        self.authority = authority
        let seconds = try take(8).reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        expires = Date(timeIntervalSince1970: TimeInterval(seconds))
        var addresses: [String] = []
        for _ in 0..<(try take(1)[0]) {
            let bytes = try take(Int(try take(1)[0]))
            guard let address = String(validating: bytes, as: UTF8.self), !address.isEmpty else {
                throw .badToken("a bad address")
            }
            addresses.append(address)
        }
        guard rest.isEmpty, addresses.count <= Self.addressesMax else {
            throw .badToken("a bad number of addresses")
        }
        self.addresses = addresses
    }

    /// True when the joining edge has to wait until the on-prem edge dials it.
    public var homeDials: Bool { addresses.isEmpty }

    /// The hash under which the on-prem edge knows the token, in hexadecimal digits.
    public var secretHash: String { Self.hash(ofSecret: secret) }

    /// The hash of a secret that a joining edge shows.
    public static func hash(ofSecret secret: [UInt8]) -> String { hexadecimal(SHA256.hash(data: secret)) }

    /// Throws when the token's time has passed.
    public func checkExpiry(now: Date = Date()) throws(PairingError) {
        if now >= expires { throw .tokenExpired }
    }

    private static func sum(_ bytes: [UInt8]) -> [UInt8] { Array(SHA256.hash(data: bytes).prefix(sumBytes)) }
}
