import Ciphers
import Foundation

/// Keys that come over the link: a public key or an encapsulation from the other edge, and what is wrapped by the key that it gives.
///
/// Input: 32 bytes of the other edge's, then a wrapped key or text.
public final class KeyTarget: FuzzTarget {
    public static let name = "key"
    public static let inputBytesMax = 256
    public static let cost = 10
    /// Points of small order: with them everybody would know the secret.
    public static let dictionary: [[UInt8]] = [
        [UInt8](repeating: 0, count: 32), [1] + [UInt8](repeating: 0, count: 31),
        [0xEC] + [UInt8](repeating: 0xFF, count: 30) + [0x7F], [0xED] + [UInt8](repeating: 0xFF, count: 30) + [0x7F],
        [0xEE] + [UInt8](repeating: 0xFF, count: 30) + [0x7F],
    ]

    private static let purpose = "fuzz"
    private static let owner: [UInt8] = [7]

    public init() {}

    private static func recipient() throws -> AgreementKey {
        try AgreementKey(privateKey: SecretKey([UInt8](repeating: 5, count: SecretKey.byteCount)))
    }

    /// Two that open. Encapsulations and nonces are random, so these were made once, by another implementation.
    public static func seeds() -> [[UInt8]] {
        [
            "vOBZv1sqt6kfPoY6zwyE0+u+BMqEkAlLBStbFa+rF0MBAQEBAQEBAQEBAQEBGPZhq3cWKph5+S1d1oYb"
                + "YOC3AJHyoNs7fGdOEKz8nZfWIgjSMIK3w2+0nW/ywuBf",
            "f0QvtOzJ3WzeRjWIH74rtDO2ewBJNcQzDSHjb2gaDhIBAgICAgICAgICAgICGW2MiVjqIM47PG6btJoQ"
                + "xE8r6Rjw5Mqf/CtRDzLrmzNMygY1kN0ry0pYKvErExsp",
        ].map { [UInt8](Data(base64Encoded: $0) ?? Data()) }
    }

    public func run(_ input: [UInt8]) throws -> UInt64 {
        var reader = ByteReader(input)
        let (other, wrapped) = (reader.bytes(AgreementKey.publicKeyByteCount), reader.rest())
        let wrapping = try KeyEncapsulation.decapsulate(other, by: Self.recipient(), information: [], purpose: Self.purpose)
        let made = try KeyEncapsulation.encapsulate(to: other, information: [], purpose: Self.purpose)
        guard (wrapping == nil) == (made == nil) else {
            throw FuzzFinding("a public key is none as an encapsulation, or the other way round")
        }
        var fingerprint = Fingerprint()
        fingerprint.add(wrapping == nil ? 0 : 1)
        guard let wrapping else { return fingerprint.value }
        // What is a key to one is a text of as many bytes to another: who asks knows which it must be, by the owner.
        let text = try SecretText.unwrapping(wrapped, with: wrapping, of: Self.owner)
        if let text {
            fingerprint.add(3)
            guard try SecretText.unwrapping(text.wrapped(with: wrapping, of: []), with: wrapping, of: []) == text else {
                throw FuzzFinding("a text does not come back as itself")
            }
        }
        guard let key = try SecretKey.unwrapping(wrapped, with: wrapping, of: Self.owner) else { return fingerprint.value }
        guard text != nil else { throw FuzzFinding("a key opens, and not as a text of its length") }
        fingerprint.add(2)
        guard try SecretKey.unwrapping(wrapped, with: wrapping, of: []) == nil else { throw FuzzFinding("a key opens for another owner") }
        guard try SecretKey.unwrapping(key.wrapped(with: wrapping, of: []), with: wrapping, of: [])?.hasSameBytes(as: key) == true else {
            throw FuzzFinding("a key does not come back as itself")
        }
        return fingerprint.value
    }
}
