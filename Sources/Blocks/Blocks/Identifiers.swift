/// The name that machines use for a volume: 16 random bytes, made on-prem for each attachment.
///
/// It says nothing about the customer, so it may stand in paths and in plaintext headers on the
/// cloud edge. A volume that is attached anew gets a new one, so nothing that an earlier
/// attachment left on a cloud disk can be taken for its own.
public struct VolumeIdentifier: Hashable, Sendable, CustomStringConvertible {
    /// The first and the second eight bytes, big-endian.
    public let high: UInt64
    public let low: UInt64

    public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// From 32 hexadecimal digits; nil for anything else.
    public init?(hexadecimal: String) {
        guard hexadecimal.utf8.count == 32, let high = UInt64(hexadecimal.prefix(16), radix: 16),
            let low = UInt64(hexadecimal.suffix(16), radix: 16)
        else { return nil }
        self.init(high: high, low: low)
    }

    /// 32 hexadecimal digits.
    public var description: String {
        String(unsafeUninitializedCapacity: 32) { text in
            for place in 0..<32 {
                let word = place < 16 ? high : low
                let digit = UInt8(truncatingIfNeeded: word >> UInt64(60 - place % 16 * 4)) & 15
                text.initializeElement(at: place, to: digit < 10 ? UInt8(ascii: "0") + digit : UInt8(ascii: "a") + digit - 10)
            }
            return 32
        }
    }
}

/// The number of a consistency point. The first point of an attachment that is sealed is 1; 0 means "none yet".
public typealias PointNumber = UInt64

/// The number of a lease on a disk. It grows by one each time the disk gets a new writer, and a
/// point that carries an older one is refused where it would be applied.
public typealias LeaseGeneration = UInt64
